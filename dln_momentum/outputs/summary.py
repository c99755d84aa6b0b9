"""Every number of the theory at one step of R runs; what flows share is here too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.errors import raise_if_any
from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.outputs.references import references
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of, lam_ks_of, lam_of
from dln_momentum.row_space import apply
from dln_momentum.theory.classification import sign_violation
from dln_momentum.theory.curvature import sharpness
from dln_momentum.theory.depth import is_power_potential, potential_scale, power_mirror
from dln_momentum.theory.discrete_bias import (
    is_potential,
    kkt_residual,
    log_free_balance,
    log_init,
    log_perturbed_init_norm,
)
from dln_momentum.theory.minimizers import Case, bregman_minimizers
from dln_momentum.theory.power_minimizer import power_minimizer
from dln_momentum.theory.small_lambda import lambda_threshold

TO_MINIMISERS = (
    "distance_to_minimizer",
    "distance_to_unperturbed_minimizer",
    "distance_to_gradient_flow_minimizer",
)

BY_CONSTRUCTION = (
    "path_sum_balancedness_error",
    "path_identity_error",
    "kkt_residual",
    "own_level_set_distance",
    "distance_to_minimizer",
    "distance_to_limit",
)
"""What no fault of a run could show in, where S_+- is read off the sum of the gradients: the
theorem then holds by construction, and these numbers, which would test it, are nan."""


def summarise(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The scalar results of R runs, each [R]; nan where a quantity is not defined.

    Distances are Euclidean, from theta_K to the minimiser over S = {X theta = y}; they say
    something about the theory once the run has converged, and the numbers that must hold at every
    step say it always (`path_sum_balancedness_error`, `kkt_residual`).
    """
    raise_if_any(
        f"{key} is a {type(value).__name__}; it must be a {kind.__name__}"
        for key, value, kind in (("snapshot", snapshot, Snapshot), ("problem", problem, Problem))
        if not isinstance(value, kind)
    )
    steps = snapshot.steps_to_tol.double()
    return {
        **rates(snapshot),
        "small_lambda_threshold": _threshold(snapshot, problem),
        "initial_balancedness_l1": snapshot.balancedness_start.sum(-1),
        "train_loss": snapshot.loss,
        **recovery(snapshot.theta, problem),
        **references(snapshot.theta, problem),
        **balancedness_scalars(snapshot),
        **balancedness_errors(snapshot),
        "log_free_error": log_free_error(snapshot),
        **minimiser_distances(snapshot, problem),
        "steps": snapshot.steps,
        "steps_to_tol": torch.where(steps >= 0, steps, torch.nan),
    }


def _threshold(snapshot: Snapshot, problem: Problem) -> Tensor:
    """lambda below which Delta never vanishes, [R]; nan at depth D > 2, where none is known."""
    if isinstance(snapshot, PowerSnapshot):
        return torch.full_like(snapshot.loss, torch.nan)
    return lambda_threshold(problem, *snapshot.w_start.unbind())


def numbers_of_run(ends: Mapping[str, Tensor], run: int) -> dict[str, Any]:
    """The scalars of `end_of_runs` of one run as numbers; steps_to_tol is None if not reached."""
    found = {name: value[run].item() for name, value in ends.items() if value.ndim == 1}
    reached = found.pop("status") == Status.CONVERGED
    return found | {"steps_to_tol": found["steps"] if reached else None}


