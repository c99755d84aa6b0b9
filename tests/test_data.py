"""The loaders: each gives data with an interpolator, or says what is wrong with its keys."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from dln_momentum import InputError, Problem, diabetes, digits, sparse
from dln_momentum.data import LOADERS, Rows, standardised
from dln_momentum.problem import stack

CONF = Path(__file__).parents[1] / "conf" / "data"
ROUNDING = 1e-12
"""Sums of a few hundred float64 terms of unit scale: a hundred times their error."""


def interpolation_error(problem: Problem) -> float:
    """Relative residual of the least-norm solution, by an SVD that is not the package's."""
    X, y = problem.X.numpy(), problem.y.numpy()
    theta = np.linalg.lstsq(X, y, rcond=1e-12)[0]
    return float(np.linalg.norm(X @ theta - y) / np.linalg.norm(y))


# sparse


def test_sparse_is_interpolated_by_an_s_sparse_vector() -> None:
    problem = sparse(20, 30, 3, seed=5)
    assert problem.theta_star is not None
    assert int((problem.theta_star != 0).sum()) == 3
    # y = X theta* is one product and X theta another, which may add its three terms in another
    # order: squares of a few ulp of numbers of size one
    assert float(problem.loss(problem.theta_star)) < 1e-28
    assert float(problem.test_error(problem.theta_star)) < 1e-28
    assert problem.X_test is not None
    assert problem.X_test.shape == (100, 30)
    assert sparse(n_test=0).X_test is None


def test_streams_of_design_signal_and_test_rows_are_independent() -> None:
    few, many = sparse(20, 30, 3, seed=1), sparse(20, 30, 9, n_test=7, seed=1)
    assert torch.equal(few.X, many.X)
    assert few.theta_star is not None
    assert many.theta_star is not None
    support = few.theta_star != 0
    assert torch.equal(few.theta_star[support], many.theta_star[support])
    assert torch.equal(sparse(19, 30, 3, seed=1).X, few.X[:19])
    assert not torch.equal(sparse(20, 30, 3, seed=2).X, few.X)


