"""The path of a flow: what an integration returns, and what is read off it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dln_momentum.flows.stepping import FlowStatus


@dataclass(frozen=True)
class SolverReport:
    """How a stretch of a path was computed: method, error settings, and the work it took."""

    method: str
    rtol: float
    atol: float
    steps: int
    evaluations: int
    factorisations: int
    message: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Path:
    """What the path of one flow (`FlowPath`) and those of many have in common.

    Everything is float64: times [T] or [T, R], per-coordinate quantities [T, d] or [T, R, d]. The
    first time is 0.

    Attributes:
        lam: lambda; [R, 1] of many flows.
        t: times, increasing.
        w_plus, w_minus: w_+- = u +- v.
        dw_plus, dw_minus: their time derivatives.
        G: the integral of grad L from 0 to t.
        loss: L(theta_t), one entry for each of t.
    """

    lam: float | Tensor
    t: Tensor
    w_plus: Tensor
    w_minus: Tensor
    dw_plus: Tensor
    dw_minus: Tensor
    G: Tensor
    loss: Tensor

    @property
    def theta(self) -> Tensor:
        """The predictor (w_+^2 - w_-^2)/4, [T, d]."""
        return (self.w_plus + self.w_minus) * (self.w_plus - self.w_minus) / 4

    @property
    def u(self) -> Tensor:
        """First layer (w_+ + w_-)/2, [T, d]."""
        return (self.w_plus + self.w_minus) / 2

    @property
    def v(self) -> Tensor:
        """Second layer (w_+ - w_-)/2, [T, d]."""
        return (self.w_plus - self.w_minus) / 2

    @property
    def balancedness(self) -> Tensor:
        """Delta = |u^2 - v^2| = |w_+ w_-|, [T, d]."""
        return (self.w_plus * self.w_minus).abs()

    @property
    def energy(self) -> Tensor:
        """E = F(w) + lambda/2 (||u'||^2 + ||v'||^2), [T]; E' = -(||u'||^2 + ||v'||^2)."""
        square = self.dw_plus.square() + self.dw_minus.square()
        return self.loss + (self.lam / 4 * square).sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class FlowPath(Path):
    """A path of momentum gradient flow, or of gradient flow (lam = 0), at times t.

    The last time is the one at which the integration ended, requested or not.

    Attributes:
        G_delayed: H with lambda H' + H = G and H_0 = 0, which is G itself if lambda = 0.
        dissipated: the integral of ||u'||^2 + ||v'||^2 from 0 to t, [T].
        sign_changes: how often w_+ or w_- changed sign, counted at every step of the solver, [d].
        status: CONVERGED (the energy fell below tol), TIME_REACHED or FAILED.
        solvers: method, error settings and work, one after the other.
        gradient_square: the integral of (grad L)^2 from 0 to t; None unless lambda = 0.
        mirror_form: whether w_+- = w_{+-,0} exp(-+G) is built in (see `gradient_flow`), so that
            the implicit bias holds by construction and certifies nothing.
    """

    lam: float
    G_delayed: Tensor
    dissipated: Tensor
    sign_changes: Tensor
    status: FlowStatus
    solvers: tuple[SolverReport, ...]
    gradient_square: Tensor | None = None
    mirror_form: bool = False

    def __repr__(self) -> str:
        return (
            f"FlowPath(lam={self.lam:g}, T={len(self.t)}, d={self.w_plus.shape[-1]}, "
            f"t_end={float(self.t[-1]):g}, loss={float(self.loss[-1]):.2e}, "
            f"status={self.status.value!r})"
        )

    @property
    def converged(self) -> bool:
        """Whether the energy fell below the tolerance."""
        return self.status is FlowStatus.CONVERGED
