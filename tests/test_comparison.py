"""A run beside the flows that it discretises: their distance has the order that theory says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf
from torch import Tensor

import dln_momentum as dln
from dln_momentum import InputError
from dln_momentum.cli.flow import completed, flow
from dln_momentum.cli.job import Job
from dln_momentum.config import composed
from dln_momentum.outputs.comparison import comparable_times, compared
from dln_momentum.outputs.quantities import QUANTITIES
from tests.helpers import FinishedRun, blank_figures, run_app

PROBLEM, START = dln.sparse(5, 8, 1), dln.uniform(0.2)


def flow_at(lam: float, times: Tensor) -> dln.FlowPath:
    w = START.weights(8)
    return dln.momentum_flow(PROBLEM, *w, lam, float(times[-1]), times=times[times > 0])


@pytest.mark.parametrize(("name", "order"), [("flow", 1), ("flow_ks", 2)])
def test_the_distance_has_the_order_of_the_discretisation(name: str, order: int) -> None:
    largest = []
    for eps in (0.04, 0.02):
        steps = round(8 / eps)
        run = dln.train(PROBLEM, START, lam=1.0, eps=eps, max_steps=steps, records=40)
        history = run.to_dataset(distances=False)
        times = comparable_times(history, at_rest=True)
        lam = float(history["lam" if name == "flow" else "lam_ks"])
        paths = {key: flow_at(lam, value) for key, value in times.items()}
        found = compared(history, PROBLEM, paths, times)
        largest.append(float(found[f"distance_to_{name}"].max()))
    # the next order is eps relative to this one, with a factor of some units
    assert np.log2(largest[0] / largest[1]) == pytest.approx(order, abs=0.15)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    directory = tmp_path_factory.mktemp("compared") / "run"
    words = ["data.n=5", "data.d=8", "data.s=1", "model.alpha=0.2", "trainer.records=10"]
    return run_app(directory, *words, "trainer.max_steps=200")


def compare(run: Path, directory: Path, *words: str) -> dict:
    """``dln-flow compare=RUN WORDS`` in this process."""
    overrides = [f"compare={run}", *words]
    config = completed(composed("flow", overrides))
    with blank_figures():
        return flow(Job(config, directory, "flow", overrides=overrides))


def test_a_directory_is_all_that_it_takes(
    run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = compare(run.directory, tmp_path)
    history, found = run.history(), xr.load_dataset(tmp_path / "history.nc", engine="h5netcdf")
    assert (summary["kind"], summary["status"]) == ("comparison", "time_reached")
    named = {row.name for row in QUANTITIES.values() if "p" in row.found}
    assert set(map(str, found.variables)) | set(summary) == named
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert (saved.data.n, saved.model.alpha, saved.flow.lam) == (
        5,
        0.2,
        pytest.approx(1, rel=1e-15),
    )
    # the same in Python: the flow at the times of a run
    path = dln.flow(PROBLEM, START, lam=history["lam"].item(), times=history["time"])
    gap = np.linalg.norm(path.theta - history["theta"].to_numpy(), axis=-1)
    # the interpolation of two integrations, that here are the same
    np.testing.assert_allclose(found["distance_to_flow"], gap, rtol=0, atol=1e-12)
    assert summary["distance_to_flow"] == found["distance_to_flow"][-1]
    assert summary["max_distance_to_flow"] == found["distance_to_flow"].max()
    assert 0 < 10 * summary["max_distance_to_flow_ks"] < summary["max_distance_to_flow"] < 0.05
    for name in ("theta", "l1_norm", "balancedness"):
        np.testing.assert_array_equal(found[name].sel(path="run"), history[name])
        assert float(abs(found[name].sel(path="flow") - history[name]).max()) < 0.05
    for name in ("run", "flow", "flow_ks"):
        assert (tmp_path / name / "dashboard.tfevents").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "largest ||theta_k - theta(t_k)||" in shown


def test_a_flow_that_ends_early_leaves_nan() -> None:
    history = dln.train(PROBLEM, START, lam=1.0, eps=0.1, max_steps=50, records=9).to_dataset()
    times = comparable_times(history, at_rest=True)
    short = flow_at(1.0, times["flow"][:5])
    found = compared(
        history, PROBLEM, dict.fromkeys(times, short), dict.fromkeys(times, times["flow"])
    )
    known = found["distance_to_flow"].notnull().to_numpy()
    assert known.tolist() == [True] * 5 + [False] * (len(known) - 5)
    assert torch.equal(
        torch.from_numpy(found["theta"].sel(path="flow")[4].to_numpy()), short.theta[-1]
    )


@pytest.mark.slow
def test_what_is_no_run_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    def changed(name: str, **values: object) -> Path:
        copy = tmp_path / name
        shutil.copytree(run.directory, copy)
        summary = json.loads((copy / "summary.json").read_text()) | values
        (copy / "summary.json").write_text(json.dumps(summary))
        return copy

    bare = changed("bare")
    (bare / "history.nc").unlink()
    for path, words, message in (
        (tmp_path / "none", (), "must be the directory of a finished run of dln-train"),
        (changed("kind", kind="sweep"), (), "is of kind sweep; it must be a run of dln-train"),
        (changed("data", data_hash="0"), (), "its data are not those of today"),
        (changed("own", method="nesterov"), (), "has method = nesterov, must be heavy_ball"),
        (bare, (), "has no readable history.nc"),
        (run.directory, ("data.n=4",), "data.n=4 cannot be given with compare"),
        (run.directory, ("flow.lam=2", "seed=1"), "2 problems"),
    ):
        with pytest.raises(InputError, match=message):
            compare(path, tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()
