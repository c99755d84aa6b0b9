"""Statistics of runs over seeds, or over any other key, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dln_momentum.arrays import is_real
from dln_momentum.errors import raise_if_any
from dln_momentum.nearest import did_you_mean
from dln_momentum.outputs.found import Job, hashable, is_setting
from dln_momentum.rates import RATES

FAILED = ("diverged", "invalid", "failed")
"""Endings of a run or a flow that leave no number to compare."""

DATA_SEED = {"data_seed", "data.seed"}
"""The names of the seed of the data: with it, the data of a group differ."""

INPUTS = ("n", "d", "rank", "alpha", "batch_size", *RATES, "lam_ks", "seed", "data_seed")
"""Numbers that go into a run. Where a group shares one, it is a column of its own."""


def aggregate(
    table: pd.DataFrame,
    settings: Sequence[str],
    over: Sequence[str],
    unfinished: Sequence[Job] = (),
    quantiles: Sequence[float] = (0.25, 0.75),
) -> pd.DataFrame:
    """A row for each group of runs that differ in the keys ``over`` alone; see `collect`.

    A run that is there several times, with the same settings and data, counts once;
    ``attrs["repeated"]`` is the number of rows that this leaves out.

    Args:
        table: a row for each run.
        settings: the columns that are keys of the configs.
        over: the keys to aggregate over.
        unfinished: jobs without a result; one counts as a failure of the group that its config
            belongs to, and makes a group of its own where there is none.
        quantiles: those that are given beside the median.

    Raises:
        InputError: for a key that no run has, or a quantile outside [0, 1].
    """
    unfinished = [job for job in unfinished if not any("sweep." in key for key in job.config)]
    lost = {key for job in unfinished for key in job.config}
    known = [*dict.fromkeys([*settings, *map(str, table.columns), *sorted(lost)])]
    raise_if_any(
        [
            *(
                f"over = {name!r} is no key of any run{did_you_mean(name, known)}"
                for name in over
                if name not in known and name not in DATA_SEED | {"seed"}
            ),
            *(
                f"quantile = {q!r} must be in [0, 1]"
                for q in quantiles
                if not (is_real(q) and 0 <= q <= 1)
            ),
        ]
    )
    taken = set(over) | (DATA_SEED if DATA_SEED & set(over) else set())
    keys = [key for key in settings if is_setting(key) and key not in taken]
    data = [] if DATA_SEED & set(over) else ["data_hash"]
    groups = ["kind", *data, *keys]
    numbers = _numbers(table, {*groups, *taken, *settings})
    # lists must be comparable too
    own = [key for key in settings if is_setting(key)]
    texts = [key for key in own if table[key].dtype == object]
    rows: Any = table.assign(**{key: table[key].map(hashable) for key in texts})
    own = ["kind", "data_hash", *dict.fromkeys([*own, *(key for key in INPUTS if key in table)])]
    repeated = rows.duplicated(own)
    rows = rows[~repeated]
    fine = ~rows["status"].isin(FAILED)
    grouped = rows.assign(_fine=fine, _converged=rows["status"] == "converged").groupby(
        groups, dropna=False, sort=False
    )
    counted = pd.DataFrame(
        {
            "count": grouped.size(),
            "converged": grouped["_converged"].sum(),
            "failures": grouped.size() - grouped["_fine"].sum(),
        }
    )
    usable: Any = rows.where(fine, np.nan)[numbers].astype(float)
    by = [rows[name] for name in groups]
    parts = [counted]
    shared = [name for name in INPUTS if name in numbers]
    alike = (rows.groupby(groups, dropna=False)[shared].nunique() <= 1).all()
    kept = [name for name in shared if alike[name]]
    parts.append(rows[kept].groupby(by, dropna=False, sort=False).first())
    rest = usable.drop(columns=kept)
    named = {"median": 0.5} | {f"q{100 * q:g}": q for q in quantiles}
    found = {
        suffix: rest.groupby(by, dropna=False, sort=False).quantile(q)
        for suffix, q in named.items()
    }
    columns = {f"{name}_{suffix}": found[suffix][name] for name in rest for suffix in named}
    parts.append(pd.DataFrame(columns, index=counted.index))
    result = pd.concat(parts, axis=1).reset_index()
    result = result.dropna(axis="columns", how="all")
    result = _with_unfinished(result, groups, keys, unfinished)
    result.attrs = {**table.attrs, "repeated": int(repeated.sum())}
    return result


def _numbers(table: pd.DataFrame, apart: set[str]) -> list[str]:
    """The columns of numbers that are results, or inputs that follow from settings."""
    return [
        str(name)
        for name, column in table.items()
        if column.dtype.kind in "iuf" and name not in apart and column.notna().any()
    ]


def _with_unfinished(
    found: pd.DataFrame, groups: Sequence[str], keys: Sequence[str], unfinished: Sequence[Job]
) -> pd.DataFrame:
    """The groups, with the jobs that left no result among their failures."""
    added: dict[tuple[Any, ...], int] = {}
    places: dict[tuple[Any, ...], list[Any]] = {}
    # a frame without columns has rows only in newer versions of pandas
    some = found.reindex(columns=list(keys)).itertuples(index=False)
    rows = some if keys else [()] * len(found)
    for place, row in zip(found.index, rows, strict=True):
        places.setdefault(tuple(map(hashable, row)), []).append(place)
    for job in unfinished:
        if not job.config:
            continue
        here = tuple(hashable(job.config.get(key)) for key in keys)
        if len(places.get(here, [])) == 1:
            found.loc[places[here][0], "failures"] += 1
        elif here not in places:
            added[here] = added.get(here, 0) + 1
    if not added:
        return found
    rows = [
        dict(zip(keys, here, strict=True)) | {"count": 0, "converged": 0, "failures": number}
        for here, number in added.items()
    ]
    return pd.concat([found, pd.DataFrame(rows)], ignore_index=True)
