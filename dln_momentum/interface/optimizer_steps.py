"""The steps of a torch optimizer in the terms of the theorem, watched by its hooks.

`torch.optim.SGD` keeps a buffer b_k = mu_k b_{k-1} + (1 - tau)(g_k + omega_k w_k) and steps by
w_{k+1} = w_k - lr_k b_k. The learning rate multiplies the whole buffer, so that

    beta_k = mu_k lr_k/lr_{k-1},   gamma_k = (1 - tau) lr_k,

except at the first step of a new buffer, which torch sets to the gradient: beta = 0, gamma = lr.
`HeavyBall` keeps the increment itself: beta_k and gamma_k are its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.optimizer import HeavyBall

ADAPTIVE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Rprop")
"""Optimizers whose step in each coordinate depends on that coordinate's gradients."""


@dataclass(frozen=True)
class Step:
    """One step of one parameter.

    Attributes:
        beta: the multiple of the last increment that it carries on.
        gamma: what the gradient is multiplied by.
        decay: gamma_k omega_k of coupled weight decay.
        nesterov: whether the parameter is the point ahead of Nesterov's method.
    """

    beta: float
    gamma: float
    decay: float
    nesterov: bool


class OptimizerSteps:
    """Watches the steps that an optimizer takes on some parameters.

    Args:
        optimizer: `torch.optim.SGD` or `HeavyBall`; Lightning's wrapper of one is unwrapped.
        parameters: of the optimizer.
        start: called before the first step with the values and the increments (last, or None where
            there is none) of the parameters.
        step: called after each step with the parameters' steps and their values.

    Raises:
        InputError: for another optimizer, for parameters that it does not have, and for settings
            that leave the family from the start.
    """

    def __init__(
        self,
        optimizer: Any,
        parameters: Sequence[Tensor],
        start: Callable[[list[Tensor], list[Tensor] | None, list[Step]], None],
        step: Callable[[list[Step], list[Tensor]], None],
    ) -> None:
        self.optimizer = _known(optimizer)
        self.parameters = list(parameters)
        self._start, self._step = start, step
        self._readers = [_Reader(self.optimizer, p) for p in self.parameters]
        raise_if_any(problem for reader in self._readers for problem in reader.problems())
        self.faults: list[str] = []
        """Why the run has left the family; once there is one, no more steps are recorded."""
        self.calls = 0
        self._values: list[Tensor] | None = None
        self._begun = False
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def check_now(self) -> None:
        """Note whether something else has written to the parameters since the last step."""
        if self._values is not None and self._begun and not self.faults:
            now = [p.detach() for p in self.parameters]
            if not all(torch.equal(a, b) for a, b in zip(now, self._values, strict=True)):
                self.faults.append(
                    f"a parameter was changed by something else than the optimizer after step "
                    f"{self.calls}"
                )

    def _before(self, *_: Any) -> None:
        self.check_now()
        if not self._begun:
            self._values = [p.detach().clone() for p in self.parameters]
            for reader in self._readers:
                reader.begin()

    def _after(self, *_: Any) -> None:
        if self.faults:
            return
        if self._values is None:  # the recorder was made during a step
            return
        self.calls += 1
        missing = [p.grad is None for p in self.parameters]
        if all(missing):
            return
        if any(missing):
            self.faults.append(f"step {self.calls}: a parameter had no gradient, another had one")
            return
        steps = []
        for reader in self._readers:
            try:
                steps.append(reader.read())
            except InputError as error:
                self.faults.append(f"step {self.calls}: {error}")
                return
        self._begun = True
        now = [p.detach().clone() for p in self.parameters]
        before, self._values = self._values, now
        taken = [step for step in steps if step is not None]
        if len(taken) < len(steps):  # a learning rate of 0: the step is part of the next
            if taken:
                self.faults.append(f"step {self.calls}: one learning rate is 0, another is not")
            return
        if self._start is not None:
            self._start(before, _increments(self._readers), taken)
            self._start = None
        self._step(taken, now)


class Recorder:
    """What watches an optimizer's steps and sums something over them."""

    _steps: OptimizerSteps

    @property
    def faults(self) -> list[str]:
        """Why the run has left the family, if it has; the steps after that are not recorded."""
        self._steps.check_now()
        return list(self._steps.faults)

    def close(self) -> None:
        """Stop watching the optimizer; what was recorded stays."""
        self._steps.close()


def double(x: Tensor) -> Tensor:
    """A copy in double precision, on the CPU where an accelerator has none."""
    return x.detach().to("cpu" if x.device.type == "mps" else x.device).double()


