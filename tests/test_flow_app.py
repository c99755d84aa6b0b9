"""dln-flow: what it leaves, under the names that dln-train has, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from dln_momentum import FlowPath, InputError, Problem, gradient_flow, momentum_flow, sparse
from dln_momentum.cli.flow import flow
from dln_momentum.outputs.flow_summary import measure
from tests.helpers import blank_figures, run_job
from tests.test_default_run import KEYS

SMALL = ["data.n=5", "data.d=8", "data.s=1"]


def run_flow(directory: Path, *overrides: str, drawn: bool = False) -> dict:
    """``dln-flow OVERRIDES`` in this process; the figure is blank unless it is to be drawn."""
    with nullcontext() if drawn else blank_figures():
        return run_job("flow", flow, directory, *overrides)


def history_of(directory: Path) -> xr.Dataset:
    with xr.open_dataset(directory / "history.nc", engine="h5netcdf") as dataset:
        return dataset.load()


def test_a_flow_leaves_its_files_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_flow(tmp_path, *SMALL, drawn=True)
    left = {path.name for path in tmp_path.iterdir()}
    files = {"config.yaml", "summary.json", "history.nc", "overview.png", "dashboard.tfevents"}
    assert left == files | {"status.json"}
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    # what has no meaning in continuous time is all that is missing
    of_steps = {"steps", "gamma", "beta", "eps", "lam_ks", "batch_size"}
    assert set(summary) >= KEYS - of_steps - {"path_sum_balancedness_error"}
    shown = capsys.readouterr().out
    assert "prediction" in shown
    assert "momentum flow, lambda = 1" in shown
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def flow_of(problem: Problem, w_plus: Tensor, w_minus: Tensor, lam: float) -> FlowPath:
    """As ``dln-flow`` follows it: gradient flow with w_+- integrated."""
    if lam == 0:
        return gradient_flow(problem, w_plus, w_minus, math.inf, form="direct", tol=1e-20)
    return momentum_flow(problem, w_plus, w_minus, lam, math.inf, tol=1e-20)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.01, 1.0, 8.0])
def test_the_flow_ends_where_the_theory_says(lam: float) -> None:
    problem = sparse(20, 30, 3)
    w = torch.full((30,), 0.1 * math.sqrt(2), dtype=torch.float64)
    path = flow_of(problem, w, w, lam)
    s = measure(problem, path, records=200, tol=1e-20).end
    assert path.converged
    assert s["lam"] == lam
    assert s["energy"] <= 1e-20
    # the loss left over is 1e-20: 1e-9 in the residual, the smallest singular value is 0.5
    assert s["distance_to_minimizer"] < 1e-8
    doubt = s["path_integral_uncertainty"]
    # I_+- by definition; the solver's local errors are 1e-9 each
    assert s["path_integral_balancedness_error"] < 1e-7 + doubt
    assert s["kkt_residual"] < 1e-7 + doubt
    assert s["path_integral_share"] > 0.95
    assert s["dissipated"] <= s["initial_loss"] * (1 + 1e-9)
    assert s["energy_balance_error"] < 1e-9
    # the restart ends at argmin psi_{Delta_inf}, as far from theta as that is
    assert s["distance_to_effective_initialisation_limit"] == pytest.approx(
        s["distance_to_unperturbed_minimizer"], rel=1e-4, abs=1e-8
    )
    assert (s["sign_changes"] > 0) == (lam > 1)
    if lam == 0:
        assert s["distance_to_gradient_flow_minimizer"] < 1e-8
        # w_+- is integrated, so that Delta_t = Delta_0 is no identity: local errors of 1e-9 each
        assert s["min_balancedness_ratio"] == pytest.approx(1.0, abs=1e-7)


def test_the_history_is_labelled_and_exact_before_convergence(tmp_path: Path) -> None:
    summary = run_flow(tmp_path, *SMALL, "flow.lam=0.1", "flow.time=20", "flow.records=50")
    assert summary["status"] == "time_reached"
    assert summary["distance_to_effective_initialisation_limit"] is None or math.isnan(
        summary["distance_to_effective_initialisation_limit"]
    )
    history = history_of(tmp_path)
    assert dict(history.sizes).keys() == {"time", "coordinate"}
    times = history["time"].to_numpy()
    assert times[0] == 0
    assert times[-1] == summary["time"] == 20
    assert 20 < len(times) <= 51
    assert np.isfinite(history["theta"]).all()
    # the solver's local errors are 1e-9 each
    assert float(history["own_level_set_distance"].max()) < 1e-7
    assert float(history["path_integral_identity_error"].max()) < 1e-7
    assert float(history["train_loss"][-1]) == summary["train_loss"]
    assert (history["i_plus"].diff("time") >= -1e-12).all()
    assert history["balancedness"].attrs["symbol"] == r"\Delta"
    w = history["w_plus"] * history["w_minus"]
    np.testing.assert_array_equal(history["balancedness"], abs(w))


def test_a_flow_at_given_times_has_every_certificate(tmp_path: Path) -> None:
    summary = run_flow(tmp_path, *SMALL, "flow.times=[0.5,2,40]")
    history = history_of(tmp_path)
    assert history["time"].to_numpy().tolist() == [0, 0.5, 2, 40]
    assert (summary["status"], summary["time"]) == ("time_reached", 40)
    # the solver's local errors are 1e-9 each; the quadrature is over its own steps
    doubt = summary["path_integral_uncertainty"]
    assert float(history["path_integral_identity_error"].max()) < 1e-7 + doubt < 1e-4
    problem = sparse(5, 8, 1)
    w = torch.full((8,), 0.1 * math.sqrt(2), dtype=torch.float64)
    for time, theta in zip((0.5, 2.0, 40.0), history["theta"][1:], strict=True):
        # ended there, not interpolated; both within the solver's error
        end = momentum_flow(problem, w, w, lam=1.0, time=time).theta[-1]
        np.testing.assert_allclose(theta, end, rtol=0, atol=1e-9)


def test_a_tolerance_of_zero_is_none(tmp_path: Path) -> None:
    summary = run_flow(tmp_path, *SMALL, "model.alpha=1", "flow.tol=0", "flow.time=60")
    # the default tolerance would have ended it before
    assert summary["energy"] < 1e-20
    assert (summary["status"], summary["time"]) == ("time_reached", 60)


def test_errors_are_shares_where_weights_cross_zero() -> None:
    """There the exponents without boundary terms are off by hundreds, and exp would overflow."""
    drawn = sparse(5, 8, 1)
    problem, w = Problem(X=drawn.X, y=1000 * drawn.y), torch.full((8,), 0.1, dtype=torch.float64)
    path = momentum_flow(problem, w, w, lam=1.0, time=5.0)
    found = measure(problem, path, records=200, tol=1e-20)
    exponents = found.coordinates["i_plus"] + found.coordinates["i_minus"]
    assert exponents.abs().max() > 100
    error = found.scalars["path_integral_balancedness_error"]
    assert 0 <= error.min() <= error.max() <= 1
    now = found.coordinates["balancedness"]
    predicted = now[0] * torch.exp(-exponents)
    share = (now - predicted).abs() / torch.maximum(now, predicted)
    finite = predicted.isfinite().all(-1)
    # a difference of nearly equal numbers
    torch.testing.assert_close(error[finite], share.amax(-1)[finite], rtol=0, atol=1e-14)
    assert (error[~finite] == 1).all()
    assert error.max() > 0.99


def test_a_flow_that_is_given_up_is_a_result(tmp_path: Path) -> None:
    summary = run_flow(tmp_path, *SMALL, "flow.max_steps=40", drawn=True)
    assert summary["status"] == "failed"
    assert "40 steps" in summary["message"]
    # the solver's local errors, and the quadrature over so few and so long steps
    assert summary["path_integral_identity_error"] < 1e-7 + summary["path_integral_uncertainty"]
    assert summary["path_integral_uncertainty"] < 1e-4
    assert (tmp_path / "overview.png").exists()


@pytest.mark.slow
def test_a_flow_that_is_asked_for_more_than_rounding_is_a_result(tmp_path: Path) -> None:
    """Its time runs to 1e17, where the quadrature of I_+- is worth nothing and says so."""
    summary = run_flow(tmp_path, *SMALL, "flow.tol=1e-300", "flow.max_steps=3000")
    assert summary["status"] == "failed"
    assert summary["path_integral_uncertainty"] > 1
    assert summary["train_loss"] < 1e-28


def test_data_of_ones_own(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(4, 7))
    np.savez(tmp_path / "mine.npz", X=X, y=X[:, 0])
    path = f"data.path={tmp_path / 'mine.npz'}"
    summary = run_flow(tmp_path / "run", "data=file", path, "flow=gradient", "model=gaussian")
    assert summary["status"] == "converged"
    assert math.isnan(summary["recovery_error"])
    assert summary["distance_to_minimizer"] < 1e-8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["flow.lam=null"], "flow.lam = None must be a number, a list of numbers, or linspace:"),
        (["flow.lam=-1", "flow.tol=0", "flow.method=euler"], "3 problems"),
        (["flow.tol=0"], "flow.time = inf needs a tol to stop at"),
        (["flow.lam=[1,1]"], "has a value twice"),
        (["flow.lam=[1,1e13]"], r"flow.lam = 1e\+13 must be in \[0, 1e\+12\]"),
        (["flow.lam=[0,1]", "model.speed=1"], "model.speed = 1 must be 0"),
        (["flow.times=[2,1]"], "flow.times = .2, 1. must be increasing"),
        (["flow.times=[0]"], "the last one > 0"),
        (["flow.times=linspace:1:2", "flow.lam=geo:1:2:3"], "2 problems"),
        (
            ["flow.times=[1,2]", "flow.time=3"],
            "flow.time = 3 must be null: flow.times end the flow",
        ),
        (["sampling.batch_size=2"], "unknown key sampling.batch_size"),
        (["flow.records=1", "data.n=50"], "2 problems"),
        (["flow.time=0"], "flow.time = 0 must be > 0"),
        (["flow.tol=10"], "the start already interpolates"),
    ],
)
def test_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_flow(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("app", ["flow", "verify"])
def test_help_shows_groups_keys_and_examples_without_torch(tmp_path: Path, app: str) -> None:
    code = (
        f"import sys; sys.argv = ['dln-{app}', '--help']\n"
        f"from dln_momentum.cli.{app} import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown.count(f"\ndln-{app} ") == 5
    assert "data=sparse             diabetes, digits, file" in shown
    assert "method: auto" in shown
    assert not list(tmp_path.iterdir())
