"""The sums of the theorem along a path, step by step in their forward form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dln_momentum.theory.balances import Recursion
from dln_momentum.theory.family import StepTerms
from dln_momentum.theory.schedules import RunningSum, speed_term
from dln_momentum.theory.trajectory import Trajectory

STEP_ROUNDINGS = 32.0
"""Roundings of w_+- that the check of one step may hold, as a multiple of an ulp."""


@dataclass(frozen=True, eq=False)
class PathSummary(Trajectory):
    """What was summed along a run, at T steps (the last, or all), in the theorem's variables.

    Attributes:
        steps: [T].
        w_start: (w_+, w_-) at w_1, [2, 1, d].
        w: at these steps, [2, T, d].
        exponents: S_+- with the exponent of weight decay, [2, T, d].
        path_sums: S_+- alone, [2, T, d].
        resolution: errors of the exponents by rounding, [2, T, d].
        log_free: errors of w_+ w_- against its log-free sum, the largest so far, [T].
        asymmetry, outside, update_error: the largest so far over the largest step, [T].
        step_resolution: what rounding explains of these three, [T].
        sign_changes: so far, [T].
    """

    steps: Tensor
    w_start: Tensor
    w: Tensor
    exponents: Tensor
    path_sums: Tensor
    resolution: Tensor
    log_free: Tensor
    asymmetry: Tensor
    outside: Tensor
    update_error: Tensor
    step_resolution: Tensor
    sign_changes: Tensor
    boundary = start_term = torch.zeros((), dtype=torch.float64)

    @classmethod
    def joined(cls, parts: Sequence[PathSummary]) -> PathSummary:
        """One summary of the steps of several, of one run."""
        each = [part._tensors() for part in parts]
        found = {
            name: torch.cat([tensors[name] for tensors in each], 1 if value.ndim == 3 else 0)
            for name, value in each[0].items()
        }
        return cls(**found | {"w_start": parts[0].w_start})

    def to(self, device: torch.device) -> PathSummary:
        """The same on a device."""
        return PathSummary(**{name: value.to(device) for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class PathSums:
    """S_+-, the exponent of weight decay and the checks of the steps, without storing iterates.

    Args:
        w_start: (w_+, w_-) at w_1, [2, d], nowhere zero.
        w_before: w_0; `w_start` itself at rest.
        ulp: relative rounding of the arithmetic that computes the iterates.
    """

    def __init__(self, w_start: Tensor, w_before: Tensor, ulp: float) -> None:
        self.w_start, self.w, self.ulp = w_start.clone(), w_start.clone(), ulp
        zero = torch.zeros_like(w_start[0])
        none = torch.zeros((), dtype=w_start.dtype, device=w_start.device)
        # rows: w_+ and w_-, the rounding of each, weight decay
        start = torch.cat([speed_term(w_before, w_start), zero.expand(3, -1)])
        self._weighted = RunningSum.of(start)
        self._plain = torch.zeros_like(start[:4])
        increment = w_start - w_before
        mixed = w_start[0] * increment[1] + w_start[1] * increment[0]
        self._balance = Recursion(w_start[0] * w_start[1], mixed, increment[0] * increment[1])
        self._log_scale, self._scale = none, none + 1
        self._asymmetry, self._step, self._log_free = none, none, none
        self._outside = self._update = none + torch.nan
        self.steps, self.sign_changes = 0, 0

    def add(
        self,
        terms: StepTerms,
        w_next: Tensor,
        beta: Tensor | float,
        decay_step: Tensor | float = 0.0,
        *,
        shrink: Tensor | float = 0.0,
        nesterov: bool = False,
        outside: Tensor | None = None,
        update_error: Tensor | None = None,
    ) -> None:
        """Go on to the next step.

        Args:
            terms: of the step, in rescaled iterates where there is decoupled decay.
            w_next: (w_+, w_-) after it, [2, d], rescaled alike.
            beta, decay_step: of the step.
            shrink: eta_k of decoupled decay.
            nesterov: whether the step is Nesterov's.
            outside: the part of gamma_k g_k outside the row space, [d], if the rows are known.
            update_error: gamma_k g_k less what it should be, [d], if that is known.
        """
        decay = torch.as_tensor(decay_step, dtype=w_next.dtype).expand_as(w_next[0])
        rounding = terms.weighted_rounding + 4 * self.ulp * terms.step.abs()
        self._weighted.add(torch.cat([terms.weighted, rounding, decay[None]]), beta)
        self._plain = self._plain + torch.cat([-terms.backward, terms.rounding])
        short = terms.short_product if nesterov else None
        self._balance.advance(terms.product, beta, decay_step, short)
        self._asymmetry = _largest(self._asymmetry, terms.asymmetry)
        self._step = _largest(self._step, terms.step)
        self._log_free = _largest(self._log_free, self._balance.predicted - w_next[0] * w_next[1])
        if outside is not None:
            self._outside = _largest(self._outside.nan_to_num(0.0), outside)
        if update_error is not None:
            self._update = _largest(self._update.nan_to_num(0.0), update_error)
        self.sign_changes += int((w_next.signbit() != self.w.signbit()).sum())
        self._scale = self._scale * (1 - shrink)
        self._log_scale = self._log_scale + torch.log1p(-torch.as_tensor(shrink).to(w_next))
        self.steps += 1
        self.w = w_next

    def summary(self) -> PathSummary:
        """What there is at this step, T = 1."""
        total = self._weighted.total
        sums = total[:2] + self._plain[:2]
        largest = torch.where(self._step > 0, self._step, 1.0)
        d = self.w.shape[-1]
        vectors = {
            "w_start": self.w_start,
            "w": self.w * self._scale,
            "exponents": sums + total[4] - self._log_scale,
            "path_sums": sums,
            "resolution": total[2:4] + self._plain[2:4],
        }
        scalars = {
            "log_free": self._log_free,
            "asymmetry": self._asymmetry / largest,
            "outside": self._outside / largest,
            "update_error": self._update / largest,
            "step_resolution": STEP_ROUNDINGS * self.ulp * (1 / largest + d),
            "steps": torch.tensor(self.steps),
            "sign_changes": torch.tensor(self.sign_changes),
        }
        found = {name: value.unsqueeze(1) for name, value in vectors.items()}
        return PathSummary(**found, **{name: value[None] for name, value in scalars.items()})


def _largest(so_far: Tensor, values: Tensor) -> Tensor:
    """The larger of a number and |values|; nan where one is."""
    return torch.maximum(so_far, values.abs().amax())
