"""The promises of the default run: (n, d, s, alpha) = (20, 30, 3, 0.1), gamma 0.01, beta 0.9."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import run_app

KEYS = {
    "status", "steps", "seconds", "gamma", "beta", "lam", "eps", "lam_ks",
    "small_lambda_threshold", "n", "d", "alpha", "seed", "batch_size", "train_loss",
    "recovery_error", "test_error", "l1_norm", "balancedness_l1", "initial_balancedness_l1",
    "min_balancedness_ratio", "sign_changes", "path_sum_balancedness_error", "kkt_residual",
    "distance_to_minimizer", "distance_to_unperturbed_minimizer",
    "distance_to_gradient_flow_minimizer", "log_perturbed_init_norm", "versions", "commit",
    "data_hash", "processor",
}  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "signs"),
    [
        ([], (0, 0)),
        (["sampling.batch_size=5", "trainer.max_steps=200000"], (0, 10)),
        # lambda = 4 on a data set where w_+- crosses zero 22 times
        (["optimizer.lam=4", "optimizer.beta=0.9", "data.seed=4"], (15, 30)),
    ],
    ids=["full-batch", "batch-5", "lambda-4"],
)
def test_the_theorem_holds_to_rounding(
    tmp_path: Path, overrides: list[str], signs: tuple[int, int]
) -> None:
    run = run_app(tmp_path, "trainer.records=60", *overrides)
    summary = run.summary
    assert set(summary) >= KEYS
    assert summary["status"] == "converged"
    assert summary["train_loss"] <= 1e-24
    assert signs[0] <= summary["sign_changes"] <= signs[1]
    assert summary["path_sum_balancedness_error"] < 1e-7
    assert summary["path_identity_error"] < 1e-9
    assert summary["log_free_error"] < 1e-9
    assert summary["kkt_residual"] < 1e-8
    assert summary["distance_to_minimizer"] < 1e-8
    history = run.history()
    # before any convergence: the minimiser on its own level set, at every recorded step
    assert float(history["own_level_set_distance"].max()) < 1e-8
    assert float(history["path_identity_error"].max()) < 1e-7
    assert float(history["distance_to_limit"][-1]) < 1e-8
    for name in ("theta", "balancedness", "s_plus", "s_minus"):
        assert history[name].dims == ("step", "coordinate")
        assert np.isfinite(history[name]).all()
    assert history["step"][0] == 0
    assert history["step"][-1] == summary["steps"]
    # what the summary says of the end is what the history ends with; two libraries add up the 30
    # terms, each sum with at most 29 roundings of 1.1e-16
    total = float(history["balancedness"][-1].sum())
    assert summary["balancedness_l1"] == pytest.approx(total, rel=30 * 2.3e-16)
    # the same functions of the same state, to the roundings of a few products of 30 terms
    for name in ("train_loss", "recovery_error", "test_error", "l1_norm", "min_balancedness_ratio"):
        assert summary[name] == pytest.approx(float(history[name][-1]), rel=1e-10)
    assert summary["sign_changes"] == int(history["sign_changes"][-1])


@pytest.mark.parametrize("data", ["diabetes", "digits"])
def test_real_data_train_with_the_theory_holding(tmp_path: Path, data: str) -> None:
    run = run_app(tmp_path, f"data={data}", "trainer.max_steps=20000", "trainer.records=60")
    assert run.summary["status"] in ("converged", "max_steps")
    assert run.summary["rank"] == run.summary["n"] - 1
    assert run.summary["train_loss"] < 1e-3
    assert run.summary["path_identity_error"] < 1e-7
    assert run.summary["kkt_residual"] < 1e-8
