"""R runs of heavy ball on theta = u^D - v^D at one step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.theory.power_trajectory import PowerTrajectory


@dataclass(frozen=True, eq=False)
class PowerSnapshot(  # pyright: ignore[reportIncompatibleVariableOverride]
    PowerTrajectory, FamilySnapshot
):
    """A `FamilySnapshot` whose w are u and v themselves (docs/theory.md#depth).

    With m = D - 2, u^(-m) = A_+ + m D G and v^(-m) = A_- - m D G, where G = sum_k p_k gamma_k g_k
    and A_+- = w_{+-,1}^(-m) + m S_+-.
    """

    depth: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]
    """D, [R, 1]"""

    @property
    def additions(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The steps taken, [R, 1]."""
        return self.steps[:, None]

    @cached_property
    def path_sums_from_gradients(self) -> Tensor:
        """S_+- from the gradients, [2, R, d]."""
        m, sums = self.depth - 2, self.depth * self.weighted_gradient_sum
        gained = (self.w_start**-m - self.w**-m) / m
        return -torch.stack([sums, -sums]) - gained
