"""Heavy ball as a torch optimizer, in the poster's (gamma, beta) convention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from dln_momentum.errors import raise_if_any

Parameter = float | Tensor

GROUP_KEYS = ("params", "param_names", "lr", "beta", "initial_lr")
"""What a group may hold: torch's optimizers pass over other keys, and train something else."""


class HeavyBall(Optimizer):
    r"""Momentum gradient descent MGD(gamma, beta) (docs/theory.md#momentum; poster, section 1).

    .. math:: w_{k+1} = w_k - \gamma \nabla F(w_k) + \beta (w_k - w_{k-1}), \qquad k \ge 1,

    from the pair (w_0, w_1). The past is kept as the increment ``w_k - w_{k-1}`` itself, because
    recomputing it by subtraction loses a factor 1/(1 - beta) of accuracy; `previous` reads w_{k-1}.

    While gamma is constant this is ``torch.optim.SGD(lr=gamma, momentum=beta)``. They part when
    gamma changes: torch multiplies its whole velocity by the new learning rate, whereas here the
    step already under way keeps its length and only the new gradient feels the new gamma.

    Args:
        params: parameters, or groups of them with their own ``gamma`` and ``beta``.
        gamma: step size > 0: a number, or a tensor of shape ``runs`` when every parameter has
            shape ``(*runs, ...)``, one step size for each run. Each group keeps it under
            torch's own key ``lr``, so that torch's schedulers work. They know one number only:
            where there is one a run, change it in place, ``group["lr"].mul_(0.5)``.
        beta: momentum in [0, 1): a number or a tensor of shape ``runs``.
        previous: w_0, one tensor a parameter in their order; the parameters' present values are
            then w_1. Left out, w_1 = w_0 (zero initial speed).

    Raises:
        InputError: for gamma or beta outside their range or of a shape that is not that of the
            runs, for previous of a wrong shape, or for a key of a group that means nothing here.

    It has no weight decay, dampening, Nesterov step or maximisation: the theory is about none of
    them. A parameter without a gradient is left where it is, its increment too.

    >>> w = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    >>> optimizer = HeavyBall([w], gamma=0.1, beta=0.5)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     (w**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> print(f"{w.item():.3f} {optimizer.previous(w).item():.3f}")
    0.614 0.760
    """

    def __init__(
        self,
        params: Iterable[Any],
        gamma: Parameter,
        beta: Parameter = 0.0,
        *,
        previous: Iterable[Tensor] | None = None,
    ) -> None:
        super().__init__(params, {"lr": gamma, "beta": beta})
        if previous is not None:
            self._start_from(list(previous))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its step size may be given as ``gamma`` or ``lr``.

        Args:
            param_group: ``params``, and ``gamma`` and ``beta`` where they are not the defaults.

        Raises:
            InputError: as for the optimizer itself.
        """
        raise_if_any(
            ["gamma and lr are one thing: give one"] * ({"gamma", "lr"} <= param_group.keys())
        )
        if "gamma" in param_group:
            param_group["lr"] = param_group.pop("gamma")
        for key in ("lr", "beta"):
            value = param_group.get(key, self.defaults[key])
            # a scheduler writes into a tensor, which may be the caller's or another group's
            param_group[key] = value.clone() if isinstance(value, Tensor) else value
        raise_if_any(_group_problems(param_group))
        # torch makes a list of the parameters, which may come as a generator
        super().add_param_group(param_group)
        mismatches = [*_shape_problems(self.param_groups[-1])]
        if mismatches:
            del self.param_groups[-1]
            raise_if_any(mismatches)

    def previous(self, parameter: Tensor) -> Tensor:
        """w_{k-1} of one parameter, whose present value is w_k."""
        if "increment" not in self.state[parameter]:
            return parameter.detach().clone()
        return parameter.detach() - self.state[parameter]["increment"]

    def increment(self, parameter: Tensor) -> Tensor:
        """w_k - w_{k-1} of one parameter, as it is kept: what is written to it holds."""
        state = self.state[parameter]
        if "increment" not in state:
            state["increment"] = torch.zeros_like(parameter)
        return state["increment"]

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Advance every parameter that has a gradient by one step.

        Args:
            closure: re-evaluates the loss (with gradients) and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group["lr"], group["beta"])
        return loss

    def _step_one(
        self, parameter: Tensor, gradient: Tensor, gamma: Parameter, beta: Parameter
    ) -> None:
        increment = self.increment(parameter)
        increment.mul_(_over_runs(beta, parameter))
        increment.sub_(gradient * _over_runs(gamma, parameter))
        parameter.add_(increment)

    def _start_from(self, previous: list[Tensor]) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        shapes = [tuple(w.shape) for w in previous], [tuple(p.shape) for p in parameters]
        if shapes[0] != shapes[1]:
            raise_if_any([f"previous has shapes {shapes[0]}; the parameters have {shapes[1]}"])
        for parameter, w_0 in zip(parameters, previous, strict=True):
            self.state[parameter]["increment"] = parameter.detach() - w_0.detach().to(parameter)


def _over_runs(value: Parameter, parameter: Tensor) -> Parameter:
    """Let a tensor of shape ``runs`` act on a parameter of shape ``(*runs, ...)``."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.reshape(value.shape + (1,) * (parameter.ndim - value.ndim))


def _group_problems(group: dict[str, Any]) -> Iterator[str]:
    ranges = (("lr", "gamma", "finite and > 0", _positive), ("beta", "beta", "in [0, 1)", _damped))
    for key, name, allowed, holds in ranges:
        value = group[key]
        numbers = value.flatten().tolist() if isinstance(value, Tensor) else [value]
        if not numbers or not all(isinstance(x, Real) and holds(float(x)) for x in numbers):
            yield f"{name} = {value} must be {allowed}"
    unknown = ", ".join(key for key in group if key not in GROUP_KEYS)
    if unknown:
        yield f"{unknown}: no key of a group of heavy ball, which has params, gamma and beta"


def _shape_problems(group: dict[str, Any]) -> Iterator[str]:
    for key, name in (("lr", "gamma"), ("beta", "beta")):
        shape = tuple(group[key].shape) if isinstance(group[key], Tensor) else ()
        for parameter in group["params"]:
            runs = tuple(parameter.shape[: len(shape)])
            if len(runs) < len(shape) or any(
                a not in (1, b) for a, b in zip(shape, runs, strict=False)
            ):
                yield (
                    f"{name} has shape {shape}, which is no shape of the runs of a parameter "
                    f"of shape {tuple(parameter.shape)}"
                )
                break


def _positive(gamma: float) -> bool:
    return 0 < gamma < math.inf


def _damped(beta: float) -> bool:
    return 0 <= beta < 1
