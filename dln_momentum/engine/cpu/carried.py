"""What the compiled kernels are given, in groups.

Named tuples of arrays: compiled code takes them as it takes arrays, and their fields cost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Carried(NamedTuple):
    """What a step changes: of all runs in the layout of `State`, or of some in a kernel's own."""

    w: np.ndarray
    p: np.ndarray
    residual_sum: np.ndarray
    sums: np.ndarray
    """S_+- or its telescoped sum, as in `State.path_sums`; empty if neither is summed"""
    products: np.ndarray
    """dw_+ dw_-; empty if they are not summed"""


class Buffers(NamedTuple):
    """What a kernel keeps of a panel, or of a run, between two passes over it; flat."""

    beta: np.ndarray
    gradient: np.ndarray
    theta: np.ndarray
    sign_changes: np.ndarray
    """int64; of each entry, or of all rows in the first row of `LANES` entries"""
    scratch: np.ndarray
    """twice the length of the others"""


class Panels(NamedTuple):
    """X/sqrt(n) in panels of rows and columns, which stay in the cache while they are used."""

    A: np.ndarray
    """each panel stored row by row, flat: first all panels of the first columns"""
    columns: np.ndarray
    rows: np.ndarray
    """where the panels start, and the end"""
    size: int
    """LANES times the columns of the widest panel"""


class Endings(NamedTuple):
    """When a run has ended, and what is written of it then; [R] but for the tolerance."""

    tol: float
    ceiling: np.ndarray
    gamma: np.ndarray
    loss: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    sign_changes: np.ndarray


class Drawn(NamedTuple):
    """Random inputs of some steps; of no steps where there are none."""

    batches: np.ndarray
    """the rows in each batch, [steps, R_t or 1, |B|] int64"""
    noise: np.ndarray
    """label noise, [steps, R_t or 1, n]"""
    noise_scale: np.ndarray
    """what the noise is times in the scale of the targets, [R_t]"""
