"""How far the predictor is from the minimisers that the theory names."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.problems import groups_of
from dln_momentum.outputs.along_path import distances_along_path, has_path_distances, limit
from dln_momentum.outputs.minimisers import certificate, kappa_of, potential
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule


class ImplicitBiasMonitor(Monitor):
    """The KKT certificate at every record, and at the end the distances to the minimisers.

    The certificate needs no solver. `distances_along_path` is evaluated for all records together
    once the run has ended. Runs that diverged have nan, and so have all runs where the distances
    would be 0 by construction.

    Args:
        minimisers: whether to solve for the minimisers; without them there is the certificate
            alone.
    """

    group = "implicit_bias"

    def __init__(self, *, minimisers: bool = True) -> None:
        self._minimisers = minimisers

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The certificate, ln ||theta~_0||, and c_k, Delta_k and theta_k for the distances."""
        vectors = {
            "log_init": potential(snapshot)[1],
            "balancedness": snapshot.balancedness,
            "theta": snapshot.theta,
        }
        return certificate(snapshot, problem) | vectors

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the whole path, from the history."""
        assert isinstance(pl_module, HeavyBallModule)
        history, snapshot = pl_module.history, pl_module.snapshot()
        if snapshot is None or not self._minimisers or "theta" not in history.values:
            return
        end = pl_module.measure(limit)["minimizer"].cpu()
        needed = ("theta", "balancedness", "log_init")
        recorded = {name: history.column(name) for name in needed}
        groups = groups_of(pl_module.data.problems)
        found = distances_along_path(
            recorded,
            end,
            groups,
            certifies=has_path_distances(snapshot, pl_module.data.problem),
            kappa=kappa_of(snapshot),
            workers=pl_module.workers,
        )
        for place, step in enumerate(sorted(history.values["theta"])):
            values = {name: column[place] for name, column in found.items()}
            pl_module.record(self.group, values, step)
