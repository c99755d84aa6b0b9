"""What Hydra is about to do: the directories that it makes, and the jobs of a multirun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.cli.launchers import settle_launcher, settle_sweeper
from dln_momentum.cli.multirun import fixed_keys, forget_directories
from dln_momentum.cli.places import place_errors, shown
from dln_momentum.config.mistakes import first_line
from dln_momentum.outputs.status import STATUS, read_status

TOKEN = "DLN_MULTIRUN"
"""Environment variable of a job that names the multirun it belongs to."""


SHARED = ("name", "paths.root", "hydra.run.dir", "hydra.sweep.dir")
"""Keys that make the directory of a multirun."""


class Refusal(BaseException):
    """What Hydra must not begin.

    No Exception: Hydra turns one of a callback into a warning, and goes on.

    Args:
        problems: a line each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__(*self.problems)


class Directories(Callback):
    """Remembers, before Hydra makes the directories of a run, which of them are missing.

    Hydra makes them before a config can be checked. A directory that was there before, empty or
    not, is the user's. The jobs of a multirun learn which of their keys vary, and a token by which
    their states are found again.
    """

    wanted: ClassVar[Path | None] = None
    """the directory of the run, or of all jobs of a multirun"""
    missing: ClassVar[list[Path]] = []
    """those that Hydra makes for it, the innermost first"""
    multirun: ClassVar[str] = ""
    """the token of the multirun; empty for one run"""
    began: ClassVar[datetime] = datetime.now().astimezone()
    """when this command began"""
    metric: ClassVar[str | None] = None
    """the key ``optimized_metric``"""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note what the directory of one run lacks."""
        self._note(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note what the directory of all jobs lacks, and tell the jobs what they need to know."""
        cls = type(self)
        self._note(config, "sweep")
        subdir = Path(str(OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]))  # type: ignore[index, call-overload]
        if subdir.is_absolute() or ".." in subdir.parts:
            raise Refusal([f"hydra.sweep.subdir = {str(subdir)!r} must lie within hydra.sweep.dir"])
        forget_directories()
        cls.multirun = uuid4().hex[:12]
        cls.metric = config.get("optimized_metric")
        given = config.hydra.overrides
        params = config.hydra.sweeper.get("params") or {}
        varied = [*(f"{key}={value}" for key, value in params.items()), *given.task]
        if wrong := [*_no_jobs(varied)]:
            raise Refusal(wrong)
        fixed = fixed_keys(varied)
        words = [
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]",
            f"+hydra.job.env_set.{TOKEN}='{cls.multirun}'",
        ]
        with read_write(config), open_dict(config):
            settle_sweeper(config.hydra.sweeper)
            words += settle_launcher(config.hydra)
            given.hydra = [*given.hydra, *words]

    def _note(self, config: DictConfig, mode: str) -> None:
        cls = type(self)
        cls.multirun, cls.metric, cls.began = "", None, datetime.now().astimezone()
        cls.wanted, cls.missing[:] = None, []
        directory = _place(config, f"hydra.{mode}.dir")
        cls.wanted = wanted = Path(directory).absolute()
        cls.missing[:] = [p for p in (wanted, *wanted.parents) if not p.exists()]

    @classmethod
    def take_back(cls) -> None:
        """Remove what Hydra has made, where it is empty; directories of single jobs too.

        Those of refused jobs hold their state; the multirun as a whole has been refused.
        """
        jobs = [path for path in cls.wanted.glob("*") if path.is_dir()] if cls.wanted else []
        for directory in jobs if cls.multirun else []:
            status = read_status(directory)
            if status.get("state") == "refused" and cls.multirun in status["multiruns"]:
                (directory / STATUS).unlink()
                cls._remove(directory)
        for directory in cls.missing:
            cls._remove(directory)

    @staticmethod
    def _remove(directory: Path) -> None:
        if directory.is_dir() and {p.name for p in directory.iterdir()} <= {"multirun.yaml"}:
            (directory / "multirun.yaml").unlink(missing_ok=True)
            directory.rmdir()


def _no_jobs(overrides: Sequence[str]) -> Iterator[str]:
    """What keeps a multirun from having jobs in a directory of its own."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_sweep_override():
            continue
        line, key = override.input_line, override.key_or_group
        if key in SHARED:
            yield f"{line}: {key} must have one value; the jobs of a multirun share a directory"
        elif override.is_discrete_sweep():
            try:
                values = list(override.sweep_iterator())
            except ValueError as error:
                yield f"{line}: {error}"
            else:
                if not values:
                    yield f"{line} has no value; a multirun needs one or more"


def _place(config: DictConfig, key: str) -> str:
    """The directory that Hydra is about to make.

    Raises:
        Refusal: for one that the command does not write to.
    """
    try:
        named = [OmegaConf.select(config, part) for part in ("name", "paths.root", key)]
    except OmegaConfBaseException as error:
        raise Refusal([first_line(str(config.hydra.job.config_name), error)]) from None
    name, root, directory = named
    wrong = list(place_errors(name, root))
    if not wrong and not (isinstance(directory, str) and directory and directory.isprintable()):
        wrong.append(f"{key} = {shown(directory)} must be the path of a directory")
    if not wrong:
        try:
            Path(directory).absolute().exists()
        except OSError as error:
            wrong.append(f"{key} = {shown(directory)} cannot be made: {error.strerror}")
    if wrong:
        raise Refusal(wrong)
    return str(directory)
