"""Every number of a summary against the same number computed from the iterates.

The theorems are evaluated on the iterates; the printed numbers come from `summarise`, from the
properties of `Snapshot` and `FlowPath`, and from `flow_summary`. Here they are computed a second
time, from w_+-, the exponents and the data, on purpose without `dln_momentum.theory.trajectory`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.flows.trajectory import RecordedTrajectory, in_range
from dln_momentum.outputs.flow_summary import measure
from dln_momentum.outputs.summary import summarise
from dln_momentum.rates import Momentum
from dln_momentum.row_space import vector_norm
from dln_momentum.theory.discrete_bias import is_potential
from dln_momentum.theory.minimizers import bregman_minimizer
from dln_momentum.verification.agreement import TOLERANCE, Found, Number, agreement
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import TIMES, ULP, moved
from dln_momentum.verification.reference import SecondProgram
from dln_momentum.verification.setting import Setting
from dln_momentum.verification.statement import UNRESOLVED, Hypothesis, Statement


def run_summary(m: Measurements, program: SecondProgram, backend: str) -> Statement:
    """`summarise` and `Snapshot` after the first steps, by one of the engine's backends."""
    name = f"MGD: summarise and Snapshot ({backend}) give the numbers of the iterates"
    if not program.steps:
        return Statement(name, 3, (program.compared,))
    snapshot = program.snapshots(backend)[-1]
    judged = f"at k = {snapshot.step}"
    return agreement(name, [program.compared], _of_run(m, snapshot), judged)


def end_summary(m: Measurements) -> Statement:
    """The same at the end of the run."""
    name = "MGD: summarise and Snapshot give the numbers of the last iterate"
    snapshot = m.snapshots[-1]
    fine = bool(in_range(snapshot.w).all())
    found = (
        f"|w_+-| from {float(snapshot.w.abs().min()):.1e} to {float(snapshot.w.abs().max()):.1e}"
    )
    needs = Hypothesis("float64 has all digits of w_+- and Delta", fine, found)
    if not fine:
        return Statement(name, 3, (needs,))
    return agreement(name, [needs], _of_run(m, snapshot), "")


