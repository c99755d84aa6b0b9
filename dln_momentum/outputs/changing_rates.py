"""gamma_k, beta_k and what follows from them at recorded steps, where they change along a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dln_momentum.method import Method
from dln_momentum.problem import Problem
from dln_momentum.rates import RATES, eps_of, named_rates
from dln_momentum.schedules import Schedule

CHUNK = 2**20
"""Rates that are evaluated at once: steps times runs."""


def rates_at_step(schedule: Schedule, gamma: Tensor, beta: Tensor, step: int) -> dict[str, Tensor]:
    """The rates of the last step taken, or of the first one at step 0, [R] each.

    Args:
        schedule: of the runs; a constant one has no rates that change.
        gamma, beta: of the runs, [R].
        step: steps taken.

    >>> from dln_momentum.schedules import StepDecay
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> found = rates_at_step(StepDecay(every=5, factor=0.5), one, 0.5 * one, step=10)
    >>> {name: value.item() for name, value in found.items()}
    {'gamma_k': 0.5, 'beta_k': 0.5, 'lam_k': 2.0, 'eps_k': 1.0}
    """
    if schedule.is_constant:
        return {}
    rates = named_rates(*(rate[0] for rate in schedule.rates(gamma, beta, max(step, 1), 1)))
    return {f"{name}_k": rates[name] for name in RATES}


def times_at(schedule: Schedule, gamma: Tensor, beta: Tensor, steps: Sequence[int]) -> np.ndarray:
    """The sum of eps_k = gamma_k/(1-beta_k) over the steps taken, in order, [len(steps), R].

    >>> from dln_momentum.schedules import Warmup
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> times_at(Warmup(4), one, 0 * one, [0, 1, 2, 6]).ravel().tolist()
    [0.0, 0.25, 0.75, 4.5]
    """
    found, total, done = [], torch.zeros_like(gamma), 0
    for step in steps:
        while done < step:
            count = min(step - done, max(1, CHUNK // len(gamma)))
            total = total + eps_of(*schedule.rates(gamma, beta, done + 1, count)).sum(0)
            done += count
        found.append(total)
    return torch.stack(found).cpu().numpy()


def method_settings(method: Method, problem: Problem, rates: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of the method of one run beside its rates."""
    gamma, ratio = rates["gamma"], float(method.layer_ratio)
    return {
        "method": method.name,
        "schedule": method.schedule.name,
        "loss_name": problem.loss_name,
        "depth": float(method.depth),
        "weight_decay": float(method.weight_decay),
        "dampening": float(method.dampening),
        "gamma_u": gamma / ratio**0.5,
        "gamma_v": gamma * ratio**0.5,
    }
