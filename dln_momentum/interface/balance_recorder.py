"""The log-free identity of balances for any network of homogeneous layers, as it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.optimizer_steps import OptimizerSteps, Recorder, Step, double
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.theory.balances import (
    Form,
    RunningBalance,
    linear_form,
    neuron_form,
    product_form,
)

HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU)
WITHOUT_WEIGHTS = (nn.Identity, nn.Flatten)


@dataclass(frozen=True)
class Balance:
    """A quadratic form of some parameters that no gradient changes to first order.

    Attributes:
        name: for messages.
        form: one of `dln_momentum.theory.balances`, or another one with B(w, grad) = 0.
        parameters: what it takes, in its order.
    """

    name: str
    form: Form
    parameters: Sequence[Tensor]


def balances_of(module: nn.Module) -> list[Balance]:
    """The balances of the diagonal networks and of the `nn.Sequential` stacks inside a module.

    Two `nn.Linear` that follow each other have one: of matrices if nothing stands between them, of
    neurons if a ReLU or a leaky ReLU does.

    Raises:
        InputError: if there is none.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 1))
    >>> [balance.name for balance in balances_of(net)]
    ['neurons 0 to 2', 'linear layers 2 to 3']
    """
    found = []
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, DiagonalLinearNet):
            found.append(Balance(f"{prefix}u and v", product_form, [part.v, part.u]))
        elif isinstance(part, nn.Sequential):
            found += _of_sequential(part, prefix)
    if not found:
        raise InputError(
            "the module has no diagonal network and no nn.Sequential with two nn.Linear, alone "
            "or with a ReLU between them: give balances=[Balance(name, form, parameters)]"
        )
    return found


def _of_sequential(stack: nn.Sequential, prefix: str) -> Iterator[Balance]:
    layers = [
        (name, layer)
        for name, layer in stack.named_children()
        if not isinstance(layer, WITHOUT_WEIGHTS)
    ]
    linear = [i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]
    for i, j in pairwise(linear):
        (first, inner), (second, outer) = layers[i], layers[j]
        assert isinstance(inner, nn.Linear)
        assert isinstance(outer, nn.Linear)
        biases = [] if inner.bias is None else [inner.bias]
        parameters = [inner.weight, outer.weight, *biases]
        between = [layer for _, layer in layers[i + 1 : j]]
        if not between:
            yield Balance(f"{prefix}linear layers {first} to {second}", linear_form, parameters)
        elif all(isinstance(layer, HOMOGENEOUS) for layer in between):
            yield Balance(f"{prefix}neurons {first} to {second}", neuron_form, parameters)


class BalanceRecorder(Recorder):
    """Watches an optimizer, and predicts the balances of a network from its increments.

    (docs/theory.md#balances; not on the poster.) It takes `torch.optim.SGD` and `HeavyBall` with
    what `PathRecorder` follows: momentum, Nesterov, dampening, weight decay and schedulers.

    Args:
        optimizer: new or not.
        balances: what to watch; see `balances_of`.

    Raises:
        InputError: for another optimizer, and for parameters that it does not train.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    >>> recorder = BalanceRecorder(optimizer, balances_of(net))
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     net(torch.eye(3, dtype=torch.float64)).square().sum().backward()
    ...     optimizer.step()
    >>> recorder.error() < 1e-12
    True
    """

    def __init__(self, optimizer: Any, balances: Sequence[Balance]) -> None:
        self.balances = list(balances)
        self._of = [len(balance.parameters) for balance in self.balances]
        self._running: list[RunningBalance] = []
        self._first: list[Tensor] = []
        self._moved = 0.0
        parameters = [p for balance in self.balances for p in balance.parameters]
        self._steps = OptimizerSteps(optimizer, parameters, self._start, self._step)

    def error(self) -> float:
        """The largest error of a balance, over the farthest that one was from its start.

        It is 0 before the first step.

        Raises:
            InputError: if the run has left the family.
        """
        raise_if_any(self.faults)
        errors = [_largest(b.predicted - b.measured) for b in self._running]
        moves = [_largest(b.measured - q) for b, q in zip(self._running, self._first, strict=True)]
        self._moved = max([self._moved, *moves])
        return max(errors, default=0.0) / (self._moved or 1.0)

    def _parts(self, items: Sequence[Any]) -> list[list[Any]]:
        """One list for each balance."""
        iterator = iter(items)
        return [[next(iterator) for _ in range(count)] for count in self._of]

    def _start(self, values: list[Tensor], last: list[Tensor] | None, steps: list[Step]) -> None:
        now = [double(value) for value in values]
        held = [torch.zeros_like(w) for w in now] if last is None else [double(x) for x in last]
        if steps[0].nesterov:
            now = [w - step.beta * x for w, x, step in zip(now, held, steps, strict=True)]
        before = [w - x for w, x in zip(now, held, strict=True)]
        for balance, w, earlier in zip(
            self.balances, self._parts(now), self._parts(before), strict=True
        ):
            self._running.append(RunningBalance.of(balance.form, w, earlier))
        self._first = [running.measured for running in self._running]
        self._earlier = self._parts(before)

    def _step(self, steps: list[Step], values: list[Tensor]) -> None:
        groups = zip(self._parts(steps), self._parts(values), self.balances, strict=True)
        for i, (taken, raw, balance) in enumerate(groups):
            one, running = taken[0], self._running[i]
            if any(step != one for step in taken):
                self._steps.faults.append(
                    f"step {self._steps.calls}: {balance.name} have different step sizes, momenta "
                    "or weight decays; a balance needs one of each"
                )
                return
            now, ahead = [double(value) for value in raw], None
            if one.nesterov:
                x, beta = running.weights, one.beta
                ahead = [w + beta * (w - b) for w, b in zip(x, self._earlier[i], strict=True)]
                now = [(z + beta * w) / (1 + beta) for z, w in zip(now, x, strict=True)]
            self._earlier[i] = running.weights
            running.add(now, one.beta, one.decay, ahead)


def _largest(x: Tensor) -> float:
    return float(x.abs().max())
