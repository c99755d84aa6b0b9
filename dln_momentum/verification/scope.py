"""Which groups of statements are about the setting that is verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.statement import Hypothesis, Statement


def scope(m: Measurements) -> tuple[list[Hypothesis], list[Hypothesis]]:
    """What keeps statements on heavy ball at constant rates, and those on flows, from applying."""
    method, problem = m.setting.method, m.problem
    found = f"method {method.name}, schedule {method.schedule.name}"
    constant = [Hypothesis("heavy ball at constant rates, nothing else", method.is_plain, found)]
    flows = [
        Hypothesis("the squared loss", not problem.is_classification, problem.loss_name),
        Hypothesis("theta = u v", not method.is_deep, f"depth {method.depth}"),
    ]
    return [h for h in constant if not h.met], [h for h in flows if not h.met]


def in_scope(
    group: Callable[[Measurements], Iterator[Statement]],
    m: Measurements,
    unmet: Sequence[Hypothesis],
) -> Iterator[Statement]:
    """The statements of a group, or one that names why none of them applies."""
    if not unmet:
        yield from group(m)
        return
    about = (group.__doc__ or "").splitlines()[0]
    yield Statement(about.rstrip("."), 0, tuple(unmet))
