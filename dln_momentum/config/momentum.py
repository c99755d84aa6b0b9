"""The section ``optimizer``: one pair of gamma, beta, lam, eps; or all four, as they are saved.

Or, with a step size for each layer, gamma_u, gamma_v and beta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose

from dln_momentum.config.location import options_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.rates import LAYERS, PAIRS, RATES, Momentum, of_layers

AGREEMENT = 1e-9
"""Relative difference up to which four given numbers are those of one run; they are rounded."""


def momentum(optimizer: Mapping[str, Any]) -> Momentum:
    """The momentum parameters of a section ``optimizer``.

    Raises:
        InputError: for keys that are no pair, values out of range, or four that do not agree.

    >>> momentum({"lam": 1, "beta": 0.5})
    Momentum(gamma=0.25, beta=0.5)
    >>> momentum({"gamma": 0.25, "beta": 0.5, "lam": 2.0, "eps": 0.5})
    Traceback (most recent call last):
    dln_momentum.errors.InputError: lam = 2 must be 1, which gamma = 0.25 and beta = 0.5 make it
    """
    given = {key: _number(key, value) for key, value in optimizer.items() if value is not None}
    if set(given) & set(LAYERS):
        return Momentum(**_of_layers(given))
    if set(given) != set(RATES):
        return Momentum.from_pair(**given)
    found = Momentum(given["gamma"], given["beta"])
    raise_if_any(
        f"{key} = {given[key]:g} must be {value:.10g}, which gamma = {found.gamma:g} and "
        f"beta = {found.beta:g} make it"
        for key, value in (("lam", found.lam), ("eps", found.eps))
        if not math.isclose(given[key], value, rel_tol=AGREEMENT)
    )
    return found


def _of_layers(given: Mapping[str, float]) -> dict[str, float]:
    """gamma and beta of gamma_u, gamma_v and beta."""
    if set(given) != {*LAYERS, "beta"}:
        raise InputError(
            [f"{', '.join(given)} given: give {', '.join(LAYERS)} and beta, or a pair"]
        )
    raise_if_any(
        f"{key} = {given[key]:g} must be finite and > 0"
        for key in LAYERS
        if not 0 < given[key] < math.inf
    )
    found, ratio = of_layers(given)
    if not 0 < ratio < math.inf:
        shown = ", ".join(f"optimizer.{key} = {given[key]:g}" for key in LAYERS)
        raise InputError([f"{shown}: gamma_v/gamma_u must be in the range of float64"])
    return found


def layer_ratio(optimizer: Mapping[str, Any]) -> float:
    """gamma_v/gamma_u of a section ``optimizer`` that `momentum` accepts; 1 without them."""
    return of_layers({key: float(x) for key, x in optimizer.items() if x is not None})[1]


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError([f"{key} = {value!r} must be a number"]) from None


def with_pair(app: str, overrides: Sequence[str]) -> list[str]:
    """The overrides, with ``optimizer=`` added where ``optimizer.`` and axes name another pair.

    ``optimizer.lam=1 optimizer.eps=0.1`` needs ``optimizer=lam_eps``, which nobody has to type;
    axes may also be those of a file ``sweep=``. In ``dln-verify``, ``flow.lam`` alone chooses the
    step too. Hydra must be initialised.

    Raises:
        InputError: for optimizer keys that are no pair, or that are swept too.
    """
    parts = [word.lstrip("+").partition("=") for word in overrides]
    given = {key: value for key, _, value in parts}
    rates = [key for key in (*RATES, *LAYERS) if f"optimizer.{key}" in given]
    files = [word for word in overrides if word.startswith("sweep=")]
    filed = compose(app, files).sweep if files else {}
    swept_as = {key: given.get(f"sweep.{key}", filed.get(key)) for key in (*RATES, *LAYERS)}
    axes = [key for key, value in swept_as.items() if value not in (None, "null")]
    if twice := [f"optimizer.{key}" for key in rates if key in axes]:
        raise InputError([f"{', '.join(twice)} given, though it is swept: give each rate once"])
    names = {*rates, *axes}
    if "optimizer" in given or app == "flow":
        return list(overrides)
    if app == "verify" and "flow.lam" in given and not names and "experiment" not in given:
        return [*overrides, "optimizer=of_flow"]
    if names <= {"gamma", "beta"}:
        return list(overrides)
    if names & set(LAYERS) and names <= {*LAYERS, "beta"}:
        return [*overrides, "optimizer=layer_rates"]
    groups = [word for word in overrides if word.startswith("experiment=")]
    if names <= set(compose(app, groups).optimizer):
        return list(overrides)
    for pair in PAIRS:
        if names == set(pair):
            (option,) = set(options_of("optimizer")) & {"_".join(pair), "_".join(pair[::-1])}
            return [*overrides, f"optimizer={option}"]
    named = [f"optimizer.{key} = {given[f'optimizer.{key}']}" for key in rates]
    named += [f"sweep.{key}" for key in axes]
    allowed = ", ".join(f"({', '.join(pair)})" for pair in (*PAIRS, (*LAYERS, "beta")))
    swept = ", swept or fixed" if app == "sweep" else ""
    raise InputError([f"{', '.join(named)} given: give exactly one of the pairs {allowed}{swept}"])


def with_all_rates(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config with every name of the momentum that ran, so that it runs again.

    In a sweep the parameters that are swept leave ``optimizer``. The given values stay as they are.

    Raises:
        InputError: for momentum parameters that no run has.
    """
    optimizer = values.get("optimizer")
    if not isinstance(optimizer, dict):
        return dict(values)
    swept = {key for key in (*RATES, *LAYERS) if (values.get("sweep") or {}).get(key) is not None}
    given = {key: value for key, value in optimizer.items() if key not in swept}
    if given and not swept and not set(given) & set(LAYERS):
        found = momentum(given)
        given = {key: getattr(found, key) for key in RATES}
    return {**values, "optimizer": given}
