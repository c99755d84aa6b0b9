"""How far the predictor is from the minimisers that the theory names."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.summary import certificate, distance, minimiser, potential
from dln_momentum.problem import Problem
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule, dashboard

_DISTANCES = ("own_level_set_distance", "distance_to_minimizer")


class ImplicitBiasMonitor(Monitor):
    """Distances of theta_k to the minimisers of D_{psi_{Delta_k}}(., theta~_0).

    ``own_level_set_distance``: over {X theta = X theta_k}; the theorem says zero at every step,
    converged or not. ``distance_to_minimizer``: over S = {X theta = y}; zero at the end. After the
    run, ``distance_to_limit``: of every recorded theta_k to the one minimiser at Delta_inf. Runs
    that diverged have nan, and so have all where they would be 0 by construction.

    Args:
        minimisers: whether to solve for the minimisers at every record; without them there is the
            certificate alone, which needs no solver.
    """

    group = "implicit_bias"

    def __init__(self, *, minimisers: bool = True) -> None:
        self._minimisers = minimisers

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The certificate, c_k and ln ||theta~_0||, and the distances if they were asked for."""
        found = certificate(snapshot, problem) | {"log_init": potential(snapshot)[1]}
        if not self._minimisers:
            return found
        if snapshot.certifies:
            return self._distances(snapshot, problem) | found
        missing = dict.fromkeys(_DISTANCES, torch.full_like(snapshot.loss, torch.nan))
        return missing | found

    def _distances(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        theta, (delta, c), rows = snapshot.theta, potential(snapshot), problem.row_space
        own, interpolators = rows.coordinates(theta.nan_to_num()), rows.target(problem.y)
        targets = (own, interpolators)
        found = (distance(theta, minimiser(problem, b, delta, c)) for b in targets)
        return dict(zip(_DISTANCES, found, strict=True))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the whole path against where it was bound to end."""
        assert isinstance(pl_module, HeavyBallModule)
        history = pl_module.history
        if not (pl_module.diagonal and self._minimisers):
            return
        limit = pl_module.measure(_limit)["limit"].cpu()
        snapshot = pl_module.snapshot()
        certifies = snapshot is not None and snapshot.certifies
        for step, theta in history.values["theta"].items():
            gap = distance(theta, limit) if certifies else torch.full_like(theta[:, 0], torch.nan)
            history.record(step, {"distance_to_limit": gap})
            for logger in trainer.loggers:
                logger.log_metrics(dashboard({f"{self.group}/distance_to_limit": gap}), step=step)


def _limit(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    target = problem.row_space.target(problem.y)
    return {"limit": minimiser(problem, target, *potential(snapshot))}
