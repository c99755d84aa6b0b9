"""Why a run diverged, in a line: its step size beside the largest one that is stable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAMES = ("initial_sharpness", "limit_sharpness", "stable_gamma", "unstable_step")
"""What `stability` measures of a run that diverged; None of any other."""


def why_diverged(s: Mapping[str, Any]) -> str:
    """One line on a run that diverged, from the numbers of its summary.

    >>> why_diverged({
    ...     "gamma": 0.5, "stable_gamma": 0.25, "initial_sharpness": 2.0, "limit_sharpness": 15.2,
    ...     "unstable_step": 20, "method": "heavy_ball", "schedule": "constant",
    ...     "weight_decay": 0.0, "dampening": 0.0,
    ... })
    'gamma = 0.5 > 0.25 = 2 (1 + beta)/15.2, the largest stable step where gradient flow ends'
    """
    initial, limit, stable = (math.nan if s[name] is None else s[name] for name in NAMES[:3])
    at_start = not limit > initial
    steepest = initial if at_start else limit
    place = "at the start" if at_start else "where gradient flow ends"
    if not math.isfinite(stable):
        known = steepest > 0 and s["schedule"] != "constant"
        return "its last step has size 0" if known else f"no sharpness is known {place}"
    sign = "=" if s["gamma"] == stable else ">" if s["gamma"] > stable else "<"
    unlike = "; the path may have been sharper"
    if s["unstable_step"] is not None:
        unlike = f"; at step {s['unstable_step']} the path is too sharp for it"
    unlike = "" if sign == ">" else unlike
    base = (
        "" if s["schedule"] == "constant" else f" at the last gamma_k of schedule {s['schedule']}"
    )
    batches = s.get("batch_size")
    full = "" if batches in (None, s.get("n")) else ", of the full batch"
    return (
        f"gamma = {s['gamma']:.4g} {sign} {stable:.4g} = {_formula(s, steepest)}, the largest "
        f"stable step {place}{base}{full}{unlike}"
    )


def _formula(s: Mapping[str, Any], steepest: float) -> str:
    """The bound of the step size by the method's own threshold."""
    H, omega = f"{steepest:.4g}", s["weight_decay"]
    if omega:
        H = f"({H} + what weight decay {omega:g} adds)"
    if s["method"] == "nesterov":
        return f"2 (1 + beta)/(1 + 2 beta)/{H}"
    if s["dampening"]:
        return f"2 (1 + beta)/(1 - {s['dampening']:g})/{H}"
    return f"2 (1 + beta)/{H}"
