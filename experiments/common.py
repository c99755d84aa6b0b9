"""Problems, runs and spreads that several experiments share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import (
    DiagonalLinearNet,
    Engine,
    EngineOptions,
    Momentum,
    Problem,
    Snapshot,
    sparse,
)
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.parallel import physical_cores
from dln_momentum.engine.problems import Problems
from dln_momentum.method import Method

Rates = float | Sequence[float] | np.ndarray
"""One number for all runs, or one a run."""

SMALL: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "figure.titlesize": 8,
}
"""Font sizes, as matplotlib settings, of a figure with many panels on a page's width of 7.2 in."""


def workers(config: DictConfig) -> int:
    """Threads for the engine: ``num_workers`` of the config, or every physical core."""
    return config.num_workers or physical_cores()


def sparse_problems(n: int, d: int, s: int, seeds: int, **keys: Any) -> list[Problem]:
    """Sparse-recovery problems of data seeds 0, 1, ..."""
    return [sparse(n, d, s, seed=seed, **keys) for seed in range(seeds)]


def engine_over(
    problems: Sequence[Problem],
    gamma: Rates,
    beta: Rates,
    alpha: Rates = 0.1,
    *,
    batches: BatchStream | None = None,
    label_noise: LabelNoise | None = None,
    method: Method | None = None,
    **options: Any,
) -> Engine:
    """An engine with one uniformly initialised run for each problem.

    Args:
        problems: R problems; one alone is shared by as many runs as the rates have entries.
        gamma, beta: numbers, or R of them.
        alpha: initialisation scale, a number or R of them.
        batches, label_noise: the streams of the runs, if any.
        method: the member of the family; None for heavy ball at constant rates.
        **options: of `EngineOptions`.
    """
    rates = [torch.as_tensor(r, dtype=torch.float64).reshape(-1) for r in (gamma, beta, alpha)]
    runs = max(len(problems), *(len(rate) for rate in rates))
    unit = DiagonalLinearNet.uniform(problems[0].d, 1.0, runs=(runs,))
    return Engine(
        grouped(problems),
        rates[0].expand(runs).clone(),
        rates[1].expand(runs).clone(),
        rates[2][:, None] * unit.w_plus.detach(),
        rates[2][:, None] * unit.w_minus.detach(),
        batches=batches,
        label_noise=label_noise,
        method=method,
        options=EngineOptions(**options),
    )


def grouped(problems: Sequence[Problem]) -> Problem | Problems:
    """One problem, or several with the runs that have the same one in a group.

    Runs of a group share their matrix products, which takes half the time at the same bits.
    """
    if len(problems) == 1:
        return problems[0]
    each = list({id(problem): problem for problem in problems}.values())
    places = {id(problem): place for place, problem in enumerate(each)}
    return Problems(each, torch.tensor([places[id(problem)] for problem in problems]))


def engine_over_rules(
    problems: Sequence[Problem], rules: Sequence[Momentum], alpha: float = 0.1, **options: Any
) -> Engine:
    """An engine with one run for each rule and problem: rules slowest, problems fastest."""
    gammas = [rule.gamma for rule in rules for _ in problems]
    betas = [rule.beta for rule in rules for _ in problems]
    return engine_over(list(problems) * len(rules), gammas, betas, alpha, **options)


def snapshots(engine: Engine, steps: Iterable[int]) -> Iterator[Snapshot]:
    """The engine after each of these increasing numbers of steps, ended runs as they ended."""
    taken = 0
    for step in steps:
        if step > taken:
            engine.advance(step - taken)
        taken = step
        yield engine.snapshot()


def verdict_of(passed: int, total: int) -> str:
    """The verdict on a claim that holds in so many of all cases.

    >>> [verdict_of(passed, 3) for passed in range(4)]
    ['not seen', 'confirmed in part', 'confirmed in part', 'confirmed']
    """
    return "confirmed" if passed == total else "confirmed in part" if passed else "not seen"


def span(values: Iterable[float], digits: int = 3) -> str:
    """The least and the largest of some numbers, as text.

    >>> span([2.0, 1.0, 4.0]), span([2.0, 2.0])
    ('1 to 4', '2')
    """
    numbers = np.asarray(list(values), dtype=float)
    ends = [f"{end:.{digits}g}" for end in (numbers.min(), numbers.max())]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def listed(texts: Iterable[Any]) -> str:
    """Texts or numbers as a list in words.

    >>> listed(["a", "b", "c"]), listed([0.5]), listed([])
    ('a, b and c', '0.5', 'none')
    """
    *most, last = [text if isinstance(text, str) else f"{text:g}" for text in texts] or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def along(dim: str, places: Iterable[Any], parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Parts along a new dimension with these coordinates; what only some have is nan elsewhere."""
    return cast(xr.Dataset, xr.concat(parts, xr.IndexVariable(dim, list(places)), join="outer"))


def described(results: xr.Dataset, **long_names: str) -> xr.Dataset:
    """The same data, each named variable with what it is and in which unit."""
    for name, text in long_names.items():
        results[name].attrs["long_name"] = text
    return results


def spread(values: ArrayLike | Tensor) -> list[float]:
    """[lower quartile, median, upper quartile] of the finite values."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return [float("nan")] * 3
    return [float(q) for q in np.quantile(finite, [0.25, 0.5, 0.75])]


def spreads(values: xr.DataArray, over: str = "data_seed") -> Any:
    """`spread` over data sets, nested by the names of the other dimensions.

    >>> data = xr.DataArray([[1.0, 2.0, 3.0]], coords={"lam": [0.5]}, dims=["lam", "data_seed"])
    >>> spreads(data)
    {'lambda=0.5': [1.5, 2.0, 2.5]}
    """
    rest = [str(dim) for dim in values.dims if dim != over]
    if not rest:
        return spread(values.to_numpy()) if over in values.dims else float(values)
    places = values[rest[0]].to_numpy()
    return {_place(rest[0], k): spreads(values.sel({rest[0]: k}), over) for k in places}


def _place(dim: str, value: Any) -> str:
    """A name as it is; a number with what it is a number of."""
    if isinstance(value, str):
        return str(value)
    return f"{'lambda' if dim == 'lam' else dim}={value:g}"


def band(values: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile along an axis, nan left out."""
    with warnings.catch_warnings():
        # where all are nan the band is nan too
        warnings.filterwarnings("ignore", "All-NaN slice")
        low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=axis)
    return low, middle, high


def curve_distance(points: np.ndarray, curve: np.ndarray) -> float:
    """Largest distance of points [m, d] to the polygon through the rows of a curve [k, d]."""
    start, edge = curve[:-1], np.diff(curve, axis=0)
    square = np.maximum((edge**2).sum(-1), np.finfo(float).tiny)
    # in products, because [m, k, d] would be large; it rounds at 1e-8 of the size of the points
    along = points @ edge.T - (start * edge).sum(-1)
    offset = (points**2).sum(-1)[:, None] - 2 * points @ start.T + (start**2).sum(-1)
    share = np.clip(along / square, 0, 1)
    gap = (offset - 2 * share * along + share**2 * square).min(1).max()
    return float(np.sqrt(max(gap, 0)))
