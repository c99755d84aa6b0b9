"""How to integrate a flow, and the checks of its input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dln_momentum.problem import Problem

SHARE, LARGEST_SHARE = 1e-3, 1e-4
"""atol over rtol, as a share of the size of w_+-; at least the second, except for small starts."""

STEPS_OF_ONE = 100_000
"""Steps of the solver after which one flow is given up, some minutes, unless asked otherwise."""

Method = Literal["auto", "explicit", "implicit"]


@dataclass(frozen=True)
class FlowOptions:
    """How to integrate. The defaults are those that the documented accuracy was measured with.

    Attributes:
        method: "explicit" is DOP853; "implicit" is Radau IIA, whose steps a small lambda does
            not limit; "auto" chooses.
        rtol: relative error of a step. None is 1e-13 for DOP853 and 1e-9 for Radau, whose error
            estimate is two orders behind its solution.
        atol: absolute error of a step. None is rtol times 1e-4, or times 1e-3 of the largest
            entry of w_0 if that is more: a smaller one would be below the rounding of w' where w
            is large, and the solver would take tiny steps. From a start with entries below 0.1 it
            is rtol times 1e-3 of the present size of each entry until that is 0.1, so that a
            start of 1e-60 is followed as exactly as another.
        max_steps: a longer integration counts as failed.
        keep_steps: whether a path at output times has every step of the solver too, which the sums
            of I_+- by their definition need.
    """

    method: Method = "auto"
    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 2_000_000
    keep_steps: bool = False

    def tolerances(self, implicit: bool, scale: float) -> tuple[float, float]:
        """rtol and atol of a step, for SciPy, where the largest entry of w_0 is ``scale``."""
        rtol = self.rtol or (1e-9 if implicit else 1e-13)
        return rtol, self.atol or max(LARGEST_SHARE, SHARE * scale) * rtol

    def follows_sizes(self, scale: float) -> bool:
        """Whether atol follows the sizes of the entries."""
        return self.atol is None and SHARE * scale < LARGEST_SHARE


def option_errors(options: FlowOptions) -> Iterator[str]:
    """Errors in the options, one line each."""
    if options.method not in ("auto", "explicit", "implicit"):
        yield f"method = {options.method!r} must be auto, explicit or implicit"
    if options.rtol is not None and not 2.3e-14 <= options.rtol < 1:
        yield f"rtol = {options.rtol:g} must be in [2.3e-14, 1)"
    if options.atol is not None and not 0 < options.atol < math.inf:
        yield f"atol = {options.atol:g} must be finite and > 0"
    if options.max_steps < 1:
        yield f"max_steps = {options.max_steps} must be >= 1"


def start_errors(
    problem: Problem, start: Mapping[str, Tensor | None], runs: int | None = None
) -> Iterator[str]:
    """Errors in an initial state of one flow [d], or of ``runs`` flows, [d] or [runs, d]."""
    if problem.is_classification:
        yield f"a flow takes loss = squared, this problem has loss = {problem.loss_name}"
    if runs is None and problem.runs:
        yield f"a flow takes one problem, this one has runs {list(problem.runs)}"
    shapes = [(problem.d,)] if runs is None else [(problem.d,), (runs, problem.d)]
    for key, value in start.items():
        if value is None:
            continue
        if tuple(value.shape) not in shapes:
            allowed = " or ".join(map(str, shapes))
            yield f"{key} has shape {tuple(value.shape)}, must be {allowed}"
        elif not bool(value.isfinite().all()):
            yield f"{key} has entries that are not finite"
        elif runs is not None and key.startswith("w_") and bool((value == 0).any()):
            yield f"{key} has entries that are zero; condition (C1) needs Delta_0 nowhere zero"


def time_errors(time: float, times: Tensor | None, tol: float | None) -> Iterator[str]:
    """Errors in the end and the output times of one flow, one line each."""
    if not time > 0:
        yield f"time = {time:g} must be > 0"
    yield from tol_errors(tol, math.isinf(time))
    if times is None:
        return
    if times.ndim != 1 or times.numel() == 0:
        yield f"times has shape {tuple(times.shape)}, must be [T] with T >= 1"
    elif not (float(times[0]) >= 0 and float(times[-1]) <= time and bool((times.diff() > 0).all())):
        yield f"times must be increasing, in [0, {time:g}]"


def tol_errors(tol: float | None, endless: bool) -> Iterator[str]:
    """Errors in the tolerance of the energy; a flow without an end needs one."""
    if tol is not None and not 0 < tol < math.inf:
        yield f"tol = {tol:g} must be finite and > 0"
    if endless and tol is None:
        yield "time = inf needs a tol to stop at"
