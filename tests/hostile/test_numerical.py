"""Rates, starts and data at the ends of float64: the certificate holds, or says why it does not.

Of every run: it has an ending; its KKT residual is within the rounding that the theory of the
certificate allows (docs/theory.md#certificate), or nan where Delta has left float64 or the run has
diverged; and nothing raises, warns or depends on the run's neighbours.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum.method import Method
from dln_momentum.outputs.minimisers import potential
from dln_momentum.schedules import Cosine
from dln_momentum.verification import (
    Measurements,
    Setting,
    Statement,
    Verdict,
    coordinate_rates,
    nesterov,
    schedules,
    weight_decay,
)
from dln_momentum.verification.scope import in_scope, scope

every = importlib.import_module("dln_momentum.verification.statements")
"""All statements; the package has a function of this module's name."""

ULP = 2.0**-52
UNRESOLVED = 0.3
"""An error of the exponents from which on float64 decides nothing, as in the verification."""

GAMMA = np.array([1e-150, 1e-100, 1e-30, 1e-10, 1e-5, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3])
BETA = np.array([0.0, 1e-150, 1e-10, 0.5, 0.9, 0.999, 1 - 1e-8, 1 - 1e-15])
ALPHA = np.array([1e-144, 1e-100, 1e-30, 1e-10, 1e-3, 0.1, 1.0, 10.0, 1e3])
GRID = {"gamma": GAMMA[:, None, None], "beta": BETA[None, :, None]}
FEW = {
    "gamma": np.array([1e-150, 1e-30, 1e-5, 1e-2, 1e-1, 1e3])[:, None, None],
    "beta": np.array([0.0, 0.9, 0.999])[None, :, None],
}

METHODS: dict[str, dict[str, Any]] = {
    "heavy ball": GRID,
    "summed directly": {**GRID, "path_sums": "direct"},
    "Nesterov": {**GRID, "method": "nesterov"},
    "torch": {**FEW, "backend": "torch", "max_steps": 200},
    "weight decay": {**FEW, "weight_decay": 0.1, "decay_until": 100},
    "decoupled decay": {
        "gamma": FEW["gamma"][:-1],  # gamma omega must be below 1
        "beta": FEW["beta"],
        "weight_decay": 0.1,
        "decoupled": True,
        "decay_until": 100,
    },
    "dampening": {**FEW, "dampening": 0.5},
    "cosine": {**FEW, "schedule": dln.schedules.Cosine(steps=1000)},
    "rates of layers": {
        "gamma_u": FEW["gamma"],
        "gamma_v": 1e3 * FEW["gamma"],
        "beta": FEW["beta"],
    },
    "rates of coordinates": {**FEW, "kappa": np.geomspace(1e-6, 10, 8)},
    "mini-batches": {**FEW, "batch_size": 1, "label_noise": 0.1, "noise_until": 50},
}


@contextmanager
def silent() -> Iterator[None]:
    """Turn every warning, numpy's about what overflows or is undefined included, into an error."""
    with warnings.catch_warnings(), np.errstate(over="warn", invalid="warn", divide="warn"):
        warnings.simplefilter("error")
        yield


