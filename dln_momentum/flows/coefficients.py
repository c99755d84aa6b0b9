"""Inertia and friction of a flow that depend on time, and the weight of its path integrals.

    lambda(t) w'' + f(t) w' +- grad L w = 0

(docs/theory.md#changing-coefficients; not on the poster.) A factor eta(t) of grad L needs no name
its own: dividing by it makes lambda/eta and f/eta of the other two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from dln_momentum.arrays import is_real
from dln_momentum.errors import InputError, raise_if_any

Function = Callable[[float], float]

LEAST_FRICTION = 1e-150
"""With a subnormal friction the solver did not end."""
KINDS = ("geometric", "linear")
CHECKED = 1000
"""Times at which a function of the user is checked."""
STIFF = 3000.0
"""Length of a flow, in units of its shortest memory lambda/f, from which on P is found by Radau
IIA: in less time than by DOP853, and within 1e-12 of it."""

DIFFERENCE = 1e-5
"""Relative step of the difference quotient of a function of the user. Its error, about 1e-10,
enters the sums of I_+- alone, through terms that are a thousandth of them or less."""


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
        return -self.b / t**2


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
        lam: a number > 0, `Annealed`, or a function of t.
        friction: a number > 0, `InverseTime`, or a function of t.
        horizon: the last time of the flow; may be infinite unless a function is given, or b/t.
    """

    lam: float | Annealed | Function
    friction: float | InverseTime | Function = 1.0
    horizon: float = math.inf

    @property
    def starts_singular(self) -> bool:
        """Whether the friction is infinite at t = 0, where only rest is a start."""
        return isinstance(self.friction, InverseTime)

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
        functions = [
            name
            for name, value in (("lam", self.lam), ("friction", self.friction))
            if callable(value) and not isinstance(value, Annealed | InverseTime)
        ]
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
        for name in functions:
            yield from _function_errors(name, getattr(self, name), self.horizon)

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
            if lam.kind == "linear" and slope not in (0.0, f):
                return lambda t: last if t >= lam.time else _linear_weight(lam, f, slope, t)
            before = self._backwards(lam.time, last)
            return lambda t: last if t >= lam.time else before(t)
        return self._backwards(self.horizon, 0.0)

    def _backwards(self, end: float, value: float) -> Function:
        def forgets(t: float) -> float:
            return self.damping(t) / self.inertia(t)

        def rate(t: float, P: np.ndarray) -> np.ndarray:
            return P * forgets(t) - 1

        scale = self.inertia(end) / max(self.damping(end), 1e-300)
        fastest = max(map(forgets, np.linspace(0.0, end, CHECKED).tolist()))
        how: dict[str, Any] = {"method": "DOP853"}
        if fastest * end > STIFF:
            # an explicit step is no longer than a few of the times 1/forgets
            how = {"method": "Radau", "jac": lambda t, P: np.array([[forgets(t)]])}
        found = solve_ivp(
            rate, (end, 0.0), [value], dense_output=True, rtol=1e-13,
            atol=1e-13 * min(scale, end), max_step=end / 100,
            **how,
        )  # fmt: skip
        return lambda t: float(found.sol(t)[0])


def _linear_weight(lam: Annealed, f: float, slope: float, t: float) -> float:
    """P of lambda(t) = start + slope t: lambda/(f - slope) and a multiple of lambda^(f/slope)."""
    own = lam(t) / (f - slope)
    rest = lam.end / f - lam.end / (f - slope)
    return own + rest * (lam(t) / lam.end) ** (f / slope)


def _slope(value: float | Annealed | InverseTime | Function, t: float) -> float:
    if isinstance(value, float | int):
        return 0.0
    if isinstance(value, Annealed | InverseTime):
        return value.slope(t)
    step = DIFFERENCE * max(1.0, t)
    # a function need not be defined before t = 0
    back = step if t >= step else 0.0
    if back:
        return (float(value(t + step)) - float(value(t - back))) / (step + back)
    return (4 * float(value(t + step)) - float(value(t + 2 * step)) - 3 * float(value(t))) / (
        2 * step
    )


def _function_errors(name: str, function: Function, horizon: float) -> Iterator[str]:
    for t in np.linspace(0.0, horizon, CHECKED).tolist():
        try:
            value = float(function(t))
        except Exception as error:  # whatever a function of the user does
            yield f"{name}(t) failed at t = {t:g}: {error}"
            return
        if not 0 < value < math.inf:
            yield f"{name}({t:g}) = {value:g} must be finite and > 0"
            return
