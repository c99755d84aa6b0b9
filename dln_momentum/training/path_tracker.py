"""The path sums of a diagonal network that is trained by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.implicit_bias import boundary_term, path_sum_increment
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.problem import Problem

_CARRIED = ("w_start", "path_sums", "increment_products", "gradient_sum", "sign_changes")


class PathTracker:
    """Watches w_+- = u +- v from outside and sums by definition, step after step.

    It reads w_- = u - v, which cancels: good to about 1e-11, where the engine keeps 1e-13.
    """

    def __init__(self, net: DiagonalLinearNet, optimizer: HeavyBall, problem: Problem) -> None:
        self._net, self._optimizer = net, optimizer
        self._device = problem.X.device
        self.w_start = self.read()
        self.path_sums = torch.zeros_like(self.w_start)
        self.increment_products = torch.zeros_like(self.w_start[0])
        self.gradient_sum = torch.zeros_like(self.w_start[0])
        self.sign_changes = torch.zeros(1, dtype=torch.int64, device=self.w_start.device)
        self.previous = self.w_start

    def read(self) -> Tensor:
        """(w_+, w_-) now, [2, 1, d]."""
        w = torch.stack([self._net.w_plus, self._net.w_minus]).detach().reshape(2, 1, -1)
        # Lightning leaves a network on the CPU once it has been fitted
        return w.to(self._device)

    def update(self, before: Tensor, gradient: Tensor) -> None:
        """Add the step from ``before`` to now, which used this gradient of the batch loss."""
        now = self.read()
        step = now - before
        self.path_sums += path_sum_increment(before, now, self._beta)
        self.increment_products += step[0] * step[1]
        self.gradient_sum += gradient
        self.sign_changes += (now.signbit() != before.signbit()).sum()
        self.previous = before

    def snapshot(self, step: int, loss: Tensor, status: Tensor) -> Snapshot:
        """The run in the poster's variables."""
        w = self.read()
        gamma = w.new_full((1, 1), float(self._optimizer.param_groups[0]["lr"]))
        beta = w.new_full((1, 1), self._beta)
        return Snapshot(
            step=step,
            gamma=gamma,
            beta=beta,
            w_start=self.w_start,
            w=w,
            boundary=boundary_term(self.previous, w, beta),
            gradient_sum=self.gradient_sum.clone(),
            direct_path_sums=self.path_sums.clone(),
            increment_products=self.increment_products.clone(),
            loss=loss.clone(),
            sign_changes=self.sign_changes.clone(),
            reached_tol=torch.where(status == 1, step, -1),
            steps=torch.full_like(self.sign_changes, step),
            status=status.clone(),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, and w_{k-1}."""
        return {key: getattr(self, key).clone() for key in (*_CARRIED, "previous")}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take them back."""
        for key in (*_CARRIED, "previous"):
            setattr(self, key, saved[key].to(self._device, copy=True))

    @property
    def _beta(self) -> float:
        return float(self._optimizer.param_groups[0]["beta"])
