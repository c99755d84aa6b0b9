"""Heavy ball as a torch optimizer, in the poster's (gamma, beta) convention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from dln_momentum.errors import InputError, raise_if_any

Parameter = float | Tensor

NAMES = {"lr": "gamma", "momentum": "beta"}
"""The keys of a group, which are torch's, and the paper's names of the same numbers."""
GROUP_KEYS = ("params", "param_names", "initial_lr", *NAMES)
"""What a group may hold. Torch ignores other keys in silence, so they are an error here."""


class HeavyBall(Optimizer):
    r"""Momentum gradient descent MGD(gamma, beta) (docs/theory.md#momentum; poster, section 1).

    .. math:: w_{k+1} = w_k - \gamma \nabla F(w_k) + \beta (w_k - w_{k-1}), \qquad k \ge 1,

    from the pair (w_0, w_1), with w_1 = w_0 unless ``previous`` is given. The optimizer stores the
    increment ``w_k - w_{k-1}``, because computing it by subtraction loses a factor 1/(1 - beta) of
    accuracy; `previous` returns w_{k-1}.

    The same method in other conventions, while the rates are constant (g_k = grad F(w_k), buffers
    are zero before the first step):

    ================================  ================================  ===========  ==========
    convention                        update                            gamma        beta
    ================================  ================================  ===========  ==========
    this paper: gamma, beta           d = beta d - gamma g, w += d      gamma        beta
    Keras: lr, momentum mu            d = mu d - lr g, w += d           lr           mu
    torch SGD: lr, momentum mu        m = mu m + g, w -= lr m           lr           mu
    torch SGD with dampening tau      m = mu m + (1-tau) g, w -= lr m   lr (1-tau)   mu
    EMA (Adam without its scaling)    m = mu m + (1-mu) g, w -= lr m    lr (1-mu)    mu
    Nesterov: lr, momentum mu         m = mu m + g, w -= lr (g + mu m)  none         none
    ================================  ================================  ===========  ==========

    - The step size of the EMA form is eps = gamma/(1-beta), the time of one step along the flow.
    - Torch does not apply the dampening to the first step of a new optimizer: it sets m = g, a step
      of lr instead of gamma. All later steps agree with the table.
    - Nesterov's method is x_{k+1} = x_k + mu d_k - lr grad F(x_k + mu d_k), d_k = x_k - x_{k-1}:
      heavy ball with the gradient at the point ahead, which is the w of torch. No (gamma, beta)
      reproduces it.
    - When gamma changes, d keeps its length here and in Keras, while torch and the EMA form
      multiply the whole of m by the new lr.

    The groups use torch's keys ``lr`` and ``momentum``, so torch's schedulers work, `OneCycleLR`
    with ``cycle_momentum`` included. There is no weight decay, dampening, Nesterov step or
    maximisation, which the theory does not cover. A parameter without a gradient is not changed,
    and neither is its increment.

    Args:
        params: parameters, or groups of them with their own ``gamma`` and ``beta``.
        gamma: step size > 0: a number, or a tensor of shape ``runs`` if every parameter has shape
            ``(*runs, ...)``, for one step size per run. A scheduler sets one number for all runs;
            to change a tensor, write into it: ``group["lr"].mul_(0.5)``.
        beta: momentum in [0, 1), a number or a tensor of shape ``runs``; 0 by default.
        lr, momentum: other names of gamma and beta; give one name of each.
        previous: w_0, one tensor for each parameter in their order; the present values of the
            parameters are w_1.

    Raises:
        InputError: for gamma or beta missing, given twice, out of range or of a shape that does not
            fit the parameters, for ``previous`` of a wrong shape, or for an unknown key in a group.

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
        gamma: Parameter | None = None,
        beta: Parameter | None = None,
        *,
        lr: Parameter | None = None,
        momentum: Parameter | None = None,
        previous: Iterable[Tensor] | None = None,
    ) -> None:
        given = {"gamma": gamma, "beta": beta, "lr": lr, "momentum": momentum}
        rates = _torch_keys({key: value for key, value in given.items() if value is not None})
        if "lr" not in rates:
            raise InputError("gamma is missing: HeavyBall(params, gamma=0.01, beta=0.9)")
        try:
            super().__init__(params, {"momentum": 0.0, **rates})
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            # torch's own reasons: what is no tensor, no leaf, or there twice
            raise InputError(f"params must be parameters or groups of them: {error}") from error
        if previous is not None:
            several = isinstance(previous, Iterable) and not isinstance(previous, str)
            earlier: list[Any] = [*previous] if several else [previous]
            raise_if_any(
                f"previous holds a {type(w).__name__}; it must hold a tensor for each parameter"
                for w in earlier
                if not isinstance(w, Tensor)
            )
            self._start_from(earlier)

    @classmethod
    def from_torch(cls, sgd: torch.optim.SGD) -> HeavyBall:
        """Heavy ball on the parameters of a torch SGD, continuing from its momentum buffers.

        gamma = lr (1 - dampening) and beta = momentum in each group, and the increments are
        -lr times the buffers. Of a new SGD with dampening the first step differs, see above.

        Args:
            sgd: the optimizer; it is not changed, and its schedulers do not act on the result.

        Raises:
            InputError: for another optimizer, or for settings that are not heavy ball: Nesterov's
                step, weight decay, maximisation, or rates out of range.

        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> sgd = torch.optim.SGD([w], lr=0.1, momentum=0.75, dampening=0.5)
        >>> HeavyBall.from_torch(sgd).param_groups[0]["lr"]
        0.05
        """
        if not isinstance(sgd, torch.optim.SGD):
            raise InputError(f"sgd is a {type(sgd).__name__}; it must be a torch.optim.SGD")
        raise_if_any(
            f"{key} = {group[key]} has no counterpart in heavy ball; it must be {allowed}"
            for group in sgd.param_groups
            for key, allowed in (("nesterov", False), ("weight_decay", 0), ("maximize", False))
            if group[key] != allowed
        )
        groups = [
            {
                **{key: group[key] for key in ("params", "param_names") if key in group},
                "lr": group["lr"] * (1 - group["dampening"]),
                "momentum": group["momentum"],
            }
            for group in sgd.param_groups
        ]
        optimizer = cls(groups, lr=groups[0]["lr"])
        for group in sgd.param_groups:
            for parameter in group["params"]:
                buffer = sgd.state.get(parameter, {}).get("momentum_buffer")
                if buffer is not None:
                    optimizer.state[parameter]["increment"] = -group["lr"] * buffer.detach()
        return optimizer

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Args:
            param_group: ``params``, and ``gamma`` and ``beta`` (or ``lr`` and ``momentum``) where
                they are not the defaults.

        Raises:
            InputError: as for the optimizer itself.
        """
        group = self.defaults | _torch_keys(param_group)
        # a scheduler writes into a tensor, which may be the caller's or another group's
        group |= {key: group[key].clone() for key in NAMES if isinstance(group[key], Tensor)}
        raise_if_any(_group_problems(group))
        # torch makes a list of the parameters, which may come as a generator
        super().add_param_group(group)
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
        """w_k - w_{k-1} of one parameter: the stored tensor, so writing to it changes the state."""
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
                    self._step_one(parameter, parameter.grad, group["lr"], group["momentum"])
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
            raise InputError(f"previous has shapes {shapes[0]}; the parameters have {shapes[1]}")
        for parameter, w_0 in zip(parameters, previous, strict=True):
            self.state[parameter]["increment"] = parameter.detach() - w_0.detach().to(parameter)


def _over_runs(value: Parameter, parameter: Tensor) -> Parameter:
    """Let a tensor of shape ``runs`` act on a parameter of shape ``(*runs, ...)``."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    return value.reshape(value.shape + (1,) * (parameter.ndim - value.ndim))


