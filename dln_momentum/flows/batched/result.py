"""The paths of many flows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.flows.path import Path
from dln_momentum.flows.stepping import FlowStatus


@dataclass(frozen=True, eq=False, repr=False)
class Flows(Path):
    """Paths of momentum gradient flow: as `FlowPath`, with a run dimension after that of time.

    Index 0 of the first dimension is t = 0 and index -1 is where each flow ended; ``lam`` is
    [R, 1]. `limit_bias`, `running_bias`, `path_integrals` and `boundary_terms` of
    `dln_momentum.flows` read the implicit bias off it.

    Attributes:
        error_estimate: of w, relative to its largest entry, [T, R]. To first order, what the
            flow has made of the differences between the extrapolations of orders 8 and 6 in all
            segments up to t. An estimate and no bound; that of the lower order, so usually high.
            Rounding, some 1e-14 to 1e-12, is not in it.
        sign_changes: how often w_+ or w_- changed sign, over all coordinates, [R].
        steps: leapfrog steps taken, all levels and refused segments counted, [R].
        status: how each flow ended; R of them.
    """

    lam: Tensor
    error_estimate: Tensor
    sign_changes: Tensor
    steps: Tensor
    status: tuple[FlowStatus, ...]

    def __repr__(self) -> str:
        T, R, d = self.w_plus.shape
        ends = {s.value: self.status.count(s) for s in FlowStatus if s in self.status}
        error = float(self.error_estimate[-1].max())
        return f"Flows(T={T}, R={R}, d={d}, error_estimate<={error:.1e}, status={ends})"

    @property
    def converged(self) -> Tensor:
        """Whether the energy fell below the tolerance, [R] bool."""
        flags = [status is FlowStatus.CONVERGED for status in self.status]
        return torch.tensor(flags, device=self.t.device)
