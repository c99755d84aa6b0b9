"""Every number of the theory along a flow, under the names that the runs of the optimizer have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dln_momentum.flows import FlowPath, SummedIntegrals, effective_flow, summed_path_integrals
from dln_momentum.flows.trajectory import RecordedTrajectory, log_spaced, trajectory_of_path
from dln_momentum.outputs.minimisers import distance, minimiser
from dln_momentum.outputs.references import best_along_path, references
from dln_momentum.outputs.summary import balancedness_scalars, recovery
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.discrete_bias import log_init, log_perturbed_init_norm
from dln_momentum.theory.small_lambda import lambda_threshold


@dataclass(frozen=True, eq=False)
class FlowMeasures:
    """What `measure` finds of a flow.

    Attributes:
        times: the recorded times, [T].
        scalars: values at these times by name, [T].
        coordinates: values of every coordinate at these times by name, [T, d].
        end: the scalars at the end, and what is measured there alone.
        minimizer: argmin D_{psi_Delta}(., theta~_0) over S, Delta and theta~_0 of the end, [d].
        allowed: what the errors of the solver and of the sums explain at the end of
            ``kkt_residual`` and ``path_integral_identity_error``.
    """

    times: Tensor
    scalars: dict[str, Tensor]
    coordinates: dict[str, Tensor]
    end: dict[str, Any]
    minimizer: Tensor
    allowed: dict[str, float]


CERTIFICATES = (
    "path_integral_balancedness_error",
    "path_integral_identity_error",
    "own_level_set_distance",
    "distance_to_minimizer",
    "distance_to_limit",
    "kkt_residual",
)
"""What the theory says of every path, and of a path in the mirror form by construction."""


def measure(
    problem: Problem,
    path: FlowPath,
    records: int,
    tol: float,
    start: Tensor | None = None,
    times: Tensor | None = None,
) -> FlowMeasures:
    """The quantities of the theory at some times of a flow, and at its end.

    I_+- is summed from its definition, all but the steps within reach of a zero of w_+-, so that
    the errors and the certificate below could fail. For gradient flow they can fail only if w_+-
    was integrated itself; in the mirror form, which has them built in, they are nan.

    Args:
        problem: the data.
        path: every step of the solver.
        records: how many of its times to look at, log-spaced, both ends among them.
        tol: the energy at which a flow counts as converged; that of the restarted one too.
        start: (w_+, w_-) at t = 0 as they were asked for, [2, d]; those of the path without it.
        times: the times to look at, in place of ``records``, those of the path that are among them;
            t = 0 is added.

    >>> from dln_momentum.flows import momentum_flow
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> path = momentum_flow(problem, w, w, lam=0.1, time=torch.inf, tol=1e-24)
    >>> found = measure(problem, path, records=10, tol=1e-24)
    >>> found.end["distance_to_minimizer"] < 1e-9, found.end["sign_changes"]
    (True, 0)
    """
    if times is None:
        chosen = log_spaced(path, records)
    else:
        chosen = torch.isin(path.t, times).nonzero().squeeze(-1)
    places = torch.cat([torch.zeros(1, dtype=torch.int64), chosen]).unique()
    summed = summed_path_integrals(problem, path) if not path.is_gradient_flow else None
    trajectory = trajectory_of_path(path, summed, places, tol, start)
    places = places[: len(trajectory.at)]
    target = problem.row_space.target(problem.y)
    potential = trajectory.predicted_balancedness[-1:], trajectory.log_init[-1:]
    limit = minimiser(problem, target, *potential)
    scalars = {
        "train_loss": path.loss[places],
        **recovery(trajectory.theta, problem),
        "energy": path.energy[places],
        "dissipated": path.dissipated[places],
        **{
            name: torch.as_tensor(value, dtype=torch.float64).expand(len(path.t), 1)[places, 0]
            for name, value in (("lam", path.lam), ("memory", path.memory))
        },
        **balancedness_scalars(trajectory),
        **_balancedness_errors(trajectory),
        **_bias(problem, trajectory),
        "distance_to_limit": distance(trajectory.theta, limit),
    }
    at_end = _at_end(problem, path, trajectory, summed, tol)
    if path.mirror_form:
        for name in CERTIFICATES:
            scalars[name] = torch.full_like(scalars[name], torch.nan)
        at_end["distance_to_gradient_flow_minimizer"] = torch.nan
    end = {name: float(value[-1]) for name, value in scalars.items()}
    return FlowMeasures(
        times=path.t[places],
        scalars=scalars,
        coordinates={
            "theta": trajectory.theta,
            "w_plus": trajectory.w[0],
            "w_minus": trajectory.w[1],
            "balancedness": trajectory.balancedness,
            "log_init": trajectory.log_init,
            "i_plus": trajectory.exponents[0],
            "i_minus": trajectory.exponents[1],
        },
        end={
            "time": float(path.t[-1]),
            **end,
            **at_end,
            **best_along_path(scalars, path.t[places].tolist(), "time"),
        },
        minimizer=limit[0],
        allowed=_allowed(trajectory),
    )


def _allowed(trajectory: RecordedTrajectory) -> dict[str, float]:
    """Errors that those of I_+- explain at the end; of a flow that hardly moved, all of it."""
    theta, delta, c = (
        x[-1] for x in (trajectory.theta, trajectory.predicted_balancedness, trajectory.log_init)
    )
    of_exponents = 2 * float(trajectory.resolution[-1])
    # relative to the length of (arcsinh(2 theta/Delta) - c)/2, of which a part may lie outside
    size = float(((2 * theta / delta).asinh() - c).abs().max())
    of_residual = of_exponents * (1 + float(c.abs().max())) / size if size > 0 else torch.inf
    return {"kkt_residual": of_residual, "path_integral_identity_error": of_exponents}


def _balancedness_errors(trajectory: RecordedTrajectory) -> dict[str, Tensor]:
    """How well I_+- predicts Delta_t, without and with the boundary terms, [T] each.

    That is the difference as a share of the larger of the two, the largest over coordinates: near a
    zero of w_+- the exponent without its boundary term is off by hundreds, and the error relative
    to the prediction would overflow.
    """
    pairs = {
        "path_integral_balancedness_error": trajectory.limit_balancedness,
        "path_integral_identity_error": trajectory.predicted_balancedness,
    }
    return {
        name: -torch.expm1(-(trajectory.balancedness / predicted).log().abs().amax(-1))
        for name, predicted in pairs.items()
    }


def _bias(problem: Problem, trajectory: RecordedTrajectory) -> dict[str, Tensor]:
    """Distances of theta_t to the minimisers of its own potential, and the certificate."""
    delta, c, theta = trajectory.predicted_balancedness, trajectory.log_init, trajectory.theta
    rows = problem.row_space
    own, interpolators = rows.coordinates(theta), rows.target(problem.y)
    return {
        "own_level_set_distance": distance(theta, minimiser(problem, own, delta, c)),
        "distance_to_minimizer": distance(theta, minimiser(problem, interpolators, delta, c)),
        "kkt_residual": trajectory.certificate(problem),
        "log_perturbed_init_norm": log_perturbed_init_norm(delta, c),
    }


def _at_end(
    problem: Problem,
    path: FlowPath,
    trajectory: RecordedTrajectory,
    summed: SummedIntegrals | None,
    tol: float,
) -> dict[str, float | int]:
    """What is measured once, at the end."""
    theta, delta = trajectory.theta[-1:], trajectory.predicted_balancedness[-1:]
    target = problem.row_space.target(problem.y)
    zero = torch.zeros_like(theta)
    start = log_init(trajectory.w_start[0], trajectory.w_start[1], zero[0], zero[0])
    from_start = minimiser(problem, target, trajectory.balancedness_start[None], start[None])
    unperturbed = minimiser(problem, target, delta, zero)
    spent = path.energy[0] - path.energy[-1]
    return {
        "lam": path.last_lam,
        **{name: float(value) for name, value in references(theta, problem).items()},
        "initial_loss": float(path.loss[0]),
        "initial_energy": float(path.energy[0]),
        # of a constant lambda and the friction 1
        "small_lambda_threshold": torch.nan
        if path.changing
        else float(lambda_threshold(problem, *trajectory.w_start)),
        "initial_balancedness_l1": float(trajectory.balancedness_start.sum()),
        "sign_changes": int(path.sign_changes.sum()),
        "energy_balance_error": float((spent - path.dissipated[-1]).abs() / path.energy[0]),
        "path_integral_uncertainty": 0.0 if summed is None else float(summed.uncertainty[-1]),
        "path_integral_share": 1.0 if summed is None else summed.fraction,
        "distance_to_unperturbed_minimizer": float(distance(theta, unperturbed)),
        "distance_to_gradient_flow_minimizer": float(distance(theta, from_start)),
        "distance_to_effective_initialisation_limit": _restart(problem, path, theta, tol),
    }


def _restart(problem: Problem, path: FlowPath, theta: Tensor, tol: float) -> float:
    """||theta - the limit of gradient flow from (sqrt(Delta_inf), 0)||; nan without both limits."""
    if not path.converged:
        return torch.nan
    balancedness = limit_bias(path).balancedness
    if not bool(((balancedness > 0) & balancedness.isfinite()).all()):
        return torch.nan
    restart = effective_flow(problem, balancedness, tol=tol)
    return float(distance(theta, restart.theta[-1])) if restart.converged else torch.nan
