"""The life of every command: compose, check, own a directory, keep time, write, end with a code.

========  ============================================================================
code      meaning
========  ============================================================================
0         done
1         ``dln-verify``: a statement of the theory is violated; of a multirun: a job
          failed, was refused or violated; or a crash
2         refused: the command line, a value or a file, of a multirun every job;
          nothing is written
130, 143  interrupted by Ctrl-C, by SIGTERM; the line that continues the job is printed
========  ============================================================================

A crash is a bug: it leaves its traceback in ``error.txt`` and, of a single run, on the terminal.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dln_momentum.cli.checking import followers, further_problems, unusable
from dln_momentum.cli.directories import TOKEN, Directories, Refusal
from dln_momentum.cli.hydra_calls import arguments, mode_of, raising_hydra, wants_traceback
from dln_momentum.cli.job import Job, Work, one_line
from dln_momentum.cli.job_configs import Composed
from dln_momentum.cli.metric import metric_errors, metric_of
from dln_momentum.cli.multirun import place_of, register_job_name
from dln_momentum.cli.multirun_table import ending_of
from dln_momentum.cli.signals import Interrupted, interruptible
from dln_momentum.cli.words import Line, continued, paired, parsed
from dln_momentum.config import CONF_DIR, config_hash
from dln_momentum.config.mistakes import first_line, in_words
from dln_momentum.errors import InputError, raise_if_any

register_job_name()


class Command:
    """What a command does with a composed config, whoever has composed it.

    Hydra calls `task`. A launcher that leads many jobs at once, and finds the command as
    ``task_function.command``, makes each job with `job_of` and takes it through `attempt`: first
    `prepare` and ``job.begin``, later ``job.finish``.

    Args:
        app: the name of its config under `conf/`.
        work: what it does. It imports torch itself, so that ``--help`` and mistyped keys do not
            wait for it, and raises `InputError` before it begins the job.
        result: as for `Job`.
        complete: what a composed config means, where keys of it stand for others; None where none
            do. It raises nothing: ``work`` refuses what is wrong.
    """

    def __init__(
        self,
        app: str,
        work: Work,
        result: str = "summary.json",
        complete: Callable[[DictConfig], DictConfig] | None = None,
    ) -> None:
        self.app, self.work, self.result, self.complete = app, work, result, complete

    def completed(self, config: DictConfig) -> DictConfig:
        """What a composed config means."""
        return config if self.complete is None else self.complete(config)

    def job(self, config: DictConfig | dict[str, Any], hydra: DictConfig) -> Job:
        """The job of a composed config, or of its values, in the directory that Hydra has chosen.

        One of a multirun goes to where its config ran before, as `place_of` finds it.
        """
        directory = Path(hydra.runtime.output_dir)
        if isinstance(config, DictConfig):
            config = self.completed(config)
        token, digest = str(hydra.job.env_set.get(TOKEN, "")), config_hash(config)
        if token:
            directory = place_of(directory, Path(str(hydra.sweep.dir)).absolute(), digest)
        words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
        return Job(
            config,
            directory,
            self.app,
            self.result,
            overrides=words,
            multirun=token,
            config_hash=digest,
        )

    def job_of(self, composed: Composed) -> Job:
        """The job of a config that a launcher has composed, without Hydra's ``run_job``."""
        whole = composed.config
        # its `set_config` copies all of Hydra's section, 4 ms a job
        HydraConfig.instance().cfg = whole  # pyright: ignore[reportAttributeAccessIssue]
        sweep = whole.hydra.sweep
        directory = (Path(str(sweep.dir)) / str(sweep.subdir)).absolute()
        whole.hydra.runtime.output_dir = str(directory)
        if composed.values is not None and self.complete is None:
            return self.job(composed.values, whole.hydra)
        config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        OmegaConf.set_struct(config, True)
        # ${hydra:...} is of this job only now; what cannot be resolved `prepare` refuses
        with contextlib.suppress(OmegaConfBaseException):
            if not list(followers(config)):
                OmegaConf.resolve(config)
        return self.job(config, whole.hydra)

    def prepare(self, job: Job, *, wait: bool = False) -> dict[str, Any] | None:
        """The result of a job that has been done before; None for one to be run, which is locked.

        Args:
            job: not begun yet.
            wait: for another process that writes to its directory.

        Raises:
            InputError: for what keeps the config from being read, and as `Job.found_before`.
        """
        raise_if_any([*unusable(job), *metric_errors(self.app, job.given)])
        return job.found_before(wait=wait)

    def task(self, config: DictConfig) -> float | None:
        """Do the job of a config that Hydra has composed.

        Returns:
            The value of ``optimized_metric``, as `metric_of` has it.
        """
        hydra: Any = HydraConfig.get()
        job, made = self.job(config, hydra), Path(hydra.runtime.output_dir)
        if not job.multirun:
            return self._alone(job)
        found = self.among_others(job)
        if made != job.directory and made.is_dir() and not any(made.iterdir()):
            made.rmdir()
        return metric_of(config, found)

    def _alone(self, job: Job) -> float | None:
        """A single run: reports on the terminal, ends the process with its code."""
        try:
            with _recorded(job):
                found = self.prepare(job)
                if found is None:
                    one_thread()
                    found = self.work(job)
                else:
                    print(f"{job.directory} already holds this run, finished; nothing to do")
        except InputError as error:
            # Hydra would print a line of its own
            _refuse(error.problems)
        if found["status"] == "violated":
            raise SystemExit(1)
        return metric_of(job.config, found)

    def among_others(self, job: Job) -> dict[str, Any] | None:
        """Do a job of a multirun: one line, whatever happens; None where there is no result."""

        def step(job: Job) -> dict[str, Any]:
            if (found := self.prepare(job, wait=True)) is not None:
                return found
            one_thread()
            return self.work(job)

        return self.attempt(job, step)

    def attempt(self, job: Job, step: Callable[[Job], dict[str, Any] | None]) -> Any:
        """A step in the life of a job of a multirun, as ``begin`` or all of it.

        What it raises is recorded in the directory and printed in one line, but not raised; see
        ``job.state``. What it prints itself is left out: it would stand between lines of others.

        Returns:
            What the step returns, a result or None; None if it fails.
        """
        name = job.directory.name
        try:
            with _recorded(job), quietly():
                found = step(job)
        except InputError as error:
            print(f"{name}: refused: {one_line(error)}", file=sys.stderr)
            return None
        except Exception as error:
            print(f"{name}: failed: {one_line(error)}", file=sys.stderr)
            return None
        if found is not None:
            how = "done before" if job.done_before else f"{job.seconds:.1f} s"
            print(f"{name}: {found['status']}, {how}")
        return found


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what a job prints, and logs below warnings."""
    own = logging.getLogger("dln_momentum")
    level = own.level
    own.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        own.setLevel(level)


def command(app: str, work: Work, *args: Any, **options: Any) -> Callable[[], None]:
    """The entry point of a command; the arguments are those of `Command`."""
    own, entered = Command(app, work, *args, **options), list[str]()

    def task(config: DictConfig) -> float | None:
        entered.append(app)
        return own.task(config)

    # how a launcher finds it
    task.command = own  # pyright: ignore[reportFunctionMemberAccess]
    run = hydra.main(config_path=str(CONF_DIR), config_name=app, version_base="1.3")(task)

    def main() -> None:
        with interruptible():
            entered.clear()
            _main(own, run, entered)

    return main


def _main(own: Command, run: Callable[[], Any], entered: Sequence[str]) -> None:
    """Run a command line; ends the process with any code but 0."""
    Directories.multirun = ""
    app, line, early = own.app, Line([], []), False
    try:
        with raising_hydra():
            line = continued(app, parsed(sys.argv[1:]))
            raise_if_any(metric_errors(app, line.words))
            words = [word for part in paired(app, line) for word in part]
            with arguments(words), mode_of(line):
                run()
    except InputError as error:
        _refuse(error.problems)
    except Refusal as error:
        _refuse(error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback():
            raise
        _refuse(dict.fromkeys([*in_words(app, error, line.words), *further_problems(own, line)]))
    except (KeyboardInterrupt, SystemExit, Interrupted) as ending:
        _interrupted(app, ending)
    except Exception as error:
        if isinstance(error, OSError) and not entered:
            # Hydra makes the directory before it calls the task
            name = str(Directories.wanted or error.filename)
            _refuse([f"hydra.run.dir = {name!r} cannot be made: {error.strerror}"])
        if wants_traceback():
            raise
        if not entered and not Directories.multirun:
            # what Hydra could not do with the overrides
            _refuse(in_words(app, error, line.words))
        if not Directories.multirun:
            raise
        # a worker that died, or a sweeper that has found nothing
        early = True
        print(f"the multirun ended early: {one_line(error)}", file=sys.stderr)
    if Directories.multirun and Directories.wanted is not None:
        code = ending_of(
            Directories.wanted, Directories.multirun, Directories.began, Directories.metric
        )
        if code == 2:
            Directories.take_back()
        if code or early:
            raise SystemExit(code or 1)


@contextlib.contextmanager
def _recorded(job: Job) -> Iterator[None]:
    """Record in the directory of a job how it ended, unless it finished."""
    try:
        yield
    except InputError as error:
        job.refuse(error)
        raise
    except Exception as error:
        job.fail(error)
        raise
    except BaseException:
        Interrupted.acknowledge()
        job.interrupt()
        raise


def _interrupted(app: str, ending: BaseException) -> NoReturn:
    """End a command that was asked to stop in one line; any other exit as it is."""
    # Lightning turns a KeyboardInterrupt into an exit with code 1
    interrupt = ending.__context__ if isinstance(ending, SystemExit) else ending
    if not isinstance(interrupt, KeyboardInterrupt | Interrupted):
        raise ending
    Interrupted.acknowledge()
    Directories.take_back()
    wanted, said = Directories.wanted, "interrupted"
    if wanted and any((wanted / name).exists() for name in ("config.yaml", "multirun.yaml")):
        said += f"; {Job(OmegaConf.create(), wanted, app).resume_command} continues it"
    print(said, file=sys.stderr)
    raise SystemExit(interrupt.code if isinstance(interrupt, Interrupted) else 130) from None


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """End a program of Hydra with code 2 and one message, where its input is refused."""
    try:
        with raising_hydra():
            yield
    except (InputError, Refusal) as error:
        _refuse(error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback():
            raise
        _refuse([first_line("experiment", error)])


def _refuse(problems: Iterable[str]) -> NoReturn:
    Directories.take_back()
    print(f"error: {InputError(problems)}", file=sys.stderr)
    raise SystemExit(2) from None


def one_thread() -> None:
    """One thread for torch's own operations: the engine's workers are what uses the cores.

    On tensors of this size a second thread gains nothing, and on a busy machine waiting for it
    made a run of the default problem ten times slower.
    """
    import torch

    torch.set_num_threads(1)
