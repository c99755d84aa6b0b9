"""The engine against the update as it is written: iterates, sums and loss of the first steps.

The theorems hold for any gradients in the row space, hence also for wrong batches, wrong label
noise or a wrong step size. Only a second program, `written_run`, finds those.
(docs/theory.md#diagonal-network; poster, section 3.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.backends import compiles
from dln_momentum.flows.trajectory import LARGEST, SMALLEST
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP
from dln_momentum.verification.statement import Hypothesis, Statement, Times, equal
from dln_momentum.verification.written_update import WrittenRun, written_run

PATH_SUMS = ("direct", "telescoped")
"""The two ways to sum S_+- from the iterates."""

STEPS = (1, 2, 3, 10, 30, 64)
"""The compared steps: single ones, and blocks that end between the engine's own checks."""

DISPLACEMENT = 1e-7
AMPLIFIED = 1e5
"""The comparison ends at this amplification, at which rounding may differ by 1e-9."""

DIVERGED = 1e9

PER_STEP = 64
"""Ulps that a step of the engine and one of the written update may be apart."""


def backends() -> tuple[str, ...]:
    """The backends that are compared; without numba's compiler torch alone."""
    return ("numba", "torch") if compiles() else ("torch",)


def random_signs(d: int) -> np.ndarray:
    """The direction of a displacement of (w_+, w_-), [2, d]."""
    return np.where(np.random.default_rng(0).random((2, d)) < 0.5, -1.0, 1.0)