def matrix(n: int = 4, d: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


def labelled(X: np.ndarray, scale: float = 1.0) -> dln.Problem:
    """Data whose targets a theta with two entries interpolates."""
    theta = np.zeros(X.shape[-1])
    theta[:2] = scale, -scale / 2
    return dln.Problem(X, X @ theta[: X.shape[-1]])


def trained(problem: dln.Problem, start: Any, **given: Any) -> Any:
    return dln.train(problem, start, **{"max_steps": 3000, "records": 2, **given})


def assert_certified(run: Any, weight: Any) -> None:
    """The KKT residual of every run is explained by rounding, or nan for a reason.

    An ulp of w a step, and that of 10,000 steps for the nearest of many sign changes, is carried on
    at most ``weight`` = 1/(1-beta) times, and the sums of the exponents round by some ulps of their
    size. A coordinate of the image z is off by as much, and the residual is relative to ||z||.
    """
    found, status = run.certify(), np.ravel(run.status)
    assert set(status) <= {"converged", "diverged", "max_steps"}
    residual = np.ravel(found.kkt_residual)
    snapshot = run.snapshot
    delta, c = potential(snapshot)
    z = torch.linalg.vector_norm(torch.asinh(2 * snapshot.theta / delta) - c, dim=-1) / 2
    sums = (snapshot.path_sums + snapshot.boundary).abs().amax((0, -1))
    boundary = snapshot.boundary.abs().amax((0, -1))
    weight = torch.from_numpy(np.ravel(np.broadcast_to(weight, run.shape)).copy())
    spread = ULP * (weight * (snapshot.steps + 10_000) + 8 * (sums + boundary))
    size = torch.asinh(2 * snapshot.theta / delta).abs().amax(-1) + c.abs().amax(-1)
    allowed = (delta.shape[-1] ** 0.5 * (spread + 16 * ULP * size) / z + 64 * ULP).numpy()
    resolved = spread.numpy() <= UNRESOLVED
    digits = (delta >= torch.finfo(torch.float64).tiny).all(-1) & c.isfinite().all(-1)
    digits = (digits & delta.isfinite().all(-1)).numpy()
    # no number where there is no potential, and one where there is
    assert np.array_equal(np.isnan(residual), (status == "diverged") | ~digits)
    judged = resolved & ~np.isnan(residual) & np.isfinite(allowed)
    assert (residual[judged] <= allowed[judged]).all()
    # a convergence that the certificate holds of is one to the minimiser: the loss is at most 1e-24
    distance = np.ravel(found.distance_to_minimizer)
    assert not (np.isnan(distance) & (status == "converged") & judged).any()


@pytest.mark.parametrize(
    "name",
    [
        name if name == "heavy ball" else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
    ],
)
def test_methods_at_extreme_rates_and_starts(name: str) -> None:
    problem = dln.sparse(n=5, d=8, s=2, seed=0)
    start = dln.uniform(ALPHA[None, None, :])
    with silent():
        run = trained(problem, start, **METHODS[name])
        assert_certified(run, 1 / (1 - METHODS[name]["beta"]))
    # the ordinary run among them is the one it is alone
    place, chosen = [0, 0, int((ALPHA == 0.1).argmax())], dict[str, float]()
    for key, wanted in (("gamma", 1e-2), ("gamma_u", 1e-2), ("gamma_v", 10.0), ("beta", 0.9)):
        if key in METHODS[name]:
            axis = np.ravel(METHODS[name][key])
            nearest = int(np.abs(axis - wanted).argmin())
            place[key == "beta"], chosen[key] = nearest, axis[nearest]
    alone = trained(problem, dln.uniform(0.1), **{**METHODS[name], **chosen})
    theta = run.theta[tuple(place)]
    if name == "torch":
        # its matrix products round differently for another number of runs
        np.testing.assert_allclose(theta, alone.theta, rtol=1e-9)
    else:
        assert theta.tobytes() == alone.theta.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_classification_at_extreme_rates_and_starts(loss: str) -> None:
    X = matrix()
    problem = dln.Problem(X, np.sign(X @ np.ones(8)), loss=loss)
    with silent():
        run = trained(problem, dln.uniform(ALPHA[None, None, :]), **FEW)
        found = run.certify()
    residual = np.ravel(found.kkt_residual)
    assert set(np.ravel(run.status)) <= {"converged", "diverged", "max_steps"}
    # 3000 steps of an ulp each, a thousand times over at beta = 0.999, on an image of 1e-2 or more
    moved = np.ravel(np.broadcast_to(FEW["gamma"], run.shape)) >= 1e-2
    known = moved & ~np.isnan(residual)
    assert known.any()
    assert (residual[known] <= 1e-7).all()


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2.0001, 3.0, 5.0, 50.0])
def test_deep_networks_at_extreme_rates(depth: float) -> None:
    with silent():
        run = trained(
            labelled(matrix()),
            dln.Start(np.full(8, 0.3), np.full(8, 0.3), depth=depth),
            gamma=np.array([1e-150, 1e-5, 1e-2, 1.0, 1e3])[:, None],
            beta=np.array([0.0, 0.9, 0.999]),
        )
        residual = np.ravel(run.certify().kkt_residual)
    assert set(np.ravel(run.status)) <= {"converged", "diverged", "max_steps"}
    known = ~np.isnan(residual)
    assert (residual[known] <= 1e-7).all()
    assert np.isnan(residual[np.ravel(run.status) == "diverged"]).all()