def test_drawing_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    sparse(seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize(
    ("design", "mean", "neighbour"),
    [("gaussian", 0.0, 0.0), ("uncentred", 2.0, 0.0), ("correlated", 0.0, -0.7)],
)
def test_rows_have_the_stated_law(design: str, mean: float, neighbour: float) -> None:
    m, d = 40_000, 4
    rows = sparse(3, d, 1, design=design, mu=2.0, rho=-0.7, n_test=m, seed=0).X_test
    assert rows is not None
    lags = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    covariance = np.power(neighbour, lags)
    # five standard errors of a mean, 1/sqrt(m), and of a covariance, at most sqrt(2/m)
    np.testing.assert_allclose(rows.mean(0).numpy(), mean, atol=5 / np.sqrt(m))
    np.testing.assert_allclose(np.cov(rows.numpy().T), covariance, atol=5 * np.sqrt(2 / m))


def test_signals() -> None:
    signs = sparse(5, 9, 4, signal="signs", seed=2).theta_star
    given = sparse(5, 9, 4, signal=[4.0, 3.0, 2.0, 1.0], seed=2).theta_star
    assert signs is not None
    assert given is not None
    assert signs[signs != 0].abs().tolist() == [1.0] * 4
    assert given[given != 0].tolist() == [4.0, 3.0, 2.0, 1.0]
    assert torch.equal(signs != 0, given != 0)
    gaussian, nonnegative = (
        sparse(5, 9, 4, signal=signal, seed=2).theta_star for signal in ("gaussian", "nonnegative")
    )
    assert gaussian is not None
    assert nonnegative is not None
    assert torch.equal(gaussian.abs(), nonnegative)
    assert (gaussian < 0).any()


def test_published_signals() -> None:
    """Ones on the first five; 1/sqrt(s) each; nonnegative of unit norm on the first."""
    first = sparse(20, 30, 5, signal="ones", support="first").theta_star
    assert first is not None
    assert first.tolist() == [1.0] * 5 + [0.0] * 25
    equal = sparse(20, 30, 5, signal="ones", unit_norm=True).theta_star
    assert equal is not None
    # one division
    assert equal[equal != 0].tolist() == pytest.approx([5**-0.5] * 5, rel=1e-15)
    unit = sparse(20, 30, 5, signal="nonnegative", support="first", unit_norm=True).theta_star
    assert unit is not None
    assert float(torch.linalg.vector_norm(unit)) == pytest.approx(1, rel=1e-15)
    assert (unit[:5] > 0).all()
    assert (unit[5:] == 0).all()


def test_noise_is_on_the_training_targets_alone() -> None:
    quiet, noisy = sparse(300, 400, 3, seed=4), sparse(300, 400, 3, noise=0.5, seed=4)
    for field in ("X", "theta_star", "X_test", "y_test"):
        assert torch.equal(getattr(quiet, field), getattr(noisy, field))
    xi = (noisy.y - quiet.y) / 0.5
    # five standard errors of a mean and of a variance of 300 normal numbers
    assert abs(float(xi.mean())) < 5 / np.sqrt(300)
    assert abs(float(xi.var()) - 1) < 5 * np.sqrt(2 / 300)
    assert (quiet.noise, noisy.noise) == (0.0, 0.5)
    twice = sparse(300, 400, 3, noise=1.0, seed=4)
    # the same draw scaled; y carries three terms of size one
    torch.testing.assert_close(twice.y - quiet.y, xi, rtol=0, atol=1e-14)
    assert interpolation_error(noisy) < ROUNDING


def test_rademacher_rows() -> None:
    problem = sparse(20, 30, 3, design="rademacher", n_test=2000, seed=1)
    assert problem.X_test is not None
    assert set(problem.X.unique().tolist()) == {-1.0, 1.0}
    # five standard errors of a mean of 60,000 signs
    assert abs(float(problem.X_test.mean())) < 5 / np.sqrt(60_000)
    fewer = sparse(19, 30, 3, design="rademacher", n_test=0, seed=1)
    assert torch.equal(fewer.X, problem.X[:19])


def test_streams_that_were_added_later_move_none_before_them() -> None:
    problem = sparse(2, 3, 1, seed=7, n_test=1)
    assert problem.theta_star is not None
    assert problem.X_test is not None
    rows, signals, test_rows = map(np.random.default_rng, np.random.SeedSequence(7).spawn(3))
    assert np.array_equal(problem.X, rows.standard_normal((2, 3)))
    assert float(problem.theta_star.sum()) in signals.standard_normal(3)
    assert np.array_equal(problem.X_test, test_rows.standard_normal((1, 3)))


def test_the_scalar_network_can_be_drawn() -> None:
    problem = sparse(1, 1, 1, signal="ones")
    assert problem.theta_star is not None
    assert problem.theta_star.tolist() == [1.0]
    with pytest.raises(InputError, match=r"n = 2 must be an integer in \[1, d - 1\] = \[1, 1\]"):
        sparse(2, 1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 30},
        {"n": 0},
        {"n": 2.0},
        {"s": 0},
        {"s": 31},
        {"d": 0},
        {"design": "uniform"},
        {"mu": float("nan")},
        {"rho": 1.0},
        {"signal": "twos"},
        {"signal": 3},
        {"signal": [1.0, 2.0]},
        {"signal": [1.0, 0.0, 2.0]},
        {"support": "last"},
        {"unit_norm": 1},
        {"noise": -0.5},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": True},
        {"n_test": -1},
    ],
    ids=str,
)
def test_sparse_refuses(bad: dict) -> None:
    (key,) = bad
    with pytest.raises(InputError, match=rf"^{key} = "):
        sparse(**bad)


def test_sparse_lists_every_bad_key() -> None:
    with pytest.raises(InputError) as caught:
        sparse(n=-1, s=40, design="x", rho=2, signal="y", seed=-3)  # pyright: ignore
    assert len(caught.value.problems) == 6


# standardisation


def random_rows(n: int = 6, d: int = 9, m: int = 4) -> Rows:
    rng = np.random.default_rng(0)
    X, X_test = 3 * rng.standard_normal((n, d)) + 7, rng.standard_normal((m, d))
    theta_star = np.zeros(d)
    theta_star[:2] = 1.0, -2.0
    return Rows(X, X @ theta_star, theta_star, X_test, X_test @ theta_star)


