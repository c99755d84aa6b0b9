"""All statements, in the order of the sections of the paper."""

from __future__ import annotations

from collections.abc import Iterator

from dln_momentum.verification import continuous, finite_step, gradient_flow, small_lambda
from dln_momentum.verification import implicit_bias as bias
from dln_momentum.verification.course import Course, continuous_course, discrete_course
from dln_momentum.verification.discretisation import acceleration_rule, discretisation
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Statement


def statements(evidence: Evidence) -> Iterator[Statement]:
    """Evaluate every statement of the theory on a case, one after the other.

    Args:
        evidence: of the problem, the start and the parameters; its runs are computed as needed.

    Yields:
        The statements, by section of Papazov, Pesme and Flammarion (AISTATS 2024).

    >>> import torch
    >>> from dln_momentum.momentum import Momentum
    >>> from dln_momentum.problem import Problem
    >>> from dln_momentum.verification import Case
    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> case = Case(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.001, beta=0.5))
    >>> {statement.verdict.value for statement in statements(Evidence(case))}
    {'holds'}
    """
    flow = continuous_course(evidence)
    yield from discretisation(evidence)
    yield continuous.energy_balance(evidence)
    yield continuous.energy_bound(evidence)
    yield acceleration_rule(evidence)
    yield gradient_flow.gradient_flow_along(evidence)
    yield gradient_flow.gradient_flow_limit(evidence)
    yield continuous.integrals_by_definition(evidence)
    yield continuous.positive_integrals(evidence, flow)
    yield from _implicit_bias(evidence, flow)
    yield gradient_flow.effective_start(evidence)
    yield small_lambda.bounded_drift(evidence)
    yield small_lambda.threshold(evidence, flow)
    yield small_lambda.asymptotics(evidence, flow)
    yield continuous.mirror_flow(evidence, flow)
    yield bias.pythagoras(evidence.problem, flow)
    run = discrete_course(evidence)
    yield finite_step.sums_from_gradients(evidence, run)
    yield finite_step.positive_sums(run)
    yield finite_step.log_free_identity(evidence, run)
    yield from _implicit_bias(evidence, run)
    yield bias.pythagoras(evidence.problem, run)


def _implicit_bias(evidence: Evidence, course: Course) -> Iterator[Statement]:
    problem = evidence.problem
    yield bias.balancedness_along(course)
    yield bias.balancedness_limit(course)
    yield bias.shrinking(course)
    yield bias.optimality_along(problem, course)
    yield bias.distance_along(problem, course)
    yield bias.distance_limit(problem, course)
    yield bias.negligible_start(problem, course)
