"""How far the predictor is from the minimisers that the theory names."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.implicit_bias import kkt_residual, log_perturbed_init_norm
from dln_momentum.summary import distance, minimiser
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule, dashboard


class ImplicitBiasMonitor(Monitor):
    """Distances of theta_k to the minimisers of D_{psi_{Delta_k}}(., theta~_0).

    ``own_level_set_distance``: over {X theta = X theta_k}; the theorem says zero at every step,
    converged or not. ``distance_to_minimizer``: over S = {X theta = y}; zero at the end. After the
    run, ``distance_to_limit``: of every recorded theta_k to the one minimiser at Delta_inf. Runs
    that diverged have nan.
    """

    group = "implicit_bias"

    def measure(self, module: HeavyBallModule, snapshot: Snapshot) -> dict[str, Tensor]:
        """The distances at one step, with the certificate and ln ||theta~_0||."""
        problem, theta = module.data.problem, snapshot.theta
        delta, c = snapshot.balancedness, snapshot.log_init
        rows = problem.row_space
        own, interpolators = rows.coordinates(theta.nan_to_num()), rows.target(problem.y)
        return {
            "own_level_set_distance": distance(theta, minimiser(problem, own, delta, c)),
            "distance_to_minimizer": distance(theta, minimiser(problem, interpolators, delta, c)),
            "kkt_residual": kkt_residual(rows, theta, delta, c),
            "log_perturbed_init_norm": log_perturbed_init_norm(delta, c),
        }

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the whole path against where it was bound to end."""
        assert isinstance(pl_module, HeavyBallModule)
        snapshot = pl_module.snapshot()
        if snapshot is None:
            return
        history, problem = pl_module.history, pl_module.data.problem
        target = problem.row_space.target(problem.y)
        limit = minimiser(problem, target, snapshot.balancedness, snapshot.log_init).cpu()
        for step, theta in history.values["theta"].items():
            gap = distance(theta, limit)
            history.record(step, {"distance_to_limit": gap})
            for logger in trainer.loggers:
                logger.log_metrics(dashboard({f"{self.group}/distance_to_limit": gap}), step=step)
