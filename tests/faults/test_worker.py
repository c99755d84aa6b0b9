"""A launcher's worker that dies in the middle of a multirun, as by the system's lack of memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest

from dln_momentum.outputs.status import read_status
from tests.faults.children import assert_nothing_partial

ROOT = Path(__file__).parents[2]
BETAS = (0.1, 0.2, 0.7, 0.3, 0.4, 0.5)
WAITS = "beta_0.7"
"""The job that is under way until it is killed, or its file is there."""


class Waits(pl.Callback):
    """Keeps one job of a multirun under way until a file is there."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        job = Path(trainer.default_root_dir)
        while job.name == WAITS and not (job.parent / "go").exists():
            time.sleep(0.02)


def multirun(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "dln_momentum.cli.train", "-m", "debug=quick", "logger=none",
            "outputs.figure=false", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
            f"optimizer.beta={','.join(map(str, BETAS))}", "hydra.sweep.dir=jobs",
            "+callbacks.waits._target_=tests.faults.test_worker.Waits",
        ],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def until(true: object, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until something is true while a process runs."""
    assert callable(true)
    limit = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_own_job_only(tmp_path: Path) -> None:
    jobs, process = tmp_path / "jobs", multirun(tmp_path)

    def finished() -> dict[str, int]:
        return {p.parent.name: p.stat().st_mtime_ns for p in jobs.glob("*/summary.json")}

    until(lambda: read_status(jobs / WAITS).get("state") == "running", process)
    until(lambda: len(finished()) >= 2, process)
    os.kill(read_status(jobs / WAITS)["pid"], signal.SIGKILL)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in said + errors
    # joblib then ends its other workers too: what is not finished was interrupted, or never began
    assert re.search(rf"{WAITS} +│ interrupted +│ killed", said), said
    assert "ended early" in errors
    kept = finished()
    assert len(kept) >= 2
    assert WAITS not in kept
    assert_nothing_partial(jobs)
    (jobs / "go").touch()
    again = multirun(tmp_path)
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f"{len(BETAS)} done ({len(kept)} before) of {len(BETAS)} jobs" in said
    # what was finished is not done again
    assert kept.items() <= finished().items()
