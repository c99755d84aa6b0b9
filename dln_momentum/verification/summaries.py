"""The summary agrees: every number of a summary against the same number from the iterates.

A theorem judges the iterates; what is printed of them is computed elsewhere, by `summarise`, by the
properties of `Snapshot` and `FlowPath`, and by `flow_summary`. Here it is computed a second time,
from w_+-, the exponents and the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.flow_summary import measure
from dln_momentum.outputs.summary import summarise
from dln_momentum.rates import Momentum
from dln_momentum.row_space import vector_norm
from dln_momentum.theory.minimizers import bregman_minimizer
from dln_momentum.theory.trajectory import Trajectory, in_range
from dln_momentum.verification.case import Case
from dln_momentum.verification.course import TIMES, moved
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.second_program import SecondProgram
from dln_momentum.verification.statement import Hypothesis, Statement, equal

TOLERANCE = 1e-9
"""Both evaluate the same formulas on the same numbers in another order; a minimiser is good for
1e-10 of its size, and a KKT residual for the rounding of the mirror image."""


class Number(NamedTuple):
    """A number as it should be, and the scale of its rounding."""

    value: float
    scale: float = 0.0


def run_summary(evidence: Evidence, program: SecondProgram, backend: str) -> Statement:
    """`summarise` and `Snapshot` after the first steps, by one of the engine's backends."""
    name = f"MGD: summarise and Snapshot ({backend}) give the numbers of the iterates"
    if not program.steps:
        return Statement(name, 3, (program.compared,))
    snapshot = program.snapshots(backend)[-1]
    judged = f"at k = {snapshot.step}"
    return _agreement(name, [program.compared], _of_run(evidence, snapshot), judged)


def end_summary(evidence: Evidence) -> Statement:
    """The same at the end of the run."""
    name = "MGD: summarise and Snapshot give the numbers of the last iterate"
    snapshot = evidence.snapshots[-1]
    fine = bool(in_range(snapshot.w).all())
    found = (
        f"|w_+-| from {float(snapshot.w.abs().min()):.1e} to {float(snapshot.w.abs().max()):.1e}"
    )
    needs = Hypothesis("float64 has all digits of w_+- and Delta", fine, found)
    if not fine:
        return Statement(name, 3, (needs,))
    return _agreement(name, [needs], _of_run(evidence, snapshot), "")


def flow_end_summary(evidence: Evidence, course: Trajectory) -> Statement:
    """`flow_summary` at the end of the momentum flow, and the properties of `FlowPath`."""
    name = "MGF: flow_summary and FlowPath give the numbers of the path"
    needs = moved(course)
    if not needs.met:
        return Statement(name, 4, (needs,))
    case, path = evidence.case, evidence.momentum_path
    end = measure(case.problem, path, TIMES, case.tol, case.w).end
    w, dw = torch.stack([path.w_plus, path.w_minus]), torch.stack([path.dw_plus, path.dw_minus])
    fields = {
        **_layers(w, path.theta, path.u, path.v, path.balancedness),
        "energy of the path": (
            path.energy,
            _loss(case, _theta(w)) + path.lam / 4 * dw.square().sum((0, -1)),
        ),
    }
    last, kept = w[:, -1], course.exponents_with_boundary[:, -1]
    speed = path.lam / 4 * float(dw[:, -1].square().sum())
    flips = int((w[:, 1:] * w[:, :-1] < 0).sum())
    energy = float(_loss(case, _theta(last))) + speed
    delta, c = _potential(case, kept)
    expected = {
        **_common(case, last, delta, c),
        "lam": Number(evidence.lam),
        "time": Number(float(path.t[-1])),
        # a difference of nearly equal numbers, squared
        "energy": Number(energy, 1e-7 * case.energy(evidence.lam)),
        "dissipated": Number(float(path.dissipated[-1])),
        "initial_loss": Number(case.loss),
        "initial_energy": Number(case.energy(evidence.lam)),
        "path_integral_identity_error": Number(_share(last, case, kept), 1.0),
        "path_integral_balancedness_error": Number(
            _share(last, case, course.exponents[:, -1] - course.start_term), 1.0
        ),
        "sign_changes": Number(flips),
        "energy_balance_error": Number(
            abs(case.energy(evidence.lam) - energy - float(path.dissipated[-1]))
            / case.energy(evidence.lam),
            1.0,
        ),
    }
    restarted = end["distance_to_effective_initialisation_limit"]
    if path.converged and not math.isnan(restarted) and not course.part:
        # the restart ends where the minimiser without theta~_0 is, up to the loss that is left and
        # to 1e-9 of each of the solver's steps: the distance itself is only as good
        other = expected["distance_to_unperturbed_minimizer"]
        expected["distance_to_effective_initialisation_limit"] = other._replace(
            scale=1e4 * other.scale
        )
    return _agreement(name, [needs], (end, expected, fields), "", section=4)


