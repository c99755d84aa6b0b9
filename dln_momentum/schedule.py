"""What every schedule of step sizes and momenta is; the rules are in `dln_momentum.schedules`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.per_run import PerRun, tensor_like

Rates = tuple[Tensor, Tensor]
"""gamma_k and beta_k, float64 [steps, R] each; expanded where steps or runs share them."""

Own = dict[str, Any]
"""The numbers of a schedule by name, float64 tensors or None."""


@dataclass(frozen=True, eq=False)
class Schedule(PerRun):
    """gamma_k and beta_k for any window of steps; a subclass is one rule.

    Its numbers may be tensors of the shape of the runs; the engine takes [R].
    """

    name: ClassVar[str]
    prefix: ClassVar[str] = "schedule."

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = inspect.get_annotations(cls).items()
        cls.numbers = tuple(key for key, kind in own if "ClassVar" not in str(kind))

    def identity(self) -> dict[str, Any]:
        """The schedule's name and numbers as plain values, for files, configs and hashes.

        >>> from dln_momentum.schedules import Warmup
        >>> Warmup(steps=100).identity()
        {'name': 'warmup', 'steps': 100.0}
        """
        return {"name": self.name} | super().identity()

    @property
    def is_constant(self) -> bool:
        """Whether every step has the rates of the run."""
        return False

    def rates(self, gamma: Tensor, beta: Tensor, first: int, steps: int) -> Rates:
        """gamma_k and beta_k of the steps first <= k < first + steps.

        Args:
            gamma, beta: the rates of the runs, float64 [R].
            first: k of the first step, >= 1.
            steps: how many.
        """
        k = torch.arange(first, first + steps, dtype=torch.float64, device=gamma.device)[:, None]
        given = {key: getattr(self, key) for key in self.numbers}
        own = {k: None if x is None else tensor_like(x, gamma.device) for k, x in given.items()}
        gamma_k, beta_k = self._rates(gamma, beta, k, own)
        wrong = [rate for rate in (gamma_k, beta_k) if rate.shape[-1] not in (1, len(gamma))]
        if wrong:
            raise InputError(
                f"schedule gave rates {[*wrong[0].shape]}; must be [{steps} or 1, {len(gamma)} "
                "or 1]"
            )
        return gamma_k.expand(steps, len(gamma)), beta_k.expand(steps, len(gamma))

    def largest_step(self, gamma: Tensor, beta: Tensor) -> Tensor:
        """An upper bound of gamma_k over all steps, [R]."""
        return gamma

    def problems(self, gamma: Tensor, beta: Tensor) -> Iterator[str]:
        """What makes a rate of these runs leave gamma_k >= 0, 0 <= beta_k < 1, one line each."""
        yield from ()

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        raise NotImplementedError
