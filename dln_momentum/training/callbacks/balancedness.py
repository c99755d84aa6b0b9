"""The balancedness Delta_k along a run."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import balancedness_scalars
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor


class BalancednessMonitor(Monitor):
    """||Delta_k||_1, min_i Delta_k/Delta_0, the sign changes of w_+-, and Delta_k itself."""

    group = "balancedness"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """Delta_k = |w_+ w_-| and its scalars."""
        return balancedness_scalars(snapshot) | {"balancedness": snapshot.balancedness}
