"""The life of every command: compose, check, own a directory, keep time, write, end with a code.

========  =========================================================
code      meaning
========  =========================================================
0         done
1         ``dln-verify``: a statement of the theory is violated
2         refused: the command line, a value or a file; nothing is written
130       interrupted by Ctrl-C
========  =========================================================

A crash is a bug: it leaves its traceback in ``error.txt`` and on the terminal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.cli.directories import Directories
from dln_momentum.cli.process import settle
from dln_momentum.config import CONF_DIR, rates_saved, register_resolvers, with_pair
from dln_momentum.config.location import options_of
from dln_momentum.config.mistakes import in_words
from dln_momentum.config.nearest import did_you_mean
from dln_momentum.config.renamed import renamed
from dln_momentum.errors import InputError, raise_if_any

log = logging.getLogger("dln_momentum")

HYDRA_LINES = """\
defaults:
- paths: default
- _self_
- override hydra/job_logging: stdout
- override hydra/help: {app}
"""
"""The start of a saved config: with it ``--config-dir DIR --config-name config`` runs it again."""


WRITTEN = (
    "config.yaml", "summary.json", "verify.json", "history.nc", "results.nc", "overview.png",
    "overview.pdf", "checkpoints", "tensorboard",
)  # fmt: skip
"""What a run writes: a directory that holds any of it is not written to."""

OVERLAYS = ("experiment", "debug")
"""Groups that have no section of their own in a config."""


class ViolatedError(Exception):
    """A statement of the theory is violated: exit code 1."""


class Job:
    """One run of a command in a directory that nothing else writes to.

    Args:
        config: the composed config.
        directory: where the run writes; made when it begins.
        app: the command, as ``train``.
        result: the JSON file that is written last of all and whose ``status`` says how it ended.
    """

    def __init__(
        self, config: DictConfig, directory: Path, app: str, result: str = "summary.json"
    ) -> None:
        self.config, self.directory, self.app, self._result = config, directory, app, result
        self._started = time.perf_counter()

    @property
    def text(self) -> str:
        """What ``config.yaml`` holds: every value, and gamma, beta, lam and eps that ran."""
        values = OmegaConf.to_container(rates_saved(self.config), resolve=True)
        assert isinstance(values, dict)
        # in an order that does not depend on how the config was composed
        ordered = {key: values[key] for key in sorted(map(str, values))}
        return HYDRA_LINES.format(app=self.app) + OmegaConf.to_yaml(OmegaConf.create(ordered))

    def begin(self) -> None:
        """Write the checked config and start the clock."""
        settle()
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.yaml").write_text(self.text)
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._started

    def finish(self, found: dict[str, Any]) -> dict[str, Any]:
        """Write the result, last of all: a directory that holds it is complete."""
        from dln_momentum.outputs.files import write_json

        write_json(self.directory / self._result, found)
        return found

    def found_before(self) -> dict[str, Any] | None:
        """The result of this very run if it is there, finished.

        Raises:
            InputError: where the directory holds anything else of a run, or cannot be written.
        """
        config, result = self.directory / "config.yaml", self.directory / self._result
        name = f"hydra.run.dir = {str(self.directory)!r}"
        if self.directory.exists() and not os.access(self.directory, os.W_OK):
            raise InputError([f"{name} must be a writable directory"])
        if not any((self.directory / name).exists() for name in WRITTEN):
            return None
        same = config.exists() and config.read_bytes() == self.text.encode()
        if same and result.exists():
            with contextlib.suppress(ValueError):  # a file that something else has damaged
                if "status" in (found := json.loads(result.read_text())):
                    return found
        state, advice = "files of another run", "choose an empty directory"
        if same:
            state = "an unfinished run"
            advice += _resuming(self.directory)
        raise InputError([f"{name} already holds {state}; {advice}"])


def _resuming(directory: Path) -> str:
    """How to go on from the last checkpoint of a run, if there is one."""
    saved = sorted(directory.glob("checkpoints/*.ckpt"), key=os.path.getmtime)
    return f"; resume={saved[-1]} continues it" if saved else ""


Work = Callable[[Job], dict[str, Any]]
"""Checks the config of a job, then begins it and returns what it finishes with."""


def command(app: str, work: Work, result: str = "summary.json") -> Callable[[], None]:
    """The entry point of a command.

    Args:
        app: the name of its config under `conf/`.
        work: what it does. It imports torch itself, so that ``--help`` and mistyped keys do not
            wait for it, and raises `InputError` before it begins the job.
        result: as for `Job`.
    """
    entered: list[str] = []

    @hydra.main(config_path=str(CONF_DIR), config_name=app, version_base="1.3")
    def task(config: DictConfig) -> None:
        entered.append(app)
        _run(Job(config, Path(HydraConfig.get().runtime.output_dir), app, result), work)

    def main() -> None:
        register_resolvers()
        entered.clear()
        words: list[str] = []
        try:
            words, flags = _arguments(sys.argv[1:])
            with _raising_hydra(), _argv([*_paired(app, words, flags), *flags]):
                task()
        except InputError as error:
            _refuse(error.problems)
        except (HydraException, OmegaConfBaseException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            _refuse(in_words(app, error, words))
        except OSError as error:
            # Hydra makes the directory before it calls the task
            if entered:
                raise
            name = str(Directories.wanted or error.filename)
            _refuse([f"hydra.run.dir = {name!r} cannot be made: {error.strerror}"])
        except ViolatedError as error:
            print(f"VIOLATED: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except (KeyboardInterrupt, SystemExit) as ending:
            # Lightning turns Ctrl-C into an exit with code 1
            interrupt = ending.__context__ if isinstance(ending, SystemExit) else ending
            if not isinstance(interrupt, KeyboardInterrupt):
                raise
            Directories.take_back()
            wanted = Directories.wanted
            print(f"interrupted{_resuming(wanted) if wanted else ''}", file=sys.stderr)
            raise SystemExit(130) from None

    return main


def _run(job: Job, work: Work) -> None:
    """Do the work of one job, unless it is done; a refused one leaves nothing behind."""
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        raise_if_any(_unusable(job))
        found = job.found_before()
        if found is not None:
            log.info("%s already holds this run, finished; nothing to do", job.directory)
        else:
            _one_thread()
            found = work(job)
    except InputError as error:
        if not multirun:
            _refuse(error.problems)
        # an exit would end the other jobs with this one
        print(f"error: {' '.join(HydraConfig.get().overrides.task)}: {error}", file=sys.stderr)
        raise
    except Exception:
        # a full disk must not hide what went wrong first
        with contextlib.suppress(OSError):
            (job.directory / "error.txt").write_text(traceback.format_exc())
        if multirun:
            # Hydra shows the first failure alone
            traceback.print_exc()
        raise
    if found["status"] == "violated":
        if multirun:
            raise ViolatedError("; ".join(found["violated"]))
        raise SystemExit(1)


def _unusable(job: Job) -> Iterator[str]:
    """What keeps the config from being read at all."""
    try:
        OmegaConf.resolve(job.config)
    except OmegaConfBaseException as error:
        yield str(error).splitlines()[0]
    primary: Any = OmegaConf.load(CONF_DIR / f"{job.app}.yaml")
    groups = [str(key) for entry in primary.defaults if OmegaConf.is_dict(entry) for key in entry]
    for section in groups:
        expected = section not in OVERLAYS and (CONF_DIR / section).is_dir()
        if expected and not OmegaConf.is_dict(job.config.get(section)):
            yield f"there is no {section}; its options: {', '.join(options_of(section))}"


def _refuse(problems: Sequence[str]) -> NoReturn:
    Directories.take_back()
    print(f"error: {InputError(problems)}", file=sys.stderr)
    raise SystemExit(2) from None


def _arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of a command line, and the flags of Hydra.

    Raises:
        InputError: for a flag that Hydra does not have, or that is not used as it must be.
    """

    def refuse(message: str) -> NoReturn:
        raise InputError([message])

    parser = get_args_parser()
    parser.error = refuse
    found, unknown = parser.parse_known_intermixed_args(list(words))
    known = [flag for action in parser._actions for flag in action.option_strings]
    if unknown:
        raise InputError([f"unknown flag {flag}{did_you_mean(flag, known)}" for flag in unknown])
    overrides = list(found.overrides or [])
    rest = list(words)
    for word in overrides:
        rest.remove(word)
    return overrides, rest


