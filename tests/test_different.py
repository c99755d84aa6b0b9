"""Rows of columns that are alike, against NumPy's comparison of whole rows."""

from __future__ import annotations

import numpy as np
import pytest

from dln_momentum.sweeps.different import different


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_those_of_numpy_in_the_same_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [
        rng.integers(-2, 3, 200),
        np.full(200, 7),
        rng.integers(0, 2, 200).astype(bool),
        rng.choice([0.5, -1.5, 3.0], 200),
        # spans whose product no int64 holds
        *(rng.choice([0, 2**31], 200) for _ in range(3)),
    ]
    found = different(*columns)
    rows = np.column_stack(columns)
    _, first, of_point = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    assert np.array_equal(found.first, first)
    assert np.array_equal(found.of_point, of_point.reshape(-1))
    for number, members in enumerate(found.members()):
        assert np.array_equal(members, np.flatnonzero(of_point.reshape(-1) == number))
    assert len(different(np.zeros(0, int)).first) == 0
