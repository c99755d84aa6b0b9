"""All statements, in the order of the poster's sections; proofs are in docs/theory.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.verification import (
    balances,
    classification,
    continuous_bias,
    coordinate_rates,
    curvature,
    depth,
    discrete_bias,
    discretisation,
    entropy,
    interpolators,
    local_rates,
    minimizers,
    mirror_flow,
    nesterov,
    own_method,
    reference,
    schedules,
    small_lambda,
    summaries,
    three_point,
    trajectory,
    weight_decay,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import recorded_flow, recorded_run
from dln_momentum.verification.scope import in_scope, scope
from dln_momentum.verification.statement import Statement

Evaluate = Callable[..., Statement | list[Statement]]


def statements(m: Measurements) -> Iterator[Statement]:
    """Evaluate every statement of the theory on a setting, one after the other.

    Args:
        m: of the problem, the start and the parameters; runs are computed on first use.

    Yields:
        The statements of Papazov, Pesme and Flammarion (AISTATS 2024), and that the numbers which
        the package prints are those of its iterates.

    >>> import torch
    >>> from dln_momentum.rates import Momentum
    >>> from dln_momentum.problem import Problem
    >>> from dln_momentum.verification import Setting
    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> setting = Setting(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.001, beta=0.5))
    >>> sorted({statement.verdict.value for statement in statements(Measurements(setting))})
    ['holds', 'holds in part']
    """
    constant, flows = scope(m)
    yield from in_scope(of_the_scheme, m, [*constant, *flows])
    yield from in_scope(of_gradient_flow, m, flows)
    yield from in_scope(of_momentum_flow, m, flows)
    yield from in_scope(of_small_lambda, m, [*constant, *flows])
    yield from in_scope(of_the_engine, m, [*constant, *flows])
    yield from in_scope(of_iterates, m, [*constant, *flows])
    yield from in_scope(of_the_family, m, flows)
    yield from in_scope(of_other_networks, m, flows)
    yield from in_scope(of_changing_flows, m, flows)
    yield from in_scope(of_curvature, m, [*constant, *flows])
    if constant or flows:
        yield from of_the_own_method(m)


def of_the_scheme(m: Measurements) -> Iterator[Statement]:
    """MGD(gamma, beta) as a discretisation (docs/theory.md#momentum; poster, sections 1 and 2)."""
    yield from _evaluated([discretisation.orders, discretisation.acceleration_rule], m)


def of_gradient_flow(m: Measurements) -> Iterator[Statement]:
    """The potential, its limits, and the limits of gradient flow.

    (docs/theory.md#potentials, docs/theory.md#gradient-flow and
    docs/theory.md#effective-initialisation; poster, sections 3 and 4.)
    """
    yield from _evaluated(
        [
            minimizers.gradient_flow_along,
            entropy.mirror_descent,
            minimizers.gradient_flow_limit,
            entropy.potential,
            interpolators.sparsest,
            interpolators.least_square,
            minimizers.effective_start,
        ],
        m,
    )


def of_momentum_flow(m: Measurements) -> Iterator[Statement]:
    """Energy, implicit bias and mirror flow of MGF(lambda).

    (docs/theory.md#energy, docs/theory.md#continuous-bias and docs/theory.md#mirror-flow; poster,
    sections 1, 4 and 5.)
    """
    flow = recorded_flow(m)
    yield from _evaluated(
        [
            continuous_bias.energy_balance,
            continuous_bias.energy_bound,
            continuous_bias.integrals_by_definition,
            continuous_bias.along_a_contour,
            continuous_bias.read_off,
            continuous_bias.positive_integrals,
        ],
        m,
        flow,
    )
    yield from _implicit_bias(m, flow)
    yield from _evaluated(
        [mirror_flow.mirror_flow, three_point.pythagoras, summaries.flow_end_summary], m, flow
    )


def of_small_lambda(m: Measurements) -> Iterator[Statement]:
    """Guarantees for a small lambda (docs/theory.md#small-lambda; poster, section 4)."""
    yield from _evaluated([small_lambda.written_bounds], m)
    yield from _evaluated(
        [small_lambda.bounded_drift, small_lambda.threshold, small_lambda.asymptotics],
        m,
        recorded_flow(m),
    )
    yield from _evaluated(
        [
            small_lambda.written_discrete_bound,
            small_lambda.discrete_drift,
            small_lambda.discrete_threshold_holds,
        ],
        m,
    )


def of_changing_flows(m: Measurements) -> Iterator[Statement]:
    """Flows with a friction b/t and with a lambda that changes.

    (docs/theory.md#changing-coefficients; not on the poster.)
    """
    yield from _evaluated([continuous_bias.changing_coefficients], m)


def of_curvature(m: Measurements) -> Iterator[Statement]:
    """The Hessian of F, the sharpness at the end, and the rate of convergence there.

    (docs/theory.md#curvature and docs/theory.md#local-rates; not on the poster.)
    """
    yield from _evaluated(
        [
            curvature.second_derivative,
            curvature.stable_end,
            local_rates.interpolating_hessian,
            local_rates.contraction,
        ],
        m,
    )


def of_the_engine(m: Measurements) -> Iterator[Statement]:
    """The first iterates of either backend against a second program.

    (docs/theory.md#diagonal-network; poster, section 3.)
    """
    program = reference.SecondProgram(m)
    for backend in reference.backends():
        yield from _evaluated(
            [
                reference.the_iterates,
                *(partial(reference.the_sums, path_sums=way) for way in reference.PATH_SUMS),
                partial(summaries.run_summary, m),
            ],
            program,
            backend,
        )


def of_iterates(m: Measurements) -> Iterator[Statement]:
    """The implicit bias of MGD(gamma, beta), stochastic or not.

    (docs/theory.md#discrete-bias and docs/theory.md#three-point; poster, sections 5 and 6.)
    """
    run = recorded_run(m)
    yield from _evaluated(
        [
            discrete_bias.sums_from_gradients,
            discrete_bias.positive_sums,
            discrete_bias.log_free_identity,
        ],
        m,
        run,
    )
    yield from _implicit_bias(m, run)
    yield from _evaluated([three_point.pythagoras], m, run)
    yield from _evaluated([summaries.end_summary], m)


def of_the_own_method(m: Measurements) -> Iterator[Statement]:
    """The run by a method or on a loss that are not the poster's.

    (docs/theory.md#what-is-tested; not on the poster.)
    """
    yield from _evaluated([own_method.of_own_method, own_method.the_first_steps], m)


def of_the_family(m: Measurements) -> Iterator[Statement]:
    """Schedules, Nesterov, weight decay, rates of coordinates and layers, balances.

    (docs/theory.md#one-theorem; not on the poster.)
    """
    yield from _evaluated(
        [
            schedules.changing_rates,
            nesterov.gradients_ahead,
            weight_decay.coupled,
            weight_decay.decoupled,
            coordinate_rates.of_coordinates,
            coordinate_rates.of_layers,
            balances.of_unequal_layers,
            balances.of_neurons,
            balances.of_linear_layers,
        ],
        m,
    )


def of_other_networks(m: Measurements) -> Iterator[Statement]:
    """Depth D > 2 and classification, each on a run of its own.

    (docs/theory.md#depth and docs/theory.md#other-losses; not on the poster.)
    """
    yield from _evaluated(
        [
            depth.scale_and_minimiser,
            classification.implicit_bias,
            classification.largest_margins,
        ],
        m,
    )


def _implicit_bias(m: Measurements, recorded: RecordedTrajectory) -> Iterator[Statement]:
    yield from _evaluated(
        [
            trajectory.balancedness_along,
            trajectory.balancedness_limit,
            trajectory.shrinking,
            trajectory.optimality_along,
            trajectory.distance_along,
            trajectory.distance_limit,
            trajectory.negligible_start,
        ],
        m,
        recorded,
    )


def _evaluated(functions: Sequence[Evaluate], *given: Any) -> Iterator[Statement]:
    """Evaluate statements one after the other; an exception violates its statement only."""
    for function in functions:
        try:
            found = function(*given)
        except (ArithmeticError, ValueError, RuntimeError) as error:
            name = getattr(function, "func", function).__name__
            yield Statement(f"{name}: no number, but {error}", 0, error=math.nan, tolerance=0.0)
            continue
        yield from found if isinstance(found, list) else [found]
