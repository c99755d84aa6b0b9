"""From the sections ``schedule``, ``method`` and ``loss`` to the method that advances a run.

A config that was saved before there were these sections is about the poster's method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dln_momentum.config import Given, Reader
from dln_momentum.config.momentum import layer_ratio
from dln_momentum.data import read_archive
from dln_momentum.engine import EngineOptions
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.method import Method
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.schedules import SCHEDULES, Arrays, Constant, Schedule
from dln_momentum.theory.losses import LOSSES


def loss_of(reader: Reader) -> str | None:
    """The name of the loss; ``squared`` where the config has no such section."""
    if "loss" not in reader.config:
        return "squared"
    return reader.choice("loss.name", {name: name for name in LOSSES})


def schedule_of(reader: Reader) -> Schedule | None:
    """The schedule of section ``schedule``; constant where the config has none."""
    if "schedule" not in reader.config:
        return Constant()
    makers: dict[str, Callable[..., Schedule]] = {**SCHEDULES, "arrays": _arrays}
    make = reader.choice("schedule.name", makers)
    if make is None:
        reader.free("schedule")
        return None
    keys = reader.section("schedule", make, "name")
    return reader.build(make, reader.given(make, keys), "schedule")


def method_of(reader: Reader, **others: Any) -> Method | None:
    """The method of sections ``method`` and ``schedule``.

    Args:
        **others: ``depth`` of the network, which the start has, and ``layer_ratio``.
    """
    schedule = schedule_of(reader)
    found = Given({}, {"name": "heavy_ball"})
    if "method" in reader.config:
        found = reader.given(method_given, reader.section("method", method_given))
    if schedule is None:
        return None
    return reader.build(Method, found, "method", schedule=schedule, **others)


def misfits(
    method: Method,
    problem: Problem | None,
    rates: Momentum | None,
    options: EngineOptions | None = None,
) -> Iterator[str]:
    """What a method does not fit: gamma and beta, and the coordinates of a problem.

    The engine's options do not fit a problem whose loss has no margins.
    """
    if problem is not None and options is not None:
        try:
            options.on(problem)
        except InputError as error:
            yield from (f"trainer.{line}" for line in error.problems)
    if rates is not None:
        gamma, beta = (torch.tensor([x], dtype=torch.float64) for x in (rates.gamma, rates.beta))
        yield from method.problems(gamma, beta)
    if problem is not None and method.kappa is not None and len(method.kappa) != problem.d:
        yield f"method.kappa has {len(method.kappa)} numbers, must have d = {problem.d}"


def layer_ratio_of(reader: Reader) -> float:
    """gamma_v/gamma_u of section ``optimizer``; 1 for rates that `momentum_of` refuses."""
    try:
        found = layer_ratio(reader.config.get("optimizer") or {})
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0
    return found if found > 0 else 1.0


def method_given(
    name: str,
    weight_decay: float,
    decoupled: bool,
    decay_until: int | None,
    dampening: float,
    kappa: list[float] | None,
) -> None:
    """The keys of section ``method`` and their types."""


def _arrays(
    gamma: list[float] | None = None, beta: list[float] | None = None, path: str | None = None
) -> Schedule:
    """gamma_k and beta_k as two lists, or as arrays of an ``.npz``.

    Raises:
        InputError: for neither or both, or what `Arrays` refuses.
    """
    given = {"gamma": gamma, "beta": beta}
    if (gamma is None and beta is None) == (path is None):
        raise InputError(["give either schedule.gamma and schedule.beta, or schedule.path"])
    if path is not None:
        found = read_archive(path, "schedule.path")
        given = {key: found.get(key) for key in given}
        raise_if_any(
            [f"schedule.path = {path!r} lacks both gamma and beta"]
            if all(value is None for value in given.values())
            else []
        )
    return Arrays(
        **{key: None if value is None else np.asarray(value) for key, value in given.items()}
    )
