"""Heavy ball as a torch optimizer, in the poster's (gamma, beta) convention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from dln_momentum.errors import refuse

Parameter = float | Tensor


class HeavyBall(Optimizer):
    r"""Momentum gradient descent MGD(gamma, beta) (poster, section 1).

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
            torch's own key ``lr``, so that every scheduler of torch works.
        beta: momentum in [0, 1): a number or a tensor of shape ``runs``.
        previous: w_0, one tensor a parameter in their order; the parameters' present values are
            then w_1. Left out, w_1 = w_0 (zero initial speed).

    Raises:
        InputError: for gamma or beta outside their range, or previous of a wrong shape.

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
        """Add a group of parameters; its step size may be given as ``gamma`` or ``lr``."""
        if "gamma" in param_group:
            param_group["lr"] = param_group.pop("gamma")
        gamma, beta = (param_group.get(key, self.defaults[key]) for key in ("lr", "beta"))
        # "not all(...)" also refuses nan
        refuse(
            [f"gamma = {gamma} must be > 0"] * (not _all(gamma, lambda g: g > 0))
            + [f"beta = {beta} must be in [0, 1)"] * (not _all(beta, lambda b: 0 <= b < 1))
        )
        super().add_param_group(param_group)

    def previous(self, parameter: Tensor) -> Tensor:
        """w_{k-1} of one parameter, whose present value is w_k."""
        if "increment" not in self.state[parameter]:
            return parameter.detach().clone()
        return parameter.detach() - self.state[parameter]["increment"]

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
        state = self.state[parameter]
        if "increment" not in state:
            state["increment"] = torch.zeros_like(parameter)
        increment = state["increment"]
        increment.mul_(_over_runs(beta, parameter))
        increment.sub_(gradient * _over_runs(gamma, parameter))
        parameter.add_(increment)

    def _start_from(self, previous: list[Tensor]) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        shapes = [tuple(w.shape) for w in previous], [tuple(p.shape) for p in parameters]
        if shapes[0] != shapes[1]:
            refuse([f"previous has shapes {shapes[0]}; the parameters have {shapes[1]}"])
        for parameter, w_0 in zip(parameters, previous, strict=True):
            self.state[parameter]["increment"] = parameter.detach() - w_0


def _over_runs(value: Parameter, parameter: Tensor) -> Parameter:
    """Let a tensor of shape ``runs`` act on a parameter of shape ``(*runs, ...)``."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.reshape(value.shape + (1,) * (parameter.ndim - value.ndim))


def _all(value: Parameter, holds: Callable[[float], bool]) -> bool:
    values = value.flatten().tolist() if isinstance(value, Tensor) else [float(value)]
    return all(holds(number) for number in values)
