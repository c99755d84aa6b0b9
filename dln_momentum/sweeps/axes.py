"""The axes of a sweep: which keys of the config vary, and over which values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dln_momentum.arrays import is_integer
from dln_momentum.config.reading import leaves
from dln_momentum.config.spans import Number, is_span, numbers_of
from dln_momentum.outputs.axis_keys import AXES, key_of, name_of
from dln_momentum.outputs.grid import Axis, numbered
from dln_momentum.outputs.quantities import SEEDS
from dln_momentum.rates import LAYERS, RATES

SECTIONS = (
    "data", "model", "loss", "optimizer", "schedule", "method", "sampling", "trainer", "engine",
    "seed",
)  # fmt: skip
"""The parts of the config that may vary within one sweep."""


def read_axes(section: Mapping[str, Any], errors: list[str]) -> list[Axis]:
    """The axes that a section ``sweep`` gives, in the order of the dimensions of the result.

    Args:
        section: a value, a list or a span under each name of `AXES`; ``axes``, the same under
            whole keys; ``zip``, a list of names that move together, or several such lists. None
            is for what is not swept, a value alone for what all points share.
        errors: a line for each problem.

    >>> axes = read_axes({"n": [5, 6], "axes": {"engine.tile_runs": [1, 2]}, "zip": None}, [])
    >>> [(axis.name, list(axis.values.values())) for axis in axes]
    [('n', [[5, 6]]), ('engine_tile_runs', [[1, 2]])]
    """
    given = {name: section[name] for name in AXES if section.get(name) is not None}
    others = section.get("axes")
    if others is not None and not isinstance(others, Mapping):
        errors.append(f"sweep.axes = {others!r} must be values by key, as {{trainer.tol: [1, 2]}}")
    elif others is not None:
        given |= _of_keys(others, given, errors)
    order = [*list(AXES)[: -len(SEEDS)], *(name for name in given if name not in AXES), *SEEDS]
    found: dict[str, Sequence[Any]] = {}
    spread, groups = set(), _zip_groups(section.get("zip"), errors)
    zipped = {name for group in groups for name in group}
    for name in sorted(given, key=order.index):
        value = given[name]
        values = axis_values(name, value, errors, unique=name not in zipped)
        if values is not None:
            found[name] = values
        if isinstance(value, list) or is_span(value):
            spread.add(name)
    errors += [
        f"sweep.zip: {name} must be one of the axes that are given as lists: {', '.join(spread)}"
        for name in sorted(zipped - spread)
    ]
    return [] if errors else _zipped(found, spread, groups, errors)


def followers(config: DictConfig) -> Iterator[str]:
    """What refers to a key that is swept, and would have the value of the config at all points.

    >>> config = OmegaConf.create({"seed": 0, "data": {"seed": "${seed}"}, "sweep": {"seed": [0]}})
    >>> list(followers(config))
    ['data.seed = ${seed} would not follow seed, which is swept; sweep both, and let them move
    together by sweep.zip']
    """
    swept = [key_of(name) for name in AXES if config.sweep.get(name) is not None]
    others = config.sweep.get("axes")
    swept += [str(key) for key in others] if OmegaConf.is_dict(others) else []
    for key in leaves(config):
        if key.partition(".")[0] not in SECTIONS or not _is_interpolation(config, key):
            continue
        for other in swept:
            changed = config.copy()
            OmegaConf.update(changed, other, "of a point", merge=False, force_add=True)
            try:
                follows = OmegaConf.select(changed, key) != OmegaConf.select(config, key)
            except Exception:  # whatever a resolver does with another value
                follows = True
            if follows and key != other:
                raw = OmegaConf.to_container(config, resolve=False)
                for part in key.split("."):
                    raw = raw[part]  # type: ignore[index, call-overload]
                yield (
                    f"{key} = {raw} would not follow {other}, which is swept; sweep both, and let "
                    "them move together by sweep.zip"
                )


def _is_interpolation(config: DictConfig, key: str) -> bool:
    section, _, leaf = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    return OmegaConf.is_interpolation(parent, leaf)


def _of_keys(
    others: Mapping[str, Any], given: Mapping[str, Any], errors: list[str]
) -> dict[str, Any]:
    """The axes under whole keys, by their own names where they have one."""
    found = {}
    for key, value in others.items():
        name = name_of(str(key))
        if str(key).partition(".")[0] not in SECTIONS:
            errors.append(
                f"sweep.axes: {key} cannot vary within a sweep; keys of {', '.join(SECTIONS)} can"
            )
        elif name in given:
            errors.append(f"sweep.axes: {key} is sweep.{name}, which is given too")
        elif value is not None:
            found[name] = value
    return found


def _zip_groups(given: Any, errors: list[str]) -> list[tuple[str, ...]]:
    """The lists of axes that move together."""
    groups = given if isinstance(given, list) else [] if given is None else [given]
    if groups and all(isinstance(name, str) for name in groups):
        groups = [groups]
    flat = [name for group in groups if isinstance(group, list) for name in group]
    sound = all(isinstance(group, list) and len(group) > 1 for group in groups)
    if not sound or len(set(map(str, flat))) < len(flat):
        errors.append(
            f"sweep.zip = {given!r} must be a list of two or more axes, each named once, or "
            "several such lists"
        )
        return []
    return [tuple(map(str, group)) for group in groups]


def _zipped(
    found: Mapping[str, Sequence[Any]],
    spread: set[str],
    groups: Sequence[tuple[str, ...]],
    errors: list[str],
) -> list[Axis]:
    """The axes, those of each group of names joined at the place of the first."""
    axes, done = [], set[str]()
    for name in found:
        if name in done:
            continue
        together = next((group for group in groups if name in group), (name,))
        done |= set(together)
        lengths = {other: len(found[other]) for other in together}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{other} has {length}" for other, length in lengths.items())
            errors.append(f"sweep.zip: axes that move together need as many values each: {told}")
        axis = Axis({other: found[other] for other in together}, name in spread)
        rows = list(map(repr, zip(*axis.values.values(), strict=False)))
        if len(set(rows)) < len(rows):
            errors.append(f"sweep.zip: {', '.join(together)} have the same values twice")
        axes.append(axis)
    return axes


def axis_values(
    name: str, given: Any, errors: list[str], *, unique: bool = True
) -> Sequence[Any] | None:
    """The values of one axis, or None with a line added to the errors.

    Args:
        name: a name of `AXES`, or a whole key. Rates, alpha and seeds are numbers in their range;
            a beta outside [0, 1) is allowed: its grid points are then invalid. What else a value
            may be, the class that uses it says.
        given: a value, a list of different values, or a span (see `dln_momentum.config.spans`).
        errors: what is wrong is added here, one line.
        unique: whether a value may occur once only; in a zipped axis it may occur again.

    >>> axis_values("gamma", "geomspace:1e-3:1e-1:3", [])
    [0.001, 0.01, 0.1]
    >>> axis_values("seed", "range:0:20:5", []), axis_values("n", 5, [])
    ([0, 5, 10, 15], [5])
    >>> errors = []
    >>> axis_values("lam", [1, -2], errors), errors
    (None, ['sweep.lam = -2 must be finite and > 0'])
    """
    label = f"sweep.{name}" if name in AXES else f"sweep.axes: {key_of(name)}"
    found = numbers_of(label, given) if name in _RANGES else _any_values(label, given)
    if isinstance(found, str):
        errors.append(found)
        return None
    wrong = [value for value in found if name in _RANGES and not _allowed(name, value)]
    repeated = unique and len(numbered(found)) < len(found)
    if wrong:
        shown = ", ".join(f"{value:g}" for value in wrong[:5])
        errors.append(f"{label} = {shown} must be {_RANGES[name]}")
    elif repeated:
        errors.append(f"{label} = {given!r} has a value twice; each may occur once")
    if wrong or repeated:
        return None
    return [float(x) for x in found] if name in _NUMBERS else list(found)


_POSITIVE, _SEED = "finite and > 0", "a whole number in [0, 2^63)"
_NUMBERS = (*RATES, *LAYERS, "alpha")
_RANGES = {str(name): _POSITIVE for name in _NUMBERS} | dict.fromkeys(SEEDS, _SEED)
_RANGES["beta"] = "finite"


def _allowed(name: str, value: Number) -> bool:
    if name in SEEDS:
        return is_integer(value, 0, 2**63 - 1)
    return math.isfinite(value) and (name == "beta" or value > 0)


def _any_values(label: str, given: Any) -> Sequence[Any] | str:
    """The values of an axis of any kind, or what is wrong."""
    if is_span(given):
        return numbers_of(label, given)
    if isinstance(given, list):
        return given or f"{label} = [] must have a value"
    return [given]
