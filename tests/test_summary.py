"""``summary.json``, every number recomputed from what the run left and the poster's formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dln_momentum import DiagonalLinearNet, sparse
from dln_momentum.theory.minimizers import bregman_minimizer
from tests.helpers import FinishedRun, run_app

N, D, GAMMA, BETA = 6, 9, 0.02, 0.8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """From a start with theta_0 != 0, which no minimiser may forget."""
    return run_app(
        tmp_path_factory.mktemp("run"), f"data.n={N}", f"data.d={D}", "data.s=2", "model=gaussian",
        "model.alpha=0.3", f"optimizer.gamma={GAMMA}", f"optimizer.beta={BETA}", "seed=2",
    )  # fmt: skip


def test_the_parameters(run: FinishedRun) -> None:
    lam = GAMMA / (1 - BETA) ** 2
    expected = {
        "gamma": GAMMA, "beta": BETA, "lam": lam, "n": N, "d": D,
        "eps": GAMMA / (1 - BETA), "lam_ks": lam * (1 + BETA) / 2, "alpha": 0.3, "seed": 2,
        "batch_size": N,
    }  # fmt: skip
    found = {name: run.summary[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-14)
    assert run.summary["status"] == "converged"
    assert run.summary["versions"]["torch"] == torch.__version__


def test_the_measurements(run: FinishedRun) -> None:
    problem, history = sparse(N, D, 2), run.history()
    theta, delta = history["theta"].to_numpy(), history["balancedness"].to_numpy()
    star, X_test, y_test = (
        value.numpy()
        for value in (problem.theta_star, problem.X_test, problem.y_test)
        if value is not None
    )
    # F(w_0) = ||X theta_0 - y||^2 / (2n)
    loss_0 = ((problem.X.numpy() @ theta[0] - problem.y.numpy()) ** 2).sum() / (2 * N)
    expected = {
        "steps": int(history["step"][-1]),
        "recovery_error": np.linalg.norm(theta[-1] - star),
        "test_error": ((X_test @ theta[-1] - y_test) ** 2).sum() / (2 * len(y_test)),
        "l1_norm": np.abs(theta[-1]).sum(),
        "balancedness_l1": delta[-1].sum(),
        "initial_balancedness_l1": delta[0].sum(),
        "min_balancedness_ratio": (delta[-1] / delta[0]).min(),
        "small_lambda_threshold": delta[0].min() / (2 * loss_0),
    }
    found = {name: run.summary[name] for name in expected}
    # the same formulas in another order of summation
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_limits(run: FinishedRun) -> None:
    problem, history = sparse(N, D, 2), run.history()
    net = DiagonalLinearNet.gaussian(D, 0.3, seed=2)
    w_plus, w_minus = net.w_plus.detach().numpy(), net.w_minus.detach().numpy()
    s_plus, s_minus = (history[name][-1].to_numpy() for name in ("s_plus", "s_minus"))
    start, end = (history["balancedness"][i].to_numpy() for i in (0, -1))
    theta, theta_0 = (history["theta"][i].to_numpy() for i in (-1, 0))
    perturbed = (w_plus**2 * np.exp(-2 * s_plus) - w_minus**2 * np.exp(-2 * s_minus)) / 4

    def distance(delta: np.ndarray, init: np.ndarray) -> float:
        rows = problem.row_space
        c = torch.from_numpy(np.arcsinh(2 * init / delta))
        found = bregman_minimizer(rows, rows.target(problem.y), torch.from_numpy(delta), c)
        return float(np.linalg.norm(theta - found.theta.numpy()))

    expected = {
        "log_perturbed_init_norm": np.log(np.linalg.norm(perturbed)),
        "distance_to_unperturbed_minimizer": distance(end, np.zeros(D)),
        "distance_to_gradient_flow_minimizer": distance(start, theta_0),
    }
    # S of the end lacks its boundary term, which is of the size of the last increment, 1e-12
    assert {name: run.summary[name] for name in expected} == pytest.approx(expected, rel=1e-7)
    assert distance(end, perturbed) < 1e-9
    # three different points: none of the numbers above is another's
    assert len({round(value, 6) for value in expected.values()}) == 3
    assert all(run.summary[name] > 1e-4 for name in list(expected)[1:])


def test_what_is_not_defined_is_null(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 5))
    np.savez(tmp_path / "data.npz", X=X, y=X @ np.eye(5)[0])
    keys = [
        "data=file",
        f"data.path={tmp_path / 'data.npz'}",
        "optimizer.gamma=100",
        "engine=gradient_sum",
    ]
    run = run_app(tmp_path / "run", *keys, drawn=True)
    assert run.summary["status"] == "diverged"
    text = (run.directory / "summary.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    for name in ("recovery_error", "test_error", "log_free_error", "steps_to_tol"):
        assert f'"{name}": null' in text
    # no minimiser belongs to a run that diverged
    for name in ("kkt_residual", "distance_to_minimizer", "distance_to_unperturbed_minimizer"):
        assert f'"{name}": null' in text
    assert (run.directory / "overview.png").stat().st_size > 10_000
