"""Commands in child processes that something happens to."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from tests.helpers import blank_figures

KILLED = -signal.SIGKILL

RUN = ["debug=quick", "trainer.checkpoint_every=300", "trainer.block_size=100", "logger=none"]
SWEEP = [
    "data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=2000", "trainer.block_size=200",
    "sweep.gamma=[0.01,0.02,0.03]", "sweep.beta=[0.5,0.9]", "sweep.piece_runs=2",
    "trainer.checkpoint_every=400", "logger=none",
]  # fmt: skip
TIMES = {"seconds", "commit"}
OF_A_SWEEP = TIMES | {
    "seconds_training", "seconds_minimisers", "run_steps_per_second",
}  # fmt: skip

Fault = Callable[[], object]
"""What the child does to itself before the command begins, such as to patch a function."""


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code, or minus the signal, and all that it printed."""

    code: int
    out: str
    err: str


def command(folder: Path, app: str, *words: str, fault: Fault = lambda: None) -> Ending:
    """``dln-APP WORDS`` in a fork of this process, which has imported everything already.

    Args:
        folder: its working directory.
        app: the command, as ``train``.
        words: of its command line.
        fault: called in the child first; nothing of it is left in this process.
    """
    return begun(folder, app, *words, fault=fault).wait()


@dataclass
class Child:
    """A command under way."""

    process: int
    files: list[Path]
    """what it prints"""

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ending:
        """How it ends."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        texts = [file.read_text() for file in self.files]
        for file in self.files:
            file.unlink()
        return Ending(code, *texts)


def begun(folder: Path, app: str, *words: str, fault: Fault = lambda: None) -> Child:
    """The same, without waiting for its end."""
    main = import_module(f"dln_momentum.cli.{app}").main
    number = next(_NUMBERS)
    files = [folder / f".{name}.{os.getpid()}.{number}" for name in ("out", "err")]
    process = os.fork()
    if process == 0:
        _be_the_command(folder, main, [f"dln-{app}", *words], fault, files)
    return Child(process, files)


_NUMBERS = itertools.count()


def _be_the_command(
    folder: Path, main: Callable[[], None], words: list[str], fault: Fault, files: list[Path]
) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2)
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = words
        fault()
        with blank_figures():
            main()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        # whatever is wrong with its streams, the child must not go on as its parent
        with suppress(BaseException):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        os._exit(code)


def kill_at(
    owner: Any,
    name: str,
    count: int,
    before: Callable[..., object] | None = None,
    when: Callable[..., bool] = lambda *_, **__: True,
) -> Fault:
    """Kill the process by SIGKILL at the ``count``-th call of a function.

    Args:
        owner: the module or class that has it.
        name: of the function.
        count: which call; those before it do what they always do.
        before: called with the arguments of that call first, such as to do half of its work.
        when: which calls are counted, by their arguments.
    """

    def fault() -> None:
        usual, calls = getattr(owner, name), [0]

        def patched(*given: Any, **named: Any) -> Any:
            calls[0] += bool(when(*given, **named))
            if calls[0] < count:
                return usual(*given, **named)
            if before is not None:
                before(*given, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, patched)

    return fault


def status(directory: Path) -> dict[str, Any]:
    """What ``status.json`` says, as a command reads it."""
    from dln_momentum.outputs.status import read_status

    return read_status(directory)


def assert_nothing_partial(directory: Path) -> None:
    """Every file under its final name can be read to its end."""
    from dln_momentum.outputs.hdf5 import is_whole
    from dln_momentum.sweeps.piece_files import read_piece
    from dln_momentum.training.resuming import read_checkpoint

    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".nc": lambda path: (xr.load_dataset(path, engine="h5netcdf"), is_whole(path)),
        ".ckpt": read_checkpoint,
        ".npz": read_piece,
    }
    for path in directory.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.suffix in readers:
            readers[path.suffix](path)


def assert_same_files(first: Path, second: Path, dataset: str, skip: set[str]) -> None:
    """The same bytes in every variable of a dataset, and the same summary but for ``skip``."""
    with (
        xr.open_dataset(first / dataset, engine="h5netcdf") as one,
        xr.open_dataset(second / dataset, engine="h5netcdf") as other,
    ):
        assert list(one.variables) == list(other.variables)
        for name in one.variables:
            a, b = np.asarray(one[name]), np.asarray(other[name])
            assert a.dtype == b.dtype, name
            assert a.tobytes() == b.tobytes() if a.dtype.kind != "O" else (a == b).all(), name
    one, other = (
        {k: v for k, v in json.loads((run / "summary.json").read_text()).items() if k not in skip}
        for run in (first, second)
    )
    assert one == other


def leftovers(directory: Path) -> list[str]:
    """Hidden files below a directory: what was being written, or a lock."""
    return sorted(path.name for path in directory.rglob(".*"))
