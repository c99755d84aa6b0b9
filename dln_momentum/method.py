"""The methods that the theorem covers: heavy ball and what it shares its weights p_k with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes, is_integer, is_one_of, tensor_of
from dln_momentum.errors import InputError
from dln_momentum.per_run import (
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    Limit,
    Number,
    PerRun,
    tensor_like,
)
from dln_momentum.schedules import Constant, Schedule

METHODS = ("heavy_ball", "nesterov")
"""How a step uses the momentum."""


CONSTANT = Constant()


class StepRates(NamedTuple):
    """What the steps of some runs are made of, float64 [steps, R] each."""

    step: Tensor
    """what the gradient is multiplied by: gamma_k, dampened from k = 2 on"""
    beta: Tensor
    """beta_k"""
    decay: Tensor
    """what w_k is multiplied by and loses: step omega if coupled, gamma_k omega if decoupled"""


@dataclass(frozen=True, eq=False)
class Method(PerRun):
    """One member of the family, for all runs; numbers may be tensors with one for each run.

    A step k = 1, 2, ... of heavy ball on parameters w, with g_k the (batch) gradient, is

        w_{k+1} = w_k - gamma_k (g_k + omega w_k) + beta_k (w_k - w_{k-1}),                 coupled
        w_{k+1} = (1 - eta_k) w_k - m_k,  m_k = beta_k m_{k-1} + gamma_k g_k,

    the second with eta_k = gamma_k omega where the decay is decoupled, in the convention of
    `torch.optim.AdamW`. Nesterov's is

        x_{k+1} = z_k - gamma_k (g(z_k) + omega z_k),
        z_{k+1} = x_{k+1} + beta_{k+1} (x_{k+1} - x_k).

    Args:
        name: one of `METHODS`.
        schedule: gamma_k and beta_k.
        weight_decay: omega >= 0.
        decoupled: whether the decay is.
        decay_until: the last step with decay; None for all steps.
        dampening: tau in [0, 1): from k = 2 on, what is added to the momentum is multiplied by
            1 - tau, as `torch.optim.SGD` has it.
        kappa: [d], > 0: coordinate i has the step kappa_i gamma_k; None for ones.
        layer_ratio: gamma_v/gamma_u > 0, where gamma = sqrt(gamma_u gamma_v).
        depth: D >= 2 of theta = u^D - v^D; 2.0 is the network theta = u v.

    Raises:
        InputError: for values out of their range, and combinations that leave the family.

    >>> Method().is_plain, Method(weight_decay=0.1).is_plain
    (True, False)
    >>> Method("nesterov", dampening=0.1)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: method.dampening must be 0 with method.name = 'nesterov'
    """

    prefix: ClassVar[str] = "method."
    limits: ClassVar = {
        "weight_decay": NOT_NEGATIVE,
        "dampening": BELOW_ONE,
        "layer_ratio": POSITIVE,
        "depth": Limit(2, math.inf, "[)", "finite and >= 2"),
    }
    numbers = tuple(limits)

    name: str = "heavy_ball"
    schedule: Schedule = CONSTANT
    weight_decay: Number = 0.0
    decoupled: bool = False
    decay_until: int | None = None
    dampening: Number = 0.0
    kappa: Any = None
    layer_ratio: Number = 1.0
    depth: Number = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kappa is None:
            return
        object.__setattr__(self, "kappa", tensor_of("method.kappa", self.kappa))
        bad = ~(self.kappa.isfinite() & (self.kappa > 0))
        if self.kappa.ndim != 1 or bool(bad.any()):
            raise InputError(
                f"method.kappa has shape {[*self.kappa.shape]} and {int(bad.sum())} entries that "
                "are not finite and > 0; must be [d], all of them > 0"
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is the poster's method: heavy ball with constant rates, and nothing else."""
        return (
            self.name == "heavy_ball"
            and self.schedule.is_constant
            and not self.decays
            and not _any(self.dampening, 0.0)
            and self.kappa is None
            and not _any(self.layer_ratio, 1.0)
            and not self.is_deep
        )

    @property
    def decays(self) -> bool:
        """Whether any run has weight decay."""
        return _any(self.weight_decay, 0.0) and self.decay_until != 0

    @property
    def is_deep(self) -> bool:
        """Whether any run has a depth other than 2."""
        return _any(self.depth, 2.0)

    @property
    def runs(self) -> torch.Size:
        """The run dimensions of its numbers and its schedule's; empty where all runs share them."""
        return broadcast_shapes(super().runs, self.schedule.runs)

    def of(self, runs: Tensor | slice) -> Method:
        """The method of some of the R runs."""
        return replace(super().of(runs), schedule=self.schedule.of(runs))

    def flat(self, shape: tuple[int, ...]) -> Method:
        """Numbers that broadcast to runs of this shape, as one for each of its R runs in order."""
        return replace(super().flat(shape), schedule=self.schedule.flat(shape))

    def rates(self, gamma: Tensor, beta: Tensor, first: int, steps: int) -> StepRates:
        """What the steps first <= k < first + steps are made of.

        Args:
            gamma, beta: the rates of the runs, float64 [R].
            first: k of the first step, >= 1.
            steps: how many.
        """
        gamma_k, beta_k = self.schedule.rates(gamma, beta, first, steps)
        k = torch.arange(first, first + steps, device=gamma.device)[:, None]
        step = gamma_k
        if _any(self.dampening, 0.0):
            step = gamma_k * torch.where(k == 1, 1.0, 1 - tensor_like(self.dampening, gamma.device))
        decay = (gamma_k if self.decoupled else step) * tensor_like(self.weight_decay, gamma.device)
        if self.decay_until is not None:
            decay = torch.where(k <= self.decay_until, decay, 0.0)
        return StepRates(step, beta_k, decay)

    def problems(self, gamma: Tensor, beta: Tensor) -> Iterator[str]:
        """What does not fit the rates [R] of some runs, one line each."""
        R = len(gamma)
        if tuple(self.runs) not in ((), (1,), (R,)):
            yield f"method has numbers for runs {list(self.runs)}; must be for one or for {R}"
            return
        yield from self.schedule.problems(gamma, beta)
        if self.decoupled and self.decays:
            omega = tensor_like(self.weight_decay, gamma.device)
            eta = omega * self.schedule.largest_step(gamma, beta)
            if not bool((eta < 1).all()):
                yield (
                    f"method.weight_decay: gamma_k weight_decay = {float(eta.max()):g} must be < 1 "
                    "where the decay is decoupled"
                )

    def _own_problems(self) -> Iterator[str]:
        if not is_one_of(self.name, METHODS):
            yield f"method.name = {self.name!r} must be one of {', '.join(METHODS)}"
        if not isinstance(self.schedule, Schedule):
            yield f"method.schedule = {self.schedule!r} must be a Schedule"
            return
        if not isinstance(self.decoupled, bool):
            yield f"method.decoupled = {self.decoupled!r} must be true or false"
        if self.decay_until is not None and not is_integer(self.decay_until, 0):
            yield f"method.decay_until = {self.decay_until!r} must be an integer >= 0 or null"
        yield from super()._own_problems()
        if isinstance(self.name, str) and self.name == "nesterov":
            if _any(self.dampening, 0.0):
                yield "method.dampening must be 0 with method.name = 'nesterov'"
            if self.decoupled and self.decays:
                yield "method.decoupled must be false with method.name = 'nesterov'"
        if self.decays and _any(self.layer_ratio, 1.0):
            yield (
                "method.weight_decay must be 0 where gamma_u and gamma_v differ: "
                "the layers would decay apart"
            )
        if self.decays and self.kappa is not None:
            yield "method.weight_decay must be 0 with kappa: coordinates would decay apart"
        if self.is_deep:
            for key, value, wrong in (
                ("name", self.name, self.name != "heavy_ball"),
                ("weight_decay", self.weight_decay, self.decays),
                ("kappa", "given", self.kappa is not None),
            ):
                if wrong:
                    usual = {"name": "heavy_ball", "weight_decay": 0, "kappa": None}[key]
                    shown = "an array" if isinstance(value, Tensor) else value
                    yield (
                        f"method.{key} = {shown} must be {usual} with depth > 2: "
                        "no identity is known for others"
                    )
            if _any(self.layer_ratio, 1.0):
                yield (
                    "gamma_u and gamma_v must be equal (layer_ratio = 1) with depth > 2: "
                    "no identity is known for others"
                )


def _any(value: Number, usual: float) -> bool:
    """Whether any of the numbers is not the usual one."""
    return bool((tensor_like(value) != usual).any())
