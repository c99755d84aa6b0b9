"""Two ways to advance a run by a block of steps, behind one interface.

`EngineStepper` advances any number of diagonal networks by the closed-form gradient;
`AutogradStepper` advances one network of any architecture by backpropagation and `HeavyBall`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
from dln_momentum.engine.parallel import for_each
from dln_momentum.engine.scaled import CHECK_EVERY
from dln_momentum.engine.status import divergence_ceiling, judge
from dln_momentum.errors import raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.problem import Problem
from dln_momentum.training.cohorts import Cohort, in_order, join
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.path_tracker import PathTracker

Measure = Callable[[Snapshot, Problem], dict[str, Tensor]]
"""From the snapshot of some runs and their problem to values [R, ...] by name."""

Report = Callable[[int], object]
"""Told how many runs more have been measured, from any thread."""

PIECE = 2**17
"""Entries of theta that are read out and measured at once."""


class Stepper(Protocol):
    """What the Lightning module needs of either."""

    @property
    def step(self) -> int:
        """Steps taken."""
        ...

    @property
    def loss(self) -> Tensor:
        """Training loss of each run, [R]."""
        ...

    @property
    def status(self) -> Tensor:
        """`Status` of each run, [R]."""
        ...

    def advance(self, steps: int) -> None:
        """Take a block of steps."""
        ...

    def stop(self) -> None:
        """Record that the step budget is spent."""
        ...

    def reopen(self) -> None:
        """Let the runs go on whose step budget was spent, or whose loss is above the tolerance."""
        ...

    def snapshot(self) -> Snapshot | None:
        """The runs in the poster's variables; None for another architecture."""
        ...

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all of them, in their order."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a bitwise resume needs beyond the network's parameters."""
        ...

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take it back."""
        ...


class EngineStepper:
    """Diagonal networks, an engine to each cohort; the module's parameters follow a block's end."""

    def __init__(
        self,
        cohorts: Sequence[Cohort],
        engines: Sequence[Engine],
        net: DiagonalLinearNet,
        optimizer: HeavyBall,
    ) -> None:
        self.engines = list(engines)
        self._places = [
            torch.arange(len(engine.gamma)) if cohort.runs is None else cohort.runs
            for cohort, engine in zip(cohorts, engines, strict=True)
        ]
        self._net = net
        self._optimizer = optimizer
        self._written = self._digits()

    @property
    def step(self) -> int:
        """Steps taken by the runs that are still running (or by the last to end)."""
        return max(engine.step for engine in self.engines)

    @property
    def loss(self) -> Tensor:
        """Training loss of each run, [R]."""
        return in_order(self._places, [engine.state.loss for engine in self.engines])

    @property
    def status(self) -> Tensor:
        """`Status` of each run, [R]."""
        return in_order(self._places, [engine.state.status for engine in self.engines])

    def advance(self, steps: int) -> None:
        """Take a block of steps."""
        raise_if_any(self._changes())
        target = self.step + steps
        for engine in self.engines:
            engine.advance_to(target)
        self._sync()

    def stop(self) -> None:
        """Record that the step budget is spent."""
        for engine in self.engines:
            engine.stop()

    def reopen(self) -> None:
        """Let the runs go on whose step budget was spent, or that have a lower tolerance now.

        Those of the second kind may be behind the others; they catch up.
        """
        for engine in self.engines:
            engine.reopen()

    def snapshot(self) -> Snapshot:
        """The runs in the poster's variables."""
        return join(self._places, [engine.snapshot() for engine in self.engines])

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all of them, in their order.

        Many runs are read out and measured a piece at a time, on all cores, so that what the
        function derives on its way takes little memory beside the runs themselves.
        """
        pieces = list(self._pieces())
        parts: list[dict[str, Tensor]] = [{}] * len(pieces)

        def measure_one(index: Tensor) -> None:
            engine, local, runs = pieces[int(index)]
            parts[int(index)] = function(engine.snapshot(local), engine.problem)
            if report is not None:
                report(len(runs))

        workers = self.engines[0].options.num_workers
        for_each(measure_one, torch.arange(len(pieces)).split(1), workers)
        places = [runs for _, _, runs in pieces]
        return {name: in_order(places, [part[name] for part in parts]) for name in parts[0]}

    def state_dict(self) -> dict[str, Any]:
        """The states of the engines."""
        return {"engines": [engine.state_dict() for engine in self.engines]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take them back."""
        for engine, state in zip(self.engines, saved["engines"], strict=True):
            engine.load_state_dict(state)
        # Lightning writes the checkpoint's parameters into the network after this
        self._written = {}

    @torch.no_grad()
    def _sync(self) -> None:
        """Show the module and the optimizer where the engines stand.

        A checkpoint's u, v and their increments then mean what they say, so that another program
        can continue from them with HeavyBall alone.
        """
        for engine, local, runs in self._pieces():
            values, steps = engine.variables(local)
            for i, parameter in enumerate((self._net.u, self._net.v)):
                increment = self._optimizer.increment(parameter)
                parameter.view(-1, parameter.shape[-1])[runs] = values[i]
                increment.view(-1, parameter.shape[-1])[runs] = steps[i]
        self._written = self._digits()

    def _digits(self) -> dict[str, int]:
        """A sum over the bits of what the engines do not read back: any change shows in it."""
        group = self._optimizer.param_groups[0]
        tensors = {"u": self._net.u, "v": self._net.v, "gamma": group["lr"], "beta": group["beta"]}
        return {
            name: int(torch.as_tensor(value, dtype=torch.float64).detach().view(torch.int64).sum())
            for name, value in tensors.items()
        }

    def _changes(self) -> Iterator[str]:
        """What a callback or a scheduler has written that the engines would pass over."""
        now = self._digits() if self._written else {}
        for name, digits in self._written.items():
            if now[name] != digits:
                yield (
                    f"{name} was changed after step {self.step}; trainer.gradient = closed_form "
                    "trains on its own copy: use trainer.gradient = autograd, which follows what "
                    "schedulers and callbacks write"
                )

    def _pieces(self) -> Iterator[tuple[Engine, slice, Tensor]]:
        """An engine, some of its runs, and their places among all; a stack of problems is whole."""
        for engine, places in zip(self.engines, self._places, strict=True):
            whole = len(places) if engine.problem.runs else PIECE // engine.problem.d
            size = max(1, whole)
            for start in range(0, len(places), size):
                local = slice(start, start + size)
                yield engine, local, places[local]


