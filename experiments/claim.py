"""What every experiment does around its study: config in; data, figure, verdict and finding out.

An experiment is a module with a docstring, a `CLAIM` in words, the poster's `SECTION` that makes it
("" if none does), and a function ``study`` from its config to an `Outcome`. Its settings are
``conf/study/NAME.yaml``. Run one by ``python -m experiments.NAME [key=value ...]`` and all of them
by ``python -m experiments``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import torch
import xarray as xr
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from threadpoolctl import threadpool_limits

from dln_momentum import InputError
from dln_momentum.cli.command import refusing
from dln_momentum.cli.multirun import register_job_name
from dln_momentum.config import CONF_DIR, register_resolvers
from dln_momentum.errors import raise_if_any
from dln_momentum.outputs.figure_files import save
from dln_momentum.outputs.files import write_dataset, write_json
from dln_momentum.outputs.provenance import versions
from experiments.figures import finish
from experiments.settings import setting_errors

SCALES = ("full", "fast", "tiny")
VERDICTS = ("confirmed", "confirmed in part", "not seen")
LONGEST_FINDING = 65
"""Words of a finding: one sentence that can be read in one go."""

Study = Callable[[DictConfig], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Args:
        verdict: one of `VERDICTS`.
        finding: one plain sentence with the numbers that decide, each quantity defined in it.
        sizes: problem sizes and number of data sets; it is printed under the figure.
        measured: the numbers behind the verdict, by name; spreads as lists [low, median, high].
        results: everything that was computed, labelled.
        figure: the figure of the claim; `run` adds a letter to each panel.
        caption: what each panel shows, by its letter.
        notes: what a reader should know of settings and limits.

    Raises:
        ValueError: for a verdict that is none of `VERDICTS`, or a finding that is no sentence.
    """

    verdict: str
    finding: str
    sizes: str
    measured: dict[str, Any]
    results: xr.Dataset
    figure: Figure
    caption: str
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict = {self.verdict!r} must be one of {VERDICTS}")
        if not self.finding.endswith(".") or len(self.finding.split()) > LONGEST_FINDING:
            raise ValueError(
                f"finding = {self.finding!r} must be a sentence of at most {LONGEST_FINDING} words"
            )


def main(name: str, section: str, claim: str, study: Study) -> None:
    """Run one experiment from the command line, Hydra's overrides included."""
    register_resolvers()
    register_job_name()

    @hydra.main(config_path=str(CONF_DIR), config_name=f"study/{name}", version_base="1.3")
    def app(config: DictConfig) -> None:
        job = HydraConfig.get()
        with refusing():
            settings = at_scale(config, list(job.overrides.task))
            raise_if_any(setting_errors(usual, settings))
            run(settings, section, claim, study, Path(job.runtime.output_dir))

    with refusing():
        usual = configured(name)
        app()


def configured(name: str, *overrides: str) -> DictConfig:
    """The settings of an experiment, as its command line would make them."""
    register_resolvers()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return at_scale(compose(f"study/{name}", list(overrides)), list(overrides))


def at_scale(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config with the changes of its scale, except for the very keys that an override sets.

    An override of a nested key, ``even.points=3``, leaves the scale's other changes of ``even`` as
    they are.
    """
    if config.scale not in SCALES:
        raise InputError([f"scale = {config.scale!r} must be one of {', '.join(SCALES)}"])
    plain = config.copy()
    with open_dict(plain):
        changes = plain.pop("scales", {}).get(config.scale, {})
        settings = plain.copy()
        settings.merge_with(changes)
        for key in _set_by(overrides):
            value = OmegaConf.select(plain, key)
            # keys of Hydra itself, and groups of other files, are no keys of the experiment
            if OmegaConf.select(settings, key) is not None or value is not None:
                OmegaConf.update(settings, key, value, merge=False)
    return settings


def _set_by(overrides: list[str]) -> list[str]:
    """The keys, with dots, of the values that overrides set.

    >>> _set_by(["data_seeds=3", "lyu={points: 5, tol: 1}", "even.points=2"])
    ['data_seeds', 'lyu.points', 'lyu.tol', 'even.points']
    """
    return [
        key
        for override in OverridesParser.create().parse_overrides(overrides)
        for key in _leaves(override.key_or_group, override.value())
    ]


def _leaves(key: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or not value:
        return [key]
    return [leaf for name, below in value.items() for leaf in _leaves(f"{key}.{name}", below)]


def run(
    settings: DictConfig, section: str, claim: str, study: Study, directory: Path
) -> dict[str, Any]:
    """Run a study and write what it found.

    Leaves ``config.yaml``, ``results.nc``, ``figure.png``, ``figure.pdf`` and, last, ``claim.json``
    in the directory, which must not hold an experiment already.

    Returns:
        The contents of ``claim.json``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "claim.json").exists():
        raise InputError([f"{str(directory)!r} already holds an experiment"])
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(settings, resolve=True))
    # parallel work is on engine tiles; threads inside products this small only cost time
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        outcome = study(settings)
    write_dataset(directory / "results.nc", outcome.results)
    finish(outcome.figure, outcome.sizes)
    for suffix in ("png", "pdf"):
        save(outcome.figure, directory / f"figure.{suffix}")
    name = str(settings.name).rsplit("/", 1)[-1]
    found = {
        "name": name,
        "section": section,
        "claim": claim,
        "verdict": outcome.verdict,
        "finding": outcome.finding,
        "sizes": outcome.sizes,
        "caption": outcome.caption,
        "measured": outcome.measured,
        "notes": outcome.notes,
        "scale": settings.scale,
        "settings": OmegaConf.to_container(settings, resolve=True),
        "command": f"python -m experiments.{name}"
        + ("" if settings.scale == "full" else f" scale={settings.scale}"),
        "versions": versions(),
    }
    write_json(directory / "claim.json", found)
    text = f"[bold]{name}[/bold]: {outcome.verdict}. {outcome.finding}"
    Console().print(text, soft_wrap=True, highlight=False)
    Console().print(f"results in {directory}", soft_wrap=True, highlight=False, markup=False)
    return found
