"""The steps of one network of any architecture, by backpropagation and `HeavyBall`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dln_momentum.engine import EngineOptions, Snapshot, Status
from dln_momentum.engine.problems import Measure, Report
from dln_momentum.engine.scaled import CHECK_EVERY
from dln_momentum.engine.small_targets import tell_of_small_targets
from dln_momentum.engine.status import divergence_ceiling, judge
from dln_momentum.errors import raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.schedules import Schedule
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.engine_stepper import rates_of
from dln_momentum.training.path_tracker import PathTracker


class AutogradStepper:
    """One network of any architecture, by autograd and `HeavyBall`.

    The loss of a step is 1/n sum_j weight_j l(net(x_j), y_j), with the problem's l, as everywhere.
    A diagonal network gets its path sums as well. A schedule that is not constant writes gamma_k
    and beta_k into the optimizer's group before step k; a constant one leaves the group to others.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: HeavyBall,
        data: BlockDataModule,
        options: EngineOptions,
        schedule: Schedule,
    ) -> None:
        self._net, self._optimizer, self._data = net, optimizer, data
        self._options = options.on(data.problem)
        self._schedule, self.rates = schedule, rates_of(optimizer)
        raise_if_any(schedule.problems(*self.rates))
        self._tracker = None
        if isinstance(net, DiagonalLinearNet):
            self._tracker = PathTracker(net, optimizer, data.problem, options.path_sums)
        self.step: int = 0
        self.loss = self._full_loss()
        self._loss_start = self.loss.clone()
        self.status: Tensor = torch.zeros(1, dtype=torch.int64, device=self.loss.device)
        self._check()
        tell_of_small_targets([data.problem], self._options.tol)

    def advance(self, steps: int) -> None:
        """Take a block of steps, or as many as there are to the check at which the run ends."""
        window, stream = (self.step, self.step + steps), self._data.label_noise
        weights = self._data.batches.weights(*window)
        noise = None if stream is None else stream.label_noise(*window)
        device = self._data.problem.X.device
        weights, noise = (None if x is None else x[:, 0].to(device) for x in (weights, noise))
        for k in range(steps):
            if int(self.status) != Status.RUNNING:
                return
            self._one_step(
                None if weights is None else weights[k], None if noise is None else noise[k]
            )
            self.step += 1
            if self.step % CHECK_EVERY == 0:
                self._check()
        self.loss = self._full_loss()

    def stop(self) -> None:
        """Record that the step budget is spent; the last step is a check too."""
        if int(self.status) == Status.RUNNING:
            self._check()
        self.status[self.status == Status.RUNNING] = int(Status.MAX_STEPS)

    def reopen(self) -> None:
        """Let the run go on if its step budget was spent, or its loss is above the tolerance."""
        again = self.loss > self._options.tol or self.step % CHECK_EVERY != 0
        status = Status(int(self.status))
        if status is Status.MAX_STEPS or (status is Status.CONVERGED and again):
            self.status[:] = int(Status.RUNNING)

    def snapshot(self) -> Snapshot | None:
        """The run in the poster's variables, for a diagonal network."""
        if self._tracker is None:
            return None
        return self._tracker.snapshot(self.step, self.loss, self.status)

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of the run and its problem gives; there is one run, and no report."""
        snapshot = self.snapshot()
        assert snapshot is not None, "only diagonal networks have the theory's quantities"
        return function(snapshot, self._data.problem)

    def state_dict(self) -> dict[str, Any]:
        """Counters, and the path sums of a diagonal network."""
        tracked = {} if self._tracker is None else self._tracker.state_dict()
        own = {"step": self.step, "loss": self.loss, "loss_start": self._loss_start}
        return own | {"status": self.status.clone()} | tracked

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore them; Lightning restores the network and the optimizer, with its last rates."""
        self.step, device = saved["step"], self.loss.device
        self.loss, self._loss_start = saved["loss"].to(device), saved["loss_start"].to(device)
        self.status = saved["status"].to(device, copy=True)
        if self._tracker is not None:
            self._tracker.load_state_dict(saved)

    def _one_step(self, weights: Tensor | None, noise: Tensor | None) -> None:
        problem, loss = self._data.problem, self._data.problem.loss_of_row
        targets = problem.y if noise is None else problem.y + noise
        if not self._schedule.is_constant:
            self._write_rates(self.step + 1)
        self._optimizer.zero_grad()
        predictions = self._net(problem.X).reshape(problem.n)
        losses, slope = (of(predictions, targets) for of in (loss.value, loss.slope))
        if weights is not None:
            losses, slope = weights * losses, weights * slope
        losses.sum().div(problem.n).backward()
        self._optimizer.step()
        if self._tracker is not None:
            self._tracker.update(problem.X.T @ slope.detach() / problem.n)

    def _write_rates(self, k: int) -> None:
        """Let step k have the rates that the schedule makes of those of the run."""
        gamma, beta = self._schedule.rates(*self.rates, k, 1)
        self._optimizer.param_groups[0] |= {"lr": float(gamma), "momentum": float(beta)}

    def _check(self) -> None:
        """Judge the run by its loss."""
        tol, bound = self._options.tol, self._options.divergence_bound
        self.loss = self._full_loss()
        self.status = judge(self.loss, divergence_ceiling(self._loss_start, tol, bound), tol)

    @torch.no_grad()
    def _full_loss(self) -> Tensor:
        problem = self._data.problem
        predictions = self._net(problem.X).reshape(1, problem.n)
        return problem.loss_of_row.value(predictions, problem.y).mean(-1)
