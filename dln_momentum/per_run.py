"""Settings of runs: each number is one for all of them, or a tensor with one for each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from dln_momentum.arrays import array_of, broadcast_shapes, number_of
from dln_momentum.errors import InputError, raise_if_any

Number = float | Tensor

SHOWN = 16
"""Entries of a tensor up to which `PerRun.identity` lists them; of more it gives their hash."""


class Limit(NamedTuple):
    """The interval that a number must be in."""

    low: float
    high: float
    ends: str
    """which of both is in it: ``[)`` the first alone"""
    allowed: str
    """in words, for the error"""


POSITIVE = Limit(0, math.inf, "()", "finite and > 0")
NOT_NEGATIVE = Limit(0, math.inf, "[)", "finite and >= 0")
BELOW_ONE = Limit(0, 1, "[)", "in [0, 1)")


@dataclass(frozen=True, eq=False)
class PerRun:
    """Frozen settings, some of them numbers or tensors of the shape of the runs.

    A subclass names its numbers; they are cast to floats and float64 tensors. Two are equal where
    their `identity` is.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    """the fields that are numbers"""
    limits: ClassVar[Mapping[str, Limit]] = MappingProxyType({})
    """the intervals of some of them"""
    leading: ClassVar[int] = 0
    """axes of a number before those of the runs"""
    prefix: ClassVar[str] = ""
    """put before each key in errors"""

    def __post_init__(self) -> None:
        problems: list[str] = []
        for key in self.numbers:
            value = getattr(self, key)
            # of some numbers None is a choice
            if value is None and getattr(type(self), key, key) is None:
                continue
            try:
                object.__setattr__(self, key, _cast(self.prefix + key, value))
            except InputError as error:
                problems += error.problems
        raise_if_any(problems or self._own_problems())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerRun) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash(repr(self.identity()))

    def identity(self) -> dict[str, Any]:
        """The settings as plain values, for files, configs and hashes."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @property
    def runs(self) -> torch.Size:
        """The run dimensions of its numbers; empty where all runs share them."""
        return broadcast_shapes(*(t.shape[self.leading :] for t in self._tensors().values()))

    def of(self, runs: Tensor | slice) -> Self:
        """The settings of some of the R runs."""

        def part(tensor: Tensor) -> Tensor:
            where = runs.to(tensor.device) if isinstance(runs, Tensor) else runs
            return tensor[..., where]

        return replace(self, **{key: part(t) for key, t in self._tensors().items()})

    def flat(self, shape: tuple[int, ...]) -> Self:
        """Numbers that broadcast to runs of this shape, as one for each of its R runs in order."""
        lead = self.leading
        own = self._tensors().items()
        return replace(self, **{k: t.expand(*t.shape[:lead], *shape).flatten(lead) for k, t in own})

    def _own_problems(self) -> Iterator[str]:
        """The line about each number that is not finite, or outside its limits."""
        for key, (low, high, ends, allowed) in self.limits.items():
            if (value := getattr(self, key)) is None:
                continue
            x = tensor_like(value)
            above = (x >= low) if ends[0] == "[" else (x > low)
            below = (x <= high) if ends[1] == "]" else (x < high)
            wrong = x[~(above & below & x.isfinite())].flatten()
            if len(wrong):
                yield f"{self.prefix}{key} = {float(wrong[0]):g} must be {allowed}"

    def _tensors(self) -> dict[str, Tensor]:
        """The numbers that differ between runs."""
        found = {key: getattr(self, key) for key in self.numbers}
        return {k: t for k, t in found.items() if isinstance(t, Tensor) and t.ndim > self.leading}


def tensor_like(value: Number, device: torch.device | None = None) -> Tensor:
    """A number or a tensor as a float64 tensor on a device."""
    return torch.as_tensor(value, dtype=torch.float64, device=device)


def _cast(key: str, value: Any) -> Number:
    if isinstance(value, Tensor):
        found = value.detach().to(torch.float64)
    else:
        found = torch.from_numpy(array_of(key, value))
    return number_of(key, found) if found.ndim == 0 else found


def _plain(value: Any) -> Any:
    if isinstance(value, PerRun):
        return value.identity()
    if not isinstance(value, Tensor):
        return value
    if value.numel() <= SHOWN:
        return value.tolist()
    array = value.cpu().contiguous().numpy()
    return f"{[*array.shape]} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"
