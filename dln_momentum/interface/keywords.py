"""Unknown keyword arguments of the public functions, answered with the nearest known one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import ParamSpec, TypeVar

from dln_momentum.errors import raise_if_any
from dln_momentum.nearest import did_you_mean
from dln_momentum.rates import DISCRETE, OF_THE_FLOW

P = ParamSpec("P")
T = TypeVar("T")

MEANT = {
    "momentum": "beta",
    "lr": "gamma",
    "learning_rate": "gamma",
    "step_size": "gamma",
    "stepsize": "gamma",
    "epsilon": "eps",
    "lambda_": "lam",
    "epochs": "max_steps",
    "steps": "max_steps",
    "n_steps": "max_steps",
    "num_steps": "max_steps",
    "iterations": "max_steps",
    "wd": "weight_decay",
    "batch": "batch_size",
    "random_state": "seed",
    "tolerance": "tol",
    "init": "start",
    "data": "problem",
    "verbose": "progress",
}
"""Names that others have for arguments of this package."""

INSTEAD = {
    "alpha": "start=dln.uniform(alpha)",
    "nesterov": "method='nesterov'",
    "depth": "start=dln.power(depth)",
    "loss": "dln.Problem(X, y, loss=...)",
    "device": "dln.Problem(...).to(device)",
}
"""What says it where no argument does: values of the start, the data or the method."""


def names_its_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """The function, raising `InputError` for keyword arguments that it does not have.

    Its signature, documentation and types stay.
    """
    known = [*inspect.signature(function).parameters]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        raise_if_any(unknown(kwargs, known))
        return function(*args, **kwargs)

    return checked


def unknown(
    given: Collection[str], known: Collection[str], what: str = "argument"
) -> Iterator[str]:
    """A line for each name that is not among the known ones.

    >>> for line in unknown(["momentum", "gama", "gamma"], ["gamma", "beta"]):
    ...     print(line)
    unknown argument momentum (did you mean beta?)
    unknown argument gama (did you mean gamma?)
    >>> [*unknown(["lr"], ["lam"])]
    ['unknown argument lr (did you mean lam = gamma/(1-beta)^2?)']
    """
    for name in given:
        if name in known:
            continue
        nearest = did_you_mean(name, known)
        if (meant := MEANT.get(name, name)) in known:
            nearest = f" (did you mean {meant}?)"
        elif meant in DISCRETE and "lam" in known:
            nearest = f" (did you mean {OF_THE_FLOW}?)"
        if name in INSTEAD:
            nearest = f" (did you mean {INSTEAD[name]}?)"
        yield f"unknown {what} {name}{nearest}"
