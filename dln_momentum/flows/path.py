"""The path of one flow or of many: what an integration returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dln_momentum.flows.coefficients import Coefficients
from dln_momentum.flows.step_sums import StepSums
from dln_momentum.flows.stepping import FlowStatus
from dln_momentum.theory.trajectory import Weights


@dataclass(frozen=True)
class SolverReport:
    """How a part of a path was computed: method, error settings, and the work it took."""

    method: str
    rtol: float
    atol: float
    steps: int
    evaluations: int
    factorisations: int
    message: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Path(Weights):
    """What the path of one flow (`FlowPath`) and those of many (`Flows`) have in common.

    Everything is float64: times [T] or [T, R], per-coordinate quantities [T, d] or [T, R, d]. The
    first time is 0. theta, u, v and Delta are those of `Weights`.

    Attributes:
        lam: lambda; [R, 1] of many flows, [T, 1] of one whose lambda or friction changes.
        t: times, increasing.
        w: (w_+, w_-) = (u + v, u - v), [2, T, d] or [2, T, R, d].
        dw: its time derivative.
        G: the integral of grad L from 0 to t; of (P/lambda) grad L where lambda or the friction
            changes (docs/theory.md#changing-coefficients).
        loss: L(theta_t), one entry for each of t.
    """

    lam: float | Tensor
    t: Tensor
    w: Tensor
    dw: Tensor
    G: Tensor
    loss: Tensor
    _per_time: ClassVar[tuple[str, ...]] = ()
    """further fields with the times along axis 0"""

    @property
    def changing(self) -> bool:
        """Whether lam has the times along axis 0."""
        return False

    @property
    def memory(self) -> Any:
        """P, the weight of the path integrals: lambda at a constant lambda and friction 1."""
        return self.lam

    @property
    def dw_plus(self) -> Tensor:
        """w_+'."""
        return self.dw[0]

    @property
    def dw_minus(self) -> Tensor:
        """w_-'."""
        return self.dw[1]

    def at(self, times: Any) -> Self:
        """The path at some of its times, by an index list, tensor or slice."""
        first, second = ("t", "G", "loss", *self._per_time), ("w", "dw")
        found = {
            name: getattr(self, name)[times] for name in first if getattr(self, name) is not None
        }
        found |= {name: getattr(self, name)[:, times] for name in second}
        if self.changing and isinstance(self.lam, Tensor):
            found["lam"] = self.lam[times]
        return replace(self, **found)

    @property
    def energy(self) -> Tensor:
        """E = F(w) + lambda/2 (||u'||^2 + ||v'||^2), [T]; E' = -(||u'||^2 + ||v'||^2).

        (docs/theory.md#energy.)
        """
        square = self.dw[0].square() + self.dw[1].square()
        return self.loss + (self.lam / 4 * square).sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class FlowPath(Path):
    """A path of momentum gradient flow, or of gradient flow (lam = 0), at times t.

    ``lam`` is a number, or [T, 1] if `coefficients` are given: lambda and friction then change.

    The last time is the one at which the integration ended, requested or not.

    Attributes:
        G_delayed: H with lambda H' + H = G and H_0 = 0, which is G itself if lambda = 0, and nan
            where lambda or the friction changes.
        dissipated: the integral of ||u'||^2 + ||v'||^2 from 0 to t, [T].
        sign_changes: how often w_+ or w_- changed sign, counted at every step of the solver, [d].
        status: CONVERGED (the energy fell below tol), TIME_REACHED or FAILED.
        solvers: method, error settings and work, one after the other.
        gradient_square: the integral of (grad L)^2 from 0 to t; None unless lambda = 0.
        mirror_form: whether w_+- = w_{+-,0} exp(-+G) is built in (see `gradient_flow`), so that
            the implicit bias holds by construction and certifies nothing.
        coefficients: lambda and friction as functions of time; None where they are lam and 1.
        P: the weight P(t) of the path integrals, [T, 1]; None where it is lam.
        speed_products: 2 int P (u'^2 - v'^2) from 0 to t, [T, d]; None where P is.
        sums: sums over the steps of the solver between the times, where these are not every step
            because the memory for states was full; None otherwise.
    """

    lam: float | Tensor
    G_delayed: Tensor
    dissipated: Tensor
    sign_changes: Tensor
    status: FlowStatus
    solvers: tuple[SolverReport, ...]
    gradient_square: Tensor | None = None
    mirror_form: bool = False
    coefficients: Coefficients | None = None
    P: Tensor | None = None
    speed_products: Tensor | None = None
    sums: StepSums | None = None
    _per_time = ("G_delayed", "dissipated", "gradient_square", "P", "speed_products")

    def at(self, times: Any) -> Self:
        """The path at some of its times; the sums over the steps between them are left out."""
        return replace(super().at(times), sums=None)

    @property
    def changing(self) -> bool:
        """Whether lambda or the friction depends on time."""
        return self.coefficients is not None

    @property
    def is_gradient_flow(self) -> bool:
        """Whether there is no inertia: lambda = 0."""
        return not isinstance(self.lam, Tensor) and self.lam == 0

    @property
    def memory(self) -> Any:
        """P, the weight of the path integrals, [T, 1]; lam where nothing changes."""
        return self.lam if self.P is None else self.P

    @property
    def last_lam(self) -> float:
        """lambda at the last time."""
        return float(self.lam[-1]) if isinstance(self.lam, Tensor) else self.lam

    def __repr__(self) -> str:
        return (
            f"FlowPath(lam={self.last_lam:g}, T={len(self.t)}, d={self.w.shape[-1]}, "
            f"t_end={float(self.t[-1]):g}, loss={float(self.loss[-1]):.2e}, "
            f"status={self.status.value!r})"
        )

    @property
    def converged(self) -> bool:
        """Whether the energy fell below the tolerance."""
        return self.status is FlowStatus.CONVERGED


@dataclass(frozen=True, eq=False, repr=False)
class Flows(Path):
    """Paths of many momentum gradient flows, with a run dimension after that of time.

    Index 0 of the time dimension is t = 0 and index -1 is where each flow ended; ``lam`` is
    [R, 1]. `limit_bias`, `running_bias`, `path_integrals` and `boundary_terms` of
    `dln_momentum.theory.continuous_bias` read the implicit bias off it.

    Attributes:
        error_estimate: of w, relative to its largest entry, [T, R]. To first order, what the
            flow has made of the differences between the extrapolations of orders 8 and 6 in all
            macro-steps up to t. An estimate and no bound; that of the lower order, so usually too
            large. Rounding, some 1e-14 to 1e-12, is not in it.
        sign_changes: how often w_+ or w_- changed sign, over all coordinates, [R].
        steps: leapfrog steps taken, all levels and rejected macro-steps counted, [R].
        status: how each flow ended; R of them.
    """

    lam: Tensor
    error_estimate: Tensor
    sign_changes: Tensor
    steps: Tensor
    status: tuple[FlowStatus, ...]
    _per_time = ("error_estimate",)

    def __repr__(self) -> str:
        T, R, d = self.w.shape[1:]
        ends = {s.value: self.status.count(s) for s in FlowStatus if s in self.status}
        error = float(self.error_estimate[-1].max())
        return f"Flows(T={T}, R={R}, d={d}, error_estimate<={error:.1e}, status={ends})"

    @property
    def converged(self) -> Tensor:
        """Whether the energy fell below the tolerance, [R] bool."""
        flags = [status is FlowStatus.CONVERGED for status in self.status]
        return torch.tensor(flags, device=self.t.device)