def _conditioned(number: float) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix(), full_matrices=False)
    return left @ np.diag(np.geomspace(1, 1 / number, 4)) @ right


DATA: dict[str, Callable[[], np.ndarray]] = {
    "duplicated rows": lambda: matrix()[[0, 1, 2, 2]],
    "a row that is a sum": lambda: np.vstack([matrix()[:3], matrix()[:2].sum(0)]),
    "a row again to 1e-12": lambda: np.vstack([matrix()[:3], matrix()[2] * (1 + 1e-12)]),
    "two rows 1e-9 apart": lambda: np.vstack([matrix()[:3], matrix()[2] + 1e-9 * matrix()[3]]),
    "condition 1e6": lambda: _conditioned(1e6),
    "condition 1e12": lambda: _conditioned(1e12),
    "a row of zeros": lambda: matrix() * np.array([[1.0], [1], [1], [0]]),
    "two columns of zeros": lambda: matrix() * np.array([1.0, 1, 0, 1, 1, 1, 1, 0]),
    "columns of 1e-200 and 1e-300": lambda: matrix() * np.array([1, 1, 1e-200, 1, 1, 1, 1, 1e-300]),
    "one row": lambda: matrix()[:1],
    "one row, two columns": lambda: np.array([[3.0, 4.0]]),
    "rows of ones": lambda: np.ones((4, 8)),
    "1e-140": lambda: matrix() * 1e-140,
    "1e140": lambda: matrix() * 1e140,
    "rows of 1e140 and 1e-140": lambda: matrix() * np.array([[1e140], [1e-140], [1], [1]]),
}
STARTS = {
    "uniform": lambda d: dln.uniform(0.1),
    "entries from 1e-140 to 10": lambda d: dln.Start(np.geomspace(1e-140, 10, d), np.zeros(d)),
    "entries from 1e-3 to 1e3": lambda d: dln.Start(np.geomspace(1e-3, 1e3, d), np.zeros(d)),
    "layers an ulp apart": lambda d: dln.Start(np.ones(d), np.full(d, 1 - 2.0**-53)),
    "1e140": lambda d: dln.uniform(1e140),
}


@pytest.mark.slow
def test_many_coordinates() -> None:
    with silent():
        start = dln.uniform(0.1)
        run = trained(labelled(matrix(2, 100_000)), start, gamma=1e-4, beta=0.9, max_steps=100)
        assert_certified(run, 10.0)


QUICK = {"condition 1e12", "a row of zeros", "1e-140", "1e140"}
"""Data of the quick tests, with the uniform start."""
HOSTILE = [
    pytest.param(*case, marks=() if case[0] in QUICK and case[1] == "uniform" else pytest.mark.slow)
    for case in itertools.product(DATA, STARTS)
]


@pytest.mark.parametrize(("name", "start"), HOSTILE)
def test_hostile_data(name: str, start: str) -> None:
    X = DATA[name]()
    beta = np.array([0.0, 0.9, 0.99])
    with silent():
        run = trained(
            labelled(X),
            STARTS[start](X.shape[-1]),
            gamma=np.array([1e-3, 1e-2, 0.1])[:, None],
            beta=beta,
            max_steps=5000,
        )
        assert_certified(run, 1 / (1 - beta))


