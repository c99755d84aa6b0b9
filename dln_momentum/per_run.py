"""Settings of runs: each number is one for all of them, or a tensor with one for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dln_momentum.arrays import array_of, broadcast_shapes, number_of
from dln_momentum.errors import InputError, raise_if_any

Number = float | Tensor

SHOWN = 16
"""Entries of a tensor up to which `PerRun.identity` lists them; of more it gives their hash."""


@dataclass(frozen=True, eq=False)
class PerRun:
    """Frozen settings, some of them numbers or tensors of the shape of the runs.

    A subclass names its numbers; they are cast to floats and float64 tensors. Two are equal where
    their `identity` is.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    """the fields that are numbers"""
    leading: ClassVar[int] = 0
    """axes of a number before those of the runs"""
    prefix: ClassVar[str] = ""
    """put before each key in errors"""

    def __post_init__(self) -> None:
        problems: list[str] = []
        for key in self.numbers:
            value = getattr(self, key)
            # of some numbers None is a choice
            if value is None and _default(self, key) is None:
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
        yield from ()

    def _tensors(self) -> dict[str, Tensor]:
        """The numbers that differ between runs."""
        found = {key: getattr(self, key) for key in self.numbers}
        return {k: t for k, t in found.items() if isinstance(t, Tensor) and t.ndim > self.leading}

    def _outside(self, key: str, good: Tensor, allowed: str) -> Iterator[str]:
        """The line about a number that is not everywhere as allowed."""
        if not bool(good.all()):
            first = tensor_like(getattr(self, key))[~good].flatten()[0]
            yield f"{self.prefix}{key} = {float(first):g} must be {allowed}"

    def _check(
        self, key: str, low: float, high: float, *, allowed: str, ends: str
    ) -> Iterator[str]:
        """The line about a finite number outside an interval with these ends: ``[)``, ``()``."""
        if (value := getattr(self, key)) is None:
            return
        x = tensor_like(value)
        above = (x >= low) if ends[0] == "[" else (x > low)
        below = (x <= high) if ends[1] == "]" else (x < high)
        yield from self._outside(key, above & below & x.isfinite(), allowed)


def _default(settings: PerRun, key: str) -> Any:
    return next(field.default for field in fields(settings) if field.name == key)


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
