"""Jobs that are trained together: what happens to one of them costs the others nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import xarray as xr
from torch import Tensor

from dln_momentum import Problem, Snapshot
from dln_momentum.cli import job as job_file
from dln_momentum.outputs import netcdf
from dln_momentum.sweeps.forked import can_fork
from dln_momentum.training.callbacks import Monitor
from tests.faults.children import (
    KILLED,
    TIMES,
    Ending,
    Fault,
    assert_nothing_partial,
    command,
    kill_at,
    leftovers,
    status,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_fork(), reason="no forks on this system"),
]

BETAS = [round(0.05 * k, 2) for k in range(12)]
WORDS = [
    "-m", "debug=quick", "trainer.checkpoint_every=300", "trainer.block_size=100",
    "hydra/launcher=vectorized", "hydra.sweep.dir=jobs", "engine.num_workers=2",
]  # fmt: skip


def train(folder: Path, *words: str, fault: Fault = lambda: None, betas=BETAS) -> Ending:
    varied = f"optimizer.beta={','.join(map(str, betas))}"
    return command(folder, "train", *WORDS, varied, *words, fault=fault)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The multirun that nothing happened to; to be read only."""
    folder = tmp_path_factory.mktemp("whole")
    ended = train(folder)
    assert ended.code == 0, ended.err
    assert leftovers(folder / "jobs") == []
    return folder / "jobs"


def assert_as_whole(jobs: Path, whole: Path) -> None:
    """Every job is done and has its files, with the numbers of the group that nothing happened to.

    To the tolerance of jobs trained together: the group that goes on may be a smaller one, and
    minimisers are solved for, and sums taken, in batches.
    """
    assert_nothing_partial(jobs)
    assert leftovers(jobs) == []
    for path in whole.glob("beta*"):
        own = jobs / path.name
        assert status(own)["state"] == "done"
        # one that was done again by itself has checkpoints too
        names = {file.name for file in own.iterdir()} - {"checkpoints"}
        assert names == {file.name for file in path.iterdir()}
        found, expected = (json.loads((f / "summary.json").read_text()) for f in (own, path))
        assert found.keys() == expected.keys()
        for name in expected.keys() - TIMES:
            near = expected[name]
            if isinstance(near, float):
                near = pytest.approx(near, rel=1e-10, abs=1e-10, nan_ok=True)
            assert found[name] == near, name
        ours, its = (xr.load_dataset(f / "history.nc", engine="h5netcdf") for f in (own, path))
        xr.testing.assert_allclose(ours, its, rtol=1e-9, atol=1e-10)


class Failing(Monitor):
    """Measures nothing, and raises where any of the runs has beta = 0.3."""

    group = "failing"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        if bool((snapshot.beta == 0.3).any()):
            raise MemoryError("beta = 0.3 is too much")
        return {}


def test_a_job_that_fails_in_a_group_fails_alone(tmp_path: Path, whole: Path) -> None:
    added = "+callbacks.failing._target_=tests.faults.test_together.Failing"
    ended = train(tmp_path, added)
    assert ended.code == 1
    assert "11 done, 1 failed of 12 jobs" in ended.out, ended.err
    assert ended.err == "beta_0.3: failed: MemoryError: beta = 0.3 is too much\n"
    jobs = tmp_path / "jobs"
    assert "in measure" in (jobs / "beta_0.3" / "error.txt").read_text()
    assert leftovers(jobs) == []


IN_A_FORK: dict[str, Callable[..., object]] = {
    "its process is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "no space is left": lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")),
}


