"""The rates of heavy ball: (gamma, beta), (lambda, eps), lambda_KS, and the acceleration rule.

Momentum gradient descent with step size gamma and momentum beta,

    w_{k+1} = w_k - gamma grad F(w_k) + beta (w_k - w_{k-1}),

discretises the momentum gradient flow ``lambda w'' + w' + grad F(w) = 0`` with time step eps, where

    lambda = gamma / (1 - beta)^2,    eps = gamma / (1 - beta).

This file does not import torch, because the command line checks its input with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from typing import Any

from dln_momentum.errors import InputError, raise_if_any

RATES = ("gamma", "beta", "lam", "eps")
"""The momentum parameters that a user may give."""
PAIRS = (("gamma", "beta"), ("lam", "eps"), ("lam", "beta"), ("lam", "gamma"), ("eps", "beta"))
"""The pairs of rates that determine a run."""
LAYERS = ("gamma_u", "gamma_v")
"""Step sizes of u and of v, which come with beta: gamma is their geometric mean."""

DISCRETE = ("gamma", "beta", "eps", *LAYERS)
"""Parameters that a flow, the limit of small steps at one lambda, does not have."""
OF_THE_FLOW = "lam = gamma/(1-beta)^2"
"""What a flow takes in place of the rates of the run that discretises it."""

SMALLEST_GAMMA = 1e-150
"""Losses are compared in units of gamma^2, which for a smaller gamma is not a double any more."""

GRADIENT_FLOW_BELOW = 0.1
OSCILLATION_ABOVE = 10.0


class Regime(StrEnum):
    """The regime of a lambda (poster, section 2): lambda << 1, lambda >> 1, or in between.

    The thresholds 0.1 and 10 are a convention of this package for problems of unit scale; nothing
    is computed from the label.
    """

    GRADIENT_FLOW = "gradient flow"
    MOMENTUM = "momentum"
    OSCILLATION = "heavy oscillation"


@dataclass(frozen=True)
class Momentum:
    """The rates of MGD(gamma, beta), in every parametrisation.

    (docs/theory.md#momentum; poster, sections 1 and 2.)

    Args:
        gamma: step size, finite and > 0.
        beta: momentum, in [0, 1).

    Raises:
        InputError: for values outside these ranges.

    >>> m = Momentum(gamma=0.01, beta=0.9)
    >>> round(m.lam, 12), round(m.eps, 12), round(m.lam_ks, 12)
    (1.0, 0.1, 0.95)
    >>> Momentum(gamma=0.1, beta=1.5)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: beta = 1.5 must be in [0, 1)
    """

    gamma: float
    beta: float = 0.0

    def __post_init__(self) -> None:
        raise_if_any(momentum_problems(gamma=self.gamma, beta=self.beta))
        # a number in single precision would keep every result that is computed from it there
        object.__setattr__(self, "gamma", float(self.gamma))
        object.__setattr__(self, "beta", float(self.beta))

    @classmethod
    def from_pair(
        cls,
        *,
        gamma: float | None = None,
        beta: float | None = None,
        lam: float | None = None,
        eps: float | None = None,
    ) -> Momentum:
        """Build from exactly one of `PAIRS`.

        Raises:
            InputError: for any other choice of keys, or values that no beta in [0, 1) fits.

        >>> m = Momentum.from_pair(lam=1.0, eps=0.1)
        >>> round(m.gamma, 12), round(m.beta, 12)
        (0.01, 0.9)
        >>> round(Momentum.from_pair(eps=0.1, beta=0.9).gamma, 12)
        0.01
        """
        given = {"gamma": gamma, "beta": beta, "lam": lam, "eps": eps}
        given = {key: value for key, value in given.items() if value is not None}
        raise_if_any(momentum_problems(**given))
        return cls(*gamma_beta(**given))

    @property
    def lam(self) -> float:
        """lambda = gamma / (1 - beta)^2, the invariant of the acceleration rule."""
        return lam_of(self.gamma, self.beta)

    @property
    def eps(self) -> float:
        """eps = gamma / (1 - beta), the time that one step advances along the flow."""
        return eps_of(self.gamma, self.beta)

    @property
    def lam_ks(self) -> float:
        """lambda_KS = lambda (1 + beta)/2: MGD follows MGF(lambda_KS) to second order.

        MGD(gamma, beta) is the central-difference scheme of MGF(lambda_KS) with time step eps
        (Kovachki and Stuart, JMLR 2021, have the same coefficient).
        """
        return lam_ks_of(self.gamma, self.beta)

    @property
    def max_speed_up(self) -> float:
        """The largest rho of the acceleration rule, 1/(1 - beta), at which beta becomes 0."""
        return 1 / (1 - self.beta)

    def accelerated(self, rho: float) -> Momentum:
        """The rates that follow the same path in 1/rho times the steps (acceleration rule).

        (docs/theory.md#acceleration-rule; poster, section 2.)

            gamma -> rho^2 gamma,    beta -> 1 - rho (1 - beta)

        keeps lambda and multiplies eps by rho. It holds while the discretisation is stable, which
        is not checked.

        Args:
            rho: the speed-up, in (0, 1/(1 - beta)].

        Raises:
            InputError: for rho outside that range.

        >>> fast = Momentum(gamma=0.01, beta=0.9).accelerated(2.0)
        >>> round(fast.gamma, 12), round(fast.beta, 12), round(fast.lam, 12)
        (0.04, 0.8, 1.0)
        """
        if not isinstance(rho, Real):
            raise InputError(f"rho = {rho!r} must be a number")
        # allow for the rounding of 1/(1-beta)
        if not 0 < rho <= self.max_speed_up * (1 + 1e-15):
            raise InputError(
                f"rho = {rho:g} must be in (0, {self.max_speed_up:g}] = (0, 1/(1-beta)]"
            )
        beta = 1 - rho * (1 - self.beta)
        # a beta of the size of rounding is 0
        return Momentum(rho**2 * self.gamma, beta if beta > 1e-15 else 0.0)

    @property
    def regime(self) -> Regime:
        """The poster's regime of this lambda; see `Regime` for the convention.

        >>> Momentum(gamma=0.01, beta=0.9).regime.value
        'momentum'
        """
        if self.lam < GRADIENT_FLOW_BELOW:
            return Regime.GRADIENT_FLOW
        return Regime.MOMENTUM if self.lam <= OSCILLATION_ABOVE else Regime.OSCILLATION


def lam_of(gamma: Any, beta: Any) -> Any:
    """lambda = gamma/(1-beta)^2 of numbers, arrays or tensors.

    >>> round(lam_of(0.01, 0.9), 12)
    1.0
    """
    return gamma / (1 - beta) ** 2


def eps_of(gamma: Any, beta: Any) -> Any:
    """eps = gamma/(1-beta) of numbers, arrays or tensors."""
    return gamma / (1 - beta)


def lam_ks_of(gamma: Any, beta: Any) -> Any:
    """lambda_KS = lambda (1 + beta)/2 of numbers, arrays or tensors."""
    return lam_of(gamma, beta) * (1 + beta) / 2


def named_rates(gamma: Any, beta: Any) -> dict[str, Any]:
    """Every rate of numbers, arrays or tensors gamma and beta, by the name that files give it.

    >>> {name: round(value, 12) for name, value in named_rates(0.01, 0.9).items()}
    {'gamma': 0.01, 'beta': 0.9, 'lam': 1.0, 'eps': 0.1, 'lam_ks': 0.95}
    """
    return {
        "gamma": gamma,
        "beta": beta,
        "lam": lam_of(gamma, beta),
        "eps": eps_of(gamma, beta),
        "lam_ks": lam_ks_of(gamma, beta),
    }


def gamma_beta(
    *, gamma: Any = None, beta: Any = None, lam: Any = None, eps: Any = None
) -> tuple[Any, Any]:
    """(gamma, beta) from any one of `PAIRS`, elementwise on numbers, arrays or tensors.

    Values are not checked: a pair that no beta in [0, 1) fits gives a beta outside [0, 1) or nan,
    by which a sweep recognises its invalid grid points.
    """
    if lam is None:
        return gamma if eps is None else eps * (1 - beta), beta
    if eps is not None:
        # eps^2 may overflow although eps^2/lambda does not
        return eps * (eps / lam), 1 - eps / lam
    if beta is not None:
        return lam * (1 - beta) ** 2, beta
    return gamma, 1 - (gamma / lam) ** 0.5


def of_layers(given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The rates with gamma = sqrt(gamma_u gamma_v) for those of the layers, and gamma_v/gamma_u.

    Without rates of layers they are as given, and the ratio is 1. Values are not checked.

    >>> of_layers({"gamma_u": 0.01, "gamma_v": 0.04, "beta": 0.5})
    ({'beta': 0.5, 'gamma': 0.02}, 4.0)
    """
    if not set(LAYERS) <= set(given):
        return dict(given), 1.0
    u, v = (given[key] for key in LAYERS)
    rest = {key: value for key, value in given.items() if key not in LAYERS}
    return rest | {"gamma": (u * v) ** 0.5}, v / u


def momentum_problems(prefix: str = "", **given: float) -> list[str]:
    """The errors in a choice of rates, one line each; empty if it determines a run.

    Args:
        prefix: put before each key, for example ``"optimizer."``.
        **given: some of gamma, beta, lam, eps.

    >>> momentum_problems(lam=1.0, eps=2.0)
    ['eps = 2 must be <= lam = 1 (beta = 1 - eps/lam would be negative)']
    """
    wrong = [key for key, x in given.items() if not isinstance(x, Real) or isinstance(x, bool)]
    if wrong:
        return [f"{prefix}{key} = {given[key]!r} must be a number" for key in wrong]
    named = {key: f"{prefix}{key} = {value:g}" for key, value in given.items()}
    if frozenset(given) not in {frozenset(pair) for pair in PAIRS}:
        allowed = ", ".join(f"({', '.join(prefix + key for key in pair)})" for pair in PAIRS)
        keys = ", ".join(named.values()) or "nothing"
        return [f"{keys} given: give exactly one of the pairs {allowed}"]
    problems = [
        f"{named[key]} must be finite and > 0"
        for key in ("gamma", "lam", "eps")
        if key in given and not (given[key] > 0 and math.isfinite(given[key]))
    ]
    if "beta" in given and not 0 <= given["beta"] < 1:
        problems.append(f"{named['beta']} must be in [0, 1)")
    if not problems and "lam" in given:
        beta = gamma_beta(**given)[1]
        problems = [
            f"{named[key]} {wrong} (beta = {formula} would be {what})"
            for key, formula in (("eps", "1 - eps/lam"), ("gamma", "1 - sqrt(gamma/lam)"))
            for wrong, what, holds in (
                (f"must be <= {named['lam']}", "negative", beta < 0),
                (f"is too small beside {named['lam']}", "rounded to 1", beta == 1),
            )
            if key in given and holds
        ]
    if not problems:
        gamma, beta = gamma_beta(**given)
        given_as = " and ".join(named.values())
        problems = [
            f"{given_as}: {key} = {value:g} must be {allowed}"
            for key, value, allowed in _magnitudes(gamma, beta)
        ]
    return problems


def _magnitudes(gamma: float, beta: float) -> Iterator[tuple[str, float, str]]:
    """A gamma or a lambda that float64 cannot work with: its key, value and what is allowed."""
    if not SMALLEST_GAMMA <= gamma < math.inf:
        yield "gamma", gamma, f"finite and >= {SMALLEST_GAMMA:g}"
    elif lam_of(gamma, beta) == math.inf:
        yield "lam", math.inf, "finite"
