"""The minimisers that the theory names: how far theta is from them, and the certificate of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.problem import Problem
from dln_momentum.theory.classification import sign_violation
from dln_momentum.theory.depth import is_power_potential, potential_scale, power_mirror
from dln_momentum.theory.discrete_bias import (
    is_potential,
    kkt_residual,
    log_init,
    log_perturbed_init_norm,
)
from dln_momentum.theory.minimizers import Case, bregman_minimizers
from dln_momentum.theory.power_minimizer import power_minimizer

TO_MINIMISERS = (
    "distance_to_minimizer",
    "distance_to_unperturbed_minimizer",
    "distance_to_gradient_flow_minimizer",
)


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
    u, v = snapshot.w_start
    sums_at_start = torch.zeros_like(u), torch.zeros_like(v)
    known = torch.where(torch.tensor(snapshot.certifies), 0.0, torch.nan)
    c = snapshot.log_init
    pairs = (
        (snapshot.predicted_scale, c + known),
        (snapshot.predicted_scale, torch.zeros_like(c)),
        potential_scale((u, v), sums_at_start, snapshot.depth),
    )
    found = (power_limit(snapshot, problem, scale, c) for scale, c in pairs)
    each = (distance(snapshot.theta, minimiser) for minimiser in found)
    return dict(zip(TO_MINIMISERS, each, strict=True))


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

    The residual is nan where it would be 0 by construction (see `BY_CONSTRUCTION` of
    `dln_momentum.outputs.summary`). Classification has ``sign_violation`` too, the other condition
    of a minimiser under lower bounds on margins.
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