def _paired(app: str, words: list[str], flags: Sequence[str]) -> list[str]:
    """The overrides, with the pair that they name; a config of the user's own is left alone."""
    old = [line for word in words if (line := renamed(word.partition("=")[0].lstrip("+~")))]
    if old:
        raise HydraException(old[0])
    nameless = [word for word in words if _chooses_nothing(word)]
    if nameless:
        raise HydraException(nameless[0])
    if any(flag.startswith(("--config-name", "-cn")) for flag in flags):
        return words
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return with_pair(app, words)
    except InputError as error:
        raise HydraException(str(error)) from error


def _chooses_nothing(word: str) -> bool:
    """Whether a word leaves a group out, which Hydra answers with a traceback or not at all."""
    key, _, value = word.partition("=")
    return not key or (
        (word[0] == "~" or value == "null") and (CONF_DIR / key.lstrip("~")).is_dir()
    )


@contextlib.contextmanager
def _raising_hydra() -> Iterator[None]:
    """Let Hydra raise what it otherwise prints with a traceback or a hint at one."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextlib.contextmanager
def _argv(words: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


def _one_thread() -> None:
    """One thread for torch's own operations: the engine's workers are what uses the cores.

    On tensors of this size a second thread gains nothing, and on a busy machine waiting for it
    made a run of the default problem ten times slower.
    """
    import torch

    torch.set_num_threads(1)