class AutogradStepper:
    """One network of any architecture, by autograd and `HeavyBall`.

    The loss is 1/(2n) sum_j weight_j (net(x_j) - y_j)^2, as everywhere. A diagonal network gets
    its path sums as well.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: HeavyBall,
        data: BlockDataModule,
        options: EngineOptions,
    ) -> None:
        self._net, self._optimizer, self._data = net, optimizer, data
        self._options = options
        self._tracker = None
        if isinstance(net, DiagonalLinearNet):
            self._tracker = PathTracker(net, optimizer, data.problem, options.path_sums)
        self.step = 0
        self.loss = self._full_loss()
        self._loss_start = self.loss.clone()
        self.status: Tensor = torch.zeros(1, dtype=torch.int64, device=self.loss.device)
        self._look()

    def advance(self, steps: int) -> None:
        """Take a block of steps, or as many as there are to the look at which the run ends."""
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
                self._look()
        self.loss = self._full_loss()

    def stop(self) -> None:
        """Record that the step budget is spent; the last step is a look too."""
        if int(self.status) == Status.RUNNING:
            self._look()
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
        """Take them back; the network and the optimizer are restored by Lightning."""
        self.step, device = saved["step"], self.loss.device
        self.loss, self._loss_start = saved["loss"].to(device), saved["loss_start"].to(device)
        self.status = saved["status"].to(device, copy=True)
        if self._tracker is not None:
            self._tracker.load_state_dict(saved)

    def _one_step(self, weights: Tensor | None, noise: Tensor | None) -> None:
        problem = self._data.problem
        targets = problem.y if noise is None else problem.y + noise
        self._optimizer.zero_grad()
        residual = self._net(problem.X).reshape(problem.n) - targets
        weighted = residual if weights is None else weights * residual
        (weighted * residual).sum().div(2 * problem.n).backward()
        self._optimizer.step()
        if self._tracker is not None:
            self._tracker.update(problem.X.T @ weighted.detach() / problem.n)

    def _look(self) -> None:
        """Judge the run by its loss."""
        tol, bound = self._options.tol, self._options.divergence_bound
        self.loss = self._full_loss()
        self.status = judge(self.loss, divergence_ceiling(self._loss_start, tol, bound), tol)

    @torch.no_grad()
    def _full_loss(self) -> Tensor:
        problem = self._data.problem
        residual = self._net(problem.X).reshape(1, problem.n) - problem.y
        return residual.square().sum(-1) / (2 * problem.n)
