"""Energy, the integrals I_+- and the mirror flow: statements along the momentum flow."""

from __future__ import annotations

import torch

from dln_momentum.flow import mirror_flow_residual, path_integrals
from dln_momentum.verification.course import Course, solver_error
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal


def energy_balance(evidence: Evidence) -> Statement:
    """E = F(w) + lambda/2 ||w'||^2 obeys E' = -||w'||^2."""
    path = evidence.momentum_path
    spent = path.energy[0] - path.energy
    return equal(
        "MGF: F(w_0) - E_t = int_0^t ||w'||^2 at every t",
        1,
        predicted=path.dissipated[-1],
        measured=spent[-1],
        error=(spent - path.dissipated).abs() / path.energy[0],
        tolerance=_energy_resolution(evidence),
    )


def energy_bound(evidence: Evidence) -> Statement:
    """int_0^inf ||w'||^2 dt <= F(w_0) from rest."""
    path = evidence.momentum_path
    return at_most(
        "MGF: int ||w'||^2 <= F(w_0)",
        1,
        predicted=path.loss[0],
        measured=path.dissipated[-1],
        tolerance=_energy_resolution(evidence),
    )


def integrals_by_definition(evidence: Evidence) -> Statement:
    """lambda int (w_+-'/w_+-)^2 dt is -+ G - ln|w_+-/w_{+-,0}| - lambda w_+-'/w_+-.

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
        [Hypothesis("the definition can be summed", summed.share > 0.5, share)],
        predicted=by_definition[:, -1].sum(),
        measured=regular[:, -1].sum(),
        error=(by_definition - regular).abs().amax((0, 2)),
        tolerance=solver_error(path) + summed.uncertainty,
    )


def positive_integrals(evidence: Evidence, course: Course) -> Statement:
    """I_+- > 0 and growing while no w_+- has vanished, in the form that is no sum of squares."""
    last = course.before_sign_changes
    path = evidence.momentum_path
    until = int(torch.searchsorted(path.t, course.at[last])) + 1
    growth = torch.stack(path_integrals(path))[:, :until].diff(dim=1)
    return at_most(
        "MGF: I_+- grows from 0 with t (largest fall)",
        4,
        [course.moved, course.no_sign_change(last)],
        predicted=0.0,
        measured=-growth.min(),
        tolerance=solver_error(path),
    )


def mirror_flow(evidence: Evidence, course: Course) -> Statement:
    """lambda z'' + z' + grad L = 0 for z = grad Phi_t(theta_t), while no w_+- vanishes.

    Integrated once, and relative to the largest integral of grad L; the linear term of Phi_t comes
    from its own equation, that is from I_+- by definition.
    """
    path = evidence.momentum_path
    quiet = course.no_sign_change()
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
    )


def _energy_resolution(evidence: Evidence) -> float:
    """What the solver may change the energy by, relative to its first value.

    An error of X theta relative to y changes the loss by as much times ||y|| over the residual.
    """
    problem, path = evidence.problem, evidence.momentum_path
    norm = torch.linalg.vector_norm
    return solver_error(path) * (1 + float(norm(problem.y) / norm(problem.residual(path.theta[0]))))
