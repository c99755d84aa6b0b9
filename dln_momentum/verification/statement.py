"""One statement of the theory on one run: hypotheses, predicted and measured numbers, verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dln_momentum.outputs.report import number

UNRESOLVED = 0.3
"""Above this tolerance float64 cannot decide the statement on this run."""


class Verdict(StrEnum):
    """The verdict on a statement."""

    HOLDS = "holds"
    PARTLY = "holds in part"
    """it holds on the part of the run that could be evaluated, which the statement names"""
    NOT_MET = "hypotheses not met"
    VIOLATED = "VIOLATED"


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis of a statement, whether it is met here, and what was found."""

    text: str
    met: bool
    found: str = ""


class Times(NamedTuple):
    """The times at which a statement is evaluated."""

    symbol: str
    """how time is written: k or t"""
    at: Tensor
    """[T]"""
    part: str = ""
    """the part of the run that they cover, empty for all of it"""


@dataclass(frozen=True)
class Statement:
    """One statement of the theory, evaluated.

    Attributes:
        name: the statement in a line.
        section: of Papazov, Pesme and Flammarion (AISTATS 2024).
        hypotheses: the statement applies only where all are met.
        relation: of the measured number to the predicted one.
        predicted, measured: the numbers to compare, nan where not defined.
        error: by how much the statement fails, >= 0, the largest over all coordinates and times,
            where the two numbers may be sums.
        tolerance: the largest error that rounding and discretisation explain.
        judged: the part of the run that was evaluated, where that is not all of it.

    >>> Statement("2 = 2", 1, predicted=2.0, measured=2.0, error=0.0, tolerance=0.0).verdict.value
    'holds'
    >>> Statement("2 = 3", 1, predicted=2.0, measured=3.0, error=1.0, tolerance=0.0).verdict.value
    'VIOLATED'
    """

    name: str
    section: int
    hypotheses: tuple[Hypothesis, ...] = ()
    relation: Literal["=", "<=", ">="] = "="
    predicted: float = math.nan
    measured: float = math.nan
    error: float = math.nan
    tolerance: float = math.nan
    judged: str = ""

    @property
    def unmet(self) -> tuple[Hypothesis, ...]:
        """The hypotheses that do not hold here."""
        unmet = [hypothesis for hypothesis in self.hypotheses if not hypothesis.met]
        if self.tolerance > UNRESOLVED:
            found = f"errors up to {self.tolerance:.1g} would be rounding"
            unmet.append(Hypothesis("float64 resolves it", False, found))
        return tuple(unmet)

    @property
    def verdict(self) -> Verdict:
        """Holds, in part, hypotheses not met, or violated; an error that is nan is a violation."""
        if self.unmet:
            return Verdict.NOT_MET
        if not self.error <= self.tolerance:
            return Verdict.VIOLATED
        return Verdict.PARTLY if self.judged else Verdict.HOLDS

    @property
    def numbers(self) -> tuple[str, str, str, str]:
        """Predicted, measured, error and tolerance as text."""
        relation = "" if self.relation == "=" else f"{self.relation} "
        error, allowed = (
            "-" if math.isnan(x) else f"{x:.1e}" for x in (self.error, self.tolerance)
        )
        return relation + number(self.predicted), number(self.measured), error, allowed

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        met = [hypothesis for hypothesis in self.hypotheses if hypothesis.met]
        hypotheses = [dataclasses.asdict(hypothesis) for hypothesis in (*met, *self.unmet)]
        values = dataclasses.asdict(self) | {"hypotheses": hypotheses}
        return values | {"verdict": self.verdict.value}


def equal(
    name: str,
    section: int,
    hypotheses: Sequence[Hypothesis] = (),
    *,
    predicted: Tensor | float = 0.0,
    measured: Tensor | float = math.nan,
    error: Tensor | float | None = None,
    tolerance: Tensor | float,
    times: Times | None = None,
    judged: str = "",
) -> Statement:
    """A statement that measured = predicted.

    Args:
        error: |measured - predicted| if left out; at several times, [T].
        tolerance: a number, or one for each time, [T].
        times: those of the error.
        judged: the part of the run that was evaluated, where no times are given.
    """
    predicted, measured = float(predicted), float(measured)
    error = abs(measured - predicted) if error is None else error
    largest, allowed = worst(error, tolerance)
    judged = judged if times is None else part_judged(times, tolerance)
    return Statement(
        name, section, tuple(hypotheses), "=", predicted, measured, largest, allowed, judged
    )


def at_most(
    name: str,
    section: int,
    hypotheses: Sequence[Hypothesis] = (),
    *,
    predicted: Tensor | float,
    measured: Tensor | float,
    tolerance: float,
    judged: str = "",
) -> Statement:
    """A statement that measured <= predicted; the excess is relative to a bound other than 0."""
    predicted, measured = float(predicted), float(measured)
    excess = (measured - predicted) / (abs(predicted) or 1.0)
    # max would turn a nan into a 0
    error = 0.0 if excess <= 0 else excess
    return Statement(
        name, section, tuple(hypotheses), "<=", predicted, measured, error, tolerance, judged
    )


def worst(error: Tensor | float, tolerance: Tensor | float) -> tuple[float, float]:
    """The error and the tolerance where their ratio is the largest; a nan counts as that.

    Entries that float64 cannot decide are left out, unless there are no others: see `part_judged`.

    >>> worst(torch.tensor([0.25, 1e-3, 2.0]), torch.tensor([0.125, 0.1, 5.0]))
    (0.25, 0.125)
    """
    errors, tolerances = torch.broadcast_tensors(
        *(torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (error, tolerance))
    )
    ratio = torch.where(errors > 0, errors / tolerances, 0.0)
    ratio = torch.where(errors.isnan(), torch.inf, ratio)
    place = int(torch.where(tolerances > UNRESOLVED, -1.0, ratio).argmax())
    return float(errors[place]), float(tolerances[place])


def last_judged(tolerance: Tensor) -> int:
    """The last of the times at which float64 decides, or the last of all if it never does.

    >>> last_judged(torch.tensor([1e-9, 0.1, torch.inf])), last_judged(torch.tensor([1.0, 9.0]))
    (1, 1)
    """
    decided = (~(tolerance > UNRESOLVED)).nonzero()
    return int(decided[-1]) if len(decided) else len(tolerance) - 1


def part_judged(times: Times, tolerance: Tensor | float) -> str:
    """Which of the times were evaluated; empty for all of a whole run.

    >>> part_judged(Times("t", torch.tensor([1.0, 2.0, 4.0])), torch.tensor([0.1, 0.1, 9.0]))
    'at 2 of 3 recorded t, up to t = 2: rounding may hide the rest'
    >>> part_judged(Times("k", torch.tensor([1.0, 10.0]), "for k <= 10"), 0.1)
    'for k <= 10'
    """
    allowed = torch.as_tensor(tolerance, dtype=torch.float64).expand(len(times.at))
    resolved = ~(allowed > UNRESOLVED)
    if bool(resolved.all()) or not bool(resolved.any()):
        return times.part
    last = float(times.at[resolved][-1])
    hidden = (
        f"at {int(resolved.sum())} of {len(resolved)} recorded {times.symbol}, up to "
        f"{times.symbol} = {last:.6g}: rounding may hide the rest"
    )
    return f"{times.part}; {hidden}" if times.part else hidden
