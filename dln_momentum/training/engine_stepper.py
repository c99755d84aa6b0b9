"""The steps of any number of diagonal networks, on the engine by the closed-form gradient."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Engine, EngineOptions, Snapshot
from dln_momentum.engine.problems import Measure, Report
from dln_momentum.errors import raise_if_any
from dln_momentum.method import Method
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.training.datamodule import BlockDataModule

CHUNK = 2**17
"""Entries of u that are written back at once."""

logger = logging.getLogger(__name__)


class EngineStepper:
    """Diagonal networks on the engine; the module's parameters follow at the end of each block."""

    def __init__(self, engine: Engine, net: DiagonalLinearNet, optimizer: HeavyBall) -> None:
        self.engine = engine
        self._net = net
        self._optimizer = optimizer
        self._written = self._digits()

    @classmethod
    def of(
        cls,
        net: DiagonalLinearNet,
        optimizer: HeavyBall,
        data: BlockDataModule,
        options: EngineOptions,
        method: Method,
    ) -> EngineStepper:
        """The engine at the start of the network, with the optimizer's rates and increments."""
        # the iterates of a deeper network are u and v themselves
        pair = (net.u, net.v) if net.is_deep else (net.w_plus, net.w_minus)
        w_plus, w_minus = (w.detach().reshape(-1, w.shape[-1]) for w in pair)
        gamma, beta = (rate.to(w_plus).expand(len(w_plus)) for rate in rates_of(optimizer))
        engine = Engine(
            data.problems,
            gamma.clone(),
            beta.clone(),
            w_plus.clone(),
            w_minus.clone(),
            previous=_previous(net, optimizer, w_plus, w_minus),
            batches=data.batches,
            label_noise=data.label_noise,
            options=options,
            method=method,
        )
        logger.info(
            "engine: %s (%s) for R = %d, n = %d, d = %d",
            *(engine.backend.name, engine.backend.why, len(w_plus), data.problem.n, data.problem.d),
        )
        return cls(engine, net, optimizer)

    @property
    def step(self) -> int:
        """Steps taken by the runs that are still running (or by the last to end)."""
        return self.engine.step

    @property
    def loss(self) -> Tensor:
        """Training loss of each run, [R]."""
        return self.engine.state.loss

    @property
    def status(self) -> Tensor:
        """`Status` of each run, [R]."""
        return self.engine.state.status

    @property
    def rates(self) -> tuple[Tensor, Tensor]:
        """gamma and beta of the runs."""
        return rates_of(self._optimizer)

    def advance(self, steps: int) -> None:
        """Take a block of steps."""
        raise_if_any(self._changes())
        self.engine.advance(steps)
        self._sync()

    def stop(self) -> None:
        """Record that the step budget is spent."""
        self.engine.stop()

    def reopen(self) -> None:
        """Let the runs go on whose step budget was spent, or that have a lower tolerance now."""
        self.engine.reopen()

    def snapshot(self) -> Snapshot:
        """The runs in the poster's variables."""
        return self.engine.snapshot()

    def measure(self, function: Measure, report: Report | None = None) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all of them, in their order."""
        return self.engine.measure(function, report)

    def state_dict(self) -> dict[str, Any]:
        """The state of the engine."""
        return {"engine": self.engine.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore it."""
        self.engine.load_state_dict(saved["engine"])
        # Lightning writes the checkpoint's parameters into the network after this
        self._written = {}

    @torch.no_grad()
    def _sync(self) -> None:
        """Write the engine's u, v and increments into the module and the optimizer.

        A checkpoint's u, v and their increments then mean what they say, so that another program
        can continue from them with HeavyBall alone.
        """
        for runs in torch.arange(len(self.loss)).split(max(1, CHUNK // self._net.u.shape[-1])):
            part = slice(int(runs[0]), int(runs[-1]) + 1)
            values, increments = self.engine.variables(part)
            for i, parameter in enumerate((self._net.u, self._net.v)):
                increment = self._optimizer.increment(parameter)
                parameter.view(-1, parameter.shape[-1])[part] = values[i]
                increment.view(-1, parameter.shape[-1])[part] = increments[i]
        self._written = self._digits()

    def _digits(self) -> dict[str, int]:
        """A sum over the bits of what the engines do not read back: any change shows in it."""
        group = self._optimizer.param_groups[0]
        tensors = {
            "u": self._net.u,
            "v": self._net.v,
            "gamma": group["lr"],
            "beta": group["momentum"],
        }
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


def rates_of(optimizer: HeavyBall) -> tuple[Tensor, Tensor]:
    """gamma and beta as they stand in the optimizer's group, float64 [1] or [R]."""
    group = optimizer.param_groups[0]
    gamma, beta = (
        torch.as_tensor(group[key], dtype=torch.float64).reshape(-1).clone()
        for key in ("lr", "momentum")
    )
    return gamma, beta


def _previous(
    net: DiagonalLinearNet, optimizer: HeavyBall, w_plus: Tensor, w_minus: Tensor
) -> tuple[Tensor, Tensor] | None:
    """w_0 of w_+ and w_-, [R, d] each, from the optimizer's increments; None at rest."""
    increments = [optimizer.increment(w).detach() for w in net.parameters()]
    if not any(bool(increment.any()) for increment in increments):
        return None
    du, dv = (increment.reshape(w_plus.shape) for increment in increments)
    if net.is_deep:
        return w_plus - du, w_minus - dv
    return w_plus - (du + dv), w_minus - (du - dv)