@pytest.mark.parametrize("what", IN_A_FORK)
def test_what_happens_to_a_process_that_writes_is_that_jobs_failure(
    what: str, tmp_path: Path, whole: Path
) -> None:
    def fault() -> None:
        usual = netcdf.write

        def patched(dataset, path: Path) -> None:
            if path.parent.name == "beta_0.3":
                usual(dataset, path)
                IN_A_FORK[what]()
            usual(dataset, path)

        netcdf.write = patched

    ended = train(tmp_path, fault=fault)
    assert ended.code == 1
    assert "11 done, 1 failed of 12 jobs" in ended.out, ended.err
    assert status(tmp_path / "jobs" / "beta_0.3")["state"] == "failed"
    again = train(tmp_path)
    assert again.code == 0
    assert "12 done (11 before) of 12 jobs" in again.out, again.err
    assert_as_whole(tmp_path / "jobs", whole)


MOMENTS: dict[str, Fault] = {
    "before the fourth job begins": kill_at(job_file, "write_status", 4),
    "in the third checkpoint": kill_at(pl.Trainer, "save_checkpoint", 3),
    "when the fifth job is done": kill_at(
        job_file, "write_status", 5, when=lambda _, values: values["state"] == "done"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_group_that_is_killed_goes_on(moment: str, tmp_path: Path, whole: Path) -> None:
    ended = train(tmp_path, fault=MOMENTS[moment])
    assert ended.code == KILLED
    jobs = tmp_path / "jobs"
    assert_nothing_partial(jobs)
    states = {status(path)["state"] for path in jobs.glob("beta*") if status(path)}
    assert states <= {"done", "interrupted"}
    finished = len(list(jobs.glob("*/summary.json")))
    again = train(tmp_path)
    assert again.code == 0, again.err
    before = f" ({finished} before)" if finished else ""
    assert f"12 done{before} of 12 jobs" in again.out
    assert_as_whole(jobs, whole)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_group_that_is_stopped_while_it_writes_goes_on(
    signum: signal.Signals, tmp_path: Path, whole: Path
) -> None:
    """The signal goes to the forks as well, as Ctrl-C in a terminal does."""

    def fault() -> None:
        usual, done = job_file.write_status, [0]

        def patched(directory: Path, values: dict[str, object]) -> None:
            usual(directory, values)
            done[0] += values["state"] == "done"
            if values["state"] == "done" and done[0] == 5:
                os.killpg(os.getpgid(0), signum)

        os.setpgid(0, 0)
        job_file.write_status = patched

    ended = train(tmp_path, fault=fault)
    assert ended.code == 128 + signum, ended.err
    assert ended.err == f"interrupted; dln-train resume={tmp_path / 'jobs'} continues it\n"
    jobs = tmp_path / "jobs"
    states = {path.name: status(path) for path in jobs.glob("beta*")}
    kinds = [entry["state"] for entry in states.values()]
    assert kinds.count("done") in (4, 5, 6)
    assert all("continues it" in s["message"] for s in states.values() if s["state"] != "done")
    again = command(tmp_path, "train", "resume=jobs")
    assert again.code == 0, again.err
    assert_as_whole(jobs, whole)


def test_a_checkpoint_of_a_group_is_used_where_the_axis_has_grown(
    tmp_path: Path, whole: Path
) -> None:
    fault = kill_at(pl.Trainer, "save_checkpoint", 3)
    assert train(tmp_path, fault=fault).code == KILLED
    (kept,) = (tmp_path / "jobs" / ".vectorized").iterdir()
    assert len(list(kept.glob("*.ckpt"))) == 2
    starts = tmp_path / "starts"

    def noted() -> None:
        fit = pl.Trainer.fit

        def patched(trainer: pl.Trainer, *given, **named) -> None:
            with starts.open("a") as file:
                file.write(f"{Path(named['ckpt_path'] or 'none').name}\n")
            fit(trainer, *given, **named)

        setattr(pl.Trainer, "fit", patched)  # noqa: B010 - a wrong type

    again = train(tmp_path, betas=[0.91, *BETAS, 0.92], fault=noted)
    assert again.code == 0, again.err
    assert "14 done of 14 jobs" in again.out
    assert starts.read_text().split() == ["step_600.ckpt", "none"]
    assert_as_whole(tmp_path / "jobs", whole)
