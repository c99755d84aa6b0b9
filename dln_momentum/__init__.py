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
    from dln_momentum.data import diabetes, digits, sparse
    from dln_momentum.data.tabular import from_file as load
    from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
    from dln_momentum.errors import InputError
    from dln_momentum.flow import FlowPath, gradient_flow, momentum_flow
    from dln_momentum.flows import Flows, momentum_flows
    from dln_momentum.interface.run import Certificate, Run
    from dln_momentum.interface.train import train
    from dln_momentum.minimizers import bregman_minimizer
    from dln_momentum.momentum import Momentum
    from dln_momentum.network import DiagonalLinearNet
    from dln_momentum.optimizer import HeavyBall
    from dln_momentum.problem import Problem
    from dln_momentum.row_space import RowSpace
    from dln_momentum.start import Start, biased, gaussian, uniform
    from dln_momentum.summary import summarise

_HOMES = {
    "Certificate": "interface.run",
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
    "Run": "interface.run",
    "Snapshot": "engine",
    "Start": "start",
    "Status": "engine",
    "biased": "start",
    "bregman_minimizer": "minimizers",
    "diabetes": "data",
    "digits": "data",
    "gaussian": "start",
    "gradient_flow": "flow",
    "load": "data.tabular:from_file",
    "momentum_flow": "flow",
    "momentum_flows": "flows",
    "sparse": "data",
    "summarise": "summary",
    "train": "interface.train",
    "uniform": "start",
}
"""The module, below this package, that each public name is in; after a colon, its name there."""

__all__ = [
    "Certificate",
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
    "Run",
    "Snapshot",
    "Start",
    "Status",
    "__version__",
    "biased",
    "bregman_minimizer",
    "diabetes",
    "digits",
    "gaussian",
    "gradient_flow",
    "load",
    "momentum_flow",
    "momentum_flows",
    "sparse",
    "summarise",
    "train",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dln-momentum")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), there or name)


def __dir__() -> list[str]:
    return sorted(__all__)