def end_of_runs(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """`summarise`, the rank of X, the status code, and theta, Delta and S_+- of R runs."""
    vectors = coordinates(snapshot)
    return {
        **summarise(snapshot, problem),
        "rank": problem.row_space.ranks.expand_as(snapshot.loss),
        "status": snapshot.status,
        **{name: vectors[name] for name in ("theta", "balancedness", "s_plus", "s_minus")},
    }


def rates(snapshot: Snapshot) -> dict[str, Tensor]:
    """gamma, beta, lambda, eps and lambda_KS, [R] each."""
    gamma, beta = snapshot.gamma[:, 0], snapshot.beta[:, 0]
    return {
        "gamma": gamma,
        "beta": beta,
        "lam": lam_of(gamma, beta),
        "eps": eps_of(gamma, beta),
        "lam_ks": lam_ks_of(gamma, beta),
    }


def coordinates(snapshot: Snapshot) -> dict[str, Tensor]:
    """What is recorded of each coordinate, [R, d] each."""
    s_plus, s_minus = snapshot.path_sums
    return {
        "theta": snapshot.theta,
        "w_plus": snapshot.w[0],
        "w_minus": snapshot.w[1],
        "balancedness": snapshot.balancedness,
        "log_init": potential(snapshot)[1],
        "s_plus": s_plus,
        "s_minus": s_minus,
    }


def recovery(theta: Tensor, problem: Problem) -> dict[str, Tensor]:
    """How well theta [R, d] does: distance to theta*, error on the test rows, l1 norm.

    Of classification its margins too, the least y_i <x_i, theta> as it is and over a norm of theta.
    """
    missing = torch.full_like(theta[:, 0], torch.nan)
    star = problem.theta_star
    found = {
        "recovery_error": missing if star is None else distance(theta, star),
        "test_error": problem.test_error(theta),
        "l1_norm": theta.abs().sum(-1),
    }
    if not problem.is_classification:
        return found
    margin = (problem.y * apply(problem.X, theta)).amin(-1)
    norm = torch.linalg.vector_norm(theta, dim=-1)
    # at theta = 0 there is no direction
    return found | {
        "min_margin": margin,
        "l1_margin": torch.where(norm > 0, margin / found["l1_norm"], torch.nan),
        "l2_margin": torch.where(norm > 0, margin / norm, torch.nan),
    }


def curvature(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The sharpness of R runs, and that above which their last step is unstable on a quadratic.

    Both in the variables in which all coordinates have one step size.
    """
    data, kappa, depth = of_one_rate(snapshot, problem)
    found = sharpness(data, snapshot.w / kappa**0.5, depth)
    return {"sharpness": found, "sharpness_threshold": snapshot.threshold[:, 0]}


def of_one_rate(snapshot: Snapshot, problem: Problem) -> tuple[Problem, Tensor, Tensor | float]:
    """The data of the runs w/sqrt(kappa) with one step size for all, kappa, and D, [R, 1] or 2."""
    depth = snapshot.depth if isinstance(snapshot, PowerSnapshot) else 2.0
    return *in_one_rate(problem, kappa_of(snapshot)), depth


def minimiser_distances(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """Distances of theta_K to the three minimisers that the theory compares, and the certificate.

    ``distance_to_minimizer``: to argmin D_{psi_{Delta_K}}(., theta~_0), where the theorem says the
    run ends; ``distance_to_unperturbed_minimizer``: to argmin psi_{Delta_K}, the same without
    theta~_0; ``distance_to_gradient_flow_minimizer``: to argmin D_{psi_{Delta_0}}(., theta_0),
    where gradient flow would end. At depth D > 2 they are those of its potential; a run of
    classification ends at no interpolator and has none.
    """
    if problem.is_classification:
        missing = torch.full_like(snapshot.loss, torch.nan)
        return dict.fromkeys(TO_MINIMISERS, missing) | certificate(snapshot, problem)
    if isinstance(snapshot, PowerSnapshot):
        return power_distances(snapshot, problem) | certificate(snapshot, problem)
    theta, (delta, c) = snapshot.theta, potential(snapshot)
    data, kappa = in_one_rate(problem, kappa_of(snapshot))
    near, delta = theta / kappa, delta / kappa
    # arcsinh(2 theta_0/Delta_0) is the log form with no path sums
    zero = torch.zeros_like(theta)
    start = log_init(snapshot.w_start[0], snapshot.w_start[1], zero, zero)
    target = data.row_space.target(data.y)
    flow = _minimiser_of_equals(data, target, snapshot.balancedness_start / kappa, start, near)
    missing = torch.full_like(snapshot.loss, torch.nan)
    cases = [Case(target, zero, near)]
    if snapshot.certifies:
        # the search for the one starts at the other
        cases = [Case(target, c, near), Case(target, zero)]
    *own, unperturbed = minimisers(data, delta, cases)
    return {
        "distance_to_minimizer": distance(theta, kappa * own[0]) if own else missing,
        "distance_to_unperturbed_minimizer": distance(theta, kappa * unperturbed),
        "distance_to_gradient_flow_minimizer": distance(theta, kappa * flow),
        **certificate(snapshot, problem),
    }


def power_distances(snapshot: PowerSnapshot, problem: Problem) -> dict[str, Tensor]:
    """The distances of `minimiser_distances` at depth D > 2, [R] each."""
    start = potential_at_start(snapshot)
    known = torch.where(torch.tensor(snapshot.certifies), 0.0, torch.nan)
    c = snapshot.log_init
    pairs = (
        (snapshot.predicted_scale, c + known),
        (snapshot.predicted_scale, torch.zeros_like(c)),
        start,
    )
    found = (power_limit(snapshot, problem, scale, c) for scale, c in pairs)
    each = (distance(snapshot.theta, minimiser) for minimiser in found)
    return dict(zip(TO_MINIMISERS, each, strict=True))


def potential_at_start(snapshot: PowerSnapshot) -> tuple[Tensor, Tensor]:
    """A and c of the start, with no path sums."""
    u, v = snapshot.w_start
    return potential_scale((u, v), (torch.zeros_like(u), torch.zeros_like(v)), snapshot.depth)


def power_limit(snapshot: PowerSnapshot, problem: Problem, scale: Tensor, c: Tensor) -> Tensor:
    """argmin { D_{H_A}(., h_A(c)) : X theta = y } of each run, [R, d]; nan where there is none."""
    usable = is_power_potential(scale, c)[:, None]
    solved = power_minimizer(
        problem.row_space,
        problem.row_space.target(problem.y),
        torch.where(usable, scale, 1.0),
        torch.where(usable, c, 0.0),
        depth=snapshot.depth,
    )
    return torch.where(usable & solved.converged[:, None], solved.theta, torch.nan)


def kappa_of(snapshot: Snapshot) -> Tensor | None:
    """The rates of the coordinates, [d]; None where all have one."""
    return snapshot.kappa if isinstance(snapshot, FamilySnapshot) else None


def in_one_rate(problem: Problem, kappa: Tensor | None) -> tuple[Problem, Tensor]:
    """The data X diag(kappa), and kappa, or 1 where all coordinates have one rate.

    A run with steps kappa_i gamma_k is one of steps gamma_k on these data, with theta/kappa,
    Delta/kappa and the same c (docs/theory.md#coordinate-rates).
    """
    if kappa is None:
        return problem, problem.X.new_ones(())
    kappa = kappa.to(problem.X)
    data = Problem(problem.X * kappa, problem.y, name=problem.name, loss=problem.loss_name)
    return data, kappa


def certificate(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The KKT residual of theta_k on its level set, and ln ||theta~_0||; no solver is needed.

    The residual is nan where it would be 0 by construction (see `BY_CONSTRUCTION`). Classification
    has ``sign_violation`` too, the other condition of a minimiser under lower bounds on margins.
    """
    found = _kkt(snapshot, problem)
    if not problem.is_classification:
        return found
    data, _ = in_one_rate(problem, kappa_of(snapshot))
    if isinstance(snapshot, PowerSnapshot):
        image = power_mirror(snapshot.theta, snapshot.scale, snapshot.depth) - snapshot.log_init
        z = -image  # h_A falls
    else:
        delta, c = potential(snapshot)
        z = (torch.asinh(2 * snapshot.theta / delta) - c) / 2
    known = found["kkt_residual"].isfinite()
    violation, _ = sign_violation(data, torch.where(known[:, None], z, torch.nan))
    return found | {"sign_violation": violation}


def _kkt(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    if isinstance(snapshot, PowerSnapshot):
        valid = snapshot.certifies & (snapshot.status != Status.DIVERGED)
        return {
            "kkt_residual": torch.where(valid, snapshot.certificate(problem), torch.nan),
            "log_perturbed_init_norm": torch.full_like(snapshot.loss, torch.nan),
        }
    delta, c = potential(snapshot)
    usable = _usable(delta, c) & snapshot.certifies
    data, _ = in_one_rate(problem, kappa_of(snapshot))
    safe = [snapshot.theta, delta, c]
    if not bool(usable.all()):
        pairs = zip(safe, (1.0, 1.0, 0.0), strict=True)
        safe = [torch.where(usable, value, other) for value, other in pairs]
    # of theta and Delta as they are: the mirror map depends on their ratio
    residual = kkt_residual(data.row_space, *safe)
    return {
        "kkt_residual": torch.where(usable[:, 0], residual, torch.nan),
        "log_perturbed_init_norm": log_perturbed_init_norm(delta, c),
    }


def potential(snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """Delta_k and c_k, the log form of theta~_0, [R, d] each; nan for runs that diverged."""
    kept = (snapshot.status != Status.DIVERGED)[:, None]
    pair = snapshot.balancedness, snapshot.log_init
    if bool(kept.all()):
        return pair  # a tenth of the time of a record
    delta, c = (torch.where(kept, value, torch.nan) for value in pair)
    return delta, c


def minimiser(
    problem: Problem,
    target: Tensor,
    balancedness: Tensor,
    log_init: Tensor,
    near: Tensor | None = None,
) -> Tensor:
    """argmin { D_{psi_Delta}(., theta~_0) : V theta = target } of each run, [R, d].

    It is nan for a run whose potential is not finite (it diverged), and where the solver failed.
    It is unique: ``near``, where the solver looks first, changes the time alone.
    """
    return minimisers(problem, balancedness, [Case(target, log_init, near)])[0]


def minimisers(
    problem: Problem,
    balancedness: Tensor,
    cases: Sequence[Case],
) -> list[Tensor]:
    """As `minimiser` of several cases, which share what they can."""
    starts = [torch.zeros_like(balancedness) if c is None else c for _, c, _ in cases]
    usable = [_usable(balancedness, c) for c in starts]
    solved = bregman_minimizers(
        problem.row_space,
        torch.where(torch.stack(usable).any(0), balancedness, 1.0),
        [
            Case(torch.where(known, case.target, 0.0), torch.where(known, c, 0.0), case.near)
            for known, c, case in zip(usable, starts, cases, strict=True)
        ],
    )
    return [
        torch.where(known & found.converged[:, None], found.theta, torch.nan)
        for known, found in zip(usable, solved, strict=True)
    ]


def _minimiser_of_equals(
    problem: Problem, target: Tensor, balancedness: Tensor, log_init: Tensor, near: Tensor
) -> Tensor:
    """As `minimiser`, solved once for all runs with the same potential, up to rounding."""
    if problem.runs:
        return minimiser(problem, target, balancedness, log_init, near)
    # potentials are equal if the first 44 of the 53 bits of each number are
    mantissa, exponent = torch.frexp(torch.cat([balancedness, log_init], -1))
    rounded = torch.ldexp(torch.round(mantissa * 2**44), exponent)
    group = torch.unique(rounded, dim=0, return_inverse=True)[1]
    last_run = {number: run for run, number in enumerate(group.tolist())}
    members = torch.tensor([last_run[number] for number in sorted(last_run)], device=group.device)
    of_members = (x[members] for x in (balancedness, log_init, near))
    return minimiser(problem, target, *of_members)[group]


def _usable(balancedness: Tensor, log_init: Tensor) -> Tensor:
    """Where the potential is one, [R, 1]."""
    return is_potential(balancedness, log_init).unsqueeze(-1)


def distance(theta: Tensor, other: Tensor) -> Tensor:
    """The Euclidean distance of each run, [R]."""
    return torch.linalg.vector_norm(theta - other, dim=-1)


def path_sum_scalars(snapshot: Snapshot) -> dict[str, Tensor]:
    """Totals of S_+- over the coordinates, `balancedness_errors` and `log_free_error`, [R] each."""
    s_plus, s_minus = snapshot.path_sums
    return {
        **balancedness_errors(snapshot),
        "log_free_error": log_free_error(snapshot),
        "s_plus_total": s_plus.sum(-1),
        "s_minus_total": s_minus.sum(-1),
    }


def balancedness_errors(snapshot: Snapshot) -> dict[str, Tensor]:
    """How well the path sums predict the balancedness; the first tends to 0 as a run converges.

    ``path_sum_balancedness_error`` = max_i |Delta_k / (Delta_0 exp(-(S_+ + S_-))) - 1|, and
    ``path_identity_error``, the same with the boundary terms kept, 0 to rounding at every step.
    Both are nan where they would be 0 by construction (see `BY_CONSTRUCTION`).
    """
    scale = 1.0 if snapshot.certifies else torch.nan
    return {
        name: scale * (snapshot.balancedness / predicted - 1).abs().amax(-1)
        for name, predicted in (
            ("path_sum_balancedness_error", snapshot.limit_balancedness),
            ("path_identity_error", snapshot.predicted_balancedness),
        )
    }


def balancedness_scalars(runs: Snapshot | RecordedTrajectory) -> dict[str, Tensor]:
    """||Delta||_1, Delta relative to Delta_0, and the sign changes of w_+-, [R] or [T] each."""
    now, start = runs.balancedness, runs.balancedness_start
    return {
        "balancedness_l1": now.sum(-1),
        "balancedness_ratio": now.sum(-1) / start.sum(-1),
        "min_balancedness_ratio": (now / start).amin(-1),
        "sign_changes": runs.sign_changes,
    }


def log_free_error(snapshot: Snapshot) -> Tensor:
    """max_i |q - q_K| / max_i |q_0|, q_K = u^2 - v^2 and q its log-free prediction, [R].

    It is nan unless the increments were summed (not with ``path_sums = gradient_sum``).
    """
    if snapshot.increment_products is None:
        return torch.full_like(snapshot.loss, torch.nan)
    predicted = log_free_balance(
        snapshot.w_start,
        snapshot.previous,
        snapshot.w,
        snapshot.increment_products,
        snapshot.beta,
        snapshot.initial_increment,
    )
    measured = snapshot.w[0] * snapshot.w[1]
    return (predicted - measured).abs().amax(-1) / snapshot.balancedness_start.amax(-1)