def test_standardised_rows_keep_the_interpolator_and_its_support() -> None:
    rows = random_rows()
    X = rows.X.copy()
    X[:, 4] = 0.1
    problem = Problem(**vars(standardised(Rows(X, rows.y, rows.theta_star))))
    assert problem.d == 8
    assert problem.notes == ("constant columns dropped: 4",)
    assert problem.theta_star is not None
    assert (problem.theta_star != 0).nonzero().flatten().tolist() == [0, 1]
    np.testing.assert_allclose(problem.X.mean(0), 0, atol=ROUNDING)
    np.testing.assert_allclose(problem.X.std(0, correction=0), 1, atol=ROUNDING)
    assert problem.row_space.rank == 5
    assert float(problem.loss(problem.theta_star)) < ROUNDING**2


def test_test_rows_are_mapped_with_the_training_statistics() -> None:
    problem = Problem(**vars(standardised(random_rows())))
    assert problem.theta_star is not None
    # the same affine map on both sides keeps y_test = X_test theta*
    assert float(problem.test_error(problem.theta_star)) < ROUNDING**2
    assert problem.X_test is not None
    assert float(problem.X_test.mean(0).abs().min()) > 0.1


def test_standardisation_refuses_what_centring_empties() -> None:
    with pytest.raises(InputError) as caught:
        standardised(Rows(np.ones((3, 5)), np.full(3, 0.1)))
    assert len(caught.value.problems) == 2


# real data


@pytest.mark.parametrize("seed", range(6))
def test_diabetes_has_interpolators(seed: int) -> None:
    problem = diabetes(seed=seed)
    assert (problem.n, problem.d, problem.row_space.rank) == (20, 65, 19)
    assert problem.X_test is not None
    assert problem.X_test.shape == (422, 65)
    assert interpolation_error(problem) < ROUNDING
    # sex takes two values, so its square is an increasing affine function of it: columns 1 and 56
    torch.testing.assert_close(problem.X[:, 1], problem.X[:, 56], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("classes", [(0, 1), (3, 8), (9, 4)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_digits_have_interpolators(classes: tuple[int, int], seed: int) -> None:
    problem = digits(classes=classes, seed=seed)
    assert problem.n == 30 < problem.d <= 61
    assert problem.row_space.rank == 29
    assert interpolation_error(problem) < ROUNDING
    assert problem.y_test is not None
    assert len(problem.y.unique()) == len(problem.y_test.unique()) == 2
    assert 310 <= len(problem.y_test) <= 340  # about 180 images a class, less 30


def test_the_second_class_has_the_positive_label() -> None:
    one, other = digits(classes=(0, 1)), digits(classes=(1, 0))
    assert torch.equal(one.X, other.X)
    torch.testing.assert_close(one.y, -other.y, rtol=0, atol=ROUNDING)


def test_real_draws_follow_the_seed_and_stack() -> None:
    assert torch.equal(diabetes(seed=1).X, diabetes(seed=1).X)
    stacked = stack([diabetes(seed=seed) for seed in range(3)])
    assert stacked.X.shape == (3, 20, 65)
    assert not torch.equal(stacked.X[0], stacked.X[1])


def test_real_keys_are_checked() -> None:
    with pytest.raises(InputError, match=r"n = 65 must be an integer in \[2, 64\]"):
        diabetes(n=65)
    with pytest.raises(InputError) as caught:
        digits(n=1, classes=(1, 1), seed=-1)
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError, match=r"(?s)X has rank d = \d\d.*constant columns dropped"):
        digits(n=63)
    with pytest.raises(InputError, match="y: constant on the training rows"):
        digits(n=2, seed=3)


# configuration


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_file_has_exactly_the_keys_of_its_loader(path: Path, tmp_path: Path) -> None:
    config: Any = OmegaConf.load(path)
    config.pop("defaults", None)  # for Hydra: the schema, which has no keys of its own
    if path.stem == "file":
        config.path = str(tmp_path / "p.npz")
        np.savez(config.path, X=np.ones((1, 2)), y=np.ones(1))
    keys = list(config)
    loader = LOADERS[config.kind]
    assert config.kind == path.stem
    # the loss is a group of its own
    assert keys == ["kind", *(key for key in inspect.signature(loader).parameters if key != "loss")]
    problem = loader(**{key: config[key] for key in keys[1:]})
    assert problem.n < problem.d
    defaults = inspect.signature(loader).parameters
    for key in set(keys) - {"kind", "path", "classes"}:
        assert config[key] == defaults[key].default


@pytest.mark.slow
def test_import_leaves_the_heavy_readers_out() -> None:
    code = (
        "import sys, dln_momentum.data; "
        "print([m for m in ('sklearn', 'pandas', 'lightning', 'hydra') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
