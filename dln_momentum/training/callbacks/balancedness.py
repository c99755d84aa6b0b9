"""The balancedness Delta_k along a run."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import balancedness_scalars, coordinates
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor


class BalancednessMonitor(Monitor):
    """The scalars of `balancedness_scalars`, and Delta_k and w_+- of every coordinate."""

    group = "balancedness"

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """Delta_k = |w_+ w_-| and its scalars."""
        vectors = coordinates(snapshot)
        return balancedness_scalars(snapshot) | {
            name: vectors[name] for name in ("balancedness", "w_plus", "w_minus")
        }
