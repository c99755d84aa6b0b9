"""The step sizes and momenta of a run that anybody has made, and what they leave of the family."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dln_momentum.arrays import tensor_of
from dln_momentum.errors import raise_if_any


class GivenRates:
    """beta_k and the step sizes as [K], and what they leave of the family."""

    def __init__(
        self,
        steps: int,
        beta: ArrayLike,
        gamma: ArrayLike | None,
        gamma_u: ArrayLike | None,
        gamma_v: ArrayLike | None,
        weight_decay: ArrayLike,
        dampening: float,
    ) -> None:
        given = {"beta": beta, "gamma": gamma, "gamma_u": gamma_u, "gamma_v": gamma_v,
                 "weight_decay": weight_decay}  # fmt: skip
        needed = ("beta", "weight_decay")
        found = {k: tensor_of(k, x) for k, x in given.items() if x is not None or k in needed}
        self._errors = [
            f"{key} has shape {[*value.shape]}; it must be a number or [{steps}], one for each step"
            for key, value in found.items()
            if value.shape not in ((), (steps,))
        ]
        if (gamma_u is None) != (gamma_v is None) or (gamma is not None and gamma_u is not None):
            self._errors.append("give gamma, or gamma_u and gamma_v, or none of them")
        raise_if_any(self._errors)
        rates = {key: value.expand(steps) for key, value in found.items()}
        self.beta, self.decay, self._dampening = rates["beta"], rates["weight_decay"], dampening
        self.known = gamma is not None or gamma_u is not None
        one = torch.ones_like(self.beta)
        self._u = rates.get("gamma_u", rates.get("gamma", one))
        self._v = rates.get("gamma_v", rates.get("gamma", one))

    @property
    def layers(self) -> tuple[Tensor, Tensor]:
        """gamma_u and gamma_v at the first step."""
        return self._u[0], self._v[0]

    @property
    def gamma(self) -> Tensor:
        """sqrt(gamma_u gamma_v), [K]."""
        return (self._u * self._v).sqrt()

    @property
    def gradient_step(self) -> Tensor:
        """What the gradient is multiplied by, [K]: dampened from the second step on."""
        dampened = torch.full_like(self.beta, 1 - self._dampening)
        dampened[0] = 1
        return self.gamma * dampened

    @property
    def decay_step(self) -> Tensor:
        """gamma_k omega_k of coupled decay, [K]."""
        return self.gradient_step * self.decay

    def problems(self, decoupled: bool, parametrisation: str, stores_ahead: bool) -> Iterator[str]:
        """Which hypothesis the rates violate."""
        if not bool(((self.beta >= 0) & (self.beta < 1)).all()):
            yield f"beta = {_worst(self.beta)} must be in [0, 1)"
        for key, value in (("gamma_u", self._u), ("gamma_v", self._v)):
            if not bool(((value > 0) & value.isfinite()).all()):
                name = "gamma" if self._u is self._v else key
                yield f"{name} = {_worst(value)} must be finite and > 0"
        if not 0 <= self._dampening < 1:
            yield f"dampening = {self._dampening} must be in [0, 1)"
        if not bool(((self.decay >= 0) & self.decay.isfinite()).all()):
            yield f"weight_decay = {_worst(self.decay)} must be finite and >= 0"
        unequal = not torch.equal(self._u, self._v)
        if bool(self.decay.any()) and not self.known:
            yield "weight_decay needs gamma: Delta shrinks by exp(-2 sum p_k gamma_k omega_k)"
        ratio = self._v / self._u
        # a ratio of two rounded schedules
        if bool(((ratio / ratio[0] - 1).abs() > 1e-12).any()):
            yield "gamma_v/gamma_u must be constant: otherwise no change of variables exists"
        if unequal and bool(self.decay.any()) and not decoupled:
            yield "coupled weight_decay needs gamma_u = gamma_v: the layers would decay unequally"
        if unequal and parametrisation != "product":
            yield f"gamma_u != gamma_v needs parametrisation = product, given {parametrisation}"
        if decoupled and bool((self.gamma * self.decay >= 1).any()):
            yield "gamma weight_decay must be below 1 where it is decoupled"
        if stores_ahead and not bool((self.beta == self.beta[0]).all()):
            yield "stores_ahead needs a constant beta: the last point ahead has beta_{K+1}"


def _worst(values: Tensor) -> float:
    """An entry to show: nan, or the one farthest from zero, or the least."""
    if bool(values.isnan().any()):
        return float("nan")
    return float(values.min()) if bool(values.min() <= 0) else float(values.max())