def grown(path: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
    """Largest growth up to each step, >= 1, of the `DISPLACEMENT` of a start to that of another."""
    pairs = zip(path, other, strict=False)
    found = [np.abs(a - b).max() / (DISPLACEMENT * np.abs(a).max()) for a, b in pairs]
    return np.maximum.accumulate(np.maximum(found, 1.0))


class SecondProgram:
    """The first steps of a setting by the written update and by both backends of the engine."""

    def __init__(self, m: Measurements) -> None:
        self.measurements = m

    @cached_property
    def written(self) -> WrittenRun:
        """The written update up to the last compared step."""
        return written_run(self.measurements.setting, self.measurements.momentum, STEPS[-1])

    @cached_property
    def growth(self) -> np.ndarray:
        """Largest growth of a displacement of the start up to each step, >= 1."""
        setting, momentum = self.measurements.setting, self.measurements.momentum
        written, signs = self.written.w, random_signs(self.measurements.problem.d)
        # of few coordinates one draw may be a direction that hardly grows: one that changes Delta
        # alone, or c alone
        others = (
            written_run(setting, momentum, len(written) - 1, DISPLACEMENT * draw).w
            for draw in (signs, signs * np.array([[1.0], [-1.0]]))
        )
        found = [grown(written, other) for other in others]
        short = min(map(len, found))
        return np.maximum(*(moved[:short] for moved in found))

    @cached_property
    def steps(self) -> list[int]:
        """The compared steps: in the range of float64, and before rounding is amplified too far."""
        found = []
        for k in STEPS:
            if k >= len(self.growth) or not self.growth[k] < AMPLIFIED:
                break
            sizes = np.abs(np.stack(self.written.w[: k + 1]))
            # squares of w_+- have all their digits too
            if not (sizes.min() >= SMALLEST**0.5 and sizes.max() <= LARGEST**0.25):
                break
            # beyond, the engine calls the run diverged
            if not max(self.written.loss[: k + 1]) < DIVERGED * self.written.loss[0]:
                break
            found.append(k)
        return found

    def snapshots(self, backend: str, path_sums: str = "telescoped") -> list[Snapshot]:
        """The engine's run after each of the compared steps."""
        key = (backend, path_sums)
        if key not in self._snapshots:
            engine, found = self.measurements.engine(backend=backend, path_sums=path_sums), []
            for k in self.steps:
                engine.advance(k - engine.step)
                found.append(engine.snapshot())
            self._snapshots[key] = found
        return self._snapshots[key]

    @cached_property
    def _snapshots(self) -> dict[tuple[str, str], list[Snapshot]]:
        return {}

    @property
    def compared(self) -> Hypothesis:
        """Whether there is any step to compare."""
        found = f"{len(self.steps)} steps up to k = {max(self.steps, default=0)}"
        return Hypothesis("float64 decides the first step", bool(self.steps), found)

    @property
    def times(self) -> Times:
        """The compared steps."""
        at = torch.tensor(self.steps or [0], dtype=torch.float64)
        return Times("k", at, f"for k <= {max(self.steps, default=0)}")

    @property
    def tolerance(self) -> Tensor:
        """Largest difference by rounding, relative to the largest |w|, at each compared step."""
        k = np.array(self.steps)
        return torch.from_numpy(PER_STEP * ULP * (k + 1) * self.growth[k])


def the_iterates(program: SecondProgram, backend: str) -> Statement:
    """w_{+-,k} by the engine and by the written update."""
    name = f"MGD: w_k of the engine ({backend}) are those of the update as written"
    if not program.steps:
        return Statement(name, 3, (program.compared,))
    pairs = [
        (s.w[:, 0], torch.from_numpy(program.written.w[k]))
        for k, s in zip(program.steps, program.snapshots(backend), strict=True)
    ]
    # a run may return from large w_+- to small ones, with the rounding of the large ones
    largest = [max(float(np.abs(w).max()) for w in program.written.w[: k + 1])
               for k in program.steps]  # fmt: skip
    error = torch.stack([(a - b).abs().max() / size
                         for (a, b), size in zip(pairs, largest, strict=True)])  # fmt: skip
    return equal(
        name, 3, [program.compared], predicted=pairs[-1][1].sum(), measured=pairs[-1][0].sum(),
        error=error, tolerance=program.tolerance, times=program.times,
    )  # fmt: skip


def the_sums(program: SecondProgram, backend: str, path_sums: str) -> Statement:
    """S_+-, G, the products of increments, the boundary term, loss and sign changes, likewise.

    Each is relative to its size and to that of its largest term so far.
    """
    way = f"{backend}, {path_sums}"
    name = f"MGD: S_+-, G, sum dw_+ dw_-, loss and sign changes ({way}) are of these iterates"
    if not program.steps:
        return Statement(name, 3, (program.compared,))
    errors, snapshots = [], program.snapshots(backend, path_sums)
    for k, s in zip(program.steps, snapshots, strict=True):
        pairs = _pairs(program, s, k)
        errors.append(torch.stack([_relative(*pair) for pair in pairs]).max())
    written = torch.from_numpy(program.written.sums[program.steps[-1]]).sum()
    measured = snapshots[-1].path_sums[:, 0].sum()
    return equal(
        name, 3, [program.compared], predicted=written, measured=measured,
        error=torch.stack(errors), tolerance=program.tolerance, times=program.times,
    )  # fmt: skip


def _pairs(program: SecondProgram, s: Snapshot, k: int) -> list[tuple[Tensor, np.ndarray, float]]:
    """Numbers of a snapshot, of the written run, and their scale: their error over that of w."""
    written, X = program.written, program.measurements.problem.X.numpy()
    assert s.path_sums_from_iterates is not None
    assert s.increment_products is not None
    largest = float(np.abs(np.stack(written.w[: k + 1])).max())
    momentum, setting = program.measurements.momentum, program.measurements.setting
    # a snapshot has the term of the initial speed subtracted from S_+-
    start = momentum.lam * momentum.beta * setting.dw / setting.w
    # theta moves by w dw/2 and the residual by X times that, also where theta itself cancels
    norm, squares = (
        float(np.linalg.norm(X, 2)),
        max(float((w * w).sum()) for w in written.w[: k + 1]),
    )
    loss, n = max(written.loss[: k + 1]), len(X)
    gradient = max(float(np.abs(g).max()) for g in written.gradient_sum[: k + 1])
    gradient += norm * norm * squares / n
    gradient_sum = momentum.eps * gradient
    # a logarithm's argument w_{k+1}/w_k has the error of w over the smaller of the two
    nearest = _nearest(written, k)
    # and the definition's terms have the slope (1 - w_{k-1}/w_k)/(1-beta) in it, the boundary term
    largest_of = (max(float(np.abs(x).max()) for x in terms[: k + 1])
                  for terms in (written.sums, written.boundary))  # fmt: skip
    sums = nearest * (1 + sum(largest_of))
    # the rounding of 1 - w_{k-1}/w_k, times beta/(1-beta); the tolerance has PER_STEP ulps for it
    rounding = max(1.0, momentum.beta / (1 - momentum.beta) / PER_STEP)
    boundary = nearest * (rounding + float(np.abs(written.boundary[k]).max()))
    return [
        (s.path_sums_from_iterates[:, 0] + start, written.sums[k], sums),
        (s.path_sums_from_gradients[:, 0] + start, written.sums[k], sums + gradient_sum),
        (s.gradient_sum[0], written.gradient_sum[k], gradient),
        (s.increment_products[0], written.products[k], largest**2),
        (s.boundary[:, 0], written.boundary[k], boundary),
        (s.loss, np.array([written.loss[k]]), loss + (2 * loss / n) ** 0.5 * norm * squares),
        (s.sign_changes, np.array([written.sign_changes[k]]), 1.0),
    ]


def _relative(measured: Tensor, expected: np.ndarray, scale: float) -> Tensor:
    return (measured.double() - torch.from_numpy(np.asarray(expected))).abs().max() / (scale or 1.0)


def _nearest(written: WrittenRun, k: int) -> float:
    """The largest |w| over the smallest so far, by which relative errors of w are larger."""
    sizes = np.abs(np.stack(written.w[: k + 1]))
    return float((sizes.max() / sizes.min()).clip(1.0, 1e12))
