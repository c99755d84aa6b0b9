"""The path sums S_+- along a run, and how well they predict the balancedness."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import balancedness_errors
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor


class PathSumsMonitor(Monitor):
    """S_+-, their totals over coordinates, and the two errors of `balancedness_errors`.

    The error that is zero at every step tests the theorem only if S is summed directly.
    """

    group = "path_sums"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """S_+- as the engine carries them."""
        s_plus, s_minus = snapshot.path_sums
        totals = {"s_plus_total": s_plus.sum(-1), "s_minus_total": s_minus.sum(-1)}
        return balancedness_errors(snapshot) | totals | {"s_plus": s_plus, "s_minus": s_minus}
