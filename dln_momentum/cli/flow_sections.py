"""The section ``flow``: lambda, friction, how far flows are followed, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dln_momentum.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from dln_momentum.cli.setup import Parts
    from dln_momentum.config import Reader
    from dln_momentum.flows import FlowOptions
    from dln_momentum.flows.coefficients import Annealed


class Until(NamedTuple):
    """How far flows are followed.

    Attributes:
        time: the last time; infinite for until convergence.
        times: the recorded times above 0, [T]; None for times that the flow chooses.
        tol: the energy at which a flow ends; None for none.
    """

    time: float
    times: Tensor | None
    tol: float | None


def lam_of(reader: Reader) -> float | list[float] | Annealed | None:
    """lambda of one flow, or of each of many: a list or a span is many, even of one value.

    With ``flow.lam_end``, lambda changes from ``flow.lam`` to it.
    """
    from dln_momentum.config import Given
    from dln_momentum.config.spans import numbers_of
    from dln_momentum.flows.batched import LARGEST_LAM
    from dln_momentum.flows.coefficients import Annealed

    given = reader.value("flow.lam", Any)
    end, time = (reader.value(f"flow.lam_{key}", float | None) for key in ("end", "time"))
    kind = reader.value("flow.lam_kind", str)
    found = numbers_of("flow.lam", given)
    if isinstance(found, str):
        reader.errors.append(found)
        return None
    many = isinstance(given, list | str)
    most = LARGEST_LAM if many else math.inf
    wrong = [lam for lam in found if not (0 <= lam <= most and lam < math.inf)]
    if wrong:
        allowed = f"in [0, {most:g}]" if many else "finite and >= 0"
        reader.errors.append(f"flow.lam = {wrong[0]:g} must be {allowed}")
    elif len(set(found)) < len(found):
        reader.errors.append(f"flow.lam = {given!r} has a value twice; each may occur once")
    lams = [float(lam) for lam in found]
    if end is None and time is None:
        return lams if many else lams[0]
    if many or end is None or time is None:
        reader.errors.append(
            f"flow.lam_end = {end} and flow.lam_time = {time} must both be given, for one flow.lam"
        )
        return None
    keys = {key: f"flow.lam_{key}" for key in ("end", "time", "kind")} | {"start": "flow.lam"}
    values = {"start": lams[0], "end": end, "time": time, "kind": kind or "geometric"}
    return reader.build(Annealed, Given(keys, values))


def friction_of(reader: Reader) -> float | str | None:
    """The friction of the flow, a number or b/t as it is written."""
    from dln_momentum.flows import coefficients

    given = reader.value("flow.friction", Any)
    try:
        coefficients.friction_of(given)
    except InputError as error:
        reader.errors += [
            f"flow.{line}".replace(", or a function of t", "") for line in error.problems
        ]
        return None
    return given


def coefficient_errors(
    lam: float | list[float] | Annealed, friction: float | str, until: Until
) -> Iterator[str]:
    """What does not fit of lambda, friction and the last time."""
    from dln_momentum.flows.momentum_flow import coefficients_of

    if isinstance(lam, list):
        if friction != 1:
            yield f"flow.friction = {friction} must be 1 for many flow.lam"
        return
    try:
        given = coefficients_of(lam, friction, until.time)
    except InputError as error:
        yield from (f"flow.{line}" for line in error.problems)
        return
    if given is not None:
        yield from (f"flow.{line}" for line in given.errors())


def until_of(reader: Reader) -> Until | None:
    """Where the flows end, from section ``flow``."""
    import torch

    from dln_momentum.config.spans import numbers_of
    from dln_momentum.flows.options import time_errors
    from dln_momentum.record_plan import MOST_RECORDS

    before = len(reader.errors)
    records, given = reader.value("flow.records", int), reader.value("flow.times", Any)
    time, tol = reader.value("flow.time", float | None), reader.value("flow.tol", float)
    if records is not None and not 2 <= records <= MOST_RECORDS:
        reader.errors.append(f"flow.records = {records} must be in [2, {MOST_RECORDS}]")
    if given is not None:
        found = numbers_of("flow.times", given)
        if isinstance(found, str):
            reader.errors.append(found)
            return None
        times = torch.tensor(found, dtype=torch.float64)
        rising = bool((times.diff() > 0).all())
        if not rising or not times[0] >= 0 or not 0 < times[-1] < math.inf:
            reader.errors.append(
                f"flow.times = {given!r} must be increasing and finite, >= 0, the last one > 0"
            )
        if time is not None:
            reader.errors.append(f"flow.time = {time:g} must be null: flow.times end the flow")
        # the start is recorded in any case
        return Until(float(times[-1]), times[times > 0], None)
    until = Until(math.inf if time is None else time, None, tol or None)
    if tol is not None:
        lines = time_errors(until.time, None, until.tol)
        reader.errors += [f"flow.{line}" for line in lines]
    return until if len(reader.errors) == before else None


def nothing_to_follow(
    config: DictConfig, parts: Parts, until: Until, lams: list[float]
) -> Iterator[str]:
    """Starts that flows do not leave, or that are not theirs."""
    loss, tol = float(parts.problem.loss(parts.net.theta.detach())), until.tol
    if tol is not None and loss <= tol:
        yield f"the start already interpolates: loss {loss:g}, must be > flow.tol = {tol:g}"
    if parts.net.is_deep:
        yield (
            f"model = {config.model.init} has depth {float(parts.net.depth.flatten()[0]):g}: "
            "a flow is of theta = u v, depth 2"
        )
    if 0 in lams and parts.velocity is not None:
        speed = config.model.speed
        yield f"model.speed = {speed:g} must be 0: gradient flow has no speed to choose"
    if parts.velocity is not None and str(config.flow.friction).endswith("/t"):
        speed = config.model.speed
        yield f"model.speed = {speed:g} must be 0: friction b/t is infinite at t = 0"


def infeasible(
    parts: Parts,
    lam: float | list[float] | Annealed,
    until: Until,
    options: FlowOptions,
    friction: float | str,
) -> Iterator[str]:
    """Flows that rounding or the solver's steps keep from their end."""
    import torch

    from dln_momentum.flows.feasibility import flow_errors

    many = isinstance(lam, list)
    w = torch.stack([parts.net.w_plus.detach(), parts.net.w_minus.detach()])
    if many:
        w = w.unsqueeze(1).expand(2, len(lam), -1)
    keys: dict[str, Any] = {"rtol": options.rtol}
    if not many:
        keys["max_steps"] = math.inf if options.method == "implicit" else options.max_steps
    for line in flow_errors(
        parts.problem, w, lam, friction=friction, time=until.time, tol=until.tol, **keys
    ):
        yield f"flow.{line.replace('a time up', 'flow.time up').replace('or lam', 'or flow.lam')}"
