"""What every experiment does around its study: config in; data, figure and verdict out.

An experiment is a module with a docstring, the poster's `CLAIM` in words, and a function ``study``
from its config to an `Outcome`. Its settings are ``conf/experiment/NAME.yaml``. Run one by
``python -m experiments.NAME [key=value ...]`` and all of them by ``python -m experiments``.
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
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from threadpoolctl import threadpool_limits

from dln_momentum.config import CONF_DIR, register_resolvers
from dln_momentum.errors import InputError
from dln_momentum.plotting import save
from dln_momentum.results import versions, write_dataset, write_json

SCALES = ("full", "fast", "tiny")
VERDICTS = ("confirmed", "confirmed where", "not seen")

Study = Callable[[DictConfig], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Args:
        verdict: ``confirmed``, ``confirmed where ...`` (saying where) or ``not seen``.
        measured: the numbers behind the verdict, by name; spreads as lists [low, median, high].
        results: everything that was computed, labelled.
        figure: the figure of the claim.
        notes: what a reader should know of settings and limits.
    """

    verdict: str
    measured: dict[str, Any]
    results: xr.Dataset
    figure: Figure
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.verdict.startswith(VERDICTS):
            raise ValueError(f"verdict = {self.verdict!r} must start with one of {VERDICTS}")


def main(name: str, section: str, claim: str, study: Study) -> None:
    """Run one experiment from the command line, Hydra's overrides included."""
    register_resolvers()

    @hydra.main(config_path=str(CONF_DIR), config_name=f"experiment/{name}", version_base="1.3")
    def app(config: DictConfig) -> None:
        job = HydraConfig.get()
        settings = at_scale(config, list(job.overrides.task))
        run(settings, section, claim, study, Path(job.runtime.output_dir))

    app()


def configured(name: str, *overrides: str) -> DictConfig:
    """The settings of an experiment, as its command line would make them."""
    register_resolvers()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return at_scale(compose(f"experiment/{name}", list(overrides)), list(overrides))


def at_scale(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config with the changes of its scale, except for keys that an override sets."""
    if config.scale not in SCALES:
        raise InputError([f"scale = {config.scale!r} must be one of {', '.join(SCALES)}"])
    given = {override.lstrip("+~").split("=")[0].split(".")[0] for override in overrides}
    settings = config.copy()
    with open_dict(settings):
        changes = settings.pop("scales", {}).get(config.scale, {})
        settings.merge_with({key: changes[key] for key in changes if key not in given})
    return settings


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
    for suffix in ("png", "pdf"):
        save(outcome.figure, directory / f"figure.{suffix}")
    name = str(settings.name).rsplit("/", 1)[-1]
    found = {
        "name": name,
        "section": section,
        "claim": claim,
        "verdict": outcome.verdict,
        "measured": outcome.measured,
        "notes": outcome.notes,
        "scale": settings.scale,
        "settings": OmegaConf.to_container(settings, resolve=True),
        "command": f"python -m experiments.{name}"
        + ("" if settings.scale == "full" else f" scale={settings.scale}"),
        "versions": versions(),
    }
    write_json(directory / "claim.json", found)
    Console().print(f"[bold]{name}[/bold]: {outcome.verdict}", soft_wrap=True, highlight=False)
    return found
