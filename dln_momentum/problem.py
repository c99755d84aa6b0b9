"""The regression problem: data with more unknowns than equations, so that interpolators exist.

With data X in R^{n x d} of rank below d, and y in the range of X (docs/theory.md#problem; poster,
section 3), the loss and the set of its minimisers are

    L(theta) = 1/(2n) ||X theta - y||^2,   S = {theta : X theta = y}.

That y is in the range makes S not empty, so that the loss converges to 0. A rank below d makes S
more than one point, so that which of its points training ends at is a question. Both concern the
rank and not the number of rows: rows may be repeated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes, is_real, tensor_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.row_space import RowSpace, apply

RANGE_TOLERANCE = 1e-10
"""Largest ||y - P y|| / ||y||, P the projection on the range of X, that counts as rounding.

It is about 1e-15 in float64 if an interpolator exists, and 1e-8 or more for data that were rounded
to single precision.
"""

_TENSORS = ("X", "y", "theta_star", "X_test", "y_test")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Problem:
    """Underdetermined least squares, L(theta) = 1/(2n) ||X theta - y||^2 with rank(X) < d.

    A problem shared by all runs has X [n, d] and y [n]; one problem per run has leading run
    dimensions on X, y or both (see `stack`). Numbers, lists, arrays, tensors, data frames and
    sparse matrices are cast to dense float64 tensors. Rows may be repeated and n may exceed d, but
    y must lie in the range of X and the rank of X must be below d: rank d leaves one interpolator,
    and the statements on which of them is found hold of any vector. The scalar network, d = 1, is
    the exception: it is an object of study in the plane of (u, v).
    ``X theta_star != y`` is allowed, for noisy labels: theta_star is then a reference for
    distances, not an interpolator.

    Args:
        X: design matrix, [*runs, n, d].
        y: targets, [*runs, n]; a column [*runs, n, 1] is squeezed, as are those of y_test and
            theta_star.
        theta_star: the vector that generated the data, [*runs, d], if it is known.
        X_test: held-out rows, [*runs, m, d], given together with y_test.
        y_test: their targets, [*runs, m].
        noise: standard deviation of the noise that the training targets contain, if it is known;
            a label for tables, which nothing is computed from.
        name: a label for tables and figures.
        notes: what was done to the data before (dropped columns, for example).

    Raises:
        InputError: for values that are not numeric or not finite, shapes that do not fit, rank d
            of d > 1 columns, or y outside the range of X; it lists all errors.

    >>> problem = Problem(X=[[1.0, 2.0, 2.0]], y=[9.0], theta_star=[1.0, 2.0, 2.0])
    >>> problem.n, problem.d
    (1, 3)
    >>> problem.loss([0, 0, 0]), problem.gradient([0, 0, 0])
    (tensor(40.5000, dtype=torch.float64), tensor([ -9., -18., -18.], dtype=torch.float64))
    >>> Problem(X=[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], y=[1.0, 2.0])
    Traceback (most recent call last):
    dln_momentum.errors.InputError: y is not in the range of X (n = 2, rank 1): relative residual
    3.16e-01, allowed 1e-10; no theta interpolates these targets; take at most 1 rows (of a
    file: data.rows=1 draws them and keeps the others as test rows)
    """

    X: Tensor
    y: Tensor
    theta_star: Tensor | None
    X_test: Tensor | None
    y_test: Tensor | None
    noise: float
    name: str
    notes: tuple[str, ...]

    # written out so that the arguments may be anything numeric while the fields are tensors
    def __init__(
        self,
        X: Any,
        y: Any,
        theta_star: Any = None,
        X_test: Any = None,
        y_test: Any = None,
        noise: float = 0.0,
        name: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        given = {"X": X, "y": y, "theta_star": theta_star, "X_test": X_test, "y_test": y_test}
        fields: dict[str, Any] = {"noise": noise, "name": name, "notes": tuple(notes)}
        errors = []
        for key, value in given.items():
            optional = value is None and key not in ("X", "y")
            try:
                fields[key] = None if optional else tensor_of(key, value, bools=True)
            except InputError as error:
                errors += error.problems
        if not (is_real(noise) and noise >= 0) and not (
            isinstance(noise, float) and math.isnan(noise)
        ):
            errors.append(f"noise = {noise!r} must be finite and >= 0, or nan where it is unknown")
        for key, value in (fields if errors else _squeezed(fields)).items():
            object.__setattr__(self, key, value)
        # each check reads only what the checks before it have found valid
        errors = errors or [*_shape_problems(self), *_entry_problems(self)]
        errors = errors or [*_zero_problems(self)]
        errors = errors or [*_rank_problems(self)]
        errors = errors or [*_range_problems(self)]
        raise_if_any([*errors, *(f"note: {note}" for note in self.notes)] if errors else [])

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, runs={list(self.runs)}, n={self.n}, d={self.d})"

    @property
    def n(self) -> int:
        """Number of training rows."""
        return self.X.shape[-2]

    @property
    def d(self) -> int:
        """Number of coordinates of theta."""
        return self.X.shape[-1]

    @property
    def runs(self) -> torch.Size:
        """The leading run dimensions of the data, empty where all runs share them."""
        return broadcast_shapes(self.X.shape[:-2], self.y.shape[:-1])

    @property
    def layout(self) -> tuple[int, ...]:
        """n, d, the number of test rows and whether theta* is known, alike in one stack."""
        tests = -1 if self.X_test is None else self.X_test.shape[-2]
        return self.n, self.d, tests, int(self.theta_star is not None)

    @cached_property
    def row_space(self) -> RowSpace:
        """The span of the rows of X, in which every gradient of the loss lies."""
        return RowSpace.of(self.X)

    def residual(self, theta: Any) -> Tensor:
        """X theta - y for theta [*runs, d], an array or a tensor; [*runs, n]."""
        return apply(self.X, self._predictor(theta)) - self.y

    def loss(self, theta: Any) -> Tensor:
        """The training loss 1/(2n) ||X theta - y||^2 for theta [*runs, d]; [*runs]."""
        return self.residual(theta).square().sum(-1) / (2 * self.n)

    def gradient(self, theta: Any) -> Tensor:
        """The full-batch gradient X^T (X theta - y) / n for theta [*runs, d]; [*runs, d]."""
        return apply(self.X.mT, self.residual(theta)) / self.n

    def test_error(self, theta: Any) -> Tensor:
        """1/(2m) ||X_test theta - y_test||^2, the loss on the held-out rows; [*runs].

        NaN where there are no held-out rows.

        >>> problem = Problem(X=[[1.0, 0.0]], y=[1.0], X_test=[[0.0, 1.0]], y_test=[3.0])
        >>> problem.test_error(torch.tensor([1.0, 1.0]))
        tensor(2., dtype=torch.float64)
        """
        theta = self._predictor(theta)
        if self.X_test is None or self.y_test is None:
            runs = broadcast_shapes(self.runs, theta.shape[:-1])
            return torch.full(runs, torch.nan, dtype=torch.float64, device=self.X.device)
        residual = apply(self.X_test, theta) - self.y_test
        return residual.square().sum(-1) / (2 * self.y_test.shape[-1])

    def _predictor(self, theta: Any) -> Tensor:
        if isinstance(theta, Tensor):
            return theta.to(self.X.dtype)
        return tensor_of("theta", theta).to(self.X.device)

    def to(self, device: torch.device | str) -> Problem:
        """The same problem with its tensors on `device`."""
        present = {field: getattr(self, field) for field in _TENSORS}
        moved = {key: value.to(device) for key, value in present.items() if value is not None}
        return dataclasses.replace(self, **moved)


def stack(problems: Sequence[Problem]) -> Problem:
    """One problem per run: X [R, n, d] and y [R, n] from R problems of equal shapes.

    theta_star and test rows are kept if every problem has them, and so is the noise if it is the
    same in all; it is nan otherwise.

    Args:
        problems: at least one, none with run dimensions of its own.

    Raises:
        InputError: if there is none, or shapes differ; it lists each field that differs.

    >>> one = Problem(X=[[1.0, 2.0, 2.0]], y=[9.0])
    >>> two = Problem(X=[[0.0, 1.0, 1.0]], y=[4.0])
    >>> stack([one, two]).loss(torch.zeros(3))
    tensor([40.5000,  8.0000], dtype=torch.float64)
    """
    if not problems:
        raise InputError(["there is no problem to stack"])
    errors = []
    fields: dict[str, Tensor] = {}
    for field in _TENSORS:
        tensors = [getattr(problem, field) for problem in problems]
        present = [tensor for tensor in tensors if tensor is not None]
        shapes = sorted({tuple(tensor.shape) for tensor in present})
        if len(present) < len(tensors):
            continue
        if len(shapes) > 1:
            errors.append(f"{field}: problems to stack must have one shape, found {shapes}")
        else:
            fields[field] = torch.stack(present)
    if any(problem.runs for problem in problems):
        errors.append("problems to stack must not have run dimensions of their own")
    raise_if_any(errors)
    names = list(dict.fromkeys(problem.name for problem in problems))
    name = names[0] if len(names) == 1 else f"{len(problems)} problems, {names[0]} to {names[-1]}"
    notes = dict.fromkeys(note for problem in problems for note in problem.notes)
    noises = {problem.noise for problem in problems}
    noise = noises.pop() if len(noises) == 1 else math.nan
    return Problem(**fields, noise=noise, name=name, notes=tuple(notes))


def _squeezed(fields: dict[str, Any]) -> dict[str, Any]:
    """Columns [*runs, n, 1] as vectors [*runs, n]."""
    X, X_test = fields["X"], fields["X_test"]
    lengths = {"y": (X, -2), "theta_star": (X, -1), "y_test": (X_test, -2)}
    found = dict(fields)
    for key, (matrix, axis) in lengths.items():
        vector = fields[key]
        if vector is None or matrix is None or matrix.ndim < 2 or vector.ndim != matrix.ndim:
            continue
        if tuple(vector.shape[-2:]) == (matrix.shape[axis], 1):
            found[key] = vector.squeeze(-1)
    return found


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
    for field in _TENSORS:
        tensor = getattr(problem, field)
        if tensor is None or bool(torch.isfinite(tensor).all()):
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


def _rank_problems(problem: Problem) -> Iterator[str]:
    """Rank d, which can be of n >= d rows only; the scalar network is d = 1."""
    full = problem.row_space.ranks == problem.d
    if problem.d > 1 and bool(full.any()):
        which = f" in {int(full.sum())} of {full.numel()} runs" if full.ndim else ""
        yield (
            f"X has rank d = {problem.d}{which} (n = {problem.n}): it must be below d, since one "
            "theta alone solves X theta = y and no start or momentum can choose another; take "
            f"{_fewer(problem.d - 1)}"
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