Found = tuple[Mapping[str, float | int], dict[str, Number], dict[str, tuple[Tensor, Tensor]]]
"""A summary, what it should be, and pairs of tensors that should agree."""


def _of_run(evidence: Evidence, s: Snapshot) -> Found:
    case, momentum = evidence.case, evidence.momentum
    found = {key: float(value[0]) for key, value in summarise(s, case.problem).items()}
    w, sums, boundary = s.w[:, 0], s.path_sums[:, 0], s.boundary[:, 0]
    # the start term is in the sums of a snapshot
    kept = sums + boundary
    delta, c = (w[0] * w[1]).abs(), case.log_init - kept[0] + kept[1]
    fields = {
        **_layers(s.w, s.theta, s.u, s.v, s.balancedness),
        **_layers(case.w[:, None], s.theta_start, None, None, s.balancedness_start, "of the start"),
        "S~": (s.path_sums_with_boundary[:, 0], kept),
        "c": (s.log_init[0], c),
        "predicted Delta": (s.predicted_balancedness[0], case.balancedness * (-kept.sum(0)).exp()),
        "limit Delta": (
            s.limit_balancedness[0],
            case.balancedness * (-sums.sum(0)).exp(),
        ),
    }
    gamma, beta = momentum.gamma, momentum.beta
    predicted, limit = fields["predicted Delta"][1], fields["limit Delta"][1]
    expected = {
        **_common(case, w, delta, c),
        "gamma": Number(gamma),
        "beta": Number(beta),
        "lam": Number(gamma / (1 - beta) ** 2),
        "eps": Number(gamma / (1 - beta)),
        "lam_ks": Number(gamma * (1 + beta) / (2 * (1 - beta) ** 2)),
        "path_identity_error": Number(float((delta / predicted - 1).abs().max()), 1.0),
        "path_sum_balancedness_error": Number(float((delta / limit - 1).abs().max()), 1.0),
        "steps": Number(s.step),
        "sign_changes": Number(float(s.sign_changes[0])),
    }
    if s.increment_products is not None:
        q = _log_free(case, s, momentum)
        error = (q - w[0] * w[1]).abs().max() / case.balancedness.max()
        expected["log_free_error"] = Number(
            float(error), float(w.square().max() / case.balancedness.max())
        )
    return found, expected, fields


def _log_free(case: Case, s: Snapshot, momentum: Momentum) -> Tensor:
    """q_1 + [(1+beta) sum dw_+ dw_- - beta (w_+ dw_- + w_- dw_+)_K + (the same)_1]/(1-beta)."""
    assert s.increment_products is not None
    beta, w = momentum.beta, s.w[:, 0]
    # beta dw/(1-beta) is the boundary term times w, and lambda beta w' at the start
    last, first = s.boundary[:, 0] * w, momentum.lam * beta * case.dw
    brackets = w[0] * last[1] + w[1] * last[0] - case.w[0] * first[1] - case.w[1] * first[0]
    products = (1 + beta) / (1 - beta) * s.increment_products[0]
    return case.w[0] * case.w[1] + products - brackets


def _common(case: Case, w: Tensor, delta: Tensor, c: Tensor) -> dict[str, Number]:
    """The numbers that a run and a flow have in common, from w_+- [2, d] and its potential."""
    problem, theta, now = case.problem, _theta(w), (w[0] * w[1]).abs()
    size = float(torch.linalg.vector_norm(theta))
    zero = torch.zeros_like(c)
    star = problem.theta_star
    missing = problem.X @ case.theta - problem.y
    return {
        # X theta - y has an error of 1e-16 of y: its square is good for 1e-16 of the first one
        "train_loss": Number(float(_loss(case, theta)), 1e-7 * case.loss),
        "l1_norm": Number(float(theta.abs().sum())),
        "recovery_error": Number(
            math.nan if star is None else float(torch.linalg.vector_norm(theta - star)), size
        ),
        "balancedness_l1": Number(float(now.sum())),
        "min_balancedness_ratio": Number(float((now / case.balancedness).min())),
        "initial_balancedness_l1": Number(float(case.balancedness.sum())),
        "small_lambda_threshold": Number(
            problem.n * float(case.balancedness.min()) / float(missing @ missing)
        ),
        "kkt_residual": Number(_kkt(case, theta, delta, c), 1.0),
        "log_perturbed_init_norm": Number(_log_norm(delta, c), 1.0),
        "distance_to_minimizer": _distance(case, theta, delta, c),
        "distance_to_unperturbed_minimizer": _distance(case, theta, delta, zero),
        "distance_to_gradient_flow_minimizer": _distance(
            case, theta, case.balancedness, case.log_init
        ),
    }


