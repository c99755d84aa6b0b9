"""What is verified: a problem, a start, and the parameters of its run and of its flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.errors import refuse
from dln_momentum.flow import FlowOptions
from dln_momentum.momentum import Momentum
from dln_momentum.problem import Problem

FLOW = FlowOptions(max_steps=10_000)
"""Flows that need more steps than this are slow to converge: some ten seconds are spent on each."""


@dataclass(frozen=True, eq=False)
class Case:
    """A setting in which the statements of the theory are evaluated.

    Attributes:
        problem: the data, without run dimensions, on the CPU.
        w_plus, w_minus: w_+- = u +- v at the start, [d].
        momentum: of the discrete run; None for a step that resolves the flow of `lam`.
        lam: lambda > 0 of the continuous flow; None for that of `momentum`.
        batches, label_noise: of the discrete run; the flows follow the full loss.
        max_steps: of the discrete run; None for as many as take a few seconds.
        tol: the energy at which a run or a flow counts as converged.
        options: method and error settings of the flows.

    Raises:
        InputError: without momentum and lam, for lam <= 0, a problem with run dimensions, a start
            with a zero (C1), or one that already interpolates.
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

    def __post_init__(self) -> None:
        complaints = []
        if self.momentum is None and self.lam is None:
            complaints.append("momentum and lam: at least one must be given")
        if self.lam is not None and not self.lam > 0:
            complaints.append(f"lam = {self.lam:g} must be > 0")
        if self.problem.runs:
            complaints.append(f"problem has runs {list(self.problem.runs)}, must be one problem")
        complaints += [
            f"{name} has a zero: condition (C1) needs every entry of Delta_0 > 0"
            for name, w in (("w_plus", self.w_plus), ("w_minus", self.w_minus))
            if bool((w == 0).any())
        ]
        refuse(complaints)
        theta = (self.w_plus - self.w_minus) * (self.w_plus + self.w_minus) / 4
        loss = float(self.problem.loss(theta))
        if loss <= self.tol:
            refuse([f"the start already interpolates: loss {loss:g}, must be > tol = {self.tol:g}"])

    @property
    def stochastic(self) -> bool:
        """Whether a step of the discrete run follows anything but the full gradient."""
        sampled = self.batches is not None and not self.batches.full_batch
        return sampled or self.label_noise is not None
