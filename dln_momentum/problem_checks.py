"""What makes data a problem: every input that `dln_momentum.problem.Problem` refuses, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from dln_momentum.arrays import all_finite, broadcast_shapes
from dln_momentum.row_space import apply

if TYPE_CHECKING:
    from dln_momentum.problem import Problem

RANGE_TOLERANCE = 1e-10
"""Largest ||y - P y|| / ||y||, P the projection on the range of X, that counts as rounding.

It is about 1e-15 in float64 if an interpolator exists, and 1e-8 or more for data that were rounded
to single precision.
"""

LARGEST_ENTRY = 1e150
"""Largest and, inverted, smallest size of the largest entry of X and y: the loss squares them."""

TENSORS = ("X", "y", "theta_star", "X_test", "y_test")
"""The fields of a problem that are tensors."""


def problem_errors(problem: Problem) -> list[str]:
    """Every error of a problem whose fields are tensors; none for a valid one."""
    target = _separation_problems if problem.is_classification else _range_problems
    # each check reads only what the checks before it have found valid
    for checks in (
        (_shape_problems, _entry_problems),
        (_zero_problems, _label_problems),
        (_magnitude_problems,),
        (_rank_problems,),
        (target,),
    ):
        errors = [error for check in checks for error in check(problem)]
        if errors:
            return errors
    return []


def _shape_problems(problem: Problem) -> Iterator[str]:
    X = problem.X
    if X.ndim < 2 or X.numel() == 0:
        yield f"X has shape {tuple(X.shape)}, must be [*runs, n, d] with n >= 1"
        return
    n, d = X.shape[-2:]
    expected = {"y": (n,), "theta_star": (d,)}
    if (problem.X_test is None) != (problem.y_test is None):
        yield "X_test and y_test must be given together"
    elif problem.X_test is not None and problem.y_test is not None:
        m = problem.y_test.shape[-1] if problem.y_test.ndim else 0
        if m == 0:
            yield "X_test and y_test must have at least one row"
        expected |= {"y_test": (m,), "X_test": (m, d)}
    runs = X.shape[:-2]
    for name, shape in expected.items():
        tensor = getattr(problem, name)
        if tensor is None:
            continue
        own = tensor.shape[: -len(shape)]
        if tuple(tensor.shape[-len(shape) :]) != shape:
            yield f"{name} has shape {tuple(tensor.shape)}, must end in {list(shape)}"
            continue
        try:
            runs = broadcast_shapes(own, runs)
        except ValueError:
            yield f"{name} has run dimensions {list(own)}, the others {list(runs)}"


def _entry_problems(problem: Problem) -> Iterator[str]:
    for field in TENSORS:
        tensor = getattr(problem, field)
        if tensor is None or all_finite(tensor):
            continue
        bad = ~torch.atleast_1d(tensor).isfinite()
        places = bad.reshape(-1, bad.shape[-1]).any(0).nonzero().flatten().tolist()
        kind = "columns" if field in ("X", "X_test") else "entries"
        shown = ", ".join(map(str, places[:10])) + (", ..." if len(places) > 10 else "")
        yield f"{field}: {int(bad.sum())} of {bad.numel()} entries are not finite ({kind} {shown})"


def _zero_problems(problem: Problem) -> Iterator[str]:
    zero = (problem.X == 0).flatten(-2).all(-1)
    if bool(zero.any()):
        yield "X is zero" + (f" in {int(zero.sum())} of {zero.numel()} runs" if zero.ndim else "")


def _magnitude_problems(problem: Problem) -> Iterator[str]:
    """Entries whose squares, in the loss and in X X^T, float64 cannot hold."""
    for key in TENSORS:
        if (tensor := getattr(problem, key)) is None or key == "theta_star":
            continue
        if key == "y":
            largest = tensor.abs().reshape(-1, tensor.shape[-1]).amax(-1)
            largest = largest[largest > 0]
        else:
            least, most = torch.aminmax(tensor)  # no copy of what may fill half of the memory
            largest = torch.maximum(-least, most)
        bad = largest[(largest > LARGEST_ENTRY) | ((largest < 1 / LARGEST_ENTRY) & (largest > 0))]
        if bad.numel():
            yield (
                f"{key} has the largest entry {float(bad.flatten()[0]):g} in size, must be in "
                f"[{1 / LARGEST_ENTRY:g}, {LARGEST_ENTRY:g}]: the loss squares it; rescale the data"
            )


def _rank_problems(problem: Problem) -> Iterator[str]:
    """Rank d, which can be of n >= d rows only; the scalar network is d = 1."""
    full = problem.row_space.ranks == problem.d
    if problem.d > 1 and bool(full.any()):
        which = f" in {int(full.sum())} of {full.numel()} runs" if full.ndim else ""
        why = (
            "every vector is then in the span of the rows, and it says nothing to lie in it"
            if problem.is_classification
            else "one theta alone solves X theta = y and no start or momentum can choose another"
        )
        yield (
            f"X has rank d = {problem.d}{which} (n = {problem.n}): it must be below d, "
            f"since {why}; take {_fewer(problem.d - 1)}"
        )


def _fewer(rows: int) -> str:
    return (
        f"at most {rows} rows (of a file: data.rows={rows} draws them and keeps the others as test "
        "rows)"
    )


def _range_problems(problem: Problem) -> Iterator[str]:
    residual = problem.row_space.range_residual(problem.y)
    outside = residual > RANGE_TOLERANCE
    if bool(outside.any()):
        which = f"{int(outside.sum())} of {outside.numel()} runs, " if outside.ndim else ""
        yield (
            f"y is not in the range of X ({which}n = {problem.n}, rank {problem.row_space.rank}): "
            f"relative residual {float(residual.max()):.2e}, allowed {RANGE_TOLERANCE:g}; no theta "
            f"interpolates these targets; take {_fewer(problem.row_space.rank)}"
        )


def _label_problems(problem: Problem) -> Iterator[str]:
    if not problem.is_classification:
        return
    for key in ("y", "y_test"):
        labels = getattr(problem, key)
        if labels is None or bool((labels.abs() == 1).all()):
            continue
        wrong = labels[labels.abs() != 1]
        yield (
            f"{key}: {len(wrong)} of {labels.numel()} labels are neither -1 nor +1 (one is "
            f"{float(wrong[0]):g}); loss = {problem.loss_name!r} takes no others"
        )


def _separation_problems(problem: Problem) -> Iterator[str]:
    """Whether no theta has y_i <x_i, theta> > 0 for all i."""
    rows = problem.row_space
    fitted = apply(rows.range_basis.mT, apply(rows.range_basis, problem.y))
    # the least-squares fit separates the data where y is in the range of X or nearly so, as that of
    # centred columns does: a linear program is needed for others only
    open_runs = ~(problem.y * fitted > RANGE_TOLERANCE).all(-1)
    if not bool(open_runs.any()):
        return
    from dln_momentum.theory.max_margin import is_separable

    X = problem.X.expand(*problem.runs, problem.n, problem.d)[open_runs]
    y = problem.y.expand(*problem.runs, problem.n)[open_runs]
    wrong = sum(not is_separable(*pair) for pair in zip(X, y, strict=True))
    if wrong:
        which = f"{wrong} of {open_runs.numel()} runs, " if open_runs.ndim else ""
        yield (
            f"the data are not separable ({which}n = {problem.n}, rank {rows.rank}): no theta has "
            f"y_i <x_i, theta> > 0 for every row, so that the {problem.loss_name} loss does not "
            f"fall to 0; take {_fewer(rows.rank)}"
        )
