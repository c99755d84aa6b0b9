"""The setting to verify: a problem, a start, and the parameters of its run and of its flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.flows import FlowOptions
from dln_momentum.method import Method
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum

POSTERS = Method()
FLOW = FlowOptions(max_steps=10_000)
"""A limit of some ten seconds per flow; one that needs more steps converges slowly."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A setting in which the statements of the theory are evaluated.

    Delta_0, theta_0, c and F(w_0) are computed here from the requested start, on purpose without
    `dln_momentum.theory.trajectory`: a run that starts elsewhere, and a fault of those formulas, is
    then found.

    Attributes:
        problem: the data, without run dimensions, on the CPU.
        w_plus, w_minus: w_+- = u +- v at the start, [d]; u and v of a deeper network.
        momentum: of the discrete run; None for a step that resolves the flow of `lam`.
        lam: lambda > 0 of the continuous flow; None for that of `momentum`.
        batches, label_noise: of the discrete run; the flows follow the full loss.
        max_steps: of the discrete run; None for as many as take a few seconds.
        tol: the energy at which a run or a flow counts as converged.
        options: method and error settings of the flows.
        method: of the discrete run; heavy ball at constant rates by default.
        velocity: (w_+'(0), w_-'(0)), [d] each; None for a start at rest. The discrete run then has
            w_1 = w_+- and w_0 = w_1 - eps w'(0). Gradient flow has no speed to choose.

    Raises:
        InputError: without momentum and lam, for lam <= 0, a problem with run dimensions, a start
            with a zero (C1), one that already interpolates, or a velocity that does not fit.
    """

    problem: Problem
    w_plus: Tensor
    w_minus: Tensor
    momentum: Momentum | None = None
    lam: float | None = None
    batches: BatchStream | None = None
    label_noise: LabelNoise | None = None
    max_steps: int | None = None
    tol: float = 1e-20
    options: FlowOptions = FLOW
    velocity: tuple[Tensor, Tensor] | None = None
    method: Method = POSTERS

    def __post_init__(self) -> None:
        raise_if_any(self._errors())
        if self.loss <= self.tol:
            found = f"loss {self.loss:g}, must be > tol = {self.tol:g}"
            raise InputError(f"the start already interpolates: {found}")

    def _errors(self) -> Iterator[str]:
        if self.momentum is None and self.lam is None:
            yield "momentum and lam: at least one must be given"
        if self.lam is not None and not self.lam > 0:
            yield f"lam = {self.lam:g} must be > 0"
        if self.problem.runs:
            yield f"problem has runs {list(self.problem.runs)}, must be one problem"
        for name, w in (("w_plus", self.w_plus), ("w_minus", self.w_minus)):
            if bool((w == 0).any()):
                yield f"{name} has a zero: condition (C1) needs every entry of Delta_0 > 0"
        for name, speed in zip(("w_plus'", "w_minus'"), self.velocity or (), strict=False):
            if speed.shape != self.w_plus.shape or not bool(speed.isfinite().all()):
                yield f"{name} of shape {tuple(speed.shape)} must be finite, [{self.problem.d}]"

    @property
    def stochastic(self) -> bool:
        """Whether the discrete run has mini-batches or label noise."""
        sampled = self.batches is not None and not self.batches.full_batch
        return sampled or self.label_noise is not None

    @cached_property
    def w(self) -> Tensor:
        """(w_+, w_-) at the start, [2, d] float64."""
        return torch.stack([self.w_plus, self.w_minus]).to(self.problem.X)

    @cached_property
    def dw(self) -> Tensor:
        """(w_+', w_-') at the start, [2, d]; zero from rest."""
        if self.velocity is None:
            return torch.zeros_like(self.w)
        return torch.stack(self.velocity).to(self.problem.X)

    @property
    def at_rest(self) -> bool:
        """Whether the start has no speed (condition C2)."""
        return not bool(self.dw.any())

    @cached_property
    def theta(self) -> Tensor:
        """theta_0 = (w_+^2 - w_-^2)/4, or u^D - v^D of a deeper network, [d]."""
        if self.method.is_deep:
            powers = self.w ** float(self.method.depth)
            return powers[0] - powers[1]
        return (self.w[0] - self.w[1]) * (self.w[0] + self.w[1]) / 4

    @cached_property
    def balancedness(self) -> Tensor:
        """Delta_0 = |w_+ w_-|, [d]."""
        return (self.w[0] * self.w[1]).abs()

    @cached_property
    def log_init(self) -> Tensor:
        """arcsinh(2 theta_0/Delta_0) = ln|w_+/w_-|, [d]."""
        return (self.w[0] / self.w[1]).abs().log()

    @cached_property
    def loss(self) -> float:
        """F(w_0) = ||X theta_0 - y||^2/(2n), or the loss of the problem."""
        if self.problem.is_classification:
            return float(self.problem.loss(self.theta))
        residual = self.problem.X @ self.theta - self.problem.y
        return float(residual @ residual) / (2 * self.problem.n)

    def energy(self, lam: float) -> float:
        """E_0 = F(w_0) + lambda/2 (||u'||^2 + ||v'||^2)."""
        return self.loss + lam / 4 * float(self.dw.square().sum())