def _torch_keys(given: dict[str, Any]) -> dict[str, Any]:
    """The same keys, with gamma and beta under torch's names."""
    raise_if_any(
        f"{name} and {key} are two names of one number: give one"
        for key, name in NAMES.items()
        if key in given and name in given
    )
    torch_key = {name: key for key, name in NAMES.items()}
    return {torch_key.get(key, key): value for key, value in given.items()}


def _group_problems(group: dict[str, Any]) -> Iterator[str]:
    for key, allowed in (("lr", "finite and > 0"), ("momentum", "in [0, 1)")):
        value = group[key]
        numbers = value.flatten().tolist() if isinstance(value, Tensor) else [value]
        if not numbers or not all(
            isinstance(x, Real) and _in_range(key, float(x)) for x in numbers
        ):
            yield f"{NAMES[key]} = {value} must be {allowed}"
    unknown = ", ".join(key for key in group if key not in GROUP_KEYS)
    if unknown:
        yield f"unknown key {unknown} in a group; valid keys: params, gamma (lr), beta (momentum)"


def _in_range(key: str, rate: float) -> bool:
    return 0 < rate < math.inf if key == "lr" else 0 <= rate < 1


def _shape_problems(group: dict[str, Any]) -> Iterator[str]:
    for key, name in NAMES.items():
        shape = tuple(group[key].shape) if isinstance(group[key], Tensor) else ()
        for parameter in group["params"]:
            runs = tuple(parameter.shape[: len(shape)])
            if len(runs) < len(shape) or any(
                a not in (1, b) for a, b in zip(shape, runs, strict=False)
            ):
                yield (
                    f"{name} has shape {shape}; it must be a number, or have the shape of the runs "
                    f"of a parameter of shape {tuple(parameter.shape)}"
                )
                break
