"""The time-varying mirror flow, along the momentum flow.

(docs/theory.md#mirror-flow; poster, section 5.)
"""

from __future__ import annotations

from dln_momentum.flows import quadrature_path_integrals
from dln_momentum.flows.trajectory import RecordedTrajectory, solver_error
from dln_momentum.theory.mirror_flow import mirror_flow_residual
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Hypothesis, Statement, Times, equal


def mirror_flow(m: Measurements, trajectory: RecordedTrajectory) -> Statement:
    """lambda z'' + z' + grad L = 0 for z = grad Phi_t(theta_t), while no w_+- vanishes.

    Integrated once, and relative to the largest integral of grad L; the linear term of Phi_t comes
    from its own equation, that is from I_+- by definition.
    """
    path = m.momentum_path
    count = int(path.sign_changes.sum())
    found = f"{count} by t = {float(path.t[-1]):.6g}"
    needs = Hypothesis("no w_+- changed sign", count == 0, found)
    name = "MGF: lambda z'' + z' + grad L = 0, z = grad Phi_t(theta_t), integrated"
    if not needs.met:
        return Statement(name, 5, (needs,))
    size = path.G.abs().amax()
    integrals = quadrature_path_integrals(m.problem, path)
    residual = mirror_flow_residual(path, *integrals).abs().amax(-1) / size
    return equal(
        name,
        5,
        [needs],
        measured=residual.max(),
        error=residual,
        tolerance=(solver_error(path) + m.summed_integrals.uncertainty) / size,
        times=Times("t", path.t, trajectory.part),
    )
