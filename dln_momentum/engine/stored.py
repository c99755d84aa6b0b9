"""How the runs of the poster's method are stored, and read out in the poster's variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.problems import ProblemGroup
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.state import State
from dln_momentum.theory.discrete_bias import (
    boundary_term,
    telescoped_increment,
    telescoped_path_sums,
)

Runs = Tensor | slice
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Stored:
    """R runs of heavy ball with constant rates, in the scale of `State`.

    Args:
        gamma, beta: [R].
        start: w_{+,1} and w_{-,1}, [R, d] each.
        previous: w_{+-,0}; None at rest.
        path_sums: see `EngineOptions.path_sums`.
    """

    gamma: Tensor
    beta: Tensor
    start: Pair
    previous: Pair | None
    path_sums: str

    def __post_init__(self) -> None:
        kept = tuple(stored_once(w) for w in self.start)
        object.__setattr__(self, "start", kept)
        speed = None
        if self.previous is not None and self.path_sums != "gradient_sum":
            both = zip(self.previous, self.start, strict=True)
            speed = torch.stack([boundary_term(a, b, self.beta[:, None]) for a, b in both])
        object.__setattr__(self, "_speed_term", speed)

    def scale(self, runs: Runs) -> Tensor:
        """What w is times where it is stored, [R, 1]."""
        return self.gamma.sqrt()[runs, None] / 2

    def scaled_problems(
        self, groups: Sequence[ProblemGroup], options: EngineOptions
    ) -> list[ScaledProblem]:
        """The data of each group in the scale of the kernel."""
        ends = options.tol, options.divergence_bound
        return ScaledProblem.of(groups, self.gamma, self.beta, *ends)

    def first_state(self, n: int) -> State:
        """The state at step 0, for data of n rows."""
        scale = self.scale(slice(None))
        w = torch.stack(self.start).mul_(scale)
        before = self.previous
        increment = None if before is None else w - torch.stack(before) * scale
        return State.at_start(w, increment, self.beta, n, self.path_sums)

    def variables(self, state: State, runs: Runs) -> Pair:
        """(u, v) and their last increments, both [2, R, d]; see `Engine.variables`."""
        beta, w = self.beta[runs, None], state.w[:, runs]
        # p = w_k - beta w_{k-1}, so that p - (1 - beta) w is beta times the increment
        step = (state.p[:, runs] - (1 - beta) * w) / beta
        return layers(torch.stack([w, step.where(beta != 0, 0.0)]) / (2 * self.scale(runs)))

    def account_for_changes(self, state: State) -> None:
        """Count what something else has done to w since the last block as a step of the run.

        The telescoped sum knows the way from its last iterate to the present one by its ends
        alone; without this it would certify a run whose weights were written to.
        """
        if state.summed_until is None or torch.equal(state.summed_until, state.w):
            return
        assert state.path_sums is not None
        jump = telescoped_increment(state.summed_until, state.w, self.beta[:, None])
        state.path_sums += jump.where(state.w != state.summed_until, 0.0)

    def snapshot(self, state: State, runs: Runs, summed_gradients: Tensor, step: int) -> Snapshot:
        """The runs as they stand.

        Args:
            state: of all runs.
            runs: which of them.
            summed_gradients: X^T/sqrt(n) times `State.residual_sum` of these runs, [R, d].
            step: for `Snapshot.step`.
        """
        gamma, beta, scale = self.gamma[runs, None], self.beta[runs, None], self.scale(runs)
        products, speed = state.increment_products, self._speed_term_of(runs)
        w = state.w[:, runs]
        # beta (1 - w_{k-1}/w_k) = p/w - (1 - beta)
        boundary = (state.p[:, runs] / w).div_(1 - beta).sub_(1)
        return Snapshot(
            step=step,
            gamma=gamma,
            beta=beta,
            w_start=torch.stack([w[runs] for w in self.start]),
            w=w / scale,
            boundary=boundary,
            speed_term=speed,
            gradient_sum=summed_gradients.div_(gamma),
            path_sums_from_iterates=self._path_sums(state, runs),
            increment_products=None if products is None else products[runs] / scale**2,
            loss=state.loss[runs].clone(),
            sign_changes=state.sign_changes[runs].clone(),
            steps=state.steps[runs].clone(),
            status=state.status[runs].clone(),
        )

    def _speed_term_of(self, runs: Runs) -> Tensor | None:
        speed: Tensor | None = self._speed_term  # pyright: ignore[reportAttributeAccessIssue]
        return None if speed is None else speed[:, runs]

    def _path_sums(self, state: State, runs: Runs) -> Tensor | None:
        """S_+- from the iterates, without its boundary term, [2, R, d], if it is summed."""
        if state.path_sums is None:
            return None
        found, speed = state.path_sums[:, runs].clone(), self._speed_term_of(runs)
        if state.summed_until is not None:
            now = state.w[:, runs] / self.scale(runs)
            start = torch.stack([w[runs] for w in self.start])
            found = telescoped_path_sums(found, start, now, self.beta[runs, None])
        return found if speed is None else found - speed


def layers(w: Tensor) -> Pair:
    """u and v, each with what else was stacked, from w_+- [k, 2, R, d] divided by 2."""
    plus, minus = w.unbind(1)
    first, second = torch.stack([plus + minus, plus - minus], dim=1)
    return first, second


def stored_once(w: Tensor) -> Tensor:
    """A copy of w [R, d]; of one row where all are alike, so that thousands cost nothing."""
    alike = bool((w == w[:1]).all())
    return w[:1].clone().expand_as(w) if alike else w.clone()
