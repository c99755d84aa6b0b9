"""Inertia and friction of a flow that depend on time, and the weight of its path integrals.

    lambda(t) w'' + f(t) w' +- grad L w = 0

(docs/theory.md#changing-coefficients; not on the poster.) A factor eta(t) of grad L needs no name
its own: dividing by it makes lambda/eta and f/eta of the other two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from dln_momentum.arrays import is_real
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.flows.given_function import CHECKED, Function, GivenFunction

LEAST_FRICTION = 1e-150
"""With a subnormal friction the solver did not end."""
KINDS = ("geometric", "linear")
STIFF = 3000.0
"""Length of a flow, in units of its shortest memory lambda/f, from which on P is found by Radau
IIA: in less time than by DOP853, and within 1e-12 of it."""


@dataclass(frozen=True)
class Annealed:
    """lambda(t) from one value to another, constant afterwards.

    Args:
        start, end: the two values, finite and > 0.
        time: when the second is reached, finite and > 0.
        kind: ``geometric``, start (end/start)^(t/time), or ``linear``.

    Raises:
        InputError: for other values.

    >>> lam = Annealed(1.0, 0.01, time=50.0)
    >>> [round(lam(t), 6) for t in (0.0, 25.0, 50.0, 80.0)]
    [1.0, 0.1, 0.01, 0.01]
    """

    start: float
    end: float
    time: float
    kind: str = "geometric"

    def __post_init__(self) -> None:
        given = {"start": self.start, "end": self.end, "time": self.time}
        errors = [
            f"{key} = {value!r} must be finite and > 0"
            for key, value in given.items()
            if not (is_real(value) and 0 < value < math.inf)
        ]
        if self.kind not in KINDS:
            errors.append(f"kind = {self.kind!r} must be one of {', '.join(KINDS)}")
        raise_if_any(errors)

    def __call__(self, t: float) -> float:
        """lambda(t)."""
        share = min(t / self.time, 1.0)
        if self.kind == "linear":
            return self.start + (self.end - self.start) * share
        return self.start * (self.end / self.start) ** share

    def slope(self, t: float) -> float:
        """The derivative; 0 once the second value is reached."""
        if t >= self.time:
            return 0.0
        if self.kind == "linear":
            return (self.end - self.start) / self.time
        return self(t) * math.log(self.end / self.start) / self.time


@dataclass(frozen=True)
class InverseTime:
    """Friction b/t: Nesterov's ODE, w'' + (b/t) w' + grad F = 0 at lambda = 1.

    >>> InverseTime(3.0)(2.0)
    1.5
    """

    b: float

    def __call__(self, t: float) -> float:
        """The friction at t > 0."""
        return self.b / t

    def slope(self, t: float) -> float:
        """The derivative."""
        return -self.b / t / t


def friction_of(value: Any) -> float | InverseTime | Function:
    """A friction as a user gives it: a number, ``"b/t"``, or a function of t.

    Raises:
        InputError: for anything else, or a number that is not finite and >= `LEAST_FRICTION`.

    >>> friction_of("3/t"), friction_of(1)
    (InverseTime(b=3.0), 1.0)
    """
    least = f"{LEAST_FRICTION:g}"
    allowed = f"must be a number >= {least}, 'b/t' with b > 0 as '3/t', or a function of t"
    if callable(value):
        function: Any = value
        return function
    text = value.removesuffix("/t") if isinstance(value, str) and value.endswith("/t") else None
    try:
        found = float(value if text is None else text)
    except (TypeError, ValueError):
        raise InputError(f"friction = {value!r} {allowed}") from None
    smallest = LEAST_FRICTION if text is None else math.ulp(0)
    if isinstance(value, bool) or not smallest <= found < math.inf:
        raise InputError(f"friction = {value!r} {allowed}")
    return found if text is None else InverseTime(found)


@dataclass(frozen=True)
class Coefficients:
    """lambda(t) and f(t) of a flow, up to a horizon.

    Attributes:
        lam: a number > 0, `Annealed`, or a function of t, kept as a `GivenFunction`.
        friction: a number > 0, `InverseTime`, or a function of t, likewise.
        horizon: the last time of the flow; may be infinite unless a function is given, or b/t.
    """

    lam: float | Annealed | Function
    friction: float | InverseTime | Function = 1.0
    horizon: float = math.inf

    def __post_init__(self) -> None:
        for name in ("lam", "friction"):
            value = getattr(self, name)
            if callable(value) and not isinstance(value, Annealed | InverseTime):
                function: Any = value
                object.__setattr__(self, name, GivenFunction(name, function, self.horizon))

    @property
    def starts_singular(self) -> bool:
        """Whether the friction is infinite at t = 0, where only rest is a start."""
        return isinstance(self.friction, InverseTime)

    @property
    def is_function(self) -> bool:
        """Whether lambda or the friction is a function of the user."""
        return any(isinstance(each, GivenFunction) for each in (self.lam, self.friction))

    @property
    def corners(self) -> tuple[float, ...]:
        """Times at which a coefficient has no derivative: a solver stops there."""
        return (self.lam.time,) if isinstance(self.lam, Annealed) else ()

    @property
    def label(self) -> str:
        """The friction in a word, for tables."""
        if isinstance(self.friction, InverseTime):
            return f"{self.friction.b:g}/t"
        return f"{self.friction:g}" if isinstance(self.friction, float | int) else "function"

    def errors(self) -> Iterator[str]:
        """What is not allowed, one line each."""
        given = [each for each in (self.lam, self.friction) if isinstance(each, GivenFunction)]
        functions = [each.name for each in given]
        if (functions or self.starts_singular) and math.isinf(self.horizon):
            what = f"a function as {' and '.join(functions)}" if functions else "friction b/t"
            why = "which P is integrated back from" if functions else "the energy falls too slowly"
            yield f"time = inf must be finite for {what}: {why}"
            return
        if isinstance(self.friction, InverseTime):
            if not isinstance(self.lam, float | int):
                yield f"friction = {self.label} needs a lam that is one number"
            elif not self.friction.b > self.lam:
                yield f"friction = {self.label} must have b > lam = {self.lam:g}, or P is not > 0"
        for function in given:
            # of a friction that jumps, w' and the energy are continuous
            yield from function.errors(jumps=function.name == "friction")

    def inertia(self, t: float) -> float:
        """lambda(t)."""
        return self.lam if isinstance(self.lam, float | int) else float(self.lam(t))

    def inertia_slope(self, t: float) -> float:
        """lambda'(t)."""
        return _slope(self.lam, t)

    def damping(self, t: float) -> float:
        """f(t)."""
        return self.friction if isinstance(self.friction, float | int) else float(self.friction(t))

    def damping_slope(self, t: float) -> float:
        """f'(t)."""
        return _slope(self.friction, t)

    def weight(self, t: float) -> float:
        """P(t) > 0, the solution of ``P' = P f/lambda - 1`` by which I_+- is weighted.

        In closed form where one is known (docs/theory.md#changing-coefficients), otherwise by the
        equation, backwards from where P is known, in which direction it forgets errors.
        """
        return self._weight(t)

    @cached_property
    def _weight(self) -> Function:
        lam, f = self.lam, self.friction
        if isinstance(f, InverseTime):
            assert isinstance(lam, float | int)
            factor = lam / (f.b - lam)
            return lambda t: factor * t
        if isinstance(lam, float | int) and isinstance(f, float | int):
            return lambda t: lam / f
        if isinstance(lam, Annealed) and isinstance(f, float | int):
            last = lam.end / f
            slope = (lam.end - lam.start) / lam.time
            if lam.start == lam.end:
                return lambda t: last
            if lam.kind == "linear":
                return lambda t: last if t >= lam.time else _linear_weight(lam, f, slope, t)
            before = self._backwards(lam.time, last)
            return lambda t: last if t >= lam.time else before(t)
        return self._backwards(self.horizon, None)

    def _backwards(self, end: float, value: float | None) -> Function:
        """P from its value at the end; where none is known, from 0 or close to where P stays."""

        # in units of the end: a tiny or huge one would leave the range of the solver's tolerances
        def forgets(s: float) -> float:
            t = min(s, 1.0) * end
            return self.damping(t) / self.inertia(t) * end

        def rate(s: float, P: np.ndarray) -> np.ndarray:
            return P * forgets(s) - 1

        scale = self.inertia(end) / max(self.damping(end), 1e-300) / end
        fastest = max(map(forgets, np.linspace(0.0, 1.0, CHECKED).tolist()))
        how: dict[str, Any] = {"method": "DOP853"}
        if value is None:
            # from 0 it would get to lambda/f within a time that may be shorter than an ulp
            value = scale * end if forgets(1.0) > STIFF else 0.0
        if fastest > STIFF:
            # an explicit step is no longer than a few of the times 1/forgets
            how = {"method": "Radau", "jac": lambda s, P: np.array([[forgets(s)]])}
        found = solve_ivp(
            rate, (1.0, 0.0), [value / end], dense_output=True, rtol=1e-13,
            atol=1e-13 * min(scale, 1.0), max_step=0.01,
            **how,
        )  # fmt: skip
        if not found.success:
            raise InputError(f"P of lam and friction could not be integrated: {found.message}")
        return lambda t: float(found.sol(t / end)[0]) * end


def _linear_weight(lam: Annealed, f: float, slope: float, t: float) -> float:
    """P of lambda(t) = start + slope t: lambda/(f - slope) and a multiple of lambda^(f/slope).

    Written without the difference of the two, which has no digits where f is near the slope.
    """
    now, log = lam(t), math.log(lam(t) / lam.end)
    power = f / slope - 1
    own = math.expm1(power * log) / power if power else log
    return lam.end / f * math.exp(f / slope * log) - now / slope * own


def _slope(value: float | Annealed | InverseTime | Function, t: float) -> float:
    return value.slope(t) if isinstance(value, Annealed | InverseTime | GivenFunction) else 0.0
