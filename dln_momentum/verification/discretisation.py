"""MGD(gamma, beta) as a scheme of two flows, and the acceleration rule.

(docs/theory.md#order and docs/theory.md#acceleration-rule; poster, sections 1 and 2.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dln_momentum.flows import DiscretisationOrders, discretisation_orders
from dln_momentum.rates import Momentum
from dln_momentum.theory.reference import reference_iterates
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP, at_rest, full_batch
from dln_momentum.verification.statement import Statement, equal

STEPS = 200
"""Steps of the coarsest of the compared runs; the others take twice and four times as many."""
TOLERANCE = 0.1
"""Steps of a tenth of the fastest scale leave the measured orders within 0.03 of 1 and 2."""
SOLVED = 5e-12
"""Error of the flows by DOP853, relative to the largest w_+-: fifty local errors of 1e-13."""


def orders(m: Measurements) -> list[Statement]:
    """The proposition: order 1 against MGF(lambda), order 2 against MGF(lambda_KS)."""
    names = (
        "MGD(gamma, beta) follows MGF(lambda): order in eps",
        "MGD(gamma, beta) follows MGF(lambda_KS) half a step later: order in eps",
    )
    needs = full_batch(m), at_rest(m)
    if not all(hypothesis.met for hypothesis in needs):
        return [Statement(name, 1, needs, predicted=i + 1.0) for i, name in enumerate(names)]
    found = _orders(m)
    part, lost = _compared_part(m), SOLVED * _largest(m)
    return [
        equal(
            name, 1, needs, predicted=i + 1.0, measured=_order_in_the_limit(errors[::-1]),
            tolerance=_order_tolerance(lost, errors[-1]), judged=part,
        )
        for i, (name, errors) in enumerate(zip(names, (found.errors, found.errors_ks), strict=True))
    ]  # fmt: skip


def acceleration_rule(m: Measurements) -> Statement:
    """rho^2 gamma, 1 - rho (1 - beta): the same path in 1/rho as many steps, up to O(eps).

    The distance of the paths of rho = 4 and rho = 2 is twice that of rho = 2 and rho = 1, which is
    twice that of 1 and 1/2, in the limit of short steps.
    """
    name = "rho^2 gamma, 1 - rho (1-beta) follow the path of gamma, beta: order in eps"
    needs = full_batch(m), at_rest(m)
    if not all(hypothesis.met for hypothesis in needs):
        return Statement(name, 2, needs, predicted=1.0)
    slow = Momentum.from_pair(lam=m.momentum.lam, eps=_coarse_step(m) / 4)
    factors = (0.5, 1, 2, 4)
    faster = [slow.accelerated(rho) for rho in factors]
    paths = [
        _path(m, one, round(4 * STEPS / rho)) for one, rho in zip(faster, factors, strict=True)
    ]
    # every path at the times of the coarsest
    common = [path[stride - 1 :: stride] for path, stride in zip(paths, (8, 4, 2, 1), strict=True)]
    distances = [float((a - b).abs().max()) for a, b in itertools.pairwise(common)]
    # 1 - beta has the relative rounding of an ulp over it, and moves every step by as much
    lost = 4 * STEPS * ULP * float(paths[-1].abs().max()) / _coarse_step(m) * m.momentum.lam
    order = _order_in_the_limit(distances)
    # paths of lambdas in proportion to rho are as far apart: the order alone does not tell
    kept = [abs(one.gamma / (1 - one.beta) ** 2 / m.momentum.lam - 1) for one in faster]
    return equal(
        name,
        2,
        needs,
        predicted=1.0,
        measured=order,
        error=torch.tensor([abs(order - 1), max(kept)], dtype=torch.float64),
        # twice the rounding of 1 - beta = eps/lambda, in the slowest pair and as it is scaled
        tolerance=torch.tensor(
            [_order_tolerance(lost, distances[0]), 16 * ULP * slow.lam / (slow.eps / 2)],
            dtype=torch.float64,
        ),
        judged=_compared_part(m),
    )


def _order_in_the_limit(errors: Sequence[float]) -> float:
    """The order as eps -> 0, of the errors at three steps, each twice the one before.

    An error ``a eps^p (1 + b eps + ...)`` has the order p + O(eps) between two steps, and half that
    rest between the two that are half as long.

    >>> _order_in_the_limit([1.0, 2.0, 4.0]), _order_in_the_limit([1.0, 1.0, 1.0])
    (1.0, 0.0)
    """
    if not all(errors):
        return math.nan
    fine, coarse = (math.log2(b / a) for a, b in itertools.pairwise(errors))
    return 2 * fine - coarse


def _order_tolerance(lost: float, least: float) -> float:
    """Of the order, where the smallest of the errors is itself wrong by as much as ``lost``.

    Such a share s of it changes the two orders by s/ln 2 and s/(2 ln 2), with either sign.
    """
    return TOLERANCE + 4 * lost / least if least else math.inf


def _largest(m: Measurements) -> float:
    """The largest |w_+-| in the compared time."""
    coarse = Momentum.from_pair(lam=m.momentum.lam, eps=_coarse_step(m))
    return float(_path(m, coarse, STEPS).abs().max())


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


def _compared_part(m: Measurements) -> str:
    return f"for t <= {STEPS * _coarse_step(m):.4g}, at steps of the order's own"