class _Reader:
    """The steps of one parameter, from its group's settings at each."""

    def __init__(self, optimizer: Optimizer, parameter: Tensor) -> None:
        found = [
            group
            for group in optimizer.param_groups
            if any(p is parameter for p in group["params"])
        ]
        if not found:
            raise InputError("the optimizer does not train this parameter")
        self.optimizer, self.parameter, self.group = optimizer, parameter, found[0]
        self.heavy_ball = isinstance(optimizer, HeavyBall)
        self.buffered = self._stale = False
        self._held_first: Tensor | None = None
        self._last_lr, self._carry, self._pending = 0.0, 1.0, 0.0
        self._nesterov_rates: tuple[float, float] | None = None

    def problems(self) -> list[str]:
        """What leaves the family whatever the steps."""
        group = self.group
        found = [
            f"{key} is a tensor of shape {[*group[key].shape]}; a recorder watches one network"
            for key in ("lr", "momentum")
            if isinstance(group[key], Tensor) and group[key].ndim > 0
        ]
        if group.get("maximize", False):
            found.append("maximize = True ascends: the theorem is about descent, gamma > 0")
        return found

    def begin(self) -> None:
        """Note what the optimizer holds of steps before the first that is recorded."""
        held = self._held()
        self._held_first = None if held is None else held.detach().clone()
        self.buffered = held is not None

    def increment(self) -> Tensor | None:
        """The increment before the first step that moved, if the optimizer held one."""
        if self._held_first is None or self.heavy_ball:
            return self._held_first
        # the buffer is taken at the rate of that step, as `read` takes beta
        return -self._last_lr * self._held_first

    def read(self) -> Step | None:
        """The step just taken; None for one that did not move, which the next one carries on.

        Raises:
            InputError: where the settings have left the family.
        """
        raise_if_any(self.problems())
        group = self.group
        lr, mu = float(group["lr"]), float(group["momentum"])
        omega = float(group.get("weight_decay", 0.0))
        if self.heavy_ball:
            return Step(mu, lr, lr * omega, nesterov=False)
        nesterov, tau = bool(group["nesterov"]), float(group["dampening"])
        if nesterov:
            self._check_nesterov(lr, mu)
        if mu == 0:
            # torch leaves the buffer as it was
            self._stale = self.buffered
            self._carry, self._pending, weight = 0.0, 0.0, 1.0
        elif not self.buffered:
            self.buffered, self._carry, weight = True, 0.0, 1.0
        elif self._stale:
            raise InputError(
                "momentum was 0 and is not now: torch's buffer is not of the last step"
            )
        else:
            self._carry, self._pending = self._carry * mu, self._pending * mu
            weight = 1 - tau
        self._pending += weight * omega
        if lr == 0:
            return None
        # a buffer that was there before the first step is taken at the present rate
        last = self._last_lr or lr
        # the point ahead after the first step has momentum already
        beta = mu if nesterov else self._carry * lr / last
        step = Step(beta, weight * lr, self._pending * lr, nesterov)
        self._last_lr, self._carry, self._pending = lr, 1.0, 0.0
        return step

    def _check_nesterov(self, lr: float, mu: float) -> None:
        first = self._nesterov_rates = self._nesterov_rates or (lr, mu)
        for name, now, before in (("lr", lr, first[0]), ("momentum", mu, first[1])):
            if now != before:
                raise InputError(
                    f"nesterov with a schedule: {name} changed from {before:g} to {now:g}, and "
                    "torch's step is then no gradient step from an extrapolated point"
                )

    def _held(self) -> Tensor | None:
        key = "increment" if self.heavy_ball else "momentum_buffer"
        return self.optimizer.state.get(self.parameter, {}).get(key)


def _increments(readers: Sequence[_Reader]) -> list[Tensor] | None:
    present = [x for reader in readers if (x := reader.increment()) is not None]
    return present if len(present) == len(readers) else None


def _known(optimizer: Any) -> Optimizer:
    """The optimizer itself, if its steps are known."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, Optimizer):
        raise InputError(f"optimizer is a {type(inner).__name__}; it must be a torch optimizer")
    name = type(inner).__name__
    # a subclass may step in another way; torch and schedulers wrap the function
    own = inspect.unwrap(type(inner).step)
    for known in (HeavyBall, torch.optim.SGD):
        if isinstance(inner, known) and own is inspect.unwrap(known.step):
            return inner
    if name in ADAPTIVE:
        why = (
            f"{name} scales the step of each coordinate by that coordinate's own gradients: the "
            "steps leave span(x_1..x_n), and the theorem does not hold"
        )
    else:
        why = (
            f"optimizer is a {name}; the steps of torch.optim.SGD and HeavyBall are known. If it "
            "is of the family, store the iterates and give them to dln.certify"
        )
    raise InputError(why)
