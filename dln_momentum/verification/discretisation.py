"""MGD(gamma, beta) as a scheme of two flows, and the acceleration rule.

(docs/theory.md#order and docs/theory.md#acceleration-rule; poster, sections 1 and 2.)
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from dln_momentum.flows import DiscretisationOrders, discretisation_orders
from dln_momentum.rates import Momentum
from dln_momentum.theory.reference import reference_iterates
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import at_rest
from dln_momentum.verification.statement import Hypothesis, Statement, equal

STEPS = 200
"""Steps of the coarsest of the compared runs; the others take twice and four times as many."""
TOLERANCE = 0.1
"""Steps of a tenth of the fastest scale leave the measured orders within 0.03 of 1 and 2."""


def orders(m: Measurements) -> list[Statement]:
    """The proposition: order 1 against MGF(lambda), order 2 against MGF(lambda_KS)."""
    names = (
        "MGD(gamma, beta) follows MGF(lambda): order in eps",
        "MGD(gamma, beta) follows MGF(lambda_KS) half a step later: order in eps",
    )
    needs = _hypotheses(m)
    if not all(hypothesis.met for hypothesis in needs):
        return [Statement(name, 1, needs, predicted=i + 1.0) for i, name in enumerate(names)]
    found = _orders(m)
    part, measured = _compared_part(m), (found.order, found.order_ks)
    return [
        equal(name, 1, needs, predicted=i + 1.0, measured=order, tolerance=TOLERANCE, judged=part)
        for i, (name, order) in enumerate(zip(names, measured, strict=True))
    ]


def acceleration_rule(m: Measurements) -> Statement:
    """rho^2 gamma, 1 - rho (1 - beta): the same path in 1/rho as many steps, up to O(eps).

    The distance of the paths of rho = 4 and rho = 2 is twice that of rho = 2 and rho = 1.
    """
    name = "rho^2 gamma, 1 - rho (1-beta) follow the path of gamma, beta: order in eps"
    needs = _hypotheses(m)
    if not all(hypothesis.met for hypothesis in needs):
        return Statement(name, 2, needs, predicted=1.0)
    slow = Momentum.from_pair(lam=m.momentum.lam, eps=_coarse_step(m) / 4)
    paths = [_path(m, slow.accelerated(rho), round(4 * STEPS / rho)) for rho in (1, 2, 4)]
    # every path at the times of the coarsest
    common = [path[stride - 1 :: stride] for path, stride in zip(paths, (4, 2, 1), strict=True)]
    distances = [float((a - b).abs().max()) for a, b in itertools.pairwise(common)]
    return equal(
        name,
        2,
        needs,
        predicted=1.0,
        measured=math.log2(distances[1] / distances[0]) if all(distances) else math.nan,
        tolerance=TOLERANCE,
        judged=_compared_part(m),
    )


def _orders(m: Measurements) -> DiscretisationOrders:
    setting, eps = m.setting, _coarse_step(m)
    return discretisation_orders(
        setting.problem, setting.w_plus, setting.w_minus, m.momentum.lam, STEPS * eps,
        [eps, eps / 2, eps / 4],
    )  # fmt: skip


def _coarse_step(m: Measurements) -> float:
    """A step that resolves both the memory lambda and the fastest oscillation of MGF(lambda)."""
    lam = m.momentum.lam
    return min(lam / 8, 0.1 * math.sqrt(lam / m.curvature))


def _path(m: Measurements, momentum: Momentum, steps: int) -> Tensor:
    """The iterates (u_k, v_k) for k = 2..steps + 1, [steps, 2, d]."""
    w_plus, w_minus = m.setting.w_plus, m.setting.w_minus
    start = ((w_plus + w_minus) / 2, (w_plus - w_minus) / 2)
    iterates = reference_iterates(m.problem, *start, momentum.gamma, momentum.beta)
    return torch.stack([torch.stack(pair) for pair in itertools.islice(iterates, steps)])


def _hypotheses(m: Measurements) -> tuple[Hypothesis, ...]:
    sampled = "batches or label noise" if m.setting.stochastic else "no batches, no label noise"
    full = Hypothesis("every step follows the full gradient", not m.setting.stochastic, sampled)
    return full, at_rest(m)


def _compared_part(m: Measurements) -> str:
    return f"for t <= {STEPS * _coarse_step(m):.4g}, at steps of the order's own"
