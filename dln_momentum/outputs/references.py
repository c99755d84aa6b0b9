"""What the numbers of a run are to be compared with: theta*, and the least l1 norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dln_momentum.outputs.provenance import digest
from dln_momentum.problem import Problem
from dln_momentum.theory.interpolators import basis_pursuit, is_unique
from dln_momentum.theory.max_margin import max_margin

LARGEST_PROGRAM = 250_000
"""Entries of X up to which the linear program is solved: 3 ms at (20, 30), 0.4 to 0.8 s at
(200, 1000). Above it what depends on the least l1 norm is nan."""

_KEPT = 2**12
_found: dict[str, Any] = {}
"""Of the last data sets, by hash, what `_remembered` has computed."""


def references(theta: Tensor, problem: Problem) -> dict[str, Tensor]:
    """theta [R, d] against theta* and against the interpolators of least l1 norm, [R] each.

    ``theta_star_norm`` = ||theta*||_2 and ``relative_recovery_error`` = ||theta - theta*||_2 over
    it; ``least_l1_norm``, the least ||.||_1 with X theta = y, ``l1_excess`` = ||theta||_1 over it,
    minus 1, and ``l1_distance`` = ||theta - its minimiser||_1, nan where that is not unique. They
    are nan without theta*, or for problems beyond `LARGEST_PROGRAM` or of classification. There is
    one linear program for each data set, however many runs and calls there are.

    Of classification the largest margins over a norm, ``max_l1_margin`` and ``max_l2_margin``, are
    added (docs/theory.md#max-margin), which no theta exceeds.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0], theta_star=[2.0, 0.0])
    >>> found = references(torch.tensor([[0.4, 0.8]], dtype=torch.float64), problem)
    >>> {name: round(float(value), 6) for name, value in found.items()}
    {'theta_star_norm': 2.0, 'relative_recovery_error': 0.894427, 'least_l1_norm': 1.0,
     'l1_excess': 0.2, 'l1_distance': 0.6}
    """
    missing = torch.full_like(theta[:, 0], torch.nan)
    star = problem.theta_star
    norm = error = missing
    if star is not None:
        norm = torch.linalg.vector_norm(star, dim=-1).expand_as(missing)
        error = torch.linalg.vector_norm(theta - star, dim=-1)
    minimiser, unique = (value.to(theta.device) for value in least_l1(problem))
    least = minimiser.abs().sum(-1).expand_as(missing)
    distance = (theta - minimiser).abs().sum(-1)
    found = {f"max_{k}_margin": v.to(missing).expand_as(missing) for k, v in _margins(problem)}
    return {
        "theta_star_norm": norm,
        "relative_recovery_error": torch.where(norm > 0, error / norm, torch.nan),
        "least_l1_norm": least,
        "l1_excess": torch.where(least > 0, theta.abs().sum(-1) / least - 1, torch.nan),
        "l1_distance": torch.where(unique, distance, torch.nan),
        **found,
    }


def least_l1(problem: Problem) -> tuple[Tensor, Tensor]:
    """The interpolator of least l1 norm, [*runs, d], and whether it is unique, [*runs].

    It is nan beyond `LARGEST_PROGRAM`, and for classification, which does not interpolate. What was
    found is remembered by the content of X and y: the copies that runs on the same data have, on
    any device, are solved once.
    """
    runs, d = problem.runs, problem.d
    if problem.n * d > LARGEST_PROGRAM or problem.is_classification:
        return torch.full((*runs, d), torch.nan, dtype=torch.float64), torch.zeros(runs).bool()
    found = [_remembered(_least_l1, *pair) for pair in _each_run(problem)]
    theta = torch.stack([pair[0] for pair in found]).reshape(*runs, d)
    return theta, torch.tensor([pair[1] for pair in found]).reshape(runs)


def _least_l1(X: Tensor, y: Tensor) -> tuple[Tensor, bool]:
    theta = basis_pursuit(X, y)
    return theta, bool(is_unique(X, y, theta))


def _margins(problem: Problem) -> Iterator[tuple[str, Tensor]]:
    """The largest margins over the l1 and the l2 norm, [*runs] each; none but of classification."""
    if not problem.is_classification:
        return
    for norm in ("l1", "l2"):
        if problem.n * problem.d > LARGEST_PROGRAM:
            yield norm, torch.full(problem.runs, torch.nan)
            continue
        found = [_remembered(_largest_margin, *pair, norm) for pair in _each_run(problem)]
        yield norm, torch.tensor(found, dtype=torch.float64).reshape(problem.runs)


def _largest_margin(X: Tensor, y: Tensor, norm: str) -> float:
    # margins of at least 1 at the least norm
    return 1 / float(torch.linalg.vector_norm(max_margin(X, y, norm), int(norm[1])))


def _each_run(problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
    X = problem.X.expand(*problem.runs, -1, -1).reshape(-1, problem.n, problem.d)
    y = problem.y.expand(*problem.runs, -1).reshape(-1, problem.n)
    return zip(X, y, strict=True)


def _remembered(solve: Callable[..., Any], X: Tensor, y: Tensor, *options: str) -> Any:
    """What ``solve`` finds for X and y, once for each content of them."""
    key = digest((X, y), f"{solve.__name__}{options}")
    if key not in _found:
        while len(_found) >= _KEPT:
            del _found[next(iter(_found))]
        _found[key] = solve(X.cpu(), y.cpu(), *options)
    return _found[key]


def best_along_path(
    errors: Mapping[str, Tensor], places: Sequence[float], unit: str
) -> dict[str, float | int | None]:
    """The least recovery error and test error of one run or flow at its recorded places.

    Args:
        errors: ``recovery_error`` and ``test_error`` at these places, [T]; what is not recorded may
            be missing.
        places: the steps or times, [T].
        unit: ``step`` or ``time``.

    Returns:
        ``best_recovery_error`` and ``best_test_error``, and the first place of each, as
        ``best_recovery_step``; None for what is not known.

    >>> errors = {"recovery_error": torch.tensor([3.0, 1.0, 2.0]), "test_error": torch.zeros(0)}
    >>> best_along_path(errors, [0, 5, 9], "step")
    {'best_recovery_error': 1.0, 'best_recovery_step': 5,
     'best_test_error': None, 'best_test_step': None}
    """
    found: dict[str, float | int | None] = {}
    for name in ("recovery", "test"):
        column = errors.get(f"{name}_error", torch.zeros(0)).nan_to_num(torch.inf)
        best = int(column.argmin()) if len(column) and bool(column.min() < torch.inf) else None
        found[f"best_{name}_error"] = None if best is None else float(column[best])
        found[f"best_{name}_{unit}"] = None if best is None else places[best]
    return found


def data_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where the data come from, as a config says it: seed, file and noise; None for what it lacks.

    >>> data_settings({"data": {"kind": "sparse", "seed": 3, "noise": 0.1}})
    {'data_seed': 3, 'data_path': None, 'data_noise': 0.1}
    """
    data = config["data"]
    return {f"data_{key}": data.get(key) for key in ("seed", "path", "noise")}
