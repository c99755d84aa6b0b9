"""Energy and the integrals I_+- along the momentum flow.

(docs/theory.md#energy and docs/theory.md#continuous-bias; poster, sections 1 and 4.)
"""

from __future__ import annotations

import torch

from dln_momentum.flows.trajectory import RecordedTrajectory, solver_error
from dln_momentum.theory.continuous_bias import limit_bias, path_integrals, running_bias
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import moved, times_of
from dln_momentum.verification.statement import Hypothesis, Statement, Times, at_most, equal


def energy_balance(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """E = F(w) + lambda/2 ||w'||^2 obeys E' = -||w'||^2."""
    path, first = m.momentum_path, m.setting.energy(m.lam)
    spent = first - path.energy
    return equal(
        "MGF: E_0 - E_t = int_0^t ||w'||^2 at every recorded t",
        1,
        predicted=path.dissipated[-1],
        measured=spent[-1],
        error=(spent - path.dissipated).abs() / first,
        tolerance=_energy_resolution(m),
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
    found = f"{summed.fraction:.2%} of the time in every coordinate"
    return equal(
        "MGF: I_+- = lambda int (w_+-'/w_+-)^2 = -+ G - ln|w_+-/w_0| - lambda w_+-'/w_+-",
        4,
        [Hypothesis("the definition can be summed", not summed.fraction <= 0.5, found)],
        predicted=by_definition[:, -1].sum(),
        measured=regular[:, -1].sum(),
        error=(by_definition - regular).abs().amax((0, 2)),
        tolerance=solver_error(path) + summed.uncertainty,
        times=Times("t", path.t, trajectory.part),
    )


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
        [moved(trajectory)],
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
    crossed = ((path.w[:, 1:] * path.w[:, :-1] <= 0).sum((0, 2)) > 0).nonzero()
    until = int(crossed[0]) + 1 if len(crossed) else len(path.t)
    last = float(path.t[until - 1])
    growth = path_integrals(path)[:, :until].diff(dim=1)
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
        measured=-growth.min() if until > 1 else torch.nan,
        tolerance=solver_error(path),
        judged=part,
    )


def _energy_resolution(m: Measurements) -> float:
    """Error of the energy by the solver, relative to its first value.

    An error of X theta relative to y changes the loss by as much times ||y|| over the residual.
    """
    problem, path = m.problem, m.momentum_path
    norm = torch.linalg.vector_norm
    first = problem.residual(m.setting.theta)
    return solver_error(path) * (1 + float(norm(problem.y) / norm(first)))
