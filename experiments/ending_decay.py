"""Weight decay that ends: what its integral says of the limit, and what it gains.

(docs/theory.md#weight-decay.)

    python -m experiments.ending_decay

Coupled decay omega_k gives Delta the factor exp(-2 sum_k p_k gamma_k omega_k) and leaves c alone,
exactly. It does not leave the path alone, and with it not the path sums S_+-, which are the other
part of Delta_inf and of c. Here the decay is constant until it ends, with the same sum (the
integral of omega over time, I) in a short time or a long one, and then the run goes on to an
interpolator. Three questions: is ln(Delta_0/Delta_inf) what it is without decay, plus 2 I? Is the
limit as sparse as that of a start at alpha exp(-I), whose Delta_0 has the same factor? And is more
gained than by any lambda without decay?

What theory expects: with a decay much faster than the gradient, w obeys heavy ball's linear
recursion, whose rate of decay is omega only where 4 lambda omega is small. It is up to twice that
where 4 lambda omega is about 1, and 1/(2 lambda), whatever omega is, above: there w oscillates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dln_momentum import Problem, Snapshot, Status
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, log_init
from dln_momentum.theory.interpolators import basis_pursuit
from experiments.claim import Outcome, main
from experiments.common import (
    along,
    described,
    engine_over,
    span,
    sparse_problems,
    spreads,
    verdict_of,
    workers,
)
from experiments.ending_decay_figure import draw
from experiments.figures import data_sets, problem_size
from experiments.limits import curvature, minimizer, recovery_error
from experiments.saddle_process import momentum_rate

SECTION = ""
CLAIM = (
    "Coupled weight decay that ends multiplies Delta_inf by exp(-2 I), I = sum_k p_k gamma_k "
    "omega_k, beside its path sums; I alone explains Delta_inf, whatever omega, the step at which "
    "it ends and lambda, and the limit is as sparse as from a start at alpha exp(-I)."
)
CAPTION = (
    "(a), (b) ln(Delta_0/Delta_inf) less what it is without decay, over 2 I: 1 if I alone explains "
    "it; dashed the rate of the linear recursion over omega. (c), (d) l1 norm above the least one, "
    "over that from a start at alpha exp(-I). Filled to hollow: I as in the settings. (e), (f) The "
    "same excess over lambda: without decay, from the smaller alpha, and with decay, all at the "
    "largest I. Medians over data sets (and coordinates); bars are quartiles."
)
LONG_NAMES = {
    "explained": "(ln(Delta_0/Delta_inf) - the same without decay)/(2 I), median over coordinates",
    "identity": "larger of the KKT residual and |predicted Delta_K/Delta_K - 1|",
    "excess": "||theta||_1 / min ||theta||_1 - 1; nan where not converged",
    "excess_without": "the same, without decay",
    "excess_direct": "the same, from a start at alpha exp(-I) without decay",
    "error": "||theta - theta*||_2; error_without and error_direct likewise",
    "steps": "steps to the tolerance; steps_without and steps_direct likewise",
    "omega": "the decay",
    "linear": "rate at which the linear recursion decays, over omega",
}


def study(config: DictConfig) -> Outcome:
    """Every design, lambda, duration and integral on all data sets."""
    parts = []
    for design in config.designs:
        keys: Any = OmegaConf.to_container(config.designs[design])
        problems = sparse_problems(config.n, config.d, config.s, config.data_seeds, **keys)
        found = [_at_lambda(problems, lam, config) for lam in config.lams]
        parts.append(along("lam", config.lams, found))
    results = along("design", config.designs, parts)
    results = results.assign_coords(data_seed=range(config.data_seeds))
    return _judge(config, described(results, **LONG_NAMES))


def _at_lambda(problems: Sequence[Problem], lam: float, config: DictConfig) -> xr.Dataset:
    """Runs with decay, from smaller alphas, and with neither."""
    largest = max(float(2 * top * size) for top, size in map(curvature, problems))
    eps = config.resolution * min(lam, 2 * math.sqrt(lam / largest))
    gamma, beta = gamma_beta(lam=lam, eps=eps)
    alphas = [config.alpha * math.exp(-integral) for integral in (0, *config.integrals)]
    plain = _ends(problems, gamma, beta, alphas, None, config)
    columns: list[xr.Dataset] = []
    for duration in config.durations:
        steps = math.ceil(duration * (1 + lam) / eps)
        # once the decay is long over, p_k = 1/(1-beta) at each of its steps
        omega = [integral / (eps * steps) for integral in config.integrals]
        each = torch.tensor(omega, dtype=torch.float64).repeat_interleave(len(problems))
        method = Method(weight_decay=each, decay_until=steps)
        starts = [config.alpha] * len(omega)
        decayed = _ends(problems, gamma, beta, starts, method, config)
        columns.append(_compare(decayed, plain, omega, (gamma, beta), config))
    return along("duration", config.durations, columns)


def _ends(
    problems: Sequence[Problem],
    gamma: float,
    beta: float,
    alphas: Sequence[float],
    method: Method | None,
    config: DictConfig,
) -> dict[str, Tensor]:
    """What runs end at, [alpha, data, ...]: alphas slowest, problems fastest."""
    copies, each = len(problems), stack(list(problems) * len(alphas))
    end = engine_over(
        list(problems) * len(alphas), gamma, beta, np.repeat(alphas, copies),
        method=method, tol=config.tol, num_workers=workers(config),
    ).run(config.max_steps)  # fmt: skip
    delta, theta = limit(end, each)
    least = basis_pursuit(problems[0].X if copies == 1 else each.X[:copies], each.y[:copies])
    identity = (end.predicted_balancedness / end.balancedness - 1).abs().amax(-1)
    found = {
        "gain": (end.balancedness_start / delta).log(),
        "excess": theta.abs().sum(-1) / least.abs().sum(-1).repeat(len(alphas)) - 1,
        "error": recovery_error(theta, each),
        "steps": torch.where(theta.isnan().any(-1), torch.nan, end.steps.double()),
        "identity": torch.maximum(identity, end.certificate(each)),
    }
    return {key: value.unflatten(0, (len(alphas), copies)) for key, value in found.items()}


def limit(end: Snapshot, problem: Problem) -> tuple[Tensor, Tensor]:
    """Delta_inf and theta_inf of the runs that converged to their tolerance, nan for the others.

    As `experiments.limits.limits`. Path sums with the weights of the horizon K have no boundary
    term; what they miss of those with p_k = 1/(1-beta) is one at K.
    """
    sums, factor = end.path_sums, torch.ones_like(end.gamma)
    if isinstance(end, FamilySnapshot):
        sums = sums - end.beta / (1 - end.beta) * (1 - end.previous / end.w)
        factor = end.balancedness_factor
    delta = factor * asymptotic_balancedness(end.balancedness_start, sums[0], sums[1])
    c = log_init(end.w_start[0], end.w_start[1], sums[0], sums[1])
    known = (end.status == int(Status.CONVERGED)) & ((delta > 0) & delta.isfinite()).all(-1)
    known = known[:, None]
    theta = minimizer(problem, torch.where(known, delta, 1.0), torch.where(known, c, 0.0))
    return torch.where(known, delta, torch.nan), torch.where(known, theta, torch.nan)


def _compare(
    decayed: dict[str, Tensor],
    plain: dict[str, Tensor],
    omega: Sequence[float],
    rates: tuple[float, float],
    config: DictConfig,
) -> xr.Dataset:
    """One duration of the decay against no decay and the smaller alphas."""
    twice = 2 * torch.tensor(config.integrals, dtype=torch.float64)[:, None, None]
    explained = ((decayed["gain"] - plain["gain"][0]) / twice).median(-1).values
    dims = ("integral", "data_seed")
    rate = momentum_rate(*rates)
    values: dict[str, Any] = {
        "explained": (dims, explained.numpy()),
        "identity": (dims, decayed["identity"].numpy()),
        "omega": ("integral", np.array(omega)),
        "linear": ("integral", [float(-rate(np.array(-one)) / one) for one in omega]),
    }
    for key in ("excess", "error", "steps"):
        values[key] = (dims, decayed[key].numpy())
        values[f"{key}_direct"] = (dims, plain[key][1:].numpy())
        values[f"{key}_without"] = ("data_seed", plain[key][0].numpy())
    return xr.Dataset(values, coords={"integral": list(config.integrals)})


def parts_of(results: xr.Dataset, config: DictConfig) -> xr.Dataset:
    """What holds in each cell (design, lambda, duration, integral); medians over data sets.

    Cells in which fewer than half of the runs converged are judged by none of it: ``known``.
    """
    known = (results["excess"] + results["excess_direct"] + results["excess_without"]).notnull()
    typical = results.where(known).median("data_seed")
    away = abs(results["explained"] - 1).median("data_seed")
    over = (results["excess"] / results["excess_direct"]).median("data_seed")
    sparser = (results["excess"] < results["excess_without"]).where(known).mean("data_seed")
    best = typical["excess_without"].min("lam")
    return xr.Dataset(
        {
            "known": known.mean("data_seed") >= 0.5,
            "explained": away <= config.explained,
            "as_sparse": over <= config.as_sparse,
            "sparser_than_without": sparser >= config.share,
            "sparser_than_any_lambda": typical["excess"] < best,
            "slow": 4 * results["lam"] * results["omega"] <= config.slow,
        }
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    parts = parts_of(results, config)
    known = parts["known"]
    exact = bool((results["identity"] <= config.exact).all())
    passed = known & parts["explained"] & parts["as_sparse"]
    shape = ("design", "lam", "duration", "integral", "data_seed")
    measured = {
        "largest_error_of_the_identity": float(results["identity"].max()),
        "cells_of_which_half_converged": int(known.sum()),
        "cells": {
            "slow decay": _counts(parts, known & parts["slow"]),
            "fast decay": _counts(parts, known & ~parts["slow"]),
        },
        "explained": spreads(results["explained"].transpose(*shape)),
        "rate_of_the_linear_recursion_over_omega": spreads(
            results["linear"].isel(design=0).transpose(*shape[1:-1])
        ),
        "steps_over_those_from_the_smaller_alpha": spreads(
            (results["steps"] / results["steps_direct"]).transpose(*shape)
        ),
        "l1_excess": spreads(results["excess"].transpose(*shape)),
        "l1_excess_without_decay": spreads(
            results["excess_without"].isel(duration=0).transpose("design", "lam", "data_seed")
        ),
        "l1_excess_from_the_smaller_alpha": spreads(
            results["excess_direct"].isel(duration=0).transpose(*shape[:2], *shape[3:])
        ),
        "recovery_error": spreads(results["error"].transpose(*shape)),
        "recovery_error_from_the_smaller_alpha": spreads(
            results["error_direct"].isel(duration=0).transpose(*shape[:2], *shape[3:])
        ),
    }
    size = problem_size(config.n, config.d, config.s, config.alpha)
    return Outcome(
        verdict=verdict_of(int(passed.sum()) if exact else 0, passed.size),
        finding=_finding(config, results, parts),
        sizes=data_sets(config.data_seeds, size),
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION,
        notes=_notes(config),
    )


def _counts(parts: xr.Dataset, among: xr.DataArray) -> dict[str, int]:
    """In how many cells each part holds."""
    keys = ("explained", "as_sparse", "sparser_than_without", "sparser_than_any_lambda")
    return {"cells": int(among.sum())} | {key: int((parts[key] & among).sum()) for key in keys}


def _notes(config: DictConfig) -> list[str]:
    return [
        f"Explained: the median error of ln(Delta_0/Delta_inf), over 2 I, is at most "
        f"{config.explained:g}. As sparse: the median of the l1 excess over that from alpha "
        f"exp(-I), at the same lambda, is at most {config.as_sparse:g}. Cells (design, lambda, "
        "duration, I) need both, and half of their runs converged.",
        f"Slow: 4 lambda omega is at most {config.slow:g}. The linear recursion then decays at "
        "about the rate omega; it decays faster than omega up to 4 lambda omega = 1, and "
        "oscillates above, where omega no longer sets the rate. The part of Delta_inf that I does "
        "not explain is in the path sums, and the identity with them is exact in every run.",
        "Limits are minimisers at the Delta_inf and c of a run that has reached the tolerance; "
        "runs that have not are left out.",
    ]


def _finding(config: DictConfig, results: xr.Dataset, parts: xr.Dataset) -> str:
    known = parts["known"]
    slow, fast = (_counts(parts, known & s) for s in (parts["slow"], ~parts["slow"]))
    typical = results["explained"].median("data_seed").where(known)
    steps = (results["steps"] / results["steps_direct"]).median("data_seed").where(known)
    share = typical.to_numpy()
    return (
        f"The identity holds to {float(results['identity'].max()):.0e}; I alone explains "
        f"ln(Delta_0/Delta_inf) within {config.explained:.0%} in {slow['explained']} of "
        f"{slow['cells']} cells with 4 lambda omega <= {config.slow:g} and {fast['explained']} of "
        f"{fast['cells']} others ({span(share[np.isfinite(share)], 2)} of 2 I), with limits as "
        f"sparse as from alpha exp(-I) in {slow['as_sparse']} and {fast['as_sparse']}, sparser "
        f"than any lambda's without decay in {slow['sparser_than_any_lambda']} and "
        f"{fast['sparser_than_any_lambda']}; steps: {float(steps.median()):.2g} times."
    )


if __name__ == "__main__":
    main("ending_decay", SECTION, CLAIM, study)
