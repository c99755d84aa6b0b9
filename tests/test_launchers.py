"""Multiruns by Hydra's launchers and sweepers, as their users type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
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


def assert_same_summary(
    found: dict[str, Any], expected: dict[str, Any], *, exact: bool = True
) -> None:
    """The same keys and values; numbers of runs that were trained together to 1e-10."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if exact or not isinstance(value, float):
            assert found[name] == value, name
        else:
            # distances to minimisers are rounding themselves: absolute, too
            assert found[name] == pytest.approx(value, rel=1e-10, abs=1e-10, nan_ok=True), name


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
        assert_same_summary(second, first, exact=launcher != "vectorized")
    # repeated by another launcher, nothing is left to do
    again = dln(tmp_path, "train", *words, "hydra.sweep.dir=other")
    assert "2 done (2 before), 1 refused of 3 jobs" in again.stdout


def test_runs_that_are_trained_together_leave_what_each_leaves_alone(tmp_path: Path) -> None:
    words = [
        "-m", "optimizer.gamma=0.01,0.02,3", "optimizer.beta=0.5,0.9", "model.alpha=0.1,1e-4",
        "sampling.batch_size=null,3", "data.n=5", "data.d=12", "data.s=2", "logger=none",
        "trainer.max_steps=3000", "trainer.tol=1e-10",
    ]  # fmt: skip
    together = [*words, "hydra.sweep.dir=together", "hydra/launcher=vectorized"]
    first = dln(tmp_path, "train", *together)
    alone = dln(tmp_path, "train", *words, "hydra.sweep.dir=alone")
    for done in (first, alone):
        assert done.returncode == 0, done.stderr
        assert "24 done of 24 jobs" in done.stdout
    statuses = set()
    for folder in sorted((tmp_path / "alone").glob("gamma*")):
        other = tmp_path / "together" / folder.name
        expected, found = (json.loads((f / "summary.json").read_text()) for f in (folder, other))
        for summary in (expected, found):
            del summary["seconds"], summary["commit"]
        statuses.add(expected["status"])
        assert_same_summary(found, expected, exact=False)
        ours, its = (xr.load_dataset(f / "history.nc", engine="h5netcdf") for f in (other, folder))
        assert set(ours.variables) == set(its.variables)
        for name, variable in its.variables.items():
            if variable.dtype.kind not in "fiu":
                continue
            # the numbers of a run that has blown up multiply their rounding without bound
            usable: Any = ...
            if expected["status"] == "diverged":
                usable = np.abs(variable.to_numpy()) < 1e3
            np.testing.assert_allclose(
                ours[name].to_numpy()[usable], variable.to_numpy()[usable],
                rtol=1e-9, atol=1e-10, err_msg=f"{folder.name}: {name}",
            )  # fmt: skip
    assert statuses == {"converged", "diverged", "max_steps"}
    more = dln(tmp_path, "train", *(w.replace("=0.5,0.9", "=0,0.5,0.9") for w in together))
    assert "36 done (24 before) of 36 jobs" in more.stdout, more.stderr
    assert not (tmp_path / "together" / ".vectorized").exists()


def test_what_cannot_be_trained_together_is_trained_alone(tmp_path: Path) -> None:
    """Early stopping by the median of both would end the first job where the second ends."""
    words = [
        "-m", "data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=3000", "trainer.records=50",
        "logger=none", "hydra/launcher=vectorized",
    ]  # fmt: skip
    stopping = ["callbacks=early_stopping", "callbacks.early_stopping.patience=3"]
    done = dln(tmp_path, "train", *words, *stopping, "optimizer.gamma=1e-4,0.02",
               "hydra.sweep.dir=stopped")  # fmt: skip
    assert "2 done of 2 jobs; max_steps 1, stopped 1" in done.stdout, done.stderr
    # autograd, values that no run may have, and one job twice, whose directory has one writer
    given = ["trainer.gradient=closed_form,autograd", "optimizer.gamma=0.01,0.01,abc,-1"]
    done = dln(tmp_path, "train", *words, *given, "outputs.figure=true", "hydra.sweep.dir=mixed")
    assert "2 done, 4 refused of 6 jobs" in done.stdout, done.stderr
    assert len(list((tmp_path / "mixed").glob("*/overview.png"))) == 2


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
    results = tmp_path / "jobs" / "optimization_results.yaml"
    # the sampler draws the order of its grid: Optuna's sweeper writes no file of its own where the
    # refused trial comes last
    if results.exists():
        found = yaml.safe_load(results.read_text())
        assert found["best_params"]["optimizer.beta"] in (0.5, 0.9)
