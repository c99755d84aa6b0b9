"""Energy and the integrals I_+- along the momentum flow.

(docs/theory.md#energy and docs/theory.md#continuous-bias; poster, sections 1 and 4.)
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from dln_momentum.flows import FlowPath, SummedIntegrals, summed_path_integrals
from dln_momentum.flows.contour import inside_windows
from dln_momentum.flows.trajectory import (
    LOCAL_ERRORS,
    RecordedTrajectory,
    log_spaced,
    sign_changes_between,
    solver_error,
    trajectory_of_path,
)
from dln_momentum.theory.continuous_bias import (
    limit_bias,
    log_free_error,
    log_free_size,
    log_free_sum,
    path_integrals,
    running_bias,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import (
    TIMES,
    at_rest,
    exponents_resolved,
    moved,
    not_every_vector,
    resolved,
    times_of,
)
from dln_momentum.verification.statement import Hypothesis, Statement, Times, at_most, equal


def energy_balance(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """E = F(w) + lambda/2 ||w'||^2 obeys E' = -||w'||^2."""
    path, first = m.momentum_path, m.setting.energy(m.lam)
    spent, allowed = first - path.energy, _energy_resolution(m)
    largest = torch.maximum(spent.abs(), path.dissipated)
    return equal(
        "MGF: E_0 - E_t = int_0^t ||w'||^2 at every recorded t",
        1,
        [resolved("E_0 - E_t, relative to E_0,", largest / first, allowed)],
        predicted=path.dissipated[-1],
        measured=spent[-1],
        error=(spent - path.dissipated).abs() / first,
        tolerance=allowed,
        times=Times("t", path.t, trajectory.part),
    )


