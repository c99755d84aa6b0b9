"""Clocks that jump: nothing is lost, no time is negative, and no number of a run changes."""

from __future__ import annotations

import datetime as clock
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from dln_momentum.cli import directories, job
from dln_momentum.outputs import files
from dln_momentum.training.callbacks import checkpoints
from tests.faults.children import (
    KILLED,
    RUN,
    TIMES,
    assert_same_files,
    command,
    kill_at,
    leftovers,
    status,
)

pytestmark = pytest.mark.slow

HOURS = 3600.0
JUMPS: dict[str, Callable[[int], float]] = {
    "back, again and again": lambda call: -5 * HOURS * call,
    "ahead, again and again": lambda call: 5 * HOURS * call,
    "back and forth": lambda call: (-1) ** call * 5 * HOURS,
}


def jumping(jump: Callable[[int], float]) -> None:
    """Let the clock of this process jump at every look, and the times of what it writes with it.

    The monotonic clocks go on as they do when somebody sets the time.
    """
    calls, usual, real = itertools.count(1), time.time, clock.datetime
    offset = [0.0]

    def now() -> float:
        offset[0] = jump(next(calls))
        return usual() + offset[0]

    class Jumping(real):
        @classmethod
        def now(cls, tz: clock.tzinfo | None = None) -> Any:
            return real.fromtimestamp(now(), tz)

    time.time = now
    for module in (job, directories):
        module.datetime = Jumping  # type: ignore[attr-defined]
    for module in (files, checkpoints):
        move = module.move_whole

        def moved(written: Path, path: Path, move: Any = move, **named: Any) -> None:
            move(written, path, **named)
            # a file system takes its times from the same clock
            os.utime(path, (now(), now()))

        module.move_whole = moved  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", JUMPS)
def test_a_run_under_a_jumping_clock(name: str, tmp_path: Path, alone: Path) -> None:
    ended = command(
        tmp_path, "train", *RUN, "hydra.run.dir=run", fault=partial(jumping, JUMPS[name])
    )
    assert ended.code == 0, ended.err
    assert ended.err == ""
    run = tmp_path / "run"
    found = status(run)
    assert found["state"] == "done"
    # a run of a second or two, on a busy machine
    assert 0 <= found["seconds"] < 60
    assert_same_files(alone / "run", run, "history.nc", TIMES)
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {path.name for path in (alone / "run" / "checkpoints").iterdir()}


@pytest.mark.parametrize("name", JUMPS)
def test_what_is_killed_under_a_jumping_clock_goes_on_from_its_last_checkpoint(
    name: str, tmp_path: Path, alone: Path
) -> None:
    def fault() -> None:
        jumping(JUMPS[name])
        # after the third checkpoint, with which the first has been removed
        kill_at(pl.Trainer, "save_checkpoint", 4)()

    run = tmp_path / "run"
    assert command(tmp_path, "train", *RUN, "hydra.run.dir=run", fault=fault).code == KILLED
    newest = sorted(int(path.stem[5:]) for path in (run / "checkpoints").glob("step_*.ckpt"))
    assert len(newest) == 2
    read: Path = tmp_path / "read"

    def note() -> None:
        jumping(JUMPS[name])
        usual = pl.Trainer.fit

        def fit(*given: Any, ckpt_path: str, **named: Any) -> Any:
            read.write_text(Path(ckpt_path).stem)
            return usual(*given, ckpt_path=ckpt_path, **named)

        pl.Trainer.fit = fit  # type: ignore[method-assign]

    again = command(tmp_path, "train", "resume=run", fault=note)
    assert again.code == 0, again.err
    assert read.read_text() == f"step_{newest[-1]}"
    assert status(run)["seconds"] >= 0
    assert leftovers(run) == []
    assert_same_files(alone / "run", run, "history.nc", TIMES)


def test_checkpoints_by_the_clock_follow_no_jump(tmp_path: Path) -> None:
    """An hour between checkpoints stays an hour, whatever the time of day does."""
    words = [*RUN, "trainer.checkpoint_every=0", "trainer.checkpoint_seconds=3600"]
    for number, name in enumerate(JUMPS):
        folder = f"hydra.run.dir={number}"
        ended = command(tmp_path, "train", *words, folder, fault=partial(jumping, JUMPS[name]))
        assert ended.code == 0, ended.err
        kept = [path.name for path in (tmp_path / str(number) / "checkpoints").iterdir()]
        assert kept == ["last.ckpt"]
