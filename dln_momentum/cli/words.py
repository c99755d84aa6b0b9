"""The words of a command line, before Hydra reads them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dln_momentum.config import location, with_pair
from dln_momentum.config.mistakes import COMPOSING, is_mistaken
from dln_momentum.config.renamed import renamed
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.nearest import did_you_mean

WITH_RESUME = ("trainer.progress", "engine.num_workers", "optimized_metric", "hydra.verbose")
"""Keys that may change where a run is continued in its own directory; none changes a number."""
OF_ONE_MULTIRUN = (
    "hydra.mode", "hydra.sweep.dir", "hydra.job.env_set", "hydra.job.config",
)  # fmt: skip
"""Beginnings of overrides in ``multirun.yaml`` that a continued multirun gets anew."""


class Line(NamedTuple):
    """A command line: overrides and flags of Hydra."""

    words: list[str]
    flags: list[str]


def parsed(arguments: Sequence[str]) -> Line:
    """The overrides of a command line, and the flags of Hydra.

    The folder of ``--config-dir`` is one to look for options in from here on.

    Raises:
        InputError: for a flag that Hydra does not have, or that is not used as it must be, and a
            folder of configs that is not there.
    """

    def refuse(message: str) -> NoReturn:
        raise InputError([message])

    parser = get_args_parser()
    parser.error = refuse
    found, unknown = parser.parse_known_intermixed_args(list(arguments))
    known = [flag for action in parser._actions for flag in action.option_strings]
    if unknown:
        raise InputError([f"unknown flag {flag}{did_you_mean(flag, known)}" for flag in unknown])
    if found.experimental_rerun is not None:
        raise InputError(["--experimental-rerun is not for these commands; resume=DIR continues"])
    if (folder := found.config_dir) is not None and not Path(folder).is_dir():
        raise InputError([f"--config-dir {folder} not found (working directory: {Path.cwd()})"])
    location.added[:] = [] if folder is None else [Path(folder).absolute()]
    if found.config_name is not None:
        _check_own_config(found.config_name)
    words = list(found.overrides or [])
    rest = list(arguments)
    for word in words:
        rest.remove(word)
    return Line(words, rest)


def paired(app: str, line: Line) -> Line:
    """The line with the pair that its overrides name; a config of the user's own is left alone."""
    words, flags = line
    old = [text for word in words if (text := renamed(word.partition("=")[0].lstrip("+~")))]
    if old:
        raise HydraException(old[0])
    mistaken = [word for word in words if is_mistaken(app, word)]
    if mistaken:
        raise HydraException(mistaken[0])
    if any(flag.startswith(("--config-name", "-cn")) for flag in flags):
        return line
    try:
        with location.initialised():
            return Line(with_pair(app, words), flags)
    except InputError as error:
        raise HydraException(str(error)) from error


def continued(app: str, line: Line) -> Line:
    """The line that ``resume=DIR`` stands for: the saved config or multirun of that directory.

    Any other line is returned as it is; so is ``resume=FILE``.

    Raises:
        InputError: for a directory that holds no run of this command, and for other overrides.
    """
    resume = [word for word in line.words if _key(word) == "resume" and word[0] != "~"]
    given = _unquoted(resume[-1].partition("=")[2]) if resume else ""
    folder = Path(given) if given else None
    if folder is None or not folder.is_dir():
        return line
    others = [word for word in line.words if word not in resume]
    run, multirun = folder / "config.yaml", folder / "multirun.yaml"
    allowed = ", ".join(WITH_RESUME)
    wrong = [word for word in others if _key(word) not in WITH_RESUME]
    refused = [
        f"{word} cannot be given with resume={folder}, which continues the run as its config is "
        f"saved; allowed: {allowed}"
        for word in [*wrong, *line.flags]
    ]
    raise_if_any([*refused, *(_in_a_new_run(app, folder) if wrong else ())])
    if run.is_file():
        _check_app(app, folder, _app_of_run(run))
        at = f"hydra.run.dir={quoted(folder)}"
        return Line([*others, at], ["--config-dir", str(folder), "--config-name", "config"])
    if not multirun.is_file():
        raise InputError(
            [f"resume = {str(folder)!r} must be a checkpoint, or the directory of a run or of a "
             "multirun: it holds neither config.yaml nor multirun.yaml"]
        )  # fmt: skip
    saved = _read(multirun).get("hydra") or {}
    _check_app(app, folder, (saved.get("job") or {}).get("config_name"))
    overrides = saved.get("overrides") or {}
    words = [word for kind in ("task", "hydra") for word in overrides.get(kind) or []]
    words = [word for word in words if not _key(word).startswith(OF_ONE_MULTIRUN)]
    return Line([*words, *others, f"hydra.sweep.dir={quoted(folder)}"], ["--multirun"])


def _in_a_new_run(app: str, folder: Path) -> Iterator[str]:
    """How a new run goes on from the last checkpoint of a folder, with settings of its own."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        words = ["--config-dir", str(folder), "--config-name", "config", f"resume={checkpoint}"]
        yield f"a new run, for more steps or another tol: dln-{app} {shlex.join(words)} KEY=VALUE"


def _check_own_config(name: str) -> None:
    """Check that ``--config-name`` names a config of a command, where Hydra can compose it.

    Raises:
        InputError: for another one: Hydra would make a directory for whatever a file holds.
    """
    rule = (
        "must be the name of a config that begins with defaults: [train, _self_], or another "
        "command's, or of one that a run has saved"
    )
    found: DictConfig | None = None
    if name.strip():
        # what it cannot compose Hydra answers for itself
        with contextlib.suppress(*COMPOSING), location.initialised():
            found = compose(name, return_hydra_config=True)
        if found is None or OmegaConf.select(found, "hydra.callbacks.directories") is not None:
            return
    raise InputError([f"--config-name {name!r} {rule}"])


def quoted(path: Path) -> str:
    r"""A path as the value of an override.

    >>> print(quoted(Path("a b=c")), quoted(Path("it's")), quoted(Path(r"a\b")))
    'a b=c' 'it\'s' 'a\b'
    """
    return QuotedString(str(path), Quote.single).with_quotes()


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _check_app(app: str, folder: Path, found: str | None) -> None:
    if found != app:
        what = (
            f"of dln-{found}: dln-{found} resume={folder} continues it" if found else "unreadable"
        )
        raise InputError([f"resume = {str(folder)!r}: its config is {what}"])


def _app_of_run(config: Path) -> str | None:
    """The command that a saved config is of: it chooses that command's help."""
    entries = _read(config).get("defaults") or []
    named = [entry.get("override hydra/help") for entry in entries if isinstance(entry, Mapping)]
    return next((name for name in named if name), None)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}
