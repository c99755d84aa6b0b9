"""From what a user gives, numbers, lists, arrays or tensors, to the engine's R runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.arrays import array_of, common_shape, integer_of
from dln_momentum.engine.footprint import Footprint
from dln_momentum.engine.problems import Problems, first_of, flat_problem
from dln_momentum.errors import Checks, InputError, raise_if_any
from dln_momentum.method import Method
from dln_momentum.problem import Problem
from dln_momentum.rates import LAYERS, PAIRS, SMALLEST_GAMMA, gamma_beta, lam_of, of_layers
from dln_momentum.schedules import Constant, Schedule
from dln_momentum.start import Start, uniform

DEFAULT_GAMMA, DEFAULT_BETA = 0.01, 0.9

Array = NDArray[np.float64]
Data = Problem | Problems | Sequence[Problem]


@dataclass(frozen=True)
class Arguments:
    """R = prod(shape) runs: what each of them is, flat.

    Attributes:
        problem: shared, with run dimensions [R], or several and which of them each run has, [R].
        shape: the shape that the arrays of the user broadcast to; () for one run.
        gamma, beta: [R].
        w_plus, w_minus: the start, [R, d]; u and v of a deeper network.
        seed: one seed that all runs share, or R of them.
        method: how they are advanced; its numbers are shared, or [R].
    """

    problem: Problem | Problems
    shape: tuple[int, ...]
    gamma: Tensor
    beta: Tensor
    w_plus: Tensor
    w_minus: Tensor
    seed: int | list[int]
    method: Method


def arguments(
    problem: Data,
    start: Start | None,
    seed: Any,
    settings: Mapping[str, Any] = MappingProxyType({}),
    **rates: Any,
) -> Arguments:
    """Broadcast rates, seed, start, problem and method to one shape of runs.

    Args:
        problem: the data; a list of problems is an array of them.
        start: how the runs start; None for `uniform()`.
        seed: an integer, or an array of them.
        settings: of `Method`, without its depth and layer_ratio; `name` and `schedule` may be None.
        **rates: a pair of gamma, beta, lam, eps (see `PAIRS`), or gamma_u, gamma_v and beta;
            numbers or arrays; None is left out.

    Raises:
        InputError: listing everything that is out of range or does not fit.
    """
    checks = Checks()
    if isinstance(problem, list | tuple) and all(isinstance(p, Problem) for p in problem):
        several = torch.arange(len(problem))
        # of a list that does not fit, the first, so that it is named once
        problem = checks.passed(problem[0] if problem else problem, Problems, problem, several)
    start = checks.passed(uniform(), checked, problem, start, (Problem, Problems))
    given = {
        key: checks.passed(None, array_of, key, value)
        for key, value in rates.items()
        if value is not None
    }
    known = {key: value for key, value in given.items() if value is not None}
    if len(known) == len(given):
        known = {key: np.asarray(value) for key, value in with_defaults(known).items()}
        checks.problems += rate_errors(known)
    # without the rates of the layers, which may be wrong
    checks.passed(None, method_of, settings, 1.0, start.depth)
    seeds = checks.passed(np.zeros((), np.int64), _seeds, seed)
    checks.raise_if_any()
    assert isinstance(problem, Problem | Problems)
    shapes = {key: value.shape for key, value in known.items()}
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        pair, ratio = of_layers(known)
    if not np.all(np.isfinite(ratio) & (np.asarray(ratio) > 0)):
        raise InputError("gamma_u and gamma_v: gamma_v/gamma_u must be finite and > 0")
    method = method_of(settings, ratio, start.depth)
    shapes |= {key: tuple(torch.as_tensor(getattr(method, key)).shape) for key in _OWN}
    shapes["schedule"] = tuple(method.schedule.runs)
    shapes |= {"start": start.runs, "problem": tuple(problem.runs), "seed": seeds.shape}
    shape, first = common_shape(shapes), first_of(problem)
    d, arrays = first.d, [f"{key} {list(own)}" for key, own in shapes.items() if math.prod(own) > 1]
    least = Footprint(math.prod(shape), first.n, d, data_sets=0, path_sums="gradient_sum")
    raise_if_any(least.engine_errors(", ".join(arrays) or f"d = {d}"))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # what overflows is named by the check below
        both = gamma_beta(**pair)
    gamma, beta = (np.broadcast_to(rate, shape).reshape(-1) for rate in both)
    raise_if_any(_pair_problems(gamma, beta))
    w_plus, w_minus = (w.expand(*shape, d).reshape(-1, d) for w in start.weights(d))
    return Arguments(
        flat_problem(problem, shape),
        shape,
        torch.from_numpy(np.array(gamma)),
        torch.from_numpy(np.array(beta)),
        w_plus,
        w_minus,
        np.broadcast_to(seeds, shape).reshape(-1).tolist() if seeds.ndim else int(seeds),
        method.flat(shape),
    )


_OWN = ("weight_decay", "dampening", "depth")
"""Numbers of a method that are given as such, each of which may be an array."""


def method_of(settings: Mapping[str, Any], layer_ratio: Any = 1.0, depth: Any = 2.0) -> Method:
    """The method of some of the fields of `Method`; a schedule may be None.

    Raises:
        InputError: naming the arguments of `train`.
    """
    given = dict(settings)
    schedule = given.pop("schedule", None)
    schedule = Constant() if schedule is None else schedule
    if given.get("decay_until") is not None:
        given["decay_until"] = integer_of("decay_until", given["decay_until"], 0)
    if not isinstance(schedule, Schedule):
        raise InputError(
            f"schedule = {schedule!r} must be one of dln.schedules, as dln.schedules.Cosine(1000)"
        )
    try:
        return Method(schedule=schedule, layer_ratio=layer_ratio, depth=depth, **given)
    except InputError as error:
        lines = (line.replace("method.name", "method") for line in error.problems)
        raise InputError([line.removeprefix("method.") for line in lines]) from None


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rates that are given, with the default gamma and beta unless lam or eps is there."""
    if set(LAYERS) & set(given):
        return {"beta": DEFAULT_BETA} | dict(given)
    defaults = {} if {"lam", "eps"} & set(given) else {"gamma": DEFAULT_GAMMA, "beta": DEFAULT_BETA}
    return defaults | dict(given)


