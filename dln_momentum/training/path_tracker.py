"""The path sums of a diagonal network that is trained by autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.problem import Problem
from dln_momentum.theory.curvature import sharpness_threshold
from dln_momentum.theory.discrete_bias import (
    boundary_term,
    path_sum_increment,
    telescoped_increment,
    telescoped_path_sums,
)
from dln_momentum.theory.schedules import RunningSum, backward_remainder, speed_term

_CARRIED = ("w_start", "sums", "increment_products", "gradient_sum", "sign_changes", "previous")
_FORWARD = ("_backward", "_rates_changed")
"""What else is carried for rates that change; checkpoints of version 0.2.0 lack it."""


class PathTracker:
    """Sums over the iterates w_+- = u +- v of a network that another optimizer step has updated.

    It reads w_- = u - v, which cancels: good to about 1e-11, where the engine keeps 1e-13. The
    rates may change at any step, by a schedule or by whatever writes into the optimizer's group,
    and so may the weights. From the first change on, the snapshot has the sums of
    docs/theory.md#forward-form, whose weights p_k the rates determine; until then the poster's.

    Args:
        net: the network, at its start.
        optimizer: its optimizer; increments that it holds already are the initial speed.
        problem: the data.
        path_sums: as in `EngineOptions`.
    """

    def __init__(
        self, net: DiagonalLinearNet, optimizer: HeavyBall, problem: Problem, path_sums: str
    ) -> None:
        self._net, self._optimizer, self._path_sums = net, optimizer, path_sums
        self._device = problem.X.device
        self._rates = self._read_rates()
        self.w_start = self.read()
        self.sums = torch.zeros_like(self.w_start)
        self.increment_products = torch.zeros_like(self.w_start[0])
        self.gradient_sum = torch.zeros_like(self.w_start[0])
        self.sign_changes = torch.zeros(1, dtype=torch.int64, device=self._device)
        du, dv = (optimizer.increment(w).detach().reshape(1, -1) for w in (net.u, net.v))
        increment = torch.stack([du + dv, du - dv]).to(self._device)
        self.previous, self._last = self.w_start - increment, self.w_start
        self._moving = bool((increment != 0).any())
        self._speed_term = boundary_term(self.previous, self.w_start, self._rates[1])
        self._weighted = RunningSum.of(speed_term(self.previous, self.w_start))
        self._weighted_gradients = RunningSum.of(torch.zeros_like(self.gradient_sum))
        self._backward = torch.zeros_like(self.sums)
        self._rates_changed = torch.zeros((), dtype=torch.bool, device=self._device)

    def read(self) -> Tensor:
        """(w_+, w_-) now, [2, 1, d]."""
        w = torch.stack([self._net.w_plus, self._net.w_minus]).detach().reshape(2, 1, -1)
        # Lightning leaves a network on the CPU once it has been fitted
        return w.to(self._device)

    def update(self, gradient: Tensor) -> None:
        """Add the step from the last iterate seen to now; it used this gradient of the batch loss.

        The last iterate seen, not that before the step: what else has written to the weights
        since counts as part of the step, so that no sum passes over it.
        """
        (gamma, beta), now = self._read_rates(), self.read()
        self._rates_changed = self._rates_changed | ((gamma, beta) != self._rates)
        step = now - self._last
        increment = path_sum_increment if self._path_sums == "direct" else telescoped_increment
        self.sums += increment(self._last, now, beta)
        self.increment_products += step[0] * step[1]
        self.gradient_sum += gradient
        self._weighted.add(step / self._last * (step / now), beta)
        self._weighted_gradients.add(gamma * gradient, beta)
        self._backward += backward_remainder(self._last, now)
        self.sign_changes += (now.signbit() != self._last.signbit()).sum()
        self.previous = self._last
        self._last = now

    def snapshot(self, step: int, loss: Tensor, status: Tensor) -> Snapshot:
        """The run in the variables of the theorem."""
        w, (gamma, beta) = self.read(), self._rates
        summed = self._path_sums != "gradient_sum"
        common: dict[str, Any] = {
            "step": step,
            "gamma": w.new_full((1, 1), gamma),
            "beta": w.new_full((1, 1), beta),
            "w_start": self.w_start,
            "w": w,
            "gradient_sum": self.gradient_sum.clone(),
            "loss": loss.clone(),
            "sign_changes": self.sign_changes.clone(),
            "steps": torch.full_like(self.sign_changes, step),
            "status": status.clone(),
        }
        if bool(self._rates_changed):
            return FamilySnapshot(
                boundary=torch.zeros_like(w),
                speed_term=None,
                path_sums_from_iterates=self._forward_sums(w) if summed else None,
                increment_products=None,
                weighted_gradient_sum=self._weighted_gradients.total.clone(),
                decay=w.new_zeros(1, 1),
                increment=w - self.previous,
                ahead=w,
                layer_ratio=w.new_ones(1, 1),
                kappa=None,
                last_threshold=sharpness_threshold(
                    *(w.new_full((1, 1), rate) for rate in self._read_rates())
                ),
                **common,
            )
        return Snapshot(
            boundary=boundary_term(self.previous, w, beta),
            speed_term=self._speed_term if self._moving else None,
            path_sums_from_iterates=self._summed(w) if summed else None,
            increment_products=self.increment_products.clone() if summed else None,
            **common,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, and w_{k-1}."""
        kept = {key: getattr(self, key).clone() for key in (*_CARRIED, *_FORWARD, "_last")}
        for name in ("_weighted", "_weighted_gradients"):
            running = getattr(self, name)
            kept |= {name: torch.stack([running.running, running.total])}
        return kept

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore them.

        Of a checkpoint without the sums for rates that change, a later change gives nan.
        """
        for key in (*_CARRIED, "_last"):
            setattr(self, key, saved[key].to(self._device, copy=True))
        for key in _FORWARD:
            if key in saved:
                setattr(self, key, saved[key].to(self._device, copy=True))
        for name in ("_weighted", "_weighted_gradients"):
            running = getattr(self, name)
            unknown = torch.stack([running.running, running.total]) * torch.nan
            found = saved.get(name, unknown).to(self._device, copy=True)
            setattr(self, name, RunningSum(found[0], found[1]))

    def _summed(self, w: Tensor) -> Tensor:
        """S_+- up to the weights as they are, [2, 1, d]."""
        beta = self._rates[1]
        if self._path_sums == "direct":
            found = self.sums + path_sum_increment(self._last, w, beta)
        else:
            total = self.sums + telescoped_increment(self._last, w, beta)
            found = telescoped_path_sums(total, self.w_start, w, beta)
        return found - self._speed_term

    def _forward_sums(self, w: Tensor) -> Tensor:
        """S_+- under rates that change, up to the weights as they are, [2, 1, d]."""
        step = w - self._last
        # what was written since the last step is one more step, of p = 1 and without momentum
        written = step / self._last * (step / w) - backward_remainder(self._last, w)
        return self._weighted.total - self._backward + written

    def _read_rates(self) -> tuple[float, float]:
        group = self._optimizer.param_groups[0]
        return float(group["lr"]), float(group["momentum"])
