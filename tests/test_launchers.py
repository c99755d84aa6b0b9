"""Multiruns by Hydra's launchers and sweepers, as their users type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

SMALL = ["debug=quick", "logger=none"]


def dln(folder: Path, app: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"dln_momentum.cli.{app}", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "MPLBACKEND": "agg"},
    )  # fmt: skip


def results(folder: Path) -> dict[str, int]:
    """When each summary was written, by the name of its directory."""
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.rglob("summary.json")}


def test_twelve_jobs_two_of_which_fail(tmp_path: Path) -> None:
    """One is refused, and one crashes where a file is in the way of its logger's folder."""
    jobs = tmp_path / "jobs"
    (jobs / "beta_0.5").mkdir(parents=True)
    (jobs / "beta_0.5" / "csv").touch()
    words = ["-m", "debug=quick", "logger=csv", "hydra.sweep.dir=jobs"]
    betas = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,2"
    done = dln(tmp_path, "train", *words, f"optimizer.beta={betas}")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    table, _, _ = done.stdout.partition("kkt_residual")
    assert re.search(r"beta_0.5 +│ failed +│ FileExistsError: ", table)
    assert re.search(r"beta_2 +│ refused +│ optimizer.beta = 2 must be in \[0, 1\)", table)
    assert "10 done, 1 failed, 1 refused of 12 jobs; max_steps 10" in done.stdout
    assert "FileExistsError" in (jobs / "beta_0.5" / "error.txt").read_text()
    before = results(jobs)
    assert len(before) == 10
    again = dln(tmp_path, "train", *words, f"optimizer.beta={betas}")
    assert again.returncode == 1
    assert "10 done (10 before), 1 failed, 1 refused of 12 jobs" in again.stdout
    assert results(jobs) == before
    # what was in the way is gone, and the axis has one value more, in front
    (jobs / "beta_0.5" / "csv").unlink()
    more = dln(tmp_path, "train", *words, f"optimizer.beta=0.05,{betas}")
    assert "12 done (10 before), 1 refused of 13 jobs" in more.stdout
    assert results(jobs).keys() - before.keys() == {"beta_0.05", "beta_0.5"}
    assert before.items() <= results(jobs).items()
    assert not (jobs / "beta_0.5" / "error.txt").exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "vectorized"])
def test_a_launcher_leaves_what_hydras_own_does(launcher: str, tmp_path: Path) -> None:
    words = ["-m", *SMALL, "optimizer.beta=0.5,2,0.9"]
    own = dln(tmp_path, "train", *words, "hydra.sweep.dir=own")
    done = dln(tmp_path, "train", *words, "hydra.sweep.dir=other", f"hydra/launcher={launcher}")
    assert own.returncode == done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for said in (own.stdout, done.stdout):
        assert "2 done, 1 refused of 3 jobs; max_steps 2" in said
        assert re.search(r"beta_2 +│ refused +│ optimizer.beta = 2 must be in", said)
    for beta in (0.5, 0.9):
        first, second = (
            json.loads((tmp_path / folder / f"beta_{beta}" / "summary.json").read_text())
            for folder in ("own", "other")
        )
        for summary in (first, second):
            # a commit may be made in between
            del summary["seconds"], summary["commit"]
        assert first == second
    # repeated by another launcher, nothing is left to do
    again = dln(tmp_path, "train", *words, "hydra.sweep.dir=other")
    assert "2 done (2 before), 1 refused of 3 jobs" in again.stdout


def test_optuna_minimises_a_result_over_lambda(tmp_path: Path) -> None:
    """The recovery error of the default problem falls with lambda up to 30, see docs/studies.md."""
    done = dln(
        tmp_path, "train", "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=tpe",
        "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1",
        "optimized_metric=recovery_error", "optimizer.lam=tag(log,interval(0.1,10))",
        "optimizer.eps=0.1", "callbacks=none", "logger=none", "hydra.sweep.dir=jobs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "jobs" / "optimization_results.yaml").read_text())
    summaries = [json.loads(p.read_text()) for p in tmp_path.rglob("summary.json")]
    assert len(summaries) == 6
    best = min(summaries, key=lambda summary: summary["recovery_error"])
    assert found["best_value"] == best["recovery_error"]
    assert found["best_params"] == {"optimizer.lam": pytest.approx(best["lam"], rel=1e-12)}


def test_optuna_goes_on_after_a_trial_that_fails(tmp_path: Path) -> None:
    done = dln(
        tmp_path, "train", "-m", *SMALL, "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "optimized_metric=recovery_error",
        "hydra.sweep.dir=jobs", "optimizer.beta=choice(0.5,0.9,2)",
    )  # fmt: skip
    assert done.returncode == 1
    assert "2 done, 1 refused of 3 jobs" in done.stdout, done.stderr
    found = yaml.safe_load((tmp_path / "jobs" / "optimization_results.yaml").read_text())
    assert found["best_params"]["optimizer.beta"] in (0.5, 0.9)
