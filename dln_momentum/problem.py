"""The problem: data with more unknowns than equations, so that interpolators exist, and a loss.

With data X in R^{n x d} of rank below d, and y in the range of X (docs/theory.md#problem; poster,
section 3), the loss and the set of its minimisers are

    L(theta) = 1/(2n) ||X theta - y||^2,   S = {theta : X theta = y}.

That y is in the range makes S not empty, so that the loss converges to 0. A rank below d makes S
more than one point, so that which of its points training ends at is a question. Both concern the
rank and not the number of rows: rows may be repeated.

The logistic and the exponential loss of labels -1 and +1 have no minimiser: on separable data they
fall to 0 as theta grows (docs/theory.md#other-losses), and the question is in which direction.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes, is_real, owned, tensor_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.problem_checks import TENSORS, problem_errors
from dln_momentum.row_space import RowSpace, apply
from dln_momentum.theory.losses import LOSSES, Loss


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Problem:
    """Underdetermined least squares, or separable classification, with rank(X) < d.

    The loss is L(theta) = 1/(2n) ||X theta - y||^2, or the mean over the rows of the logistic loss
    ln(1 + exp(-y_i <x_i, theta>)) or the exponential loss exp(-y_i <x_i, theta>).

    A problem shared by all runs has X [n, d] and y [n]; one problem per run has leading run
    dimensions on X, y or both (see `stack`). Numbers, lists, arrays, tensors, data frames and
    sparse matrices are cast to dense float64 tensors. Rows may be repeated and n may exceed d, but
    y must lie in the range of X and the rank of X must be below d: rank d leaves one interpolator,
    and the statements on which of them is found hold of any vector. The scalar network, d = 1, is
    the exception: it is an object of study in the plane of (u, v).
    ``X theta_star != y`` is allowed, for noisy labels: theta_star is then a reference for
    distances, not an interpolator. The labels of classification are -1 and +1 and must be
    separable, y_i <x_i, theta> > 0 for all i and some theta, instead of in the range of X.

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
        loss: ``squared``, ``logistic`` or ``exponential``; the attribute `loss_name`.

    Raises:
        InputError: for values that are not numeric or not finite, shapes that do not fit, rank d
            of d > 1 columns, or y outside the range of X; for classification, for labels other
            than -1 and +1, or data that are not separable. It lists all errors.

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
    loss_name: str

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
        loss: str = "squared",
    ) -> None:
        given = {"X": X, "y": y, "theta_star": theta_star, "X_test": X_test, "y_test": y_test}
        fields: dict[str, Any] = {"noise": noise, "name": name, "loss_name": loss}
        errors = []
        if not isinstance(loss, str) or loss not in LOSSES:
            errors.append(f"loss = {loss!r} must be one of {', '.join(LOSSES)}")
        if not isinstance(name, str):
            errors.append(f"name = {name!r} must be a text")
        texts = isinstance(notes, list | tuple) and all(isinstance(note, str) for note in notes)
        if not texts:
            errors.append(f"notes = {reprlib.repr(notes)} must be a tuple of texts")
        fields["notes"] = tuple(notes) if texts else ()
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
        errors = errors or problem_errors(self)
        if errors:
            raise InputError([*errors, *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        loss = "" if self.loss_name == "squared" else f", loss={self.loss_name!r}"
        return f"Problem({self.name!r}, runs={list(self.runs)}, n={self.n}, d={self.d}{loss})"

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

    @property
    def loss_of_row(self) -> Loss:
        """The loss of a prediction and a label, of which the loss is the mean, with derivatives."""
        return LOSSES[self.loss_name]

    @property
    def is_classification(self) -> bool:
        """Whether the labels are -1 and +1, and the loss falls to 0 as margins grow."""
        return self.loss_of_row.is_classification

    def residual(self, theta: Any) -> Tensor:
        """X theta - y for theta [*runs, d], an array or a tensor; [*runs, n]."""
        return apply(self.X, self._predictor(theta)) - self.y

    def residual_weights(self, theta: Any) -> Tensor:
        """The weights of the rows in the gradient X^T r / n, for theta [*runs, d]; [*runs, n].

        The residual for the squared loss; -y_i sigmoid(-y_i <x_i, theta>) for the logistic and
        -y_i exp(-y_i <x_i, theta>) for the exponential one.
        """
        if not self.is_classification:
            return self.residual(theta)
        return self.loss_of_row.slope(apply(self.X, self._predictor(theta)), self.y)

    def loss(self, theta: Any) -> Tensor:
        """The training loss for theta [*runs, d], 1/(2n) ||X theta - y||^2 if squared; [*runs].

        >>> Problem(X=[[1.0, 2.0]], y=[-1], loss="exponential").loss([0.0, 0.5]).log()
        tensor(1., dtype=torch.float64)
        """
        return self._mean_loss(apply(self.X, self._predictor(theta)), self.y)

    def gradient(self, theta: Any) -> Tensor:
        """The full-batch gradient for theta [*runs, d], X^T (X theta - y) / n if squared."""
        return apply(self.X.mT, self.residual_weights(theta)) / self.n

    def test_error(self, theta: Any) -> Tensor:
        """The loss on the held-out rows, 1/(2m) ||X_test theta - y_test||^2 if squared; [*runs].

        NaN where there are no held-out rows.

        >>> problem = Problem(X=[[1.0, 0.0]], y=[1.0], X_test=[[0.0, 1.0]], y_test=[3.0])
        >>> problem.test_error(torch.tensor([1.0, 1.0]))
        tensor(2., dtype=torch.float64)
        """
        theta = self._predictor(theta)
        if self.X_test is None or self.y_test is None:
            runs = broadcast_shapes(self.runs, theta.shape[:-1])
            return torch.full(runs, torch.nan, dtype=torch.float64, device=self.X.device)
        return self._mean_loss(apply(self.X_test, theta), self.y_test)

    def _mean_loss(self, predictions: Tensor, labels: Tensor) -> Tensor:
        if not self.is_classification:
            return (predictions - labels).square().sum(-1) / (2 * labels.shape[-1])
        return self.loss_of_row.value(predictions, labels).mean(-1)

    def _predictor(self, theta: Any) -> Tensor:
        given = isinstance(theta, Tensor) and not theta.is_complex()
        found = theta.to(self.X.dtype) if given else tensor_of("theta", theta).to(self.X.device)
        if found.ndim == 0 or found.shape[-1] != self.d:
            raise InputError(f"theta has shape {[*found.shape]}, must end in d = {self.d}")
        return found

    def to(self, device: torch.device | str) -> Problem:
        """The same problem with its tensors on `device`; itself where they are there already.

        Raises:
            InputError: for a device that torch does not have.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"device = {str(device)!r} must be one that torch has: {reason}"
            ) from error
        given = {field: getattr(self, field) for field in TENSORS}
        present = {field: tensor for field, tensor in given.items() if tensor is not None}
        if all(tensor.device == torch.device(device) for tensor in present.values()):
            return self
        return self.replace(**{key: owned(value.to(device)) for key, value in present.items()})

    def replace(self, **fields: Any) -> Problem:
        """The same problem with other values of some arguments; the others are shared.

        >>> problem = Problem(X=[[1.0, 2.0]], y=[1], name="one row")
        >>> problem.replace(loss="logistic")
        Problem('one row', runs=[], n=1, d=2, loss='logistic')
        """
        kept = {field.name: owned(getattr(self, field.name)) for field in dataclasses.fields(self)}
        kept["loss"] = kept.pop("loss_name")
        return Problem(**(kept | fields))

    def with_loss(self, loss: str) -> Problem:
        """The same rows with another loss; for classification the labels are the signs of y.

        Raises:
            InputError: as for `Problem`; an entry of y that is 0 has no sign.

        >>> problem = Problem(X=[[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]], y=[3.0, -0.5])
        >>> problem.with_loss("logistic").y
        tensor([ 1., -1.], dtype=torch.float64)
        """
        if loss == "squared" or not isinstance(loss, str) or loss not in LOSSES:
            return self.replace(loss=loss)
        y_test = None if self.y_test is None else self.y_test.sign()
        return self.replace(loss=loss, y=self.y.sign(), y_test=y_test)


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
        raise InputError("there is no problem to stack")
    raise_if_any(
        f"problems to stack: one is a {type(problem).__name__}, each must be a Problem"
        for problem in problems
        if not isinstance(problem, Problem)
    )
    errors = []
    fields: dict[str, Tensor] = {}
    for field in TENSORS:
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
    losses = sorted({problem.loss_name for problem in problems})
    if len(losses) > 1:
        errors.append(f"problems to stack must have one loss, found {', '.join(losses)}")
    raise_if_any(errors)
    names = list(dict.fromkeys(problem.name for problem in problems))
    name = names[0] if len(names) == 1 else f"{len(problems)} problems, {names[0]} to {names[-1]}"
    notes = dict.fromkeys(note for problem in problems for note in problem.notes)
    noises = {problem.noise for problem in problems}
    noise = noises.pop() if len(noises) == 1 else math.nan
    return Problem(**fields, noise=noise, name=name, notes=tuple(notes), loss=losses[0])


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