def energy_bound(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """int_0^inf ||w'||^2 dt <= E_0, which is F(w_0) from rest."""
    return at_most(
        "MGF: int ||w'||^2 <= E_0 (F(w_0) from rest)",
        1,
        predicted=m.setting.energy(m.lam),
        measured=m.momentum_path.dissipated[-1],
        tolerance=_energy_resolution(m),
        judged=trajectory.part,
    )


def integrals_by_definition(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """lambda int (w_+-'/w_+-)^2 dt is -+ G - ln|w_+-/w_{+-,0}| - [lambda w_+-'/w_+-]_0^t.

    Near a zero of w_+-, where the integral is a finite part, the second form is used for both: the
    comparison covers the rest of the time, nearly all of it.
    """
    path, summed = m.momentum_path, m.summed_integrals
    regular, by_definition = path_integrals(path), summed.integrals
    allowed = solver_error(path) + summed.uncertainty
    return equal(
        "MGF: I_+- = lambda int (w_+-'/w_+-)^2 = -+ G - ln|w_+-/w_0| - lambda w_+-'/w_+-",
        4,
        [_summable(summed), resolved("I_+-", _largest(regular, by_definition), allowed)],
        predicted=by_definition[:, -1].sum(),
        measured=regular[:, -1].sum(),
        error=(by_definition - regular).abs().amax((0, 2)),
        tolerance=allowed,
        times=Times("t", path.t, trajectory.part),
    )


def along_a_contour(m: Measurements, trajectory: RecordedTrajectory) -> list[Statement]:
    """I_+- by its definition throughout: on the real axis, and along a contour around each zero.

    The real part of the integral along ``t + i h sin(pi t/T)`` is I_+-, the finite part, and its
    imaginary part over pi counts the sign changes of that coordinate (docs/theory.md#contour).
    """
    names = (
        "MGF: Re int lambda (w_+-'/w_+-)^2 on a contour = -+ G - ln|w_+-/w_0| - lambda w_+-'/w_+-",
        "MGF: Im int lambda (w_+-'/w_+-)^2 on a contour = pi times the sign changes of w_+-",
    )
    path, found = m.momentum_path, m.contour
    if isinstance(found, str):
        applied = Hypothesis("the windows around the zeros are few enough", False, found)
        return [Statement(name, 4, (applied,)) for name in names]
    windows = f"{int(found.zeros.sum())} zeros, no part left out"
    applied = Hypothesis("the windows around the zeros are few enough", True, windows)
    regular, outside = path_integrals(path), ~inside_windows(m.problem, path)
    changes = torch.stack([(w[1:] * w[:-1] < 0).sum(0) for w in path.w.sign()])
    # a coordinate may cross zero twice between two steps of the solver, which its signs do not show
    unseen = (found.zeros - changes).clamp_min(0)
    off = (found.zeros - changes - 2 * (unseen / 2).round()).abs()
    allowed = solver_error(path) + found.uncertainty
    return [
        equal(
            names[0],
            4,
            [applied, resolved("I_+-", _largest(regular, found.integrals), allowed)],
            predicted=regular[:, -1].sum(),
            measured=found.integrals[:, -1].sum(),
            error=(found.integrals - regular)[:, outside].abs().amax((0, 2)),
            tolerance=allowed[outside],
            times=Times("t", path.t[outside], trajectory.part),
        ),
        equal(
            names[1],
            4,
            [applied],
            predicted=changes.sum(),
            measured=found.zeros.sum(),
            error=off.max() + found.count_error,
            tolerance=1e-6,
            judged=trajectory.part,
        ),
    ]


def changing_coefficients(m: Measurements) -> list[Statement]:
    """Flows with a friction 3/t, and with a lambda that is annealed: the weight P in I_+-.

    (docs/theory.md#changing-coefficients.) With the weight P of each, I_+- = int P (w'/w)^2 is
    summed by its definition; u^2 - v^2 is integrated without a logarithm; and theta_t minimises
    the divergence of its own Delta_t and c_t over its level set.
    """
    found = (_of_changing_path(m, label, path) for label, path in m.changing_paths.items())
    return [*itertools.chain.from_iterable(found)]


def _of_changing_path(m: Measurements, label: str, path: FlowPath) -> list[Statement]:
    summed, regular = summed_path_integrals(m.problem, path), path_integrals(path)
    run = trajectory_of_path(path, summed, log_spaced(path, TIMES), m.setting.tol, m.setting.w)
    needs = at_rest(m), moved(run), _summable(summed)
    kkt = run.certificate(m.problem)
    product, size_of_terms = log_free_error(path), log_free_size(path)
    of_integrals = solver_error(path) + summed.uncertainty
    of_product = solver_error(path) * (1 + size_of_terms) + _least_error(m, path)
    sums = log_free_sum(path)
    # the largest change of c by an error of both exponents, against the size of arcsinh - c
    size = ((2 * run.theta / run.balancedness).asinh() - run.log_init).abs().amax(-1)
    return [
        equal(
            f"{label}: I_+- = int P (w'/w)^2 = -+ int (P/lambda) grad L - ln|w/w_0| - [P w'/w]",
            4,
            (*needs, resolved("I_+-", _largest(regular, summed.integrals), of_integrals)),
            predicted=regular[:, -1].sum(),
            measured=summed.integrals[:, -1].sum(),
            error=(summed.integrals - regular).abs().amax((0, 2)),
            tolerance=of_integrals,
            times=Times("t", path.t, run.part),
        ),
        equal(
            f"{label}: u^2 - v^2 = u_0^2 - v_0^2 + 2 int P (u'^2 - v'^2) - [P (u^2 - v^2)']",
            4,
            (*needs[:2], resolved("2 int P (u'^2 - v'^2), relative to Delta_0,", sums, of_product)),
            measured=product.max(),
            error=product,
            tolerance=of_product,
            times=Times("t", path.t, run.part),
        ),
        equal(
            f"{label}: KKT residual of theta_t for its Delta_t and c_t",
            4,
            (*needs, not_every_vector(m)),
            measured=kkt[-1],
            error=kkt,
            tolerance=2 * run.resolution * (1 + run.log_init.abs().amax(-1)) / size,
            times=times_of(run),
        ),
    ]


def _summable(summed: SummedIntegrals) -> Hypothesis:
    """Whether I_+- is summed by its definition over most of the time."""
    found = f"{summed.fraction:.2%} of the time in every coordinate"
    return Hypothesis("the definition can be summed", not summed.fraction <= 0.5, found)


def read_off(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """`limit_bias` and `running_bias` of the path up to t: the exponents, Delta and c.

    They use G_t, ln|w_+-/w_0| and the speed alone; the expected numbers are computed here, from
    I_+- by definition. On a path that ends early the speed is not negligible, so that a wrong sign
    of its term is found.
    """
    path = m.momentum_path
    found, expected = [], []
    for index, t in enumerate(trajectory.at.tolist()):
        here = path.at([0, int(torch.searchsorted(path.t, t))])
        limit, running = limit_bias(here), running_bias(here)
        exponents = [limit.i_plus, limit.i_minus, running.i_plus[-1], running.i_minus[-1]]
        found.append(torch.stack([*exponents, limit.log_init, running.log_init[-1]]))
        kept = trajectory.exponents_with_boundary[:, index]
        ended = trajectory.exponents[:, index] - trajectory.start_term[:, 0]
        c = m.setting.log_init + torch.stack([ended[1] - ended[0], kept[1] - kept[0]])
        expected.append(torch.cat([ended, kept, c]))
    error = torch.stack(found) - torch.stack(expected)
    return equal(
        "MGF: limit_bias and running_bias give I_+- and c of the definition at every recorded t",
        4,
        [moved(trajectory), exponents_resolved(trajectory)],
        predicted=expected[-1].sum(),
        measured=found[-1].sum(),
        error=error.abs().amax((1, 2)),
        # c adds up both exponents
        tolerance=2 * trajectory.resolution,
        times=times_of(trajectory),
    )


def positive_integrals(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """I_+- > 0 and growing while no w_+- has vanished, in the form that is not a sum of squares.

    It is evaluated up to the last step of the solver before the first change, which `judged` names.
    """
    path = m.momentum_path
    signs = path.w.sign()
    zero = (signs[:, 1:] * signs[:, :-1] <= 0).sum((0, 2)) > 0
    crossed = (zero | (sign_changes_between(path) > 0)).nonzero()
    until = int(crossed[0]) + 1 if len(crossed) else len(path.t)
    last = float(path.t[until - 1])
    grown = path_integrals(path)[:, :until]
    # from its largest value so far: the falls of single steps may each be below the solver's error
    fall = (grown.cummax(1).values - grown).max()
    found = f"none up to t = {last:.6g}" if until > 1 else "one did at the first step"
    early = Hypothesis("no w_+- changed sign at first", until > 1, found)
    part = (
        f"for t <= {last:.6g}, while no w_+- has changed sign" if len(crossed) else trajectory.part
    )
    return at_most(
        "MGF: I_+- grows from 0 with t (largest fall)",
        4,
        [moved(trajectory), early],
        predicted=0.0,
        measured=fall if until > 1 else torch.nan,
        tolerance=solver_error(path),
        judged=part,
    )


def _largest(*integrals: Tensor) -> Tensor:
    """The largest entry of [2, T, d] at each time, [T], by either of two ways to it.

    One of them that is 0, or not finite, is a fault: the statement then compares and finds it.
    """
    sizes = torch.stack([x.abs().amax((0, 2)) for x in integrals])
    return torch.where(sizes.isfinite(), sizes, torch.inf).amax(0)


def _least_error(m: Measurements, path: FlowPath) -> float:
    """Error of u^2 - v^2 by the solver's absolute tolerance, relative to the largest of the start.

    It does not follow the size of int P (u'^2 - v'^2), as that of w follows w from a small start.
    """
    atol = max((report.atol for report in path.solvers), default=0.0)
    return LOCAL_ERRORS * atol / float(m.setting.balancedness.max())


def _energy_resolution(m: Measurements) -> float:
    """Error of the energy by the solver, relative to its first value.

    An error of X theta relative to y changes the loss by as much times ||y|| over the residual.
    """
    problem, path = m.problem, m.momentum_path
    norm = torch.linalg.vector_norm
    first = problem.residual(m.setting.theta)
    return solver_error(path) * (1 + float(norm(problem.y) / norm(first)))
