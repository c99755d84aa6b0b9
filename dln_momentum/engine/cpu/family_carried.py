"""What the general kernels are given beside `dln_momentum.engine.cpu.carried`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dln_momentum.engine.cpu.registers import LANES

PERIOD = 32 * LANES
"""Entries that a pass takes at once, and for which the rates of their lanes are laid out: they stay
in the level-1 cache. Entry i has the rates of lane ``i % LANES``, of one run in every lane."""


class FamilyCarried(NamedTuple):
    """What a step changes: of all runs in the layout of `State`, or of some in a kernel's own."""

    w: np.ndarray
    p: np.ndarray
    """the last increment, as in `State.p`"""
    residual_sum: np.ndarray
    recent_residual: np.ndarray
    sums: np.ndarray
    recent_sums: np.ndarray
    decays: np.ndarray


class Codes(NamedTuple):
    """`Family`, as the kernels take it."""

    kind: int
    loss: int
    decoupled: bool


class StepArrays(NamedTuple):
    """The rates of the steps and one more, [steps + 1, slots]; one row if all steps share it."""

    step: np.ndarray
    beta: np.ndarray
    decay: np.ndarray


class FamilyBuffers(NamedTuple):
    """What a kernel keeps between two passes over a panel, or a run; flat."""

    gradient: np.ndarray
    theta: np.ndarray
    sign_changes: np.ndarray
    """of each coordinate, int64"""
    scratch: np.ndarray
    """six times `PERIOD`"""


class Laid(NamedTuple):
    """Rates of a step, `PERIOD` entries for each block of lanes."""

    step: np.ndarray
    """what the gradient is times; with D, for `POWER`"""
    beta: np.ndarray
    """what the increment is times: beta_k of heavy ball, beta_{k+1} of Nesterov"""
    decay: np.ndarray
    """coupled decay"""
    shrink: np.ndarray
    """decoupled decay"""
    carry: np.ndarray
    """what the recent sums are times: beta_k, or beta_k/(1 - eta_k)"""
    power: np.ndarray
    """D - 1"""


class Lanes(NamedTuple):
    """The same of each lane, for the sums over the rows."""

    weight: np.ndarray
    """what the residual is times"""
    carry: np.ndarray
    decay: np.ndarray
    """what the decays add: step omega, or -ln(1 - eta)"""
