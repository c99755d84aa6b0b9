"""What is drawn at random for the runs of a tile, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any
from dln_momentum.method import StepRates

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise
    from dln_momentum.data.sampling import BatchStream

CHUNK_BYTES = 2**25
"""How much a chunk may take; longer blocks of steps are cut."""


RatesOf = Callable[[Tensor, int, int], StepRates]


class Chunk(NamedTuple):
    """Some steps of a block."""

    start: int
    """the step that the runs are at"""
    steps: int
    batches: Tensor | None = None
    """the rows in each batch, [steps, R_t or 1, |B|] int64; None for the full batch"""
    noise: Tensor | None = None
    """label noise, [steps, R_t or 1, n]"""
    rates: StepRates | None = None
    """the rates of the steps and of one more, [steps + 1, R_t]; None for the poster's method"""

    def part(self, places: Tensor | slice) -> Chunk:
        """The same for some of the runs; what all of them share is kept once."""
        batches, noise = _part(self.batches, places), _part(self.noise, places)
        rates = self.rates and StepRates(*(rate[:, places] for rate in self.rates))
        return self._replace(batches=batches, noise=noise, rates=rates)

    def to(self, device: torch.device) -> Chunk:
        """The same where the runs are."""
        batches, noise = (t if t is None else t.to(device) for t in (self.batches, self.noise))
        rates = self.rates and StepRates(*(rate.to(device) for rate in self.rates))
        return self._replace(batches=batches, noise=noise, rates=rates)


def _part(drawn: Tensor | None, places: Tensor | slice) -> Tensor | None:
    if drawn is None or drawn.shape[1] == 1:
        return drawn
    # a stride of 0 repeats one draw for every run
    return _once(drawn) if drawn.stride(1) == 0 else drawn[:, places]


@dataclass(frozen=True)
class RandomInputs:
    """The mini-batches and the label noise of all runs, if any."""

    batches: BatchStream | None
    label_noise: LabelNoise | None

    def __post_init__(self) -> None:
        if self.batches is not None and self.batches.full_batch:
            object.__setattr__(self, "batches", None)

    def for_a_thread(self) -> RandomInputs:
        """The same numbers for one of several threads.

        A stream keeps what it drew last, for the next chunk. Where each run has its own seed a
        thread gets a stream of its own; where all runs share one, so do the threads share the
        stream, and what one of them has drawn the others need not draw again.
        """
        batches, noise = self.batches, self.label_noise
        if batches is not None and not _one_seed(batches):
            batches = replace(batches)
        if noise is not None and not _one_seed(noise):
            noise = replace(noise)
        return RandomInputs(batches, noise)

    def chunks(
        self, start: int, steps: int, runs: Tensor, rates: RatesOf | None = None
    ) -> Iterator[Chunk]:
        """The steps start <= t < start + steps of these runs, in order; all at once if it fits.

        Args:
            start, steps: which steps.
            runs: indices.
            rates: gives the rates of some runs from a step k on, for so many steps.
        """
        per_step = self._bytes_per_step(len(runs)) + (0 if rates is None else 24 * len(runs))
        most = max(1, CHUNK_BYTES // per_step) if per_step and steps else max(1, steps)
        for first in range(start, start + max(1, steps), most):
            last = min(first + most, start + steps)
            chunk = Chunk(first, last - first, *self._drawn(first, last, runs))
            # step t = 0 is k = 1 of the theory
            own = None if rates is None else rates(runs, first + 1, last - first + 1)
            raise_if_any(_rate_faults(own, last - first + 1, len(runs)))
            yield chunk._replace(rates=own)

    def _drawn(self, first: int, last: int, runs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        batches, noise = None, None
        if self.batches is not None and first < last:
            with _turn(self.batches):
                batches = self.batches.indices(first, last, runs)
            raise_if_any(_batch_faults(batches, last - first, len(runs), self.batches.n))
        if self.label_noise is not None and first < last:
            with _turn(self.label_noise):
                noise = self.label_noise.label_noise(first, last, runs)
            raise_if_any(_noise_faults(noise, last - first, len(runs), self.label_noise.n))
        return batches, noise

    def _bytes_per_step(self, runs: int) -> int:
        drawn = 0
        for stream in (self.batches, self.label_noise):
            if stream is not None:
                width = getattr(stream, "batch_size", None) or stream.n
                drawn += width * (1 if _one_seed(stream) else runs)
        return 8 * drawn


def _batch_faults(batches: Any, steps: int, runs: int, n: int) -> Iterator[str]:
    """Rows that compiled code, which indexes with them unchecked, must not be given."""
    if not _is_drawn(batches, torch.int64, steps, runs) or batches.shape[2] == 0:
        yield f"batches gave {_shown(batches)}; must be [{steps}, {runs} or 1, |B|] int64"
        return
    least, most = map(int, _once(batches).aminmax())
    if least < 0 or most >= n:
        yield f"batches gave rows from {least} to {most}; must be in [0, n) = [0, {n})"


def _noise_faults(noise: Any, steps: int, runs: int, n: int) -> Iterator[str]:
    if noise is not None and not (
        _is_drawn(noise, torch.float64, steps, runs) and noise.shape[2] == n
    ):
        yield f"label_noise gave {_shown(noise)}; must be [{steps}, {runs} or 1, {n}] float64"


def _rate_faults(rates: StepRates | None, steps: int, runs: int) -> Iterator[str]:
    """Rates that a schedule of one's own has given another shape."""
    for key, rate in zip(StepRates._fields, rates or (), strict=rates is not None):
        if (
            not isinstance(rate, Tensor)
            or rate.dtype != torch.float64
            or rate.shape != (steps, runs)
        ):
            yield f"schedule gave {key} {_shown(rate)}; must be [{steps}, {runs}] float64"


def _is_drawn(drawn: Any, dtype: torch.dtype, steps: int, runs: int) -> bool:
    return (
        isinstance(drawn, Tensor)
        and drawn.dtype == dtype
        and drawn.ndim == 3
        and drawn.shape[0] == steps
        and drawn.shape[1] in (1, runs)
    )


def _shown(drawn: Any) -> str:
    shape = f"{[*drawn.shape]} {drawn.dtype}" if isinstance(drawn, Tensor) else ""
    return shape or f"a {type(drawn).__name__}"


def _once(drawn: Tensor) -> Tensor:
    """What is drawn, without its repetitions for runs that share it."""
    return drawn[:, :1] if drawn.stride(1) == 0 else drawn


_SHARED = Lock()


def _turn(stream: BatchStream | LabelNoise) -> AbstractContextManager[Any]:
    return _SHARED if _one_seed(stream) else nullcontext()


def _one_seed(stream: BatchStream | LabelNoise) -> bool:
    return not isinstance(stream.seeds, Sequence)