def flow_end_summary(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """`flow_summary` at the end of the momentum flow, and the properties of `FlowPath`."""
    name = "MGF: flow_summary and FlowPath give the numbers of the path"
    needs = moved(trajectory)
    if not needs.met:
        return Statement(name, 4, (needs,))
    setting, path = m.setting, m.momentum_path
    end = measure(setting.problem, path, TIMES, setting.tol, setting.w).end
    w, dw = path.w, path.dw
    fields = {
        **_layers(w, path.theta, path.u, path.v, path.balancedness),
        "energy of the path": (
            path.energy,
            _loss(setting, _theta(w)) + path.lam / 4 * dw.square().sum((0, -1)),
        ),
    }
    last, boundary, start = w[:, -1], trajectory.boundary[:, -1], trajectory.start_term[:, 0]
    kept = trajectory.exponents[:, -1] + boundary - start
    ended = trajectory.exponents[:, -1] - start
    speed = path.last_lam / 4 * float(dw[:, -1].square().sum())
    signs = w.sign()  # products of entries below 1e-162 would be 0
    sign_changes = int((signs[:, 1:] * signs[:, :-1] < 0).sum())
    energy = float(_loss(setting, _theta(last))) + speed
    delta, c = _potential(setting, kept)
    expected = {
        **_common(setting, last, delta, c, _rounding(kept)),
        "lam": Number(m.lam),
        "time": Number(float(path.t[-1])),
        # a difference of nearly equal numbers, squared
        "energy": Number(energy, 1e-7 * setting.energy(m.lam)),
        "dissipated": Number(float(path.dissipated[-1])),
        "initial_loss": Number(setting.loss),
        "initial_energy": Number(setting.energy(m.lam)),
        "path_integral_identity_error": Number(_relative_difference(last, setting, kept), 1.0),
        "path_integral_balancedness_error": Number(_relative_difference(last, setting, ended), 1.0),
        "sign_changes": Number(sign_changes),
        "energy_balance_error": Number(
            abs(setting.energy(m.lam) - energy - float(path.dissipated[-1]))
            / setting.energy(m.lam),
            1.0,
        ),
    }
    restarted = end["distance_to_effective_initialisation_limit"]
    # exponents without a correct digit give no potential to compare with
    decided = path.converged and not float(trajectory.resolution[-1]) > UNRESOLVED
    if decided and not math.isnan(restarted) and not trajectory.part:
        # the restart converges to the minimiser without theta~_0, up to the remaining loss and the
        # error 1e-9 of each of the solver's steps; it is from the exponents of the regular form,
        # which those of the definition are as far from as their error says
        other = expected["distance_to_unperturbed_minimizer"]
        moves = _moves(path.theta[-1], delta, 2 * float(trajectory.resolution[-1]))
        expected["distance_to_effective_initialisation_limit"] = other._replace(
            scale=1e4 * other.scale + moves / TOLERANCE
        )
    return agreement(name, [needs], (end, expected, fields), "", section=4)


def _of_run(m: Measurements, s: Snapshot) -> Found:
    setting, momentum = m.setting, m.momentum
    found = {key: float(value[0]) for key, value in summarise(s, setting.problem).items()}
    w, sums, boundary = s.w[:, 0], s.path_sums[:, 0], s.boundary[:, 0]
    # a snapshot has the start term subtracted from its sums
    kept = sums + boundary
    delta, c = (w[0] * w[1]).abs(), setting.log_init - kept[0] + kept[1]
    start, delta_0 = setting.w[:, None], setting.balancedness
    fields = {
        **_layers(s.w, s.theta, s.u, s.v, s.balancedness),
        **_layers(start, s.theta_start, None, None, s.balancedness_start, "of the start"),
        "S~": (s.path_sums_with_boundary[:, 0], kept),
        "c": (s.log_init[0], c),
        "predicted Delta": (s.predicted_balancedness[0], delta_0 * (-kept.sum(0)).exp()),
        "limit Delta": (s.limit_balancedness[0], delta_0 * (-sums.sum(0)).exp()),
    }
    gamma, beta = momentum.gamma, momentum.beta
    predicted, limit = fields["predicted Delta"][1], fields["limit Delta"][1]
    expected = {
        **_common(setting, w, delta, c, _rounding(kept)),
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
        q, largest = _log_free(setting, s, momentum)
        error = (q - w[0] * w[1]).abs().max() / setting.balancedness.max()
        # w_k - w_{k-1} over 1 - beta has the rounding of w_k over 1 - beta
        lost = 8 * ULP / (1 - momentum.beta) / TOLERANCE
        scale = max(float(w.square().max()) * max(1.0, lost), largest)
        scale /= float(setting.balancedness.max())
        expected["log_free_error"] = Number(float(error), scale)
    return found, expected, fields


def _log_free(setting: Setting, s: Snapshot, momentum: Momentum) -> tuple[Tensor, float]:
    """q_1 + [(1+beta) sum dw_+ dw_- - beta (w_+ dw_- + w_- dw_+)_K + (the same)_1]/(1-beta).

    Returns:
        It [d], and the largest of its terms, which cancel: its rounding is relative to that.
    """
    assert s.increment_products is not None
    beta, w = momentum.beta, s.w[:, 0]
    # beta dw/(1-beta) is the boundary term times w, and lambda beta w' at the start
    last, first = s.boundary[:, 0] * w, momentum.lam * beta * setting.dw
    ends = torch.stack([w[0] * last[1], w[1] * last[0]])
    starts = torch.stack([setting.w[0] * first[1], setting.w[1] * first[0]])
    products = (1 + beta) / (1 - beta) * s.increment_products[0]
    largest = float(torch.cat([ends, starts, products[None]]).abs().max())
    return setting.w[0] * setting.w[1] + products - (ends - starts).sum(0), largest


def _rounding(kept: Tensor) -> float:
    """Error of c, and of ln Delta, by the rounding of S~_+- or I~_+-, whose terms they add up."""
    return 16 * ULP * float(kept.abs().max())


def _common(
    setting: Setting, w: Tensor, delta: Tensor, c: Tensor, rounding: float
) -> dict[str, Number]:
    """The numbers that a run and a flow have in common, from w_+- [2, d] and its potential.

    Near beta = 1 the exponents are sums of terms of 1/(1-beta) times the size of c, which cancel:
    ``rounding`` is the error of c.
    """
    problem, theta, now = setting.problem, _theta(w), (w[0] * w[1]).abs()
    size = float(torch.linalg.vector_norm(theta))
    zero = torch.zeros_like(c)
    star = problem.theta_star
    missing = problem.X @ setting.theta - problem.y
    loss = float(_loss(setting, theta))
    # the rounding of theta is that of w^2, and moves the residual by ||X|| times that
    sizes = 8 * ULP * float(w.square().sum()) * float(torch.linalg.matrix_norm(problem.X, 2))
    moved = sizes * math.sqrt(2 * loss / problem.n)
    return {
        # X theta - y has an error of 1e-16 of y: its square is good for 1e-16 of the first one
        "train_loss": Number(loss, 1e-7 * setting.loss + moved / TOLERANCE),
        "l1_norm": Number(float(theta.abs().sum())),
        "recovery_error": Number(
            math.nan if star is None else float(torch.linalg.vector_norm(theta - star)), size
        ),
        "balancedness_l1": Number(float(now.sum())),
        "min_balancedness_ratio": Number(float((now / setting.balancedness).min())),
        "initial_balancedness_l1": Number(float(setting.balancedness.sum())),
        "small_lambda_threshold": Number(
            problem.n * float(setting.balancedness.min()) / float(missing @ missing)
        ),
        "kkt_residual": _kkt(setting, theta, delta, c, rounding),
        "log_perturbed_init_norm": _log_norm(delta, c, rounding),
        "distance_to_minimizer": _distance(setting, theta, delta, c, rounding),
        "distance_to_unperturbed_minimizer": _distance(setting, theta, delta, zero, rounding),
        "distance_to_gradient_flow_minimizer": _distance(
            setting, theta, setting.balancedness, setting.log_init
        ),
    }


def _relative_difference(w: Tensor, setting: Setting, exponents: Tensor) -> float:
    """|Delta - Delta_0 exp(-(I_+ + I_-))| over the larger of the two, its largest entry."""
    now = (w[0] * w[1]).abs().log()
    off = (now - setting.balancedness.log() + exponents.sum(0)).abs().max()
    return float(-torch.expm1(-off))


def _potential(setting: Setting, kept: Tensor) -> tuple[Tensor, Tensor]:
    return setting.balancedness * (-kept.sum(0)).exp(), setting.log_init - kept[0] + kept[1]


def _theta(w: Tensor) -> Tensor:
    return (w[0] - w[1]) * (w[0] + w[1]) / 4


def _loss(setting: Setting, theta: Tensor) -> Tensor:
    residual = theta @ setting.problem.X.mT - setting.problem.y
    return residual.square().sum(-1) / (2 * setting.problem.n)


def _layers(
    w: Tensor, theta: Tensor, u: Tensor | None, v: Tensor | None, balancedness: Tensor, of: str = ""
) -> dict[str, tuple[Tensor, Tensor]]:
    """theta, u, v and Delta with what they should be, from w_+- [2, ..., d]."""
    plus, minus = w
    pairs = {
        # as a product: theta may be far below w^2
        "theta": (theta, _theta(w)),
        "u": (u, (plus + minus) / 2),
        "v": (v, (plus - minus) / 2),
        "Delta": (balancedness, (plus * minus).abs()),
    }
    return {f"{key} {of}": (a, b) for key, (a, b) in pairs.items() if a is not None}


def _kkt(setting: Setting, theta: Tensor, delta: Tensor, c: Tensor, rounding: float) -> Number:
    """The part of arcsinh(2 theta/Delta) - c outside the rows, by least squares on X itself."""
    if not bool(is_potential(delta, c)):
        return Number(math.nan)
    z = torch.asinh(2 * theta / delta) - c
    if not bool(z.isfinite().all()):
        return Number(math.nan)
    norm = vector_norm(z)
    if float(norm) <= 1e-14 * float(vector_norm(c) + norm):
        return Number(0.0, 1.0)
    z, rows = z / norm, setting.problem.X.mT / torch.linalg.vector_norm(setting.problem.X)
    fitted = rows @ torch.linalg.lstsq(rows, z[:, None], driver="gelsd").solution
    off = math.sqrt(len(c)) * rounding / float(norm)
    return Number(float(torch.linalg.vector_norm(z - fitted[:, 0])), max(1.0, off / TOLERANCE))


def _log_norm(delta: Tensor, c: Tensor, rounding: float) -> Number:
    """ln ||Delta/2 sinh c||, with the largest Delta e^|c| taken out.

    A c near 0 is the difference of terms of size 1 or more: its logarithm is off by their rounding
    over its size, and has no digit where c itself is rounding.
    """
    largest = float(c.abs().max())
    sizes = delta.log() + c.abs()
    first = float(sizes.max())
    if math.isinf(first):  # no Delta is left, or one is not finite
        return Number(first)
    # |sinh c| without the difference of two exponentials, which is 0 below an ulp
    scaled = (sizes - first).exp() / 4 * -torch.expm1(-2 * c.abs())
    found = first + float(vector_norm(scaled).log())
    off = (64 * ULP + rounding) / largest + rounding if largest > 0 else math.inf
    return Number(found, max(1.0, off / TOLERANCE))


def _distance(
    setting: Setting, theta: Tensor, delta: Tensor, c: Tensor, rounding: float = 0.0
) -> Number:
    """The distance to the minimiser, which moves by sqrt(d) max sqrt(4 theta^2 + Delta^2) dc.

    That is the bound of the statements on the minimiser itself, for an error dc of c and ln Delta.
    """
    if not bool(is_potential(delta, c)):
        return Number(math.nan)
    rows = setting.problem.row_space
    found = bregman_minimizer(rows, rows.target(setting.problem.y), delta, c)
    if not bool(found.converged):
        return Number(math.nan)
    norm = torch.linalg.vector_norm
    moves = _moves(found.theta, delta, rounding)
    scale = float(norm(theta) + norm(found.theta)) + moves / TOLERANCE
    return Number(float(norm(theta - found.theta)), scale)


def _moves(theta: Tensor, delta: Tensor, error: float) -> float:
    """How far a minimiser moves with an error of c and ln Delta."""
    return math.sqrt(len(theta)) * error * float(torch.hypot(2 * theta, delta).max())
