"""Methods of many runs: from one for each run to what one engine can carry, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from dln_momentum.method import Method
from dln_momentum.per_run import PerRun
from dln_momentum.schedules import SCHEDULES


def structure(method: Method) -> str:
    """What runs must share to be advanced together; their numbers may differ.

    The poster's method is by itself: it has kernels of its own.

    >>> from dln_momentum.schedules import Cosine
    >>> structure(Method(weight_decay=0.1)) == structure(Method(weight_decay=0.2))
    True
    >>> structure(Method(schedule=Cosine(10))) == structure(Method())
    False
    """
    return repr((method.is_plain, method.is_deep, _frame(method), _frame(method.schedule)))


def stacked(methods: Sequence[Method]) -> Method:
    """One method for R runs from R methods of one `structure`, each without run dimensions.

    >>> stacked([Method(weight_decay=0.1), Method(weight_decay=0.2)]).weight_decay
    tensor([0.1000, 0.2000], dtype=torch.float64)
    """
    schedule = _joined([method.schedule for method in methods])
    return replace(methods[0], schedule=schedule, **_numbers(methods))


def as_plain(settings: PerRun) -> dict[str, Any]:
    """Every field as a number, text or tensor, as a checkpoint can hold it."""
    found = {field.name: getattr(settings, field.name) for field in fields(settings)}
    if isinstance(settings, Method):
        schedule = settings.schedule
        found["schedule"] = {"name": schedule.name, **as_plain(schedule)}
    return found


def from_plain(saved: Mapping[str, Any]) -> Method:
    """The method that `as_plain` has made plain.

    >>> from dln_momentum.schedules import Cosine
    >>> method = Method("nesterov", schedule=Cosine(10.0))
    >>> from_plain(as_plain(method)) == method
    True
    """
    schedule = dict(saved["schedule"])
    return Method(**{**saved, "schedule": SCHEDULES[schedule.pop("name")](**schedule)})


def _frame(settings: PerRun) -> dict[str, Any]:
    """The identity with only whether there is a number in the place of each number."""
    found = settings.identity() | {"kind": type(settings).__name__}
    found.pop("schedule", None)
    if settings.leading:
        return found  # arrays over the steps have lengths of their own
    return found | {key: getattr(settings, key) is None for key in settings.numbers}


def _joined(settings: Sequence[Any]) -> Any:
    first = settings[0]
    return first if first.leading else replace(first, **_numbers(settings))


def _numbers(settings: Sequence[PerRun]) -> dict[str, Any]:
    """The numbers that are not one for all, as tensors [R]."""
    found = {}
    for key in settings[0].numbers:
        each = [getattr(one, key) for one in settings]
        if any(value != each[0] for value in each):
            found[key] = torch.tensor(each, dtype=torch.float64)
    return found
