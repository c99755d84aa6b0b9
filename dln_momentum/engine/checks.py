"""What does not fit together in the arguments of an engine, one line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.problems import Problems, first_of
from dln_momentum.method import Method
from dln_momentum.problem import Problem

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise


def faults(
    problem: Problem | Problems,
    gamma: Tensor,
    beta: Tensor,
    w_plus: Tensor,
    w_minus: Tensor,
    previous: tuple[Tensor, Tensor] | None,
) -> Iterator[str]:
    """Shapes, types and ranges of the rates and the iterates."""
    runs = (gamma.numel(),)
    rates = {"gamma": gamma, "beta": beta}
    iterates = {"w_plus": w_plus, "w_minus": w_minus}
    if previous is not None:
        iterates |= {"previous[0]": previous[0], "previous[1]": previous[1]}
    for name, tensor in (rates | iterates).items():
        shape = runs if name in rates else (*runs, first_of(problem).d)
        if tensor.shape != shape or tensor.dtype != torch.float64 or runs == (0,):
            yield f"{name} is {list(tensor.shape)} {tensor.dtype}; must be {list(shape)} float64"
    if isinstance(problem, Problems):
        if len(problem.index) != runs[0]:
            yield f"problem: index has {len(problem.index)} entries, one for each of {runs[0]} runs"
    elif tuple(problem.runs) not in ((), runs):
        yield f"problem is a stack of {list(problem.runs)}; must be one, or one for each run"
    if not bool(((gamma > 0) & gamma.isfinite()).all()):
        yield "gamma must be finite and > 0"
    # the leapfrog scheme has a beta below 0
    if not bool((beta.abs() < 1).all()):
        yield "beta must be in (-1, 1)"


def family_faults(
    problem: Problem | Problems,
    gamma: Tensor,
    beta: Tensor,
    method: Method,
    options: EngineOptions,
    label_noise: LabelNoise | None,
) -> Iterator[str]:
    """What a method or a loss needs beside them."""
    first = first_of(problem)
    yield from method.problems(gamma, beta)
    if not bool((beta >= 0).all()):
        yield "beta must be in [0, 1) for a method other than the poster's"
    if options.path_sums != "telescoped":
        yield (
            f"path_sums = {options.path_sums!r} must be 'telescoped' for a method or a loss other "
            "than the poster's"
        )
    if method.kappa is not None and len(method.kappa) != first.d:
        yield f"method.kappa has {len(method.kappa)} entries, must have d = {first.d}"
    if isinstance(problem, Problems) and len({each.loss_name for each in problem.each}) > 1:
        yield "problem: all problems must have the same loss"
    if first.loss_name != "squared" and label_noise is not None:
        yield f"label noise needs loss = 'squared', not {first.loss_name!r}: it changes targets"