@pytest.mark.parametrize("scale", [0.0, 1e-140, 1e-30, 1e100, 1e140])
def test_hostile_targets(scale: float) -> None:
    with silent():
        run = trained(labelled(matrix(), scale), dln.uniform([0.1, 1e-30]), gamma=1e-2, beta=0.9)
        assert_certified(run, 10.0)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "targets of 1e-200": (lambda: labelled(matrix(), 1e-200), "y has the largest entry"),
    "targets of 1e200": (lambda: labelled(matrix(), 1e200), "y has the largest entry"),
    "X of 1e300": (lambda: labelled(matrix() * 1e300), "X has the largest entry"),
    "X of 1e-310": (lambda: labelled(matrix() * 1e-310), "X has the largest entry"),
    "inconsistent targets": (
        lambda: dln.Problem(matrix()[[0, 0, 1, 2]], [1.0, 2, 3, 4]), "not in the range of X"
    ),
    "a column of 1e100": (
        lambda: labelled(matrix() * np.array([1, 1, 1e100, 1, 1, 1, 1, 1])), "not in the range of X"
    ),
    "labels that no theta separates": (
        lambda: dln.Problem(matrix()[[0, 0, 1, 2]], [1.0, -1, 1, 1], loss="logistic"),
        "not separable",
    ),
    "w exactly zero": (
        lambda: trained(labelled(matrix()), dln.Start(np.ones(8), np.ones(8))), "Delta_0"
    ),
    "one w exactly zero": (
        lambda: trained(labelled(matrix()), dln.Start(np.ones(8), np.eye(8)[0])), "Delta_0"
    ),
    "w of 1e-300": (
        lambda: trained(labelled(matrix()), dln.Start(np.full(8, 1e-300), np.zeros(8))), "Delta_0"
    ),
    "alpha of 1e-150": (lambda: trained(labelled(matrix()), dln.uniform(1e-150)), "Delta_0"),
    "X of zeros": (lambda: dln.Problem(np.zeros((4, 8)), np.zeros(4)), "X is zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_theorem_is_about_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with silent(), pytest.raises(dln.InputError, match=said):
        make()


SETTINGS = list(
    itertools.product(
        (1e-100, 1e-30, 1e-3, 0.1, 10.0, 1e3),
        ((1e-150, 0.9), (1e-10, 0.0), (1e-2, 0.999), (0.1, 0.9), (1.0, 0.0), (1e-2, 1 - 1e-8)),
    )
)
FAMILY = {
    "weight decay": weight_decay.coupled,
    "decoupled decay": weight_decay.decoupled,
    "rates of coordinates": coordinate_rates.of_coordinates,
    "rates of layers": coordinate_rates.of_layers,
    "schedules": schedules.changing_rates,
    "Nesterov": nesterov.gradients_ahead,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_no_verdict_on_the_family_is_wrong_at_extreme_settings(name: str) -> None:
    """The theorems are proved: what float64 decides holds, and what it does not decide says so."""
    problem = dln.sparse(n=5, d=8, s=2, seed=0)
    for alpha, rates in SETTINGS:
        w_plus, w_minus = dln.uniform(alpha).weights(d=8)
        setting = Setting(
            problem, w_plus.reshape(8), w_minus.reshape(8), momentum=dln.Momentum(*rates),
            # rounding of alpha = 1000 leaves a loss of 1e-17
            tol=1e-20 if alpha < 100 else 1e-16, max_steps=300,
        )  # fmt: skip
        for statement in FAMILY[name](Measurements(setting)):
            told = (alpha, rates, statement)
            assert statement.verdict is not Verdict.VIOLATED, told
            if statement.verdict is Verdict.NOT_MET:
                assert statement.unmet[0].found, told
            else:
                assert statement.error <= statement.tolerance <= UNRESOLVED, told


def test_targets_within_the_tolerance_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    data = labelled(matrix(), 1e-31)
    for problem, told in ((data, True), (labelled(matrix(), 0.0), False), (data, False)):
        caplog.clear()
        run = trained(problem, dln.uniform(0.1), gamma=1e-2, beta=0.9)
        assert run.status == "converged"
        assert run.steps == 0
        found = [r.getMessage() for r in caplog.records if "trainer.tol" in r.getMessage()]
        # once a process, and never of y = 0
        assert len(found) == told
        assert not found or "||y||^2/(2n) = " in found[0]


SCANNED: list[tuple[str, str, tuple[int, int], float, float, float]] = [
    # method, loss, (n, d), gamma, beta, alpha: each had a false verdict, or a number that was none
    ("plain", "squared", (5, 8), 0.1, 0.999, 1e-30),  # ends nearer to zero than a 10,000th step
    ("plain", "squared", (1, 1), 0.1, 1 - 1e-6, 1e-3),  # returns to the size of its start
    ("plain", "squared", (20, 30), 1e-10, 1e-3, 1e-30),  # theta far below w^2
    ("plain", "squared", (1, 6), 1e-10, 1e-3, 1e-10),
    ("plain", "squared", (1, 6), 1e-10, 1 - 1e-8, 1e-10),
    ("plain", "squared", (1, 6), 1e-6, 0.9, 100.0),  # a loss below the rounding of w^2
    ("plain", "squared", (1, 6), 0.1, 0.9, 1e-10),
    ("plain", "squared", (12, 20), 0.3, 0.999, 1.0),  # Nesterov's point ahead far away
    ("plain", "exponential", (5, 8), 0.5, 0.999, 1e-60),  # u + v and u - v without digits
    ("nesterov", "squared", (12, 20), 0.3, 0.999, 1e-30),
    ("nesterov", "squared", (5, 8), 1e-3, 0.5, 1e-10),  # the active-set solver does not converge
    ("cosine", "squared", (1, 1), 1e-6, 0.0, 1e-30),  # a w_+- of exactly 0
    ("decoupled", "squared", (5, 8), 0.5, 1 - 1e-6, 1e-60),
    ("decay", "squared", (5, 8), 0.1, 0.999, 1e-30),  # exp(-2 decay) underflows, exp(-S) overflows
    ("decay", "squared", (12, 20), 0.1, 1 - 1e-6, 1e-60),
]
OWN_METHODS = {
    "plain": Method(),
    "nesterov": Method("nesterov"),
    "cosine": Method(schedule=Cosine(200)),
    "decay": Method(weight_decay=0.1, decay_until=50),
    "decoupled": Method(weight_decay=0.1, decoupled=True, decay_until=50),
}


def scanned(
    name: str, loss: str, shape: tuple[int, int], gamma: float, beta: float, alpha: float
) -> list[Statement]:
    """The statements that need no flow, on a run of 1,000 steps."""
    d = shape[1]
    X, theta = np.random.default_rng(0).normal(size=shape), np.zeros(d)
    theta[: min(2, d)] = [1, -1][: min(2, d)]
    y = X @ theta
    problem = dln.Problem(X, y if loss == "squared" else np.sign(y), loss=loss)
    w_plus, w_minus = (w.reshape(d) for w in dln.uniform(alpha).weights(d=d))
    m = Measurements(
        Setting(
            problem, w_plus, w_minus, momentum=dln.Momentum(gamma, beta),
            tol=1e-20 if alpha < 100 else 1e-16, max_steps=1000, method=OWN_METHODS[name],
        )
    )  # fmt: skip
    constant, flows = scope(m)
    found = [*in_scope(every.of_the_engine, m, [*constant, *flows])]
    found += in_scope(every.of_iterates, m, [*constant, *flows])
    found += in_scope(every.of_the_family, m, flows)
    found += in_scope(every.of_other_networks, m, flows)
    return [*found, *(every.of_the_own_method(m) if constant or flows else ())]


@pytest.mark.slow
@pytest.mark.parametrize("case", SCANNED, ids=str)
def test_no_verdict_of_a_scan_is_wrong(case: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scanned(*case)
    violated = [statement for statement in found if statement.verdict is Verdict.VIOLATED]
    assert violated == []
    assert any(statement.verdict in (Verdict.HOLDS, Verdict.PARTLY) for statement in found)


def shifted(function: Callable[..., Any], part: float) -> Callable[..., Any]:
    """The function, its first tensor argument after the first larger by a part of itself."""
    return lambda first, second, *others: function(first, (1 + part) * second, *others)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "owner", "name"),
    [
        (SCANNED[0], "dln_momentum.theory.trajectory", "asymptotic_balancedness"),
        (SCANNED[13], "dln_momentum.theory.trajectory", "asymptotic_balancedness"),
        (SCANNED[6], "dln_momentum.theory.trajectory", "asymptotic_balancedness"),
    ],
    ids=["plain", "decay", "one row"],
)
def test_a_fault_at_such_a_setting_is_found(
    case: Any, owner: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exponents that are off by a thousandth."""
    module = importlib.import_module(owner)
    monkeypatch.setattr(module, name, shifted(getattr(module, name), 1e-3))
    assert any(statement.verdict is Verdict.VIOLATED for statement in scanned(*case))
