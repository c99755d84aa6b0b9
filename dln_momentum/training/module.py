"""A method of the family as a LightningModule: a ``training_step`` is a block of its steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from dln_momentum.engine import EngineOptions, Snapshot, Status
from dln_momentum.engine.problems import Measure, Report, groups_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.methods import as_plain, from_plain
from dln_momentum.method import Method
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.outputs.changing_rates import rates_at_step
from dln_momentum.outputs.history import History
from dln_momentum.outputs.minimisers import certificate
from dln_momentum.outputs.quantities import group_of
from dln_momentum.outputs.summary import recovery
from dln_momentum.pace import Pace
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of
from dln_momentum.training.autograd_stepper import AutogradStepper
from dln_momentum.training.board import DashboardLogger
from dln_momentum.training.datamodule import Block, BlockDataModule
from dln_momentum.training.engine_stepper import EngineStepper
from dln_momentum.training.reloading import hyper_parameters, origin, remade
from dln_momentum.training.resuming import check_same_run, identity, read_checkpoint
from dln_momentum.training.starting import Gradient, module_problems, set_initial_speed

SHARED = 2**16
"""Coordinates of all runs up to which the monitors share one snapshot, and what it has derived."""

Stepper = EngineStepper | AutogradStepper
"""The two ways to advance a run by a block of steps: any number of diagonal networks by the
closed-form gradient, or one network of any architecture by backpropagation."""


class HeavyBallModule(pl.LightningModule):
    """Trains a network by MGD(gamma, beta) or its family, with the theory's quantities.

    A diagonal network is advanced by the engine, thousands of runs as easily as one; any other
    module, or a diagonal one on request, by autograd and `HeavyBall`.

    Lightning's ``global_step`` counts optimiser steps, not blocks. A run ends by itself once every
    network has converged, diverged or spent its steps; that is recorded in `status_labels`.

    Args:
        net: the network; a `DiagonalLinearNet` may have one leading run dimension.
        gamma, beta: numbers, or tensors [R] for R runs.
        data: the problem, its mini-batches and the plan.
        method: schedule, Nesterov's step, weight decay, dampening, rates of coordinates and layers,
            depth; heavy ball at constant rates by default.
        options: of the engine; its ``tol`` and ``divergence_bound`` hold for autograd as well.
        gradient: ``closed_form`` or ``autograd``; a network that is not diagonal needs the latter.
        speed: the initial speed is w'(0) = -speed grad F(w_0), so that w_1 - w_0 = eps w'(0) with
            w_1 the network as it is given; 0 is rest.
        trajectories: whether the history keeps values per coordinate; scalars it always keeps.

    Raises:
        InputError: for parameters not in double precision, another ``gradient``, autograd of more
            than one diagonal network or by another method than heavy ball, with a schedule or
            without, or rates that `HeavyBall` refuses.

    >>> from dln_momentum.data import BatchStream, sparse
    >>> from dln_momentum.record_plan import RecordPlan
    >>> data = BlockDataModule(
    ...     sparse(5, 8, 1, seed=0), RecordPlan(1000, 10, 100), BatchStream(5, None, "reshuffle", 0)
    ... )
    >>> module = HeavyBallModule(DiagonalLinearNet.uniform(8, 0.1), 0.01, 0.9, data)
    >>> module.stepper.advance(1000)
    >>> module.snapshot().theta.shape
    torch.Size([1, 8])
    """

    def __init__(
        self,
        net: nn.Module,
        gamma: float | Tensor,
        beta: float | Tensor,
        data: BlockDataModule,
        *,
        method: Method | None = None,
        options: EngineOptions | None = None,
        gradient: Gradient = "closed_form",
        speed: float = 0.0,
        trajectories: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = net
        self.data = data
        self.history = History()
        self.trajectories = trajectories
        self.optimizer = HeavyBall(net.parameters(), gamma, beta)
        options, method = options or EngineOptions(), method or Method()
        raise_if_any(module_problems(net, gradient, speed, method, data))
        rates = {"gamma": gamma, "beta": beta}
        others = {"gradient": gradient, "speed": speed, "trajectories": trajectories}
        others |= {"method": as_plain(method)}
        self.save_hyperparameters(hyper_parameters(rates, data, options, **others), logger=False)
        self._origin = origin(net, data)
        if speed:
            set_initial_speed(net, self.optimizer, data, speed)
        # the network is only now where the run starts
        arithmetic = f"{gradient}, {options.path_sums}"
        self.identity = identity(
            data.problems,
            net,
            (gamma, beta, speed),
            data.batches,
            data.label_noise,
            arithmetic,
            method,
        )
        self.method = method
        self.workers = options.num_workers
        self.stepper = self._make_stepper(options, gradient)
        self.pace = Pace(data.problem.n * data.problem.d * len(self.stepper.loss))
        self._snapshot: Snapshot | None = None
        self._left = False

    def configure_optimizers(self) -> HeavyBall:
        """The optimizer whose parameters and increments a checkpoint holds."""
        return self.optimizer

    def training_step(self, block: Block, batch_idx: int) -> None:
        """Advance every run by one block."""
        if not isinstance(block, Block):
            raise InputError(
                f"HeavyBallModule trains on blocks of steps, given {type(block).__name__}: put "
                "the data into a Problem and call trainer.fit(module, module.data)"
            )
        if block.start != self.stepper.step:
            raise RuntimeError(f"block starts at {block.start}, training at {self.stepper.step}")
        self._snapshot = None
        stop = min(block.stop, self.max_steps)
        started = time.perf_counter()
        self.stepper.advance(stop - block.start)
        steps = self.stepper.step - block.start
        self.pace.measured(steps, time.perf_counter() - started)
        self._count(steps)
        if stop >= self.max_steps:
            self.stepper.stop()
        self._stop_if_finished()

    def on_train_start(self) -> None:
        """Stop a run that has ended already: at an interpolator, or resumed at its last step."""
        self._left = False
        # a module that was loaded from a checkpoint goes on from there
        self._count(self.stepper.step - self.trainer.global_step)
        if self.stepper.step >= self.max_steps:
            self.stepper.stop()
        self._stop_if_finished()

    def on_train_end(self) -> None:
        """Note that runs which still go on were stopped by a callback or by the user."""
        self._left = True

    @property
    def max_steps(self) -> int:
        """The last step: of the plan, or of ``Trainer(max_steps=...)`` if that is sooner."""
        asked = self.trainer.max_steps
        return self.data.plan.max_steps if asked < 0 else min(asked, self.data.plan.max_steps)

    def forward(self, X: Tensor) -> Tensor:
        """The predictions of the network for rows X, as ``Trainer.predict`` gives them."""
        return self.net(X)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log how well the runs do, for ``Trainer.test(module, module.data)``; medians of several.

        A diagonal network has its errors, its certificate and ln ||theta~_0||; another one the
        losses on the rows of training and test.
        """
        if self.diagonal:
            found = self.measure(_tested)
        else:
            problem = self.data.problem
            found = {"train_loss": self.stepper.loss}
            if problem.X_test is not None and problem.y_test is not None:
                errors = self.net(problem.X_test).reshape(1, -1) - problem.y_test
                found["test_error"] = errors.square().mean(-1) / 2
        self.log_dict({name: value.double().nanmedian() for name, value in found.items()})

    def snapshot(self) -> Snapshot | None:
        """The runs as they stand, read out once a step; None unless the network is diagonal."""
        if self._snapshot is None or self._snapshot.step != self.stepper.step:
            self._snapshot = self.stepper.snapshot()
        return self._snapshot

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all the runs as they stand."""
        groups = groups_of(self.data.problems)
        if report is None and len(groups) == 1:
            problem = groups[0].problem  # a stack, where runs have different problems
            alone = len(self.stepper.loss) * problem.d <= SHARED
            if alone and (snapshot := self.snapshot()) is not None:
                return function(snapshot, problem)
        return self.stepper.measure(function, report)

    @property
    def diagonal(self) -> bool:
        """Whether the theory's quantities are defined, and can be measured."""
        return isinstance(self.net, DiagonalLinearNet)

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return not bool((self.stepper.status == Status.RUNNING).any())

    @property
    def status_labels(self) -> list[str]:
        """How each run stands, by name; ``stopped`` where a callback has ended the training."""
        labels = [Status(int(code)).label for code in self.stepper.status]
        return [
            "stopped" if self._left and label == Status.RUNNING.label else label for label in labels
        ]

    @property
    def due(self) -> bool:
        """Whether the present step is to be recorded: on the plan, or the last."""
        return self.stepper.step in self.data.plan.recorded or self.finished

    def record(self, group: str, values: Mapping[str, Tensor], step: int | None = None) -> None:
        """Put values [R] or [R, d] into the history, and the scalars where Lightning shows them.

        Scalars go to the loggers, and into the trainer's ``callback_metrics`` under their own
        names, where EarlyStopping and ModelCheckpoint look (of several runs the median).
        ``self.log`` would put them there too, in 0.4 ms a value.

        Args:
            group: what loggers call a group of values that the table of quantities does not name.
            values: by name.
            step: the step they belong to; the present one by default.
        """
        step = self.stepper.step if step is None else step
        scalars = {name: value for name, value in values.items() if value.ndim == 1}
        self.history.record(step, values if self.trajectories else scalars)
        medians = {name: value.double().nanmedian() for name, value in scalars.items()}
        self.trainer.callback_metrics.update(medians)
        for board in self.loggers:
            if isinstance(board, DashboardLogger):
                board.follow(self.history, step, self.time_step)
            else:
                board.log_metrics(_shown(group, scalars), step=step)

    @property
    def changing_rates(self) -> dict[str, Tensor]:
        """gamma_k, beta_k and what follows from them at this step, [R] each; empty if constant."""
        gamma, beta = (rate.expand(len(self.stepper.loss)) for rate in self.stepper.rates)
        return rates_at_step(self.method.schedule, gamma, beta, self.stepper.step)

    @property
    def time_step(self) -> float:
        """eps = gamma/(1-beta), the time that a step takes; 1 where the runs differ in it."""
        eps = eps_of(*self.stepper.rates)
        return float(eps.max()) if bool((eps == eps.max()).all()) else 1.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a bitwise resume needs beside the parameters, and the history so far."""
        checkpoint["identity"] = self.identity
        checkpoint["stepper"] = self.stepper.state_dict()
        checkpoint["history"] = self.history.state_dict()
        checkpoint["origin"] = self._origin

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint; max_steps may be larger than then, and tol smaller.

        Raises:
            InputError: for the checkpoint of another run.
        """
        check_same_run(checkpoint, self.identity, self.data.plan.max_steps)
        self.stepper.load_state_dict(checkpoint["stepper"])
        self.stepper.reopen()
        self.history.load_state_dict(checkpoint["history"])

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        checkpoint_path: str | Path,
        *,
        data: BlockDataModule | None = None,
        net: nn.Module | None = None,
        **_: Any,
    ) -> HeavyBallModule:
        """The module of a checkpoint, as it was when that was saved.

        Args:
            checkpoint_path: the file.
            data: its data; needed where the checkpoint does not hold them (see `remade`).
            net: its network as it was made; needed for one that is not diagonal.

        Raises:
            InputError: for a file that is no checkpoint of this class, or holds too little.
        """
        saved = read_checkpoint(checkpoint_path)
        net, data = remade(saved, data, net)
        settings = saved["hyper_parameters"]
        rates = (torch.tensor(settings[key], dtype=torch.float64) for key in ("gamma", "beta"))
        gamma, beta = (rate if rate.ndim else float(rate) for rate in rates)
        given = {key: settings[key] for key in ("gradient", "speed", "trajectories")}
        options = EngineOptions(**settings["options"])
        # a checkpoint from before there were other methods is of the poster's
        method = from_plain(settings["method"]) if "method" in settings else None
        module = cls(net, gamma, beta, data, method=method, options=options, **given)
        module.load_state_dict(saved["state_dict"])
        module.optimizer.load_state_dict(saved["optimizer_states"][0])
        module.stepper.load_state_dict(saved["stepper"])
        module.history.load_state_dict(saved["history"])
        return module

    def _make_stepper(self, options: EngineOptions, gradient: Gradient) -> Stepper:
        net, optimizer, data, method = self.net, self.optimizer, self.data, self.method
        if not isinstance(net, DiagonalLinearNet) or gradient == "autograd":
            return AutogradStepper(net, optimizer, data, options, method.schedule)
        return EngineStepper.of(net, optimizer, data, options, method)

    def _stop_if_finished(self) -> None:
        if self.finished:
            self.trainer.should_stop = True

    def _count(self, steps: int) -> None:
        # Lightning counts calls of a wrapped optimizer, which cost 50 us each; a block reports
        # all of its steps to that counter at once, so that global_step and checkpoints are right
        loop = self.trainer.fit_loop.epoch_loop.manual_optimization
        loop.optim_step_progress.total.ready += steps
        loop.optim_step_progress.total.completed += steps


def _tested(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    found = {"train_loss": snapshot.loss} | recovery(snapshot.theta, problem)
    return found | certificate(snapshot, problem)


def _shown(group: str, scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """One run's value under its group and name; of many runs the median and the extremes.

    What is not defined, or holds by construction, is left out.
    """
    shown: dict[str, float] = {}
    for name, value in scalars.items():
        key = f"{group_of(name) or group}/{name}"
        finite = value[value.isfinite()].double()
        if len(value) == 1:
            if not value.isnan():
                shown[key] = float(value)
        elif len(finite):
            shown |= {f"{key}/median": float(finite.median())}
            shown |= {f"{key}/min": float(finite.min()), f"{key}/max": float(finite.max())}
    return shown
