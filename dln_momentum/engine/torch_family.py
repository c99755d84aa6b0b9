"""One block of steps of any member of the family in torch, in place, on any device.

The frame is that of `dln_momentum.engine.torch_kernel`: steps `CHECK_EVERY` at a time in memory
that stays where it is. The updates and sums are those of `dln_momentum.engine.cpu.family_passes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dln_momentum.engine.family import NESTEROV, POWER, SQUARED, Family, mean_loss, slope
from dln_momentum.engine.random_inputs import Chunk
from dln_momentum.engine.scaled import ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.engine.tile import Tile
from dln_momentum.engine.torch_kernel import Drawn, Steps, take_steps


def advance(scaled: ScaledProblem, state: State, runs: Tensor, chunk: Chunk) -> None:
    """Advance ``runs`` of the state by the steps of a chunk, in place; see `backends.Kernel`."""
    tile = FamilyTile.gather(scaled, state, runs)
    assert chunk.rates is not None
    torch.addcmul(tile.w, tile.p, chunk.rates.beta[0][:, None].to(tile.w.device), out=tile.ahead)
    take_steps(FamilySteps(tile, scaled, state, runs, chunk.start), chunk)
    tile.scatter(state, runs)


@dataclass
class FamilyTile(Tile):
    """A `Tile` with what the general methods carry."""

    recent_sums: Tensor
    recent_residual: Tensor
    decays: Tensor
    ahead: Tensor
    """z_k, [2, R_t, d]"""

    @classmethod
    def gather(cls, scaled: ScaledProblem, state: State, runs: Tensor) -> Self:
        """Copy the rows of ``runs`` [R_t]."""
        assert state.recent_sums is not None
        assert state.recent_residual is not None
        return cls(
            **vars(Tile.gather(scaled, state, runs)),
            recent_sums=state.recent_sums[:, runs],
            recent_residual=state.recent_residual[runs],
            decays=state.w.new_zeros(len(runs), 2) if state.decays is None else state.decays[runs],
            ahead=torch.empty_like(state.w[:, runs]),
        )

    def rows(self) -> list[tuple[Tensor, int]]:
        """What a run is made of, and the axis of the runs in each."""
        assert self.path_sums is not None
        own = [(self.path_sums, 1), (self.recent_sums, 1), (self.recent_residual, 0)]
        return [*super().rows(), *own, (self.decays, 0)]

    def kept(self, state: State) -> list[Tensor | None]:
        """Where the rows belong."""
        own = [state.path_sums, state.recent_sums, state.recent_residual, state.decays]
        return [*super().kept(state), *own]


class FamilySteps(Steps):
    """The steps of a tile of any member of the family."""

    tile: FamilyTile

    def __init__(
        self, tile: FamilyTile, scaled: ScaledProblem, state: State, runs: Tensor, step: int
    ) -> None:
        assert scaled.family is not None
        self._family: Family = scaled.family
        self._power = self._family.depth[runs, None] - 1
        self._labels, self._n = scaled.target[runs], scaled.target.shape[-1]
        if self._family.loss != SQUARED:
            tile.target = torch.zeros_like(tile.target)
        self._ahead = torch.empty_like(tile.residual_sum)
        super().__init__(tile, scaled, state, runs, step)

    def drawn(self, chunk: Chunk, start: int, stop: int) -> Drawn:
        """Noise, batch weights, and step, beta, decay and the following beta, [steps, R_t] each."""
        assert chunk.rates is not None
        step, beta, decay = chunk.rates
        own = step[start:stop], beta[start:stop], decay[start:stop], beta[start + 1 : stop + 1]
        return (*super().drawn(chunk, start, stop), *own)

    def _set_rates(self, rates: Sequence[Tensor | None], k: int) -> None:
        if self._family.loss != SQUARED:
            self._residual.copy_(slope(self._family.loss, self._residual, self._labels, self._n))
        self._step_size, self._beta, self._decay, self._next_beta = (
            rate[k, :, None] for rate in rates if rate is not None
        )

    def _loss(self) -> Tensor:
        predicted = self._residual
        if self._family.kind == NESTEROV:
            predicted = self._ahead
            self.tile.residual_into(predicted, self._difference(self.tile.w))
        return mean_loss(self._family.loss, predicted, self._labels)

    def _evaluate(self) -> None:
        values = self.tile.ahead if self._family.kind == NESTEROV else self.tile.w
        self.tile.residual_into(self._residual, self._difference(values))

    def _difference(self, values: Tensor) -> Tensor:
        """theta in the scale of the tile."""
        if self._family.kind != POWER:
            return (values[0] - values[1]) * (values[0] + values[1])
        powers = values * self._powers(values)
        return powers[0] - powers[1]

    def _powers(self, values: Tensor) -> Tensor:
        return values**self._power

    def _update(self) -> None:
        tile, family = self.tile, self._family
        decay, step, carry, shrink = self._decay, self._step_size, self._beta, None
        if family.decoupled:
            shrink, decay, total = decay, None, -torch.log1p(-decay)
            step_rows, carry = step / (1 - shrink), carry / (1 - shrink)
            tile.decays[:, 1:].add_(total)
        else:
            step_rows = step
            tile.decays[:, :1].mul_(carry).add_(decay)
            tile.decays[:, 1:].add_(tile.decays[:, :1])
        tile.recent_residual.mul_(carry).addcmul_(self._residual, step_rows)
        tile.residual_sum.add_(tile.recent_residual)
        tile.gradient_into(self._gradient, self._residual)
        pull = step * self._gradient
        # -+pull, less what coupled decay takes
        pulls = torch.stack([-pull, pull])
        pulls = pulls if decay is None else pulls - decay
        if family.kind == NESTEROV:
            term, backward = self._nesterov(pulls)
        elif family.kind == POWER:
            term, backward = self._heavy_ball_on_powers(pulls)
        else:
            term, backward = self._heavy_ball(pulls, shrink)
        assert tile.path_sums is not None
        tile.recent_sums.mul_(carry).add_(term)
        tile.path_sums.add_(tile.recent_sums).add_(backward)
        self._count_sign_changes()

    def _heavy_ball(self, pulls: Tensor, shrink: Tensor | None) -> tuple[Tensor, Tensor]:
        """The step, and A_k and 1 - 1/a_k of it."""
        tile = self.tile
        base = tile.w.clone() if shrink is None else tile.w - shrink * tile.w
        tile.p.mul_(self._beta).addcmul_(pulls, tile.w)
        torch.add(base, tile.p, out=tile.w)
        increment = tile.w - base
        backward = increment / tile.w
        return increment / base * backward, backward

    def _heavy_ball_on_powers(self, pulls: Tensor) -> tuple[Tensor, Tensor]:
        tile = self.tile
        before, powers = tile.w.clone(), self._powers(tile.w)
        tile.p.mul_(self._beta).addcmul_(pulls * (self._power + 1), powers)
        tile.w.add_(tile.p)
        increment, after = tile.w - before, 1 / self._powers(tile.w)
        return increment * (1 / powers - after), increment * after

    def _nesterov(self, pulls: Tensor) -> tuple[Tensor, Tensor]:
        tile = self.tile
        before, ahead = tile.w.clone(), tile.ahead.clone()
        tile.p.mul_(self._beta).addcmul_(pulls, ahead)
        tile.w.add_(tile.p)
        torch.addcmul(tile.w, tile.p, self._next_beta, out=tile.ahead)
        increment = tile.w - before
        backward = increment / tile.w
        term = (tile.w - ahead) / ahead + (ahead - before) / before - backward
        return term, backward
