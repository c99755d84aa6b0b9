"""The sharpness along a run, against the bound of heavy ball's stability."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.problems import groups_of
from dln_momentum.outputs.summary import curvature, of_one_rate
from dln_momentum.problem import Problem
from dln_momentum.theory.curvature import batch_sharpness
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.module import HeavyBallModule

BATCHES = 64
"""Batches of the run's own stream, the next ones, that batch sharpness is the mean over."""


class CurvatureMonitor(Monitor):
    """Sharpness, 2 (1 + beta)/gamma, and batch sharpness, at the recorded steps.

    (docs/theory.md#curvature.) An eigenvalue problem of 2d unknowns for each record of each run:
    half a millisecond at d = 30. The effective learning rate gamma/(1-beta) is ``eps``.

    Args:
        batches: batches that the batch sharpness is the mean over; 0 leaves it out. Without
            mini-batches it is the curvature along the gradient of the loss.
    """

    group = "curvature"

    def __init__(self, batches: int = BATCHES) -> None:
        self._batches = batches

    def measure(self, snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
        """The sharpness and its threshold."""
        return curvature(snapshot, problem)

    def _record(self, module: HeavyBallModule) -> None:
        super()._record(module)
        if not module.diagonal or not self._batches:
            return
        snapshot, data = module.snapshot(), module.data
        assert snapshot is not None
        step = module.stepper.step
        weights = data.batches.weights(step, step + self._batches)
        found = torch.full_like(snapshot.loss, torch.nan)
        for group in groups_of(data.problems):
            of_group = weights
            if weights is not None and weights.shape[1] > 1:
                of_group = weights[:, group.places]
            data, kappa, depth = of_one_rate(snapshot, group.problem)
            w = snapshot.w[:, group.places] / kappa**0.5
            depth = depth[group.places] if isinstance(depth, Tensor) else depth
            found[group.places] = batch_sharpness(data, w, of_group, depth)
        module.record(self.group, {"batch_sharpness": found})
