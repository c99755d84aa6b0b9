"""SIGKILL anywhere: what is finished stays, what resumes ends in the bytes of one left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from dln_momentum.cli import job
from dln_momentum.outputs import files, netcdf, tables
from dln_momentum.outputs import status as status_file
from dln_momentum.sweeps import piece_files
from dln_momentum.training.module import HeavyBallModule
from tests.faults.children import (
    KILLED,
    OF_A_SWEEP,
    RUN,
    SWEEP,
    TIMES,
    Fault,
    assert_nothing_partial,
    assert_same_files,
    command,
    kill_at,
    leftovers,
    status,
)

pytestmark = pytest.mark.slow


def _half(write: Callable[..., Any], at: int) -> Callable[..., None]:
    """Do what a function that writes a file does, and cut the file in half."""

    def halved(*given: Any, **named: Any) -> None:
        write(*given, **named)
        path = Path(given[at])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return halved


TRAINING: dict[str, Fault] = {
    "before config.yaml": kill_at(job, "write_text", 1),
    "before status.json says running": kill_at(job, "write_status", 1),
    "in the first block": kill_at(HeavyBallModule, "training_step", 1),
    "between two checkpoints": kill_at(HeavyBallModule, "training_step", 11),
    "half of the third checkpoint": kill_at(
        pl.Trainer, "save_checkpoint", 3, _half(pl.Trainer.save_checkpoint, 1)
    ),
    "half of the history": kill_at(netcdf, "write", 1, _half(netcdf.write, 1)),
    "the history, not moved into place": kill_at(
        files, "move_whole", 1, when=lambda *paths, **_: paths[-1].name == "history.nc"
    ),
    "half of the summary": kill_at(files, "write_json", 1),
    "the summary, before status.json says done": kill_at(job, "write_status", 2),
}


@pytest.mark.parametrize("moment", TRAINING)
def test_a_run_that_is_killed_goes_on(moment: str, tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "run"
    ended = command(tmp_path, "train", *RUN, "hydra.run.dir=run", fault=TRAINING[moment])
    assert ended.code == KILLED
    assert_nothing_partial(run)
    finished = (run / "summary.json").exists()
    if (run / "status.json").exists():
        assert status(run)["state"] == "interrupted"
    words = ["resume=run"] if (run / "config.yaml").exists() else [*RUN, "hydra.run.dir=run"]
    again = command(tmp_path, "train", *words)
    assert again.code == 0, again.err
    assert "Traceback" not in again.err
    assert ("nothing to do" in again.out) == finished
    assert status(run)["state"] == "done"
    assert_nothing_partial(run)
    assert leftovers(run) == []
    assert_same_files(alone / "run", run, "history.nc", TIMES)


SWEEPING: dict[str, Fault] = {
    "in the second piece": kill_at(pl.Trainer, "save_checkpoint", 8),
    "half of the second piece's file": kill_at(
        piece_files.np, "savez", 2, lambda file, **_: file.write(b"PK\x03\x04half")
    ),
    "between the second and the third": kill_at(piece_files, "read_piece", 2),
    "half of the results": kill_at(netcdf, "write", 1, _half(netcdf.write, 1)),
}


@pytest.mark.parametrize("moment", SWEEPING)
def test_a_sweep_that_is_killed_goes_on(moment: str, tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "sweep"
    ended = command(tmp_path, "sweep", *SWEEP, "hydra.run.dir=sweep", fault=SWEEPING[moment])
    assert ended.code == KILLED
    assert_nothing_partial(run)
    kept = {path: path.stat().st_mtime_ns for path in (run / "pieces").glob("*.npz")}
    assert kept
    again = command(tmp_path, "sweep", "resume=sweep")
    assert again.code == 0, again.err
    # what was finished is not done again
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert leftovers(run) == []
    assert_same_files(alone / "sweep", run, "results.nc", OF_A_SWEEP)


COLLECTING: dict[str, Fault] = {
    "half of the results": kill_at(netcdf, "write", 1, _half(netcdf.write, 1)),
    "before the tables": kill_at(tables, "for_readers", 1),
    "before the list of files": kill_at(files, "write_json", 1),
}


@pytest.mark.parametrize("moment", COLLECTING)
def test_a_collection_that_is_killed_is_made_again(
    moment: str, tmp_path: Path, alone: Path
) -> None:
    out = tmp_path / "collected"
    words = [str(alone), "--out", str(out)]
    assert command(tmp_path, "collect", *words, fault=COLLECTING[moment]).code == KILLED
    assert_nothing_partial(out)
    again = command(tmp_path, "collect", *words)
    assert again.code == 0, again.err
    assert (out / "collect.json").exists()
    assert_nothing_partial(out)
    assert leftovers(out) == []


def test_status_is_written_by_one_function() -> None:
    """The moments above are calls of these, by the names that `job` knows them by."""
    assert job.write_status is status_file.write_status
    assert job.write_text is status_file.write_text
