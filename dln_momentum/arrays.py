"""Numbers, lists, arrays, tensors and data frames: checks, and casts to double precision."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.errors import InputError

MOST_BYTES = 4 * 2**30
"""A sparse matrix that is larger than this as a dense one is refused."""


class Owned(NamedTuple):
    """A float64 tensor that nobody else writes to, which `tensor_of` takes without a copy."""

    tensor: Tensor


def owned(value: Any) -> Any:
    """What has just been made or read for a `dln_momentum.problem.Problem` alone, as its own.

    What is not a float64 tensor, or an array of the layout of one, is left as it is.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size:
        plain = type(value) is np.ndarray and value.flags.c_contiguous and value.flags.writeable
        value = torch.from_numpy(value) if plain else value
    if isinstance(value, Tensor) and value.dtype == torch.float64 and value.is_contiguous():
        return Owned(value)
    return value


def is_integer(value: Any, low: float, high: float = math.inf) -> bool:
    """Whether value is a whole number (no bool, no float) in [low, high].

    >>> is_integer(3, 1), is_integer(3.0, 1), is_integer(True, 0), is_integer(0, 1)
    (True, False, False, False)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(low <= value <= high)


def is_real(value: Any) -> bool:
    """Whether value is one finite number, and no bool.

    >>> is_real(0.5), is_real(2), is_real(math.nan), is_real("2")
    (True, True, False, False)
    """
    real = isinstance(value, float | int | np.floating | np.integer)
    if not real or isinstance(value, bool):
        return False
    # an integer may be larger than any double, which is more than single precision holds
    value = float(value) if isinstance(value, np.floating) else value
    return bool(abs(value) <= sys.float_info.max)


def is_one_of(value: Any, names: Container[str]) -> bool:
    """Whether value is a text among these; an array is none.

    >>> is_one_of("a", ("a", "b")), is_one_of(np.ones(2), ("a", "b"))
    (True, False)
    """
    return isinstance(value, str) and value in names


def array_of(key: str, value: Any, *, bools: bool = False) -> NDArray[np.float64]:
    """Cast a value to a new float64 array.

    Args:
        key: the name of the argument, for the error.
        value: a number, a (nested) list, an array, a tensor on any device, a data frame, or a
            sparse matrix of SciPy.
        bools: whether True and False count as 1 and 0.

    Raises:
        InputError: if the value is not numeric or has no entry.

    >>> array_of("gamma", [1, 0.5])
    array([1. , 0.5])
    >>> array_of("gamma", "fast")
    Traceback (most recent call last):
    dln_momentum.errors.InputError: gamma = 'fast' must be a number, or an array of numbers
    """
    given = value
    if _is_scipy_sparse(value):
        given = dense_of(key, value)
    if isinstance(value, Tensor):
        given = value.detach().cpu()
        given = given.double().numpy() if given.is_floating_point() else given.numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        # an array of the same numbers would have what the mask hides
        raise InputError(
            f"{key} is a masked array with {int(np.ma.getmaskarray(value).sum())} of {value.size} "
            "entries masked; it must have none: fill them or leave them out"
        )
    try:
        array = np.asarray(given)
        numeric = array.dtype.kind in ("biuf" if bools else "iuf")
        if array.dtype.kind == "O":  # fractions, or a data frame of several types
            refused = () if bools else (bool, np.bool_)
            numeric = not any(isinstance(x, refused) or not isinstance(x, Real) for x in array.flat)
    except ValueError:  # lists of different lengths
        array, numeric = np.empty(0), False
    if not numeric:
        shown = reprlib.repr(value)
        if hasattr(value, "shape"):
            shown = f"{type(value).__name__} of {array.dtype}"
        raise InputError(f"{key} = {shown} must be a number, or an array of numbers")
    if array.size == 0:
        raise InputError(f"{key} has shape {array.shape}; it must have at least one entry")
    return array.astype(np.float64)


def dense_of(key: str, matrix: Any) -> NDArray[Any]:
    """A sparse matrix of SciPy as a dense array.

    Raises:
        InputError: for one that would be too large, or whose indices lie outside of it: SciPy
            would write where they point.
    """
    check_size(key, matrix.shape)
    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
        return matrix.toarray()
    except ValueError as error:
        raise InputError(f"{key} is a sparse matrix that is not valid: {error}") from error


def check_size(key: str, shape: Sequence[int]) -> None:
    """Raise `InputError` for a sparse matrix that would be too large as a dense one.

    >>> check_size("X", (10**6, 10**6))
    Traceback (most recent call last):
    dln_momentum.errors.InputError: X is sparse, 1000000 x 1000000, would take 7450.6 GiB as the
    dense matrix that is computed with; at most 4 are allowed: take fewer rows or columns
    """
    size, most = 8 * math.prod(shape) / 2**30, MOST_BYTES / 2**30
    if size > most:
        raise InputError(
            f"{key} is sparse, {' x '.join(map(str, shape))}, would take {size:.1f} GiB as "
            f"the dense matrix that is computed with; at most {most:g} are allowed: take fewer "
            "rows or columns"
        )


def _is_scipy_sparse(value: Any) -> bool:
    # who holds such a matrix has imported its module
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(value)


def number_of(key: str, value: Any) -> float:
    """Cast one number, of Python, NumPy or torch, to a float.

    Raises:
        InputError: if it is not one number.

    >>> number_of("lam", np.float32(0.5))
    0.5
    >>> number_of("lam", [1, 2])
    Traceback (most recent call last):
    dln_momentum.errors.InputError: lam = [1, 2] must be one number
    """
    with suppress(InputError):
        if (array := array_of(key, value)).ndim == 0:
            return float(array)
    raise InputError(f"{key} = {reprlib.repr(value)} must be one number")


def integer_of(key: str, value: Any, least: int) -> int:
    """Cast a whole number, of any numeric type, to an int.

    Raises:
        InputError: if it is not a whole number, below ``least``, or above 2^62: with more, compiled
            code would count beyond 64 bits.

    >>> integer_of("max_steps", 1e5, 1)
    100000
    """
    if not is_real(value) or value != int(value) or value < least:
        raise InputError(f"{key} = {value!r} must be an integer >= {least}")
    if value > 2**62:
        raise InputError(f"{key} = {value!r} must be an integer in [{least}, 2^62]")
    return int(value)


def flag_of(key: str, value: Any) -> bool:
    """True or False, of Python or NumPy.

    Raises:
        InputError: for anything else: a text such as "no" would count as true.

    >>> flag_of("curvature", 1)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: curvature = 1 must be True or False
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{key} = {reprlib.repr(value)} must be True or False")
    return bool(value)


