"""All statements, in the order of the poster's sections; proofs are in docs/theory.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from dln_momentum.verification import (
    continuous,
    finite_step,
    gradient_flow,
    limits_of_psi,
    second_program,
    small_lambda,
    summaries,
)
from dln_momentum.verification import implicit_bias as bias
from dln_momentum.verification.course import continuous_course, discrete_course
from dln_momentum.verification.discretisation import acceleration_rule, discretisation
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.second_program import BACKENDS, PATH_SUMS, SecondProgram
from dln_momentum.verification.statement import Statement

Judge = Callable[[], "Statement | list[Statement]"]


def statements(evidence: Evidence) -> Iterator[Statement]:
    """Evaluate every statement of the theory on a case, one after the other.

    Args:
        evidence: of the problem, the start and the parameters; its runs are computed as needed.

    Yields:
        The statements of Papazov, Pesme and Flammarion (AISTATS 2024), and that the numbers which
        the package prints are those of its iterates.

    >>> import torch
    >>> from dln_momentum.rates import Momentum
    >>> from dln_momentum.problem import Problem
    >>> from dln_momentum.verification import Case
    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> case = Case(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.001, beta=0.5))
    >>> sorted({statement.verdict.value for statement in statements(Evidence(case))})
    ['holds', 'holds in part']
    """
    yield from of_the_scheme(evidence)
    yield from of_gradient_flow(evidence)
    yield from of_momentum_flow(evidence)
    yield from of_small_lambda(evidence)
    yield from of_the_engine(evidence)
    yield from of_iterates(evidence)


def of_the_scheme(evidence: Evidence) -> Iterator[Statement]:
    """MGD(gamma, beta) as a discretisation (docs/theory.md#momentum; poster, sections 1 and 2)."""
    yield from _judged(
        lambda: discretisation(evidence),
        lambda: acceleration_rule(evidence),
    )


def of_gradient_flow(evidence: Evidence) -> Iterator[Statement]:
    """The potential, its ends, and where gradient flow goes.

    (docs/theory.md#potentials, docs/theory.md#gradient-flow and
    docs/theory.md#effective-initialisation; poster, sections 3 and 4.)
    """
    yield from _judged(
        lambda: gradient_flow.gradient_flow_along(evidence),
        lambda: gradient_flow.mirror_descent(evidence),
        lambda: gradient_flow.gradient_flow_limit(evidence),
        lambda: limits_of_psi.potential(evidence),
        lambda: limits_of_psi.sparsest(evidence),
        lambda: limits_of_psi.least_square(evidence),
        lambda: gradient_flow.effective_start(evidence),
    )


def of_momentum_flow(evidence: Evidence) -> Iterator[Statement]:
    """Energy, implicit bias and mirror flow of MGF(lambda).

    (docs/theory.md#energy, docs/theory.md#continuous-bias and docs/theory.md#mirror-flow; poster,
    sections 1, 4 and 5.)
    """
    flow = continuous_course(evidence)
    yield from _judged(
        lambda: continuous.energy_balance(evidence, flow),
        lambda: continuous.energy_bound(evidence, flow),
        lambda: continuous.integrals_by_definition(evidence, flow),
        lambda: continuous.read_off(evidence, flow),
        lambda: continuous.positive_integrals(evidence, flow),
        *_implicit_bias(evidence, flow),
        lambda: continuous.mirror_flow(evidence, flow),
        lambda: bias.pythagoras(evidence, flow),
        lambda: summaries.flow_end_summary(evidence, flow),
    )


def of_small_lambda(evidence: Evidence) -> Iterator[Statement]:
    """What a small lambda guarantees (docs/theory.md#small-lambda; poster, section 4)."""
    flow = continuous_course(evidence)
    yield from _judged(
        lambda: small_lambda.written_bounds(evidence),
        lambda: small_lambda.bounded_drift(evidence, flow),
        lambda: small_lambda.threshold(evidence, flow),
        lambda: small_lambda.asymptotics(evidence, flow),
    )


def of_the_engine(evidence: Evidence) -> Iterator[Statement]:
    """The first iterates of either backend against a second program.

    (docs/theory.md#diagonal-network; poster, section 3.)
    """
    program = SecondProgram(evidence)
    for backend in BACKENDS:
        yield from _judged(
            lambda backend=backend: second_program.the_iterates(program, backend),
            *(
                lambda backend=backend, way=way: second_program.the_sums(program, backend, way)
                for way in PATH_SUMS
            ),
            lambda backend=backend: summaries.run_summary(evidence, program, backend),
        )


def of_iterates(evidence: Evidence) -> Iterator[Statement]:
    """The implicit bias of MGD(gamma, beta), stochastic or not.

    (docs/theory.md#discrete-bias and docs/theory.md#three-point; poster, sections 5 and 6.)
    """
    run = discrete_course(evidence)
    yield from _judged(
        lambda: finite_step.sums_from_gradients(evidence, run),
        lambda: finite_step.positive_sums(evidence, run),
        lambda: finite_step.log_free_identity(evidence, run),
        *_implicit_bias(evidence, run),
        lambda: bias.pythagoras(evidence, run),
        lambda: summaries.end_summary(evidence),
    )


def _implicit_bias(evidence: Evidence, course: bias.Trajectory) -> list[Judge]:
    return [
        lambda: bias.balancedness_along(evidence, course),
        lambda: bias.balancedness_limit(evidence, course),
        lambda: bias.shrinking(evidence, course),
        lambda: bias.optimality_along(evidence, course),
        lambda: bias.distance_along(evidence, course),
        lambda: bias.distance_limit(evidence, course),
        lambda: bias.negligible_start(evidence, course),
    ]


def _judged(*judges: Judge) -> Iterator[Statement]:
    """Evaluate statements; one that cannot be evaluated has failed, and does not end the others."""
    for judge in judges:
        try:
            found = judge()
        except (ArithmeticError, ValueError, RuntimeError) as error:
            names = ", ".join(sorted(set(judge.__code__.co_names)))
            yield Statement(f"{names}: no number, but {error}", 0, error=math.nan, tolerance=0.0)
            continue
        yield from found if isinstance(found, list) else [found]