def _share(w: Tensor, case: Case, exponents: Tensor) -> float:
    """|Delta - Delta_0 exp(-(I_+ + I_-))| over the larger of the two, at most, in logarithms."""
    now = (w[0] * w[1]).abs().log()
    off = (now - case.balancedness.log() + exponents.sum(0)).abs().max()
    return float(-torch.expm1(-off))


def _potential(case: Case, kept: Tensor) -> tuple[Tensor, Tensor]:
    return case.balancedness * (-kept.sum(0)).exp(), case.log_init - kept[0] + kept[1]


def _theta(w: Tensor) -> Tensor:
    return (w[0] - w[1]) * (w[0] + w[1]) / 4


def _loss(case: Case, theta: Tensor) -> Tensor:
    residual = theta @ case.problem.X.mT - case.problem.y
    return residual.square().sum(-1) / (2 * case.problem.n)


def _layers(
    w: Tensor,
    theta: Tensor,
    u: Tensor | None,
    v: Tensor | None,
    balancedness: Tensor,
    of: str = "",
) -> dict[str, tuple[Tensor, Tensor]]:
    """theta, u, v and Delta with what they should be, from w_+- [2, ..., d]."""
    plus, minus = w
    pairs = {
        "theta": (theta, (plus * plus - minus * minus) / 4),
        "u": (u, (plus + minus) / 2),
        "v": (v, (plus - minus) / 2),
        "Delta": (balancedness, (plus * minus).abs()),
    }
    return {f"{key} {of}": (a, b) for key, (a, b) in pairs.items() if a is not None}


def _kkt(case: Case, theta: Tensor, delta: Tensor, c: Tensor) -> float:
    """The part of arcsinh(2 theta/Delta) - c outside the rows, by least squares on X itself."""
    if not _usable(delta, c):
        return math.nan
    z = torch.asinh(2 * theta / delta) - c
    if not bool(z.isfinite().all()):
        return math.nan
    norm = vector_norm(z)
    if float(norm) <= 1e-14 * float(vector_norm(c) + norm):
        return 0.0
    z, rows = z / norm, case.problem.X.mT / torch.linalg.vector_norm(case.problem.X)
    fitted = rows @ torch.linalg.lstsq(rows, z[:, None], driver="gelsd").solution
    return float(torch.linalg.vector_norm(z - fitted[:, 0]))


def _log_norm(delta: Tensor, c: Tensor) -> float:
    """ln ||Delta/2 sinh c||, with the largest factor of e^|c| taken out."""
    largest = float(c.abs().max())
    scaled = delta / 4 * ((c - largest).exp() - (-c - largest).exp())
    return largest + float(vector_norm(scaled).log())


def _distance(case: Case, theta: Tensor, delta: Tensor, c: Tensor) -> Number:
    if not _usable(delta, c):
        return Number(math.nan)
    rows = case.problem.row_space
    found = bregman_minimizer(rows, rows.target(case.problem.y), delta, c)
    if not bool(found.converged):
        return Number(math.nan)
    norm = torch.linalg.vector_norm
    return Number(float(norm(theta - found.theta)), float(norm(theta) + norm(found.theta)))


def _usable(delta: Tensor, c: Tensor) -> bool:
    return bool(((delta > 0) & delta.isfinite() & c.isfinite()).all())


def _agreement(
    name: str, hypotheses: list[Hypothesis], found: Found, judged: str, section: int = 3
) -> Statement:
    """The largest difference over all numbers; the one that is off the most is shown."""
    summary, expected, fields = found
    errors = {
        key: _difference(float(summary.get(key, math.inf)), number)
        for key, number in expected.items()
    }
    errors |= {key: _difference_of(*pair) for key, pair in fields.items()}
    worst = max(errors, key=lambda key: math.inf if math.isnan(errors[key]) else errors[key])
    predicted, measured = (
        (expected[worst].value, float(summary.get(worst, math.nan)))
        if worst in expected
        else (float(side.double().sum()) for side in reversed(fields[worst]))
    )
    told = Hypothesis("every number is compared", True, f"{len(errors)}; the worst is {worst}")
    return equal(
        name, section, [*hypotheses, told], predicted=predicted, measured=measured,
        error=errors[worst], tolerance=TOLERANCE, judged=judged,
    )  # fmt: skip


def _difference(found: float, number: Number) -> float:
    """Relative to the number or to its scale; two that are both nan, or both infinite, agree."""
    if (math.isnan(found) and math.isnan(number.value)) or found == number.value:
        return 0.0
    return abs(found - number.value) / max(abs(number.value), number.scale, 1e-300)


def _difference_of(found: Tensor, expected: Tensor) -> float:
    scale = float(expected[expected.isfinite()].abs().max()) if expected.isfinite().any() else 1.0
    equal_there = (found == expected) | (found.isnan() & expected.isnan())
    difference = torch.where(equal_there, 0.0, (found - expected).abs())
    return float(difference.max()) / max(scale, 1e-300)