def tensor_of(key: str, value: Any, *, bools: bool = False) -> Tensor:
    """Cast a value to a new float64 tensor, as `array_of` does; a tensor stays on its device.

    What is `Owned` is taken as it is.

    >>> tensor_of("X", [[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(value, Owned):
        return value.tensor
    if isinstance(value, Tensor) and not value.is_complex():
        if value.is_meta or value.is_quantized:
            kind = "no numbers (device meta)" if value.is_meta else "quantised numbers"
            raise InputError(f"{key} is a tensor with {kind}; it must have real numbers")
        if value.layout != torch.strided:
            check_size(key, value.shape)
        dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        return dense.to(torch.float64, copy=True)
    return torch.from_numpy(array_of(key, value, bools=bools))


def all_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite, in one pass and without an array of the same size.

    >>> all_finite(torch.tensor([1.0, torch.nan])), all_finite(torch.tensor([]))
    (False, True)
    """
    if not tensor.numel():
        return True
    least, most = torch.aminmax(tensor)  # nan, if there is one, passes no comparison
    return bool((least > -torch.inf) & (most < torch.inf))


def short_repr(self: Any) -> str:
    """The repr of a data class: numbers in short, arrays and tensors by their shapes."""
    shown = []
    for field in fields(self):
        value = getattr(self, field.name)
        shape = getattr(value, "shape", ())
        text = f"{value:.3g}" if isinstance(value, float) else reprlib.repr(value)
        shown.append(f"{field.name}={[*shape] if shape else text}")
    return f"{type(self).__name__}({', '.join(shown)})"


def common_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all of them broadcast to.

    Args:
        shapes: the shape of each argument by its name.

    Raises:
        InputError: naming the shapes, if there is none.

    >>> common_shape({"gamma": (3, 1), "beta": (2,)})
    (3, 2)
    """
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        found = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items() if shape)
        raise InputError(f"shapes must broadcast to one: {found}") from error


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """What `torch.broadcast_shapes` gives, which imports SymPy when it is first called.

    Raises:
        ValueError: where there is no common shape.

    >>> broadcast_shapes((3, 1), torch.Size([2]))
    torch.Size([3, 2])
    """
    return torch.Size(np.broadcast_shapes(*map(tuple, shapes)))
