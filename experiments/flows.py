"""Flows of many problems and many lambda, each a task of its own, one process a core; settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from joblib import Parallel, delayed, parallel_config
from omegaconf import DictConfig
from threadpoolctl import threadpool_limits
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Problem
from experiments.common import workers
from experiments.figures import data_sets, problem_size

Task = Callable[..., dict[str, Any]]


def over_grid(
    task: Task, problems: Sequence[Problem], lams: Sequence[float], config: DictConfig
) -> dict[str, Tensor]:
    """``task(problem, lam)`` for every lambda and problem; its values as [lambda, problem, ...].

    Args:
        task: a function of a problem and a lambda that returns numbers or tensors by name.
        problems, lams: the grid.
        config: the experiment's, for its ``num_workers``.
    """
    pairs = [(problem, lam) for lam in lams for problem in problems]
    rows = over(task, pairs, config)
    return {key: value.unflatten(0, (len(lams), len(problems))) for key, value in rows.items()}


def over(task: Task, items: Sequence[tuple[Any, ...]], config: DictConfig) -> dict[str, Tensor]:
    """``task(*item)`` for every item; its values stacked along a first axis."""
    # one thread each: the matrices are so small that a second one only gets in the way
    with threadpool_limits(1):
        jobs = min(workers(config), len(items))
        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            rows = cast(list[dict[str, Any]], Parallel()(delayed(task)(*item) for item in items))
    return {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}


def uniform_start(problem: Problem, alpha: float) -> Tensor:
    """w_+ = w_- of the usual initialisation u_0 = sqrt(2) alpha, v_0 = 0, [d]."""
    return DiagonalLinearNet.uniform(problem.d, alpha).w_plus.detach()


def by_setting(measure: Callable[[Any, DictConfig], xr.Dataset], config: DictConfig) -> xr.Dataset:
    """What is measured in every setting of a config, along the dimension ``setting``."""
    names = xr.DataArray([setting_name(setting) for setting in config.settings], dims="setting")
    parts = [measure(setting, config) for setting in config.settings]
    return xr.concat(parts, names.rename("setting"))


def of_settings(config: DictConfig) -> str:
    """The problem sizes and the number of data sets of a config with ``settings``."""
    sizes = (problem_size(s.n, s.d, s.s, s.alpha) for s in config.settings)
    return data_sets(config.data_seeds, *sizes)


def setting_name(setting: Any) -> str:
    """A setting of n, d, s and alpha, for files and tables."""
    return f"n={setting.n} d={setting.d} s={setting.s} alpha={setting.alpha:g}"


def setting_title(setting: Any) -> str:
    """The same for figures."""
    return rf"n = {setting.n}, d = {setting.d}, s = {setting.s}, $\alpha$ = {setting.alpha:g}"
