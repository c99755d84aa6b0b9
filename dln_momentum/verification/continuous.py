"""Energy, the integrals I_+- and the mirror flow: statements along the momentum flow."""

from __future__ import annotations

import dataclasses

import torch

from dln_momentum.flows import FlowPath
from dln_momentum.theory.continuous_bias import limit_bias, path_integrals, running_bias
from dln_momentum.theory.mirror_flow import mirror_flow_residual
from dln_momentum.theory.trajectory import Trajectory, solver_error
from dln_momentum.verification.course import moved, times_of
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Statement, Times, at_most, equal


def energy_balance(evidence: Evidence, course: Trajectory) -> Statement:
    """E = F(w) + lambda/2 ||w'||^2 obeys E' = -||w'||^2."""
    path, first = evidence.momentum_path, evidence.case.energy(evidence.lam)
    spent = first - path.energy
    return equal(
        "MGF: E_0 - E_t = int_0^t ||w'||^2 at every recorded t",
        1,
        predicted=path.dissipated[-1],
        measured=spent[-1],
        error=(spent - path.dissipated).abs() / first,
        tolerance=_energy_resolution(evidence),
        times=Times("t", path.t, course.part),
    )


def energy_bound(evidence: Evidence, course: Trajectory) -> Statement:
    """int_0^inf ||w'||^2 dt <= E_0, which is F(w_0) from rest."""
    return at_most(
        "MGF: int ||w'||^2 <= E_0 (F(w_0) from rest)",
        1,
        predicted=evidence.case.energy(evidence.lam),
        measured=evidence.momentum_path.dissipated[-1],
        tolerance=_energy_resolution(evidence),
        judged=course.part,
    )


def integrals_by_definition(evidence: Evidence, course: Trajectory) -> Statement:
    """lambda int (w_+-'/w_+-)^2 dt is -+ G - ln|w_+-/w_{+-,0}| - [lambda w_+-'/w_+-]_0^t.

    Within reach of a zero of w_+-, where the integral is a finite part, the second form is all
    there is: the two differ by what the rest of the time, nearly all of it, contributes.
    """
    path, summed = evidence.momentum_path, evidence.summed_integrals
    regular = torch.stack(path_integrals(path))
    by_definition = torch.stack([summed.i_plus, summed.i_minus])
    share = f"{summed.share:.2%} of the time in every coordinate"
    return equal(
        "MGF: I_+- = lambda int (w_+-'/w_+-)^2 = -+ G - ln|w_+-/w_0| - lambda w_+-'/w_+-",
        4,
        [Hypothesis("the definition can be summed", not summed.share <= 0.5, share)],
        predicted=by_definition[:, -1].sum(),
        measured=regular[:, -1].sum(),
        error=(by_definition - regular).abs().amax((0, 2)),
        tolerance=solver_error(path) + summed.uncertainty,
        times=Times("t", path.t, course.part),
    )


def read_off(evidence: Evidence, course: Trajectory) -> Statement:
    """`limit_bias` and `running_bias` of the path up to t: the exponents, Delta and c.

    They come from G_t, ln|w_+-/w_0| and the speed alone; the numbers that they should give are
    computed here, from I_+- by definition. Where a path ends early the speed that is left counts,
    so that its sign shows.
    """
    path = evidence.momentum_path
    found, expected = [], []
    for place, t in enumerate(course.at.tolist()):
        here = _ends(path, int(torch.searchsorted(path.t, t)))
        limit, running = limit_bias(here), running_bias(here)
        exponents = [limit.i_plus, limit.i_minus, running.i_plus[-1], running.i_minus[-1]]
        found.append(torch.stack([*exponents, limit.log_init, running.log_init[-1]]))
        kept = course.exponents_with_boundary[:, place]
        ended = course.exponents[:, place] - course.start_term
        c = evidence.case.log_init + torch.stack([ended[1] - ended[0], kept[1] - kept[0]])
        expected.append(torch.cat([ended, kept, c]))
    error = torch.stack(found) - torch.stack(expected)
    return equal(
        "MGF: limit_bias and running_bias give I_+- and c of the definition at every recorded t",
        4,
        [moved(course)],
        predicted=expected[-1].sum(),
        measured=found[-1].sum(),
        error=error.abs().amax((1, 2)),
        # c adds up both exponents
        tolerance=2 * course.resolution,
        times=times_of(course),
    )


def positive_integrals(evidence: Evidence, course: Trajectory) -> Statement:
    """I_+- > 0 and growing while no w_+- has vanished, in the form that is no sum of squares.

    It is judged up to the last step of the solver before the first change, and says so.
    """
    path = evidence.momentum_path
    w = torch.stack([path.w_plus, path.w_minus])
    crossed = ((w[:, 1:] * w[:, :-1] <= 0).sum((0, 2)) > 0).nonzero()
    until = int(crossed[0]) + 1 if len(crossed) else len(path.t)
    last = float(path.t[until - 1])
    growth = torch.stack(path_integrals(path))[:, :until].diff(dim=1)
    found = f"none up to t = {last:.6g}" if until > 1 else "one did at the first step"
    early = Hypothesis("no w_+- changed sign at first", until > 1, found)
    part = f"for t <= {last:.6g}, while no w_+- has changed sign" if len(crossed) else course.part
    return at_most(
        "MGF: I_+- grows from 0 with t (largest fall)",
        4,
        [moved(course), early],
        predicted=0.0,
        measured=-growth.min() if until > 1 else torch.nan,
        tolerance=solver_error(path),
        judged=part,
    )


def mirror_flow(evidence: Evidence, course: Trajectory) -> Statement:
    """lambda z'' + z' + grad L = 0 for z = grad Phi_t(theta_t), while no w_+- vanishes.

    Integrated once, and relative to the largest integral of grad L; the linear term of Phi_t comes
    from its own equation, that is from I_+- by definition.
    """
    path = evidence.momentum_path
    count = int(path.sign_changes.sum())
    found = f"{count} by t = {float(path.t[-1]):.6g}"
    quiet = Hypothesis("no w_+- changed sign", count == 0, found)
    name = "MGF: lambda z'' + z' + grad L = 0, z = grad Phi_t(theta_t), integrated"
    if not quiet.met:
        return Statement(name, 5, (quiet,))
    size = path.G.abs().amax()
    residual = mirror_flow_residual(evidence.problem, path).abs().amax(-1) / size
    return equal(
        name,
        5,
        [quiet],
        measured=residual.max(),
        error=residual,
        tolerance=(solver_error(path) + evidence.summed_integrals.uncertainty) / size,
        times=Times("t", path.t, course.part),
    )


def _ends(path: FlowPath, place: int) -> FlowPath:
    """The path from its start to one of its times, as far as its ends tell."""
    ends = [0, place]
    return dataclasses.replace(
        path,
        **{
            name: getattr(path, name)[ends]
            for name in ("t", "w_plus", "w_minus", "dw_plus", "dw_minus", "G", "loss")
        },
    )


def _energy_resolution(evidence: Evidence) -> float:
    """What the solver may change the energy by, relative to its first value.

    An error of X theta relative to y changes the loss by as much times ||y|| over the residual.
    """
    problem, path = evidence.problem, evidence.momentum_path
    norm = torch.linalg.vector_norm
    first = problem.residual(evidence.case.theta)
    return solver_error(path) * (1 + float(norm(problem.y) / norm(first)))
