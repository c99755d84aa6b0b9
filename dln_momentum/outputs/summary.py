"""Every number of the theory at one step of R runs; what flows share is here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.outputs.references import references
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of, lam_ks_of, lam_of
from dln_momentum.theory.curvature import sharpness, sharpness_threshold
from dln_momentum.theory.discrete_bias import (
    is_potential,
    kkt_residual,
    log_free_balance,
    log_init,
    log_perturbed_init_norm,
)
from dln_momentum.theory.minimizers import bregman_minimizer
from dln_momentum.theory.small_lambda import lambda_threshold

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
    steps = snapshot.steps_to_tol.double()
    return {
        **rates(snapshot),
        "small_lambda_threshold": lambda_threshold(problem, *snapshot.w_start.unbind()),
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
    """How well theta [R, d] does: distance to theta*, error on the test rows, l1 norm."""
    missing = torch.full_like(theta[:, 0], torch.nan)
    star = problem.theta_star
    return {
        "recovery_error": missing if star is None else distance(theta, star),
        "test_error": problem.test_error(theta),
        "l1_norm": theta.abs().sum(-1),
    }


def curvature(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The sharpness of R runs, and 2 (1 + beta)/gamma, above which a quadratic is unstable."""
    return {
        "sharpness": sharpness(problem, snapshot.w),
        "sharpness_threshold": sharpness_threshold(snapshot.gamma, snapshot.beta)[:, 0],
    }


def minimiser_distances(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """Distances of theta_K to the three minimisers that the theory compares, and the certificate.

    ``distance_to_minimizer``: to argmin D_{psi_{Delta_K}}(., theta~_0), where the theorem says the
    run ends; ``distance_to_unperturbed_minimizer``: to argmin psi_{Delta_K}, the same without
    theta~_0; ``distance_to_gradient_flow_minimizer``: to argmin D_{psi_{Delta_0}}(., theta_0),
    where gradient flow would end.
    """
    theta, (delta, c) = snapshot.theta, potential(snapshot)
    # arcsinh(2 theta_0/Delta_0) is the log form with no path sums
    zero = torch.zeros_like(theta)
    start = log_init(snapshot.w_start[0], snapshot.w_start[1], zero, zero)
    target = problem.row_space.target(problem.y)
    flow = _minimiser_of_equals(problem, target, snapshot.balancedness_start, start)
    missing = torch.full_like(snapshot.loss, torch.nan)
    to_minimiser = missing
    if snapshot.certifies:
        to_minimiser = distance(theta, minimiser(problem, target, delta, c, theta))
    return {
        "distance_to_minimizer": to_minimiser,
        "distance_to_unperturbed_minimizer": distance(
            theta, minimiser(problem, target, delta, zero, theta)
        ),
        "distance_to_gradient_flow_minimizer": distance(theta, flow),
        **certificate(snapshot, problem),
    }


def certificate(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The KKT residual of theta_k on its level set, and ln ||theta~_0||; no solver is needed.

    The residual is nan where it would be 0 by construction (see `BY_CONSTRUCTION`).
    """
    delta, c = potential(snapshot)
    usable = _usable(delta, c) & snapshot.certifies
    safe = torch.where(usable, snapshot.theta, 1.0), torch.where(usable, delta, 1.0)
    residual = kkt_residual(problem.row_space, *safe, torch.where(usable, c, 0.0))
    return {
        "kkt_residual": torch.where(usable[:, 0], residual, torch.nan),
        "log_perturbed_init_norm": log_perturbed_init_norm(delta, c),
    }


def potential(snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """Delta_k and c_k, the log form of theta~_0, [R, d] each; nan for runs that diverged."""
    kept = (snapshot.status != Status.DIVERGED)[:, None]
    pair = snapshot.balancedness, snapshot.log_init
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
    usable = _usable(balancedness, log_init)
    solved = bregman_minimizer(
        problem.row_space,
        torch.where(usable, target, 0.0),
        torch.where(usable, balancedness, 1.0),
        torch.where(usable, log_init, 0.0),
        near=near,
    )
    return torch.where(usable & solved.converged[:, None], solved.theta, torch.nan)


def _minimiser_of_equals(
    problem: Problem, target: Tensor, balancedness: Tensor, log_init: Tensor
) -> Tensor:
    """As `minimiser`, solved once for all runs with the same potential, up to rounding."""
    if problem.runs:
        return minimiser(problem, target, balancedness, log_init)
    # potentials are equal if the first 44 of the 53 bits of each number are
    mantissa, exponent = torch.frexp(torch.cat([balancedness, log_init], -1))
    rounded = torch.ldexp(torch.round(mantissa * 2**44), exponent)
    group = torch.unique(rounded, dim=0, return_inverse=True)[1]
    last_run = {number: run for run, number in enumerate(group.tolist())}
    members = torch.tensor([last_run[number] for number in sorted(last_run)], device=group.device)
    return minimiser(problem, target, balancedness[members], log_init[members])[group]


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
