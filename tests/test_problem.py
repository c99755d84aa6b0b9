"""The problem: its loss and gradient, one problem per run, and every input that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix

from dln_momentum import InputError, Problem
from dln_momentum.engine.problems import Problems, flat_problem
from dln_momentum.outputs.provenance import data_hash
from dln_momentum.problem import stack
from dln_momentum.problem_checks import RANGE_TOLERANCE
from dln_momentum.theory.losses import LOSSES


def random_problem(seed: int, n: int = 5, d: int = 8, m: int = 3) -> Problem:
    rng = torch.Generator().manual_seed(seed)
    X, X_test = (torch.randn(rows, d, generator=rng, dtype=torch.float64) for rows in (n, m))
    theta_star = torch.randn(d, generator=rng, dtype=torch.float64)
    return Problem(X, X @ theta_star, theta_star, X_test, X_test @ theta_star)


def random_theta(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), runs=st.lists(st.integers(1, 3), max_size=2))
def test_gradient_is_the_derivative_of_the_loss(seed: int, runs: list[int]) -> None:
    problem = random_problem(seed)
    theta = random_theta(seed + 1, *runs, problem.d).requires_grad_()
    loss = problem.loss(theta)
    assert loss.shape == torch.Size(runs)
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    # two orders of summing n products of unit scale
    torch.testing.assert_close(problem.gradient(theta.detach()), gradient, rtol=1e-12, atol=1e-13)


def test_loss_is_the_mean_square_over_two() -> None:
    problem = random_problem(0)
    theta = random_theta(1, problem.d)
    by_row = [(problem.X[j] @ theta - problem.y[j]) ** 2 for j in range(problem.n)]
    expected = torch.stack(by_row).mean() / 2
    torch.testing.assert_close(problem.loss(theta), expected, rtol=1e-14, atol=0)


def test_stacked_problems_equal_the_single_ones() -> None:
    problems = [random_problem(seed) for seed in range(4)]
    theta = random_theta(9, 4, problems[0].d)
    stacked = stack(problems)
    assert stacked.runs == torch.Size([4])
    for of in (Problem.loss, Problem.gradient, Problem.residual, Problem.test_error):
        single = torch.stack([of(p, t) for p, t in zip(problems, theta, strict=True)])
        # the batched product may sum in another order
        torch.testing.assert_close(of(stacked, theta), single, rtol=1e-13, atol=1e-14)
    assert stacked.theta_star is not None
    assert float(stacked.loss(stacked.theta_star).max()) < 1e-28  # (1e-15 rounding)^2


def test_stack_drops_what_some_problems_lack_and_names_what_differs() -> None:
    full = random_problem(0)
    bare = Problem(full.X, full.y)
    assert stack([full, bare]).theta_star is None
    with pytest.raises(InputError, match=r"X: .*\(5, 8\), \(5, 9\)") as caught:
        stack([full, random_problem(1, d=9)])
    assert len(caught.value.problems) == 3  # X, theta_star and X_test
    with pytest.raises(InputError, match="no problem to stack"):
        stack([])
    with pytest.raises(InputError, match="of their own"):
        stack([stack([full, full])])


def test_targets_may_differ_by_run_over_one_design() -> None:
    problem = random_problem(0)
    scaled = Problem(problem.X, problem.y * torch.tensor([[1.0], [2.0]]), problem.theta_star)
    assert scaled.runs == torch.Size([2])
    assert scaled.loss(torch.zeros(problem.d)).shape == torch.Size([2])


def test_arrays_become_float64_copies() -> None:
    X = np.array([[1, 2, 3]], dtype=np.int32)
    problem = Problem(X, np.array([1.0], dtype=np.float32))
    X[0, 0] = 7
    assert problem.X.dtype == problem.y.dtype == torch.float64
    assert problem.X[0, 0] == 1.0
    assert problem.to("cpu").X.dtype == torch.float64
    table = pd.DataFrame({"dose": np.array([1.0], dtype=np.float32), "age": [2], "treated": [True]})
    from_table = Problem(table, pd.Series([9]), theta_star=[1, 2, 3])
    assert from_table.X.tolist() == [[1.0, 2.0, 1.0]]
    # numbers below 2^24 are exact in single precision
    assert float(from_table.loss(np.array([1.0, 3.0, 2.0], dtype=np.float32))) == 0.0
    assert from_table.gradient([0, 0, 0]).tolist() == [-9.0, -18.0, -9.0]
    assert all(from_table.to("cpu").theta_star == torch.tensor([1.0, 2.0, 3.0]))


def test_rank_deficient_design_is_accepted_if_the_targets_are_in_its_range() -> None:
    X = random_theta(0, 5, 8)
    X = X - X.mean(0)
    y = random_theta(1, 5)
    problem = Problem(X, y - y.mean())
    assert problem.row_space.rank == 4
    with pytest.raises(InputError, match="not in the range"):
        Problem(X, y)


def test_range_tolerance_separates_single_precision_from_rounding() -> None:
    row = random_theta(0, 1, 8)
    X = torch.cat([row, 3 * row, random_theta(1, 2, 8)])
    y = X @ random_theta(2, 8)
    exact = Problem(X, y)
    assert float(exact.row_space.range_residual(y)) < 1e-14 < RANGE_TOLERANCE
    with pytest.raises(InputError, match=r"relative residual \d.\d\de-0[789], allowed 1e-10"):
        Problem(X, y.float().double())


def test_noisy_labels_are_a_problem_whose_theta_star_does_not_interpolate() -> None:
    problem = random_problem(0)
    assert problem.theta_star is not None
    noisy = Problem(problem.X, problem.y + 0.1, problem.theta_star)
    # residual 0.1 in each row
    assert float(noisy.loss(problem.theta_star)) == pytest.approx(0.1**2 / 2, rel=1e-12)


def test_test_error_without_test_rows_is_nan() -> None:
    problem = random_problem(0)
    error = Problem(problem.X, problem.y).test_error(torch.zeros(4, problem.d))
    assert error.shape == (4,)
    assert error.isnan().all()


BAD = {
    "one vector": ({"X": torch.ones(3)}, "X has shape (3,)"),
    "no row": ({"X": torch.ones(0, 3), "y": torch.ones(0)}, "X has shape (0, 3)"),
    "full rank": (
        {"X": torch.eye(3), "y": torch.ones(3)},
        "X has rank d = 3 (n = 3): it must be below d",
    ),
    "short y": ({"y": torch.ones(1)}, "y has shape (1,), must end in [2]"),
    "runs of y": (
        {"X": torch.rand(4, 2, 3), "y": torch.ones(3, 2)},
        "y has run dimensions [3], the others [4]",
    ),
    "theta_star": ({"theta_star": torch.ones(2)}, "theta_star has shape (2,), must end in [3]"),
    "X_test alone": ({"X_test": torch.ones(1, 3)}, "X_test and y_test must be given together"),
    "no test row": (
        {"X_test": torch.ones(0, 3), "y_test": torch.ones(0)},
        "X_test and y_test must have at least one row",
    ),
    "X_test": (
        {"X_test": torch.ones(4, 2), "y_test": torch.ones(4)},
        "X_test has shape (4, 2), must end in [4, 3]",
    ),
    "NaN in X": (
        {"X": torch.tensor([[1.0, 2.0, torch.nan], [1.0, 0.0, torch.inf]])},
        "X: 2 of 6 entries are not finite (columns 2)",
    ),
    "infinite y": (
        {"y": torch.tensor([1.0, -torch.inf])},
        "y: 1 of 2 entries are not finite (entries 1)",
    ),
    "a single nan for y": ({"y": float("nan")}, "y: 1 of 1 entries are not finite"),
    "runs of theta_star": (
        {"y": torch.ones(3, 2), "theta_star": torch.ones(2, 3)},
        "theta_star has run dimensions [2], the others [3]",
    ),
    "zero X": ({"X": torch.zeros(2, 3)}, "X is zero"),
    "complex": (
        {"X": torch.ones(2, 3) * 1j},
        "X = Tensor of complex64 must be a number",
    ),
    "text": ({"y": ["a", "b"]}, "y = ['a', 'b'] must be a number, or an array of numbers"),
    "ragged": ({"X": [[1.0], [1.0, 2.0]]}, "X = [[1.0], [1.0, 2.0]] must be a number"),
    "outside the range": ({"X": torch.ones(2, 3)}, "y is not in the range of X (n = 2, rank 1)"),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(fields: dict, message: str) -> None:
    good: dict[str, Any] = {
        "X": torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]),
        "y": torch.tensor([1.0, 2.0]),
    }
    Problem(**good)
    with pytest.raises(InputError) as caught:
        Problem(**{**good, **fields})
    assert message in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Problem(
            X=torch.tensor([[1.0], [torch.nan]]),
            y=torch.ones(3),
            theta_star=torch.ones(4),
            X_test=torch.ones(1, 1),
            notes=("columns dropped: town",),
        )
    found = "\n".join(caught.value.problems)
    for part in ("y has", "theta_star has", "together", "X: 1 of 2", "town"):
        assert part in found


def test_stacked_range_check_counts_the_runs() -> None:
    X = torch.ones(3, 2, 4)
    y = torch.tensor([[1.0, 1.0], [1.0, 2.0], [0.0, 0.0]])
    with pytest.raises(InputError, match="1 of 3 runs, n = 2"):
        Problem(X, y)
    both = torch.stack([torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)])
    with pytest.raises(InputError, match=r"X has rank d = 4 in 1 of 2 runs \(n = 4\)"):
        Problem(both, torch.ones(4))


def test_the_rank_counts_and_not_the_rows() -> None:
    few = random_problem(0)
    X, y = few.X.repeat(3, 1), few.y.repeat(3)
    many, theta = Problem(X, y), random_theta(1, few.d)
    assert (many.n, many.d, many.row_space.rank) == (15, 8, 5)
    # each row three times, over three times as many
    torch.testing.assert_close(many.gradient(theta), few.gradient(theta), rtol=1e-13, atol=1e-14)
    with pytest.raises(InputError, match=r"n = 15, rank 5\).*at most 5 rows"):
        Problem(X, y + random_theta(2, 15))


def test_the_scalar_network_is_a_problem() -> None:
    assert Problem([[1.0]], [1.0]).row_space.rank == 1
    assert Problem([[1.0], [2.0]], [1.0, 2.0]).loss([1.0]) == 0
    with pytest.raises(InputError, match="not in the range"):
        Problem([[1.0], [2.0]], [1.0, 3.0])


def test_columns_are_squeezed() -> None:
    flat = random_problem(0)
    assert flat.theta_star is not None
    assert flat.y_test is not None
    problem = Problem(
        flat.X, flat.y[:, None], flat.theta_star[:, None], flat.X_test, flat.y_test[:, None]
    )
    for field in ("y", "theta_star", "y_test"):
        assert torch.equal(getattr(problem, field), getattr(flat, field))
    runs = torch.arange(1.0, 5.0, dtype=torch.float64)
    stacked = Problem(flat.X.expand(4, -1, -1), (runs[:, None] * flat.y)[..., None])
    assert stacked.y.shape == (4, 5)
    # one column of the targets of several runs is none
    assert Problem([[1.0, 2.0]], runs[:, None]).runs == (4,)


def test_sparse_matrices_become_dense() -> None:
    X = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    for matrix in (csr_matrix(X), csr_array(X), torch.from_numpy(X).to_sparse()):
        assert torch.equal(Problem(matrix, [1.0, 1.0]).X, torch.from_numpy(X))


def test_the_noise_is_a_label() -> None:
    flat = random_problem(0)
    quiet, loud = (Problem(flat.X, flat.y, noise=noise) for noise in (0.0, 0.5))
    assert stack([loud, loud]).noise == 0.5
    assert np.isnan(stack([quiet, loud]).noise)
    assert loud.to("cpu").noise == 0.5
    with pytest.raises(InputError, match="noise = -1 must be finite and >= 0"):
        Problem(flat.X, flat.y, noise=-1)


def test_a_problem_keeps_numbers_of_its_own() -> None:
    X = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    problem = Problem(X, torch.tensor([2.0]))
    X[0, 1] = 5.0
    assert problem.X.tolist() == [[1.0, 2.0]]


LABELS = {"logistic": torch.nn.functional.softplus, "exponential": torch.exp}
"""The loss of the negative margin, by another program."""


@pytest.mark.parametrize("loss", LABELS)
def test_classification_losses_and_gradients_are_those_of_autograd(loss: str) -> None:
    problem = random_problem(0).with_loss(loss)
    assert set(problem.y.tolist()) == {-1.0, 1.0}
    theta = random_theta(1, 4, problem.d).requires_grad_()
    expected = LABELS[loss](-problem.y * (theta @ problem.X.T)).mean(-1)
    (gradient,) = torch.autograd.grad(expected.sum(), theta)
    found = problem.loss(theta.detach()), problem.gradient(theta.detach())
    # means of 5 terms of size 1 to 100; softplus of torch drops e^-20 = 2e-9 of values above 20
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found[1], gradient, rtol=1e-9, atol=1e-13)
    of_row = problem.loss_of_row
    p = random_theta(2, 6).requires_grad_()
    y = p.detach().sign()
    (slope,) = torch.autograd.grad(of_row.value(p, y).sum(), p, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), p)
    torch.testing.assert_close(of_row.slope(p, y), slope, rtol=1e-13, atol=0)
    torch.testing.assert_close(of_row.curvature(p, y), curvature, rtol=1e-12, atol=0)


def test_logistic_loss_keeps_its_digits_at_margins_of_any_size() -> None:
    problem = Problem([[1.0, 0.0]], [1.0], loss="logistic")
    theta = torch.tensor([[40.0, 0.0], [700.0, 0.0], [-1e5, 0.0]], dtype=torch.float64)
    # ln(1 + e^-m) = e^-m for m = 40 and 700 to the last digit, and m + e^m for m = -1e5
    expected = torch.tensor([np.exp(-40.0), np.exp(-700.0), 1e5], dtype=torch.float64)
    torch.testing.assert_close(problem.loss(theta), expected, rtol=1e-15, atol=0)
    weights = torch.tensor([[-np.exp(-40.0)], [-np.exp(-700.0)], [-1.0]], dtype=torch.float64)
    torch.testing.assert_close(problem.residual_weights(theta), weights, rtol=1e-15, atol=0)


def test_labels_of_classification_are_signs_of_separable_rows() -> None:
    X = [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [2.0, 1.0, 0.0]]
    with pytest.raises(InputError, match=r"y: 1 of 3 labels .* \(one is 0\)"):
        Problem(X, [1, -1, 0], loss="logistic")
    with pytest.raises(InputError, match="loss = 'hinge' must be one of squared, logistic"):
        Problem(X, [1, -1, 1], loss="hinge")
    with pytest.raises(InputError, match=r"not separable .* take at most 2 rows"):
        Problem(X, [1, 1, 1], loss="exponential")
    assert Problem(X, [1, -1, -1], loss="exponential").is_classification  # theta = (1, -3, 0)
    with pytest.raises(InputError, match="rank d = 2"):
        Problem([[1.0, 0.0], [0.0, 1.0]], [1, -1], loss="logistic")
    with pytest.raises(InputError, match="y_test: 1 of 1"):
        Problem([[1.0, 0.0]], [1], X_test=[[1.0, 0.0]], y_test=[2.0], loss="logistic")


def test_the_loss_stays_with_the_problem() -> None:
    problems = [random_problem(seed).with_loss("logistic") for seed in range(2)]
    both = stack(problems)
    for kept in (both, problems[0].to("cpu"), flat_problem(both, (2,))):
        assert kept.loss_name == "logistic"
    with pytest.raises(InputError, match="one loss, found exponential, logistic"):
        stack([problems[0], problems[0].replace(loss="exponential")])
    with pytest.raises(InputError, match="all must have one loss"):
        Problems([problems[0], problems[0].replace(loss="squared")], torch.tensor([0, 1]))
    hashes = {data_hash(problems[0].replace(loss=loss)) for loss in LOSSES}
    assert len(hashes) == 3
