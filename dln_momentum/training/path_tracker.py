"""The path sums of a diagonal network that is trained by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.errors import raise_if_any
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.problem import Problem
from dln_momentum.theory.discrete_bias import (
    boundary_term,
    path_sum_increment,
    telescoped_increment,
    telescoped_path_sums,
)

_CARRIED = ("w_start", "sums", "increment_products", "gradient_sum", "sign_changes", "previous")


class PathTracker:
    """Sums over the iterates w_+- = u +- v of a network that another optimizer step has updated.

    It reads w_- = u - v, which cancels: good to about 1e-11, where the engine keeps 1e-13. The
    step size may change during the run, and so may the weights; beta may not, since the path sums
    are those of a constant one.

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
        raise_if_any(self._changes())
        beta, now = self._rates[1], self.read()
        step = now - self._last
        increment = path_sum_increment if self._path_sums == "direct" else telescoped_increment
        self.sums += increment(self._last, now, beta)
        self.increment_products += step[0] * step[1]
        self.gradient_sum += gradient
        self.sign_changes += (now.signbit() != self._last.signbit()).sum()
        self.previous = self._last
        self._last = now

    def snapshot(self, step: int, loss: Tensor, status: Tensor) -> Snapshot:
        """The run in the poster's variables."""
        w, (gamma, beta) = self.read(), self._read_rates()
        speed = self._speed_term if self._moving else None
        summed = self._path_sums != "gradient_sum"
        return Snapshot(
            step=step,
            gamma=w.new_full((1, 1), gamma),
            beta=w.new_full((1, 1), beta),
            w_start=self.w_start,
            w=w,
            boundary=boundary_term(self.previous, w, beta),
            speed_term=speed,
            gradient_sum=self.gradient_sum.clone(),
            path_sums_from_iterates=self._summed(w) if summed else None,
            increment_products=self.increment_products.clone() if summed else None,
            loss=loss.clone(),
            sign_changes=self.sign_changes.clone(),
            steps=torch.full_like(self.sign_changes, step),
            status=status.clone(),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, and w_{k-1}."""
        return {key: getattr(self, key).clone() for key in (*_CARRIED, "_last")}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore them."""
        for key in (*_CARRIED, "_last"):
            setattr(self, key, saved[key].to(self._device, copy=True))
        self._rates = self._read_rates()

    def _summed(self, w: Tensor) -> Tensor:
        """S_+- up to the weights as they are, [2, 1, d]."""
        beta = self._rates[1]
        if self._path_sums == "direct":
            found = self.sums + path_sum_increment(self._last, w, beta)
        else:
            total = self.sums + telescoped_increment(self._last, w, beta)
            found = telescoped_path_sums(total, self.w_start, w, beta)
        return found - self._speed_term

    def _read_rates(self) -> tuple[float, float]:
        group = self._optimizer.param_groups[0]
        return float(group["lr"]), float(group["momentum"])

    def _changes(self) -> list[str]:
        """What the path sums cannot follow."""
        (gamma, beta), (gamma_0, beta_0) = self._read_rates(), self._rates
        found = []
        if beta != beta_0:
            found.append(
                f"beta changed from {beta_0:g} to {beta:g}; path sums need a constant beta"
            )
        if gamma != gamma_0 and self._path_sums == "gradient_sum":
            found.append(
                f"gamma changed from {gamma_0:g} to {gamma:g}; engine.path_sums = gradient_sum "
                "needs it constant: use telescoped or direct"
            )
        return found
