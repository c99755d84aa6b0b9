"""The path sums S_+- along a run, and how well they predict the balancedness."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import path_sum_scalars
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor


class PathSumsMonitor(Monitor):
    """S_+- and the scalars of `path_sum_scalars`.

    The error that is zero at every step tests the theorem only if S is summed directly.
    """

    group = "path_sums"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """S_+- as the engine carries them."""
        s_plus, s_minus = snapshot.path_sums
        return path_sum_scalars(snapshot) | {"s_plus": s_plus, "s_minus": s_minus}