def checked(problem: Any, start: Any, kinds: tuple[type, ...] = (Problem,)) -> Start:
    """The start, `uniform()` for None.

    Raises:
        InputError: for a problem that is not of these kinds, or a start that is not a `Start`.
    """
    start = uniform() if start is None else start
    raise_if_any(
        f"{name} is a {type(value).__name__}; it must be a {allowed[0].__name__}, as {example}"
        for name, value, allowed, example in (
            ("problem", problem, kinds, "dln.Problem(X, y)"),
            ("start", start, (Start,), "dln.uniform(0.1)"),
        )
        if not isinstance(value, allowed)
    )
    return start


def _seeds(seed: Any) -> np.ndarray:
    try:
        array = np.asarray(list(seed) if isinstance(seed, range) else seed)
    except (ValueError, RuntimeError):  # rows of several lengths, a tensor without numbers
        array = np.empty(0)
    if array.size == 0 or array.dtype.kind not in "iu" or (array < 0).any():
        raise InputError(f"seed = {seed!r} must be an integer in [0, 2^64), or an array of them")
    return array


def rate_errors(given: Mapping[str, Array]) -> Iterator[str]:
    """What is wrong with rates that must be one of `PAIRS`, each in its range."""
    if frozenset(given) not in {*map(frozenset, PAIRS), frozenset({*LAYERS, "beta"})}:
        allowed = ", ".join(f"({', '.join(pair)})" for pair in PAIRS)
        yield (
            f"{', '.join(given)} given: give exactly one of the pairs {allowed}, or "
            f"({', '.join(LAYERS)}, beta)"
        )
        return
    for key, value in given.items():
        right = (value >= 0) & (value < 1) if key == "beta" else (value > 0) & np.isfinite(value)
        if not right.all():
            allowed = "in [0, 1)" if key == "beta" else "finite and > 0"
            wrong = value[~right]
            yield f"{key} = {wrong.flat[0]:g} ({wrong.size} of {value.size}) must be {allowed}"


def _pair_problems(gamma: Array, beta: Array) -> Iterator[str]:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        lam = lam_of(gamma, beta)
    wrong = ~((beta >= 0) & (beta < 1) & (gamma >= SMALLEST_GAMMA) & np.isfinite(lam))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        yield (
            f"these rates give beta = {beta[first]:g} and gamma = {gamma[first]:g}, lam = "
            f"{lam[first]:g} (run {first}; {int(wrong.sum())} of {wrong.size} are wrong); beta "
            f"must be in [0, 1), gamma >= {SMALLEST_GAMMA:g} and lam finite"
        )
