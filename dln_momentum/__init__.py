"""Momentum in diagonal linear networks: train, sweep and verify the theory of its implicit bias.

The names below are the public interface; each is imported when it is first used, so that the
command line answers before torch has loaded.

>>> import dln_momentum as dln
>>> dln.Momentum(gamma=0.01, beta=0.9).regime.value
'momentum'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
    from dln_momentum.errors import InputError
    from dln_momentum.flow import FlowPath, gradient_flow, momentum_flow
    from dln_momentum.flows import Flows, momentum_flows
    from dln_momentum.minimizers import bregman_minimizer
    from dln_momentum.momentum import Momentum
    from dln_momentum.network import DiagonalLinearNet
    from dln_momentum.optimizer import HeavyBall
    from dln_momentum.problem import Problem
    from dln_momentum.row_space import RowSpace
    from dln_momentum.summary import summarise

_HOMES = {
    "DiagonalLinearNet": "network",
    "Engine": "engine",
    "EngineOptions": "engine",
    "FlowPath": "flow",
    "Flows": "flows",
    "HeavyBall": "optimizer",
    "InputError": "errors",
    "Momentum": "momentum",
    "Problem": "problem",
    "RowSpace": "row_space",
    "Snapshot": "engine",
    "Status": "engine",
    "bregman_minimizer": "minimizers",
    "gradient_flow": "flow",
    "momentum_flow": "flow",
    "momentum_flows": "flows",
    "summarise": "summary",
}

__all__ = [
    "DiagonalLinearNet",
    "Engine",
    "EngineOptions",
    "FlowPath",
    "Flows",
    "HeavyBall",
    "InputError",
    "Momentum",
    "Problem",
    "RowSpace",
    "Snapshot",
    "Status",
    "bregman_minimizer",
    "gradient_flow",
    "momentum_flow",
    "momentum_flows",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
