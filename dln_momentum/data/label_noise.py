"""Label noise: targets perturbed independently at every step, an implicit regulariser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from dln_momentum.arrays import is_integer, is_real
from dln_momentum.data.streams import CHUNK, Runs, SeededStream, per_run
from dln_momentum.seeding import Purpose


@dataclass(frozen=True)
class LabelNoise(SeededStream):
    """Noise on the targets: at step t < until, y_j becomes y_j + xi_{t,j}, xi_{t,j} = +-amplitude.

    The signs are independent and uniform over steps, rows and seeds, and a function of (seed, t)
    alone. The noisy gradient X^T (X theta - y - xi_t) / n stays in the span of the rows, as the
    exact theory of the implicit bias requires. Pesme, Pillaud-Vivien and Flammarion (NeurIPS 2021)
    and Pillaud-Vivien, Reygner and Flammarion (COLT 2022) study such noise; the former perturb by
    +-2 delta, which is amplitude = 2 delta here.

    Args:
        n: number of rows.
        amplitude: size of the perturbation, >= 0; 0 is no noise.
        until: number of noisy steps, counted from step 0.
        seeds: one integer that all runs share, or one per run.

    Raises:
        InputError: listing every argument out of its range.

    >>> noise = LabelNoise(n=3, amplitude=0.5, until=2, seeds=0)
    >>> noise.label_noise(0, 3)[:, 0]
    tensor([[-0.5000, -0.5000,  0.5000],
            [ 0.5000, -0.5000,  0.5000],
            [ 0.0000,  0.0000,  0.0000]], dtype=torch.float64)
    >>> noise.label_noise(2, 5) is None
    True
    """

    n: int
    amplitude: float
    until: int
    seeds: int | Sequence[int]
    purpose: ClassVar[Purpose] = Purpose.LABEL_NOISE

    def label_noise(self, start: int, stop: int, runs: Runs = None) -> Tensor | None:
        """xi of the steps start <= t < stop, float64 [steps, runs, n]; None if all are zero.

        The run dimension is 1 for one seed.
        """
        if self.amplitude == 0 or start >= self.until:
            return None
        signs, rows = self._window(start, stop, runs)
        noise = signs.double() * float(self.amplitude)
        noise[self.until - start :] = 0.0
        return per_run(noise, rows)

    def _draw(self, seed: int, chunk: int) -> np.ndarray:
        rng = self._generator(seed, chunk)
        return 2 * rng.integers(2, size=(CHUNK, self.n), dtype=np.int8) - 1

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not (is_real(self.amplitude) and self.amplitude >= 0):
            yield f"label_noise = {self.amplitude!r} must be a finite number >= 0"
        if not is_integer(self.until, 0):
            yield f"noise_until = {self.until!r} must be an integer >= 0"
