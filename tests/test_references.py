"""theta*, the interpolator of least l1 norm and the best of the path, beside the summary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum.outputs import references as module
from dln_momentum.outputs.flow_summary import measure
from dln_momentum.outputs.references import best_along_path, least_l1, references
from dln_momentum.problem import stack
from dln_momentum.theory.interpolators import is_unique


@pytest.fixture
def problem() -> dln.Problem:
    return dln.sparse(n=10, d=14, s=2, seed=1)


def test_against_theta_star_and_the_least_l1_norm(problem: dln.Problem) -> None:
    theta = torch.randn(3, problem.d, generator=torch.Generator().manual_seed(0)).double()
    found, star = references(theta, problem), problem.theta_star
    assert star is not None
    error = (theta - star).norm(dim=-1)
    assert found["relative_recovery_error"].tolist() == (error / star.norm()).tolist()
    # two nonzero coordinates of ten equations: basis pursuit recovers theta*, to rounding
    torch.testing.assert_close(least_l1(problem)[0], star, rtol=0, atol=1e-13)
    torch.testing.assert_close(found["least_l1_norm"], star.abs().sum().expand(3))
    torch.testing.assert_close(found["l1_distance"], (theta - star).abs().sum(-1))
    torch.testing.assert_close(found["l1_excess"], theta.abs().sum(-1) / star.abs().sum() - 1)


def test_no_interpolator_has_less(problem: dln.Problem) -> None:
    run = dln.train(problem, gamma=0.05, beta=0.5)
    assert run.summary["l1_excess"] > 0
    # a converged run fits the data to 1e-12, the square root of its loss
    assert run.summary["l1_norm"] > run.summary["least_l1_norm"]


@pytest.mark.parametrize(
    ("X", "y", "theta", "unique"),
    [
        ([[1.0, 1.0]], [1.0], [1.0, 0.0], False),  # the whole edge between the axes
        ([[1.0, 0.5]], [1.0], [1.0, 0.0], True),
        ([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]], [1.0, 1.0], [1.0, 1.0, 0.0], False),  # (0, 0, 2) too
        ([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]], [1.0, 1.0], [1.0, 1.0, 0.0], True),
        # nu of least norm is (1, 0), at 1 on column 2; (1, -0.5) shows it
        ([[1.0, 1.0, 0.0], [0.0, 0.5, 1.0]], [1.0, 0.0], [1.0, 0.0, 0.0], True),
        # nu = (1, t) needs t < 0 on column 2 and t > 0 on column 3
        ([[1.0, 1.0, 1.0], [0.0, 0.5, -0.5]], [1.0, 0.0], [1.0, 0.0, 0.0], False),
    ],
)
def test_uniqueness(X: list, y: list, theta: list, unique: bool) -> None:
    tensors = [torch.tensor(value, dtype=torch.float64) for value in (X, y, theta)]
    assert is_unique(*tensors).item() is unique
    problem = dln.Problem(X, y)
    distance = references(tensors[2][None] + 1, problem)["l1_distance"]
    assert bool(distance.isnan()) is not unique


def test_one_program_for_each_data_set(
    problem: dln.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved = []

    def count(X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        solved.append(1)
        return torch.zeros(X.shape[-1]).double()

    monkeypatch.setattr(module, "basis_pursuit", count)
    monkeypatch.setattr(module, "_found", {})
    other = dln.sparse(n=10, d=14, s=2, seed=2)
    both = stack([problem, other, problem, other])
    for _ in range(3):
        references(torch.zeros(5, 14).double(), problem)
        references(torch.zeros(4, 14).double(), both.to("cpu"))
    assert len(solved) == 2
    monkeypatch.setattr(module, "LARGEST_PROGRAM", 10 * 14 - 1)
    found = references(torch.ones(5, 14).double(), problem)
    assert found["l1_excess"].isnan().all()
    assert found["l1_distance"].isnan().all()
    assert found["relative_recovery_error"].isfinite().all()


def test_the_best_of_a_path_is_one_of_its_records() -> None:
    column = torch.tensor([torch.nan, 2.0, 0.5, 0.5, 1.0])
    found = best_along_path({"recovery_error": column}, [0, 1, 3, 9, 27], "step")
    assert found["best_recovery_error"] == 0.5
    assert found["best_recovery_step"] == 3
    assert found["best_test_error"] is None
    nothing = {"test_error": torch.full((2,), torch.nan)}
    assert best_along_path(nothing, [0, 1], "time")["best_test_time"] is None


def test_a_flow_passes_its_best(problem: dln.Problem) -> None:
    w = torch.full((problem.d,), 0.3).double()
    path = dln.momentum_flow(problem, w, w, lam=1.0, time=200.0)
    found = measure(problem, path, records=30, tol=0.0)
    errors = found.scalars["recovery_error"]
    assert found.end["best_recovery_error"] == float(errors.min())
    place = np.flatnonzero(found.times == found.end["best_recovery_time"])
    assert float(errors[int(place[0])]) == float(errors.min())
    norm = found.end["theta_star_norm"]
    assert isinstance(norm, float)
    assert found.end["relative_recovery_error"] == pytest.approx(
        float(errors[-1]) / norm, rel=1e-14
    )
