"""How the runs of any member of the family are stored, and read out.

A change of variables gives rates of coordinates and of layers to kernels that know neither
(docs/theory.md#coordinate-rates): with steps kappa_i gamma_k, w/sqrt(kappa) on X diag(kappa); with
step sizes gamma_u and gamma_v, w_+- = (gamma_v/gamma_u)^(1/4) u +- (gamma_u/gamma_v)^(1/4) v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine.family import NESTEROV, POWER, Family
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.engine.problems import ProblemGroup
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.state import State
from dln_momentum.engine.stored import Pair, Runs, layers, stored_once
from dln_momentum.method import Method, StepRates
from dln_momentum.per_run import tensor_like
from dln_momentum.theory.curvature import sharpness_threshold


@dataclass(frozen=True, eq=False)
class StoredFamily:
    """R runs of a method that is not plain, or of a loss that is not squared.

    Args:
        method: its numbers one for all runs, or [R].
        family: what the kernels know of it.
        gamma, beta: [R].
        start: w_{+,1} and w_{-,1}, [R, d] each; u and v at a depth D > 2.
        previous: the same of step 0; None at rest.
    """

    method: Method
    family: Family
    gamma: Tensor
    beta: Tensor
    start: Pair
    previous: Pair | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(stored_once(w) for w in self._weighted(self.start)))
        if self.previous is not None:
            object.__setattr__(self, "previous", self._weighted(self.previous))

    @property
    def scale(self) -> float | Tensor:
        """What w is times where it is stored, a number or [d]."""
        kappa = self.method.kappa
        inner = self.family.inner
        return inner if kappa is None else inner / kappa.to(self.gamma.device).sqrt()

    def scaled_problems(
        self, groups: Sequence[ProblemGroup], options: EngineOptions
    ) -> list[ScaledProblem]:
        """The data of each group; gamma stays out of the scale."""
        kappa = self.method.kappa
        kappa = None if kappa is None else kappa.to(self.gamma.device)
        one, ends = torch.ones_like(self.gamma), (options.tol, options.divergence_bound)
        return ScaledProblem.of(groups, one, self.beta, *ends, self.family, kappa)

    def first_state(self, n: int) -> State:
        """The state at step 0, for data of n rows."""
        w = torch.stack(self.start) * self.scale
        increment = torch.zeros_like(w)
        if self.previous is not None:
            increment = (torch.stack(self.start) - torch.stack(self.previous)) * self.scale
        every = slice(None)
        return State.of_family(
            w=w,
            p=increment,
            n=n,
            recent_sums=-increment * self._slope_of_potential(w, every),
            decays=self.method.decays,
        )

    def variables(self, state: State, runs: Runs) -> Pair:
        """(u, v) and their last increments, both [2, R, d]; see `Engine.variables`."""
        both = torch.stack([state.w[:, runs], state.p[:, runs]])
        if self.family.kind == POWER:
            return both[0], both[1]
        values, increments = layers(both / (2 * self.scale))
        ratio = self._layer_ratio(runs) ** 0.25
        back = torch.stack([1 / ratio, ratio])
        return values * back, increments * back

    def account_for_changes(self, state: State) -> None:
        """Count what something else has done to w since the last block as a step of the run."""
        before, now = state.summed_until, state.w
        if before is None or torch.equal(before, now):
            return
        assert state.path_sums is not None
        every = slice(None)
        forward, backward = (self._slope_of_potential(w, every) for w in (before, now))
        step = now - before
        # p = 1: the identity of the sums holds on, and the gradients know nothing of the step
        jump = step * (forward - backward) + step * backward
        state.path_sums += jump.where(now != before, 0.0)

    def snapshot(self, state: State, runs: Runs, summed_gradients: Tensor, step: int) -> Snapshot:
        """The runs as they stand; arguments as in `Stored.snapshot`."""
        w = state.w[:, runs] / self.scale
        start = torch.stack([w[runs] for w in self.start])
        decays, R = state.decays, len(self.gamma[runs])
        decay = w.new_zeros(R, 1) if decays is None else decays[runs, 1:].clone()
        assert state.path_sums is not None
        sums = state.path_sums[:, runs] - self._potential_gained(start, w, runs)
        if self.family.decoupled:
            sums = sums - decay
        kept: dict[str, Any] = {}
        if self.family.kind == POWER:
            kept["depth"] = self.family.depth[runs, None]
        kind = PowerSnapshot if kept else FamilySnapshot
        return kind(
            step=step,
            gamma=self.gamma[runs, None],
            beta=self.beta[runs, None],
            w_start=start,
            w=w,
            boundary=torch.zeros_like(w),
            speed_term=None,
            gradient_sum=summed_gradients / self.gamma[runs, None],
            path_sums_from_iterates=sums,
            increment_products=None,
            loss=state.loss[runs].clone(),
            sign_changes=state.sign_changes[runs].clone(),
            steps=state.steps[runs].clone(),
            status=state.status[runs].clone(),
            weighted_gradient_sum=summed_gradients,
            decay=decay,
            increment=state.p[:, runs] / self.scale,
            ahead=w + self._carried(state, runs) / self.scale if self._looks_ahead else w,
            layer_ratio=self._layer_ratio(runs),
            kappa=self.method.kappa,
            last_threshold=self._threshold(state, runs),
            **kept,
        )

    @property
    def _looks_ahead(self) -> bool:
        return self.family.kind == NESTEROV

    def _carried(self, state: State, runs: Runs) -> Tensor:
        """z_{k+1} - x_{k+1} = beta_{k+1} (x_{k+1} - x_k) in the scale of the state."""
        return self._rates(state.steps[runs] + 1, runs).beta[:, None] * state.p[:, runs]

    def _threshold(self, state: State, runs: Runs) -> Tensor:
        """The sharpness above which the last step, or the first to come, is unstable, [R, 1]."""
        step, beta, decay = self._rates(state.steps[runs].clamp_min(1), runs)
        coupled = not self.family.decoupled
        return sharpness_threshold(
            step,
            beta,
            nesterov=self._looks_ahead,
            # omega; a step of size 0, which ends a schedule, has none and no bound
            weight_decay=torch.where(step > 0, decay / step, 0.0) if coupled else 0.0,
            decoupled=0.0 if coupled else decay,
        )[:, None]

    def _rates(self, k: Tensor, runs: Runs) -> StepRates:
        """What step k of each run, of its own, is made of, [R] each."""
        rates = torch.stack([self.gamma[runs]] * 3)
        places = torch.arange(len(self.beta), device=rates.device)[runs]
        for number in k.unique().tolist():
            at = (k == number).nonzero().squeeze(-1).to(rates.device)
            own = places[at]
            of_step = self.method.of(own).rates(self.gamma[own], self.beta[own], int(number), 1)
            rates[:, at] = torch.stack([rate[0] for rate in of_step])
        return StepRates(*rates)

    def _layer_ratio(self, runs: Runs) -> Tensor:
        ratio = tensor_like(self.method.layer_ratio, self.gamma.device)
        return ratio.expand_as(self.gamma)[runs, None]

    def _weighted(self, pair: Pair) -> Pair:
        """w_+- of layers with rates of their own, from u +- v."""
        ratio = self._layer_ratio(slice(None)) ** 0.25
        if bool((ratio == 1).all()):
            return pair
        u, v = (pair[0] + pair[1]) / 2, (pair[0] - pair[1]) / 2
        return ratio * u + v / ratio, ratio * u - v / ratio

    def _slope_of_potential(self, w: Tensor, runs: Runs) -> Tensor:
        """phi'(w): 1/w of phi = ln|w|, and w^(1-D) at depth D; the scale drops out."""
        return 1 / w if self.family.kind != POWER else w ** (1 - self.family.depth[runs, None])

    def _potential_gained(self, start: Tensor, w: Tensor, runs: Runs) -> Tensor:
        """phi(w_{K+1}) - phi(w_1): ln|w_{K+1}/w_1|, or (w_1^(2-D) - w_{K+1}^(2-D))/(D-2)."""
        if self.family.kind != POWER:
            return torch.log((w / start).abs())
        m = self.family.depth[runs, None] - 2
        return (start**-m - w**-m) / m
