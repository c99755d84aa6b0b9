"""All statements, in the order of the poster's sections; proofs are in docs/theory.md."""

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
        The statements of Papazov, Pesme and Flammarion (AISTATS 2024).

    >>> import torch
    >>> from dln_momentum.momentum import Momentum
    >>> from dln_momentum.problem import Problem
    >>> from dln_momentum.verification import Case
    >>> w = torch.full((2,), 0.5, dtype=torch.float64)
    >>> case = Case(Problem(X=[[1.0, 2.0]], y=[2.0]), w, w, Momentum(gamma=0.001, beta=0.5))
    >>> {statement.verdict.value for statement in statements(Evidence(case))}
    {'holds'}
    """
    yield from of_the_scheme(evidence)
    yield from of_gradient_flow(evidence)
    yield from of_momentum_flow(evidence)
    yield from of_small_lambda(evidence)
    yield from of_iterates(evidence)


def of_the_scheme(evidence: Evidence) -> Iterator[Statement]:
    """MGD(gamma, beta) as a discretisation (docs/theory.md#momentum; poster, sections 1 and 2)."""
    yield from discretisation(evidence)
    yield acceleration_rule(evidence)


def of_gradient_flow(evidence: Evidence) -> Iterator[Statement]:
    """Where gradient flow goes, from the start and from the effective one.

    (docs/theory.md#gradient-flow and docs/theory.md#effective-initialisation; poster,
    sections 3 and 4.)
    """
    yield gradient_flow.gradient_flow_along(evidence)
    yield gradient_flow.gradient_flow_limit(evidence)
    yield gradient_flow.effective_start(evidence)


def of_momentum_flow(evidence: Evidence) -> Iterator[Statement]:
    """Energy, implicit bias and mirror flow of MGF(lambda).

    (docs/theory.md#energy, docs/theory.md#continuous-bias and docs/theory.md#mirror-flow; poster,
    sections 1, 4 and 5.)
    """
    flow = continuous_course(evidence)
    yield continuous.energy_balance(evidence)
    yield continuous.energy_bound(evidence)
    yield continuous.integrals_by_definition(evidence)
    yield continuous.positive_integrals(evidence, flow)
    yield from _implicit_bias(evidence, flow)
    yield continuous.mirror_flow(evidence, flow)
    yield bias.pythagoras(evidence.problem, flow)


def of_small_lambda(evidence: Evidence) -> Iterator[Statement]:
    """What a small lambda guarantees (docs/theory.md#small-lambda; poster, section 4)."""
    flow = continuous_course(evidence)
    yield small_lambda.bounded_drift(evidence)
    yield small_lambda.threshold(evidence, flow)
    yield small_lambda.asymptotics(evidence, flow)


def of_iterates(evidence: Evidence) -> Iterator[Statement]:
    """The implicit bias of MGD(gamma, beta), stochastic or not.

    (docs/theory.md#discrete-bias and docs/theory.md#three-point; poster, sections 5 and 6.)
    """
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
