"""Pieces of a sweep that several processes train at once, and how they are shared out."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from dln_momentum.cli.sweep import _seconds
from dln_momentum.sweeps.assembly import build, footprint
from dln_momentum.sweeps.forked import can_fork
from dln_momentum.sweeps.rounds import rounds
from dln_momentum.training import module
from tests.test_interrupted import start, status
from tests.test_sweep import SMALL, assert_same_bytes, configured, run_sweep


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have tests of their own."""
    monkeypatch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)


def test_pieces_that_forks_train_at_once_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, trained = os.getpid(), module.HeavyBallModule.training_step
    (tmp_path / "by").mkdir()

    def noted(self: Any, *given: Any) -> None:
        (tmp_path / "by" / str(os.getpid())).touch()
        trained(self, *given)

    keys = ("sweep.gamma=[0.01,0.02]", "sweep.piece_runs=1")
    expected = run_sweep(tmp_path / "alone", *keys)
    monkeypatch.setattr(module.HeavyBallModule, "training_step", noted)
    monkeypatch.setattr("dln_momentum.sweeps.rounds.WORTH", 0)
    found = run_sweep(tmp_path / "s", *keys, "engine.num_workers=2")
    assert_same_bytes(found, expected)
    by = {int(path.name) for path in (tmp_path / "by").iterdir()}
    assert len(by - {here}) == (2 if can_fork() else 0)
    # the time of pieces that are trained at once is counted once
    summary = json.loads((tmp_path / "s" / "summary.json").read_text())
    assert 0 < summary["seconds_training"] < summary["seconds"]
    assert multiprocessing.active_children() == []


def test_what_fails_in_a_fork_fails_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise ZeroDivisionError("in a block")

    monkeypatch.setattr(module.HeavyBallModule, "training_step", failing)
    monkeypatch.setattr("dln_momentum.sweeps.rounds.WORTH", 0)
    keys = ("sweep.gamma=[0.01,0.02]", "sweep.piece_runs=1", "engine.num_workers=2")
    with pytest.raises(ZeroDivisionError, match="in a block") as caught:
        run_sweep(tmp_path, *keys)
    assert "in failing" in "".join(traceback.format_exception(caught.value))
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not can_fork(), reason="no forks on this system")
def test_rounds_leave_no_core_waiting_and_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("sweep.seed=range:0:7", "sweep.piece_runs=1", "engine.num_workers=3")
    long = "trainer.max_steps=1e12"

    def shared(*more: str) -> list[tuple[int, int, int]]:
        config = configured(*SMALL, *keys, *more)
        study = build(config)
        found = list(rounds(config, study, study.pieces))
        assert [piece.number for some, _, _ in found for piece in some] == [*range(7)]
        return [(len(some), processes, threads) for some, processes, threads in found]

    assert shared(long) == [(6, 3, 1), (1, 1, 3)]
    assert shared(long, "engine.num_workers=4") == [(4, 4, 1), (2, 2, 2), (1, 1, 4)]
    assert shared(long, "engine.num_workers=1") == [(7, 1, 1)]
    for workers, expected in (
        (9, [(6, 3, 3), (1, 1, 9)]),
        (16, [(4, 4, 4), (2, 2, 8), (1, 1, 16)]),
    ):
        assert shared(long, f"engine.num_workers={workers}") == expected
    # short ones are not worth a process
    assert shared() == [(7, 1, 3)]
    config = configured(*SMALL, *keys, long)
    study = build(config)
    least = footprint(config, study).gigabytes
    assert footprint(config, study, at_once=3).gigabytes > least
    assert shared(long, f"sweep.memory_gb={least * (1 + 1e-12)}") == [(7, 1, 3)]
    monkeypatch.setattr("dln_momentum.sweeps.rounds.can_fork", lambda: False)
    assert shared(long) == [(7, 1, 3)]


def test_time_in_which_several_pieces_are_trained_counts_once() -> None:
    def piece(began: float, training: float, minimisers: float) -> xr.Dataset:
        return xr.Dataset(
            attrs={"began": began, "seconds_training": training, "seconds_minimisers": minimisers}
        )

    # trained from 0 to 10 with 2 to 5 beside it, and from 20 to 21; minimisers 10-11, 5-7, 21-22
    pieces = [piece(0, 10, 1), piece(20, 1, 1), piece(2, 3, 2)]
    assert _seconds(pieces) == {"seconds_training": 11.0, "seconds_minimisers": 4.0}


def test_runs_of_one_problem_are_dealt_out_to_equal_pieces() -> None:
    """Neighbours on a grid end at about the same step; pieces of neighbours would not."""
    keys = ("sweep.gamma=linspace:0.01:0.02:10", "sweep.piece_runs=4")
    points = [piece.points.tolist() for piece in build(configured(*SMALL, *keys)).pieces]
    assert points == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    study = build(configured(*SMALL, *keys, "sweep.data_seed=[0,1]"))
    assert {len(piece.points) for piece in study.pieces} == {4}


@pytest.mark.slow
@pytest.mark.skipif(not can_fork(), reason="no forks on this system")
def test_processes_that_train_at_once_are_stopped_by_one_signal(tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to them all; what was done goes on to the same bytes."""
    words = [
        "sweep.gamma=geomspace:1e-4:1e-3:256", "sweep.piece_runs=128", "engine.num_workers=2",
        "trainer.max_steps=1.5e5", "trainer.tol=1e-300", "trainer.checkpoint_seconds=0.2",
        "trainer.records=20", "hydra.run.dir=run",
    ]  # fmt: skip
    process = start(tmp_path, "sweep", *words, start_new_session=True)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "run").glob("checkpoints/0001/step_*.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, status(tmp_path / "run")["state"]) == (130, "interrupted")
    assert "Traceback" not in err
    # a block takes a tenth of a second; `PATIENCE` is 20
    assert time.monotonic() - started < 15
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # of the whole group nothing is left
    assert not list(tmp_path.rglob("*.part"))
    again = start(tmp_path, "sweep", "resume=run")
    assert again.wait(timeout=100) == 0
    whole = start(tmp_path, "sweep", *words[:-1], "hydra.run.dir=whole")
    assert whole.wait(timeout=100) == 0
    with (
        xr.open_dataset(tmp_path / "run/results.nc", engine="h5netcdf") as one,
        xr.open_dataset(tmp_path / "whole/results.nc", engine="h5netcdf") as other,
    ):
        assert_same_bytes(one.drop_attrs(), other.drop_attrs())
