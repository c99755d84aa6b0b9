"""Step sizes and momenta that change along a run: gamma_k and beta_k of step k = 1, 2, ...

Step k goes from w_k to w_{k+1}. A schedule makes gamma_k and beta_k from the rates (gamma, beta) of
a run; the theorem holds for any of them, from weights that the schedule alone determines
(docs/theory.md#changing-rates). Each number of a schedule is one for all runs, or a tensor with one
for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.per_run import (
    BELOW_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    Limit,
    Number,
    tensor_like,
)
from dln_momentum.rates import eps_of, lam_of
from dln_momentum.schedule import Own, Rates, Schedule

FROM_ONE = Limit(1, math.inf, "[)", "finite and >= 1")


@dataclass(frozen=True, eq=False)
class Constant(Schedule):
    """gamma_k = gamma, beta_k = beta.

    >>> rate = torch.tensor([0.5], dtype=torch.float64)
    >>> [t.tolist() for t in Constant().rates(rate, rate, first=1, steps=2)]
    [[[0.5], [0.5]], [[0.5], [0.5]]]
    """

    name = "constant"

    @property
    def is_constant(self) -> bool:
        """True."""
        return True

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        return gamma[None], beta[None]


@dataclass(frozen=True, eq=False)
class Warmup(Schedule):
    """gamma_k = gamma min(1, k/steps).

    Args:
        steps: length of the warm-up, >= 1.
    """

    name = "warmup"
    steps: Number
    limits: ClassVar = {"steps": FROM_ONE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        return gamma * (k / own["steps"]).clamp_max(1), beta[None]


@dataclass(frozen=True, eq=False)
class Cosine(Schedule):
    """gamma_k/gamma = final + (1 - final) (1 + cos(pi min(1, (k-1)/steps)))/2.

    That of `torch.optim.lr_scheduler.CosineAnnealingLR` up to ``steps``; held afterwards. With
    ``final = 0`` the last steps move by momentum alone.

    Args:
        steps: length, >= 1.
        final: gamma_k/gamma at the end, in [0, 1].
    """

    name = "cosine"
    steps: Number
    final: Number = 0.0
    limits: ClassVar = {"steps": FROM_ONE, "final": Limit(0, 1, "[]", "in [0, 1]")}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        half = (1 + torch.cos(math.pi * ((k - 1) / own["steps"]).clamp_max(1))) / 2
        return gamma * (own["final"] + (1 - own["final"]) * half), beta[None]


@dataclass(frozen=True, eq=False)
class StepDecay(Schedule):
    """gamma_k = gamma factor^floor((k-1)/every), that of `torch.optim.lr_scheduler.StepLR`.

    Args:
        every: steps between two changes, >= 1.
        factor: in (0, 1].
    """

    name = "step_decay"
    every: Number
    factor: Number = 0.1
    limits: ClassVar = {"every": FROM_ONE, "factor": Limit(0, 1, "(]", "in (0, 1]")}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        count = torch.floor((k - 1) / own["every"])
        return gamma * own["factor"] ** count, beta[None]


@dataclass(frozen=True, eq=False)
class InverseSqrt(Schedule):
    """gamma_k = gamma / sqrt(1 + (k-1)/offset).

    Args:
        offset: steps after which gamma_k has fallen by sqrt(2), > 0.
    """

    name = "inverse_sqrt"
    offset: Number = 1.0
    limits: ClassVar = {"offset": POSITIVE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        return gamma / torch.sqrt(1 + (k - 1) / own["offset"]), beta[None]


@dataclass(frozen=True, eq=False)
class NesterovMomentum(Schedule):
    """beta_k = (k-1)/(k+offset-1), whatever beta is: (k-1)/(k+2) for offset = 3.

    Args:
        offset: > 0.
    """

    name = "nesterov_momentum"
    offset: Number = 3.0
    limits: ClassVar = {"offset": POSITIVE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        return gamma[None], (k - 1) / (k + own["offset"] - 1)


@dataclass(frozen=True, eq=False)
class Acceleration(Schedule):
    """The acceleration rule along the run: lambda stays, eps_k = rho_k eps grows.

        gamma_k = rho_k^2 gamma,  beta_k = 1 - rho_k (1 - beta),  rho_k = rho^min(1, (k-1)/steps)

    (docs/theory.md#acceleration-rule; poster, section 2.)

    Args:
        rho: speed-up at the end, in (0, 1/(1-beta)].
        steps: until rho is reached, >= 1.
    """

    name = "acceleration"
    rho: Number
    steps: Number
    limits: ClassVar = {"rho": POSITIVE, "steps": FROM_ONE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        rho_k = own["rho"] ** ((k - 1) / own["steps"]).clamp_max(1)
        # rho = 1/(1-beta) is allowed, and rounds
        return rho_k**2 * gamma, (1 - rho_k * (1 - beta)).clamp_min(0)

    def largest_step(self, gamma: Tensor, beta: Tensor) -> Tensor:
        """max(1, rho)^2 gamma."""
        return gamma * tensor_like(self.rho, gamma.device).clamp_min(1) ** 2

    def problems(self, gamma: Tensor, beta: Tensor) -> Iterator[str]:
        """Where rho is above 1/(1-beta)."""
        most = 1 / (1 - beta)
        # allow for the rounding of 1/(1-beta)
        rho = tensor_like(self.rho, beta.device).expand_as(most)
        bad = rho > most * (1 + 1e-15)
        if bool(bad.any()):
            yield (
                f"schedule.rho = {float(rho[bad][0]):g} must be in (0, {float(most[bad][0]):g}] = "
                "(0, 1/(1-beta)]"
            )


@dataclass(frozen=True, eq=False)
class AnnealedLambda(Schedule):
    """lambda_k from lam_start to lam_end, geometrically, at the run's own eps.

        lambda_k = lam_start (lam_end/lam_start)^min(1, (k-1)/steps)
        gamma_k = eps^2/lambda_k,    beta_k = 1 - eps/lambda_k

    Args:
        lam_end: lambda at the end, >= eps.
        steps: until it is reached, >= 1.
        lam_start: lambda of the first step, >= eps; None for the run's own.
    """

    name = "annealed_lambda"
    lam_end: Number
    steps: Number
    lam_start: Number | None = None
    limits: ClassVar = {"lam_end": POSITIVE, "lam_start": POSITIVE, "steps": FROM_ONE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        eps, start = eps_of(gamma, beta), own["lam_start"]
        start = lam_of(gamma, beta) if start is None else start
        lam = start * (own["lam_end"] / start) ** ((k - 1) / own["steps"]).clamp_max(1)
        return eps * (eps / lam), (1 - eps / lam).clamp_min(0)

    def largest_step(self, gamma: Tensor, beta: Tensor) -> Tensor:
        """eps^2 over the smaller of the two lambda."""
        eps, ends = eps_of(gamma, beta), self._ends(gamma, beta)
        return eps * eps / torch.minimum(*ends.values())

    def problems(self, gamma: Tensor, beta: Tensor) -> Iterator[str]:
        """Where a lambda is below eps."""
        eps = eps_of(gamma, beta)
        for key, lam in self._ends(gamma, beta).items():
            bad = lam < eps * (1 - 1e-15)
            if bool(bad.any()):
                yield (
                    f"schedule.{key} = {float(lam[bad][0]):g} must be >= eps = gamma/(1-beta) = "
                    f"{float(eps[bad][0]):g} (beta would be negative)"
                )

    def _ends(self, gamma: Tensor, beta: Tensor) -> dict[str, Tensor]:
        given = {"lam_start": self.lam_start, "lam_end": self.lam_end}
        own = lam_of(gamma, beta)
        return {
            key: own if lam is None else tensor_like(lam, own.device).expand_as(own)
            for key, lam in given.items()
        }


@dataclass(frozen=True, eq=False)
class Arrays(Schedule):
    """Every gamma_k and beta_k as given; the last value holds afterwards.

    Args:
        gamma: [K] or [K, R], finite and >= 0; None for the run's own.
        beta: likewise, in [0, 1).

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> Arrays(gamma=[0.5, 0.25]).rates(one, 0 * one, first=1, steps=3)[0].tolist()
    [[0.5], [0.25], [0.25]]
    """

    name = "arrays"
    leading = 1
    gamma: Any = None
    beta: Any = None
    limits: ClassVar = {"gamma": NOT_NEGATIVE, "beta": BELOW_ONE}

    def _rates(self, gamma: Tensor, beta: Tensor, k: Tensor, own: Own) -> Rates:
        found = []
        for given, constant in ((own["gamma"], gamma), (own["beta"], beta)):
            if given is None:
                found.append(constant[None])
                continue
            rows = given[(k[:, 0].long() - 1).clamp_max(len(given) - 1)]
            found.append(rows[:, None] if rows.ndim == 1 else rows)
        return found[0], found[1]

    def largest_step(self, gamma: Tensor, beta: Tensor) -> Tensor:
        """The largest gamma_k."""
        if self.gamma is None:
            return gamma
        return self.gamma.to(gamma).amax(0).expand_as(gamma)

    def _own_problems(self) -> Iterator[str]:
        for key in self.numbers:
            if isinstance(value := getattr(self, key), float):
                yield f"schedule.{key} = {value:g} must be an array [K] or [K, R]"
        yield from super()._own_problems()


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (
        Constant, Warmup, Cosine, StepDecay, InverseSqrt, NesterovMomentum, Acceleration,
        AnnealedLambda, Arrays,
    )
}  # fmt: skip
"""Every schedule by its name."""


def make_schedule(name: str, **numbers: Any) -> Schedule:
    """The schedule of that name with these numbers, as configs give them.

    Raises:
        InputError: for another name, unknown or missing numbers, or values that are not allowed.

    >>> make_schedule("step_decay", every=100, factor=0.5)
    StepDecay(every=100.0, factor=0.5)
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise InputError(f"schedule = {name!r} must be one of {', '.join(SCHEDULES)}")
    kind = SCHEDULES[name]
    known = {field.name: field for field in fields(kind)}
    errors = [
        f"schedule.{key} = {value!r}: {name} takes {', '.join(known) or 'no numbers'}"
        for key, value in numbers.items()
        if key not in known
    ]
    try:
        found = kind(**{key: value for key, value in numbers.items() if key in known})
    except TypeError:
        missing = [
            key for key, field in known.items() if key not in numbers and field.default is MISSING
        ]
        errors += [f"schedule.{key} is missing: {name} needs it" for key in missing]
    except InputError as error:
        errors += error.problems
    raise_if_any(errors)
    return found  # pyright: ignore[reportPossiblyUnboundVariable]
