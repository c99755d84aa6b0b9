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

from dln_momentum.extras import naming_extra

if TYPE_CHECKING:
    __version__: str
    from dln_momentum import schedules
    from dln_momentum.data import diabetes, digits, load, sparse
    from dln_momentum.engine import Engine, EngineOptions, Snapshot, Status
    from dln_momentum.errors import InputError
    from dln_momentum.flows import FlowPath, gradient_flow, momentum_flow
    from dln_momentum.flows.batched import Flows, momentum_flows
    from dln_momentum.flows.coefficients import Annealed
    from dln_momentum.interface.certificate import Certificate
    from dln_momentum.interface.certify import certify
    from dln_momentum.interface.collect import collect, results
    from dln_momentum.interface.flow import flow
    from dln_momentum.interface.flow_run import FlowRun
    from dln_momentum.interface.grid import sweep
    from dln_momentum.interface.margins import margins, max_margin, normalised_margin
    from dln_momentum.interface.path_certificate import PathCertificate
    from dln_momentum.interface.path_recorder import PathRecorder
    from dln_momentum.interface.plot import plot
    from dln_momentum.interface.run import Run
    from dln_momentum.interface.theory import (
        basis_pursuit,
        bregman_divergence,
        bregman_minimizer,
        gradient_flow_limit,
        hyperbolic_entropy,
        inverse_mirror_map,
        kkt_residual,
        least_norm,
        mirror_map,
        power_minimizer,
    )
    from dln_momentum.interface.train import train
    from dln_momentum.interface.verify import Report, verify
    from dln_momentum.network import DiagonalLinearNet
    from dln_momentum.optimizer import HeavyBall
    from dln_momentum.outputs.summary import summarise
    from dln_momentum.problem import Problem
    from dln_momentum.rates import Momentum
    from dln_momentum.row_space import RowSpace
    from dln_momentum.start import Start, biased, gaussian, power, uniform

_NAMES = {
    "data": "diabetes digits load sparse",
    "engine": "Engine EngineOptions Snapshot Status",
    "errors": "InputError",
    "flows": "FlowPath gradient_flow momentum_flow",
    "flows.batched": "Flows momentum_flows",
    "flows.coefficients": "Annealed",
    "interface.certificate": "Certificate",
    "interface.certify": "certify",
    "interface.collect": "collect results",
    "interface.flow": "flow",
    "interface.flow_run": "FlowRun",
    "interface.grid": "sweep",
    "interface.margins": "margins max_margin normalised_margin",
    "interface.path_certificate": "PathCertificate",
    "interface.path_recorder": "PathRecorder",
    "interface.plot": "plot",
    "interface.run": "Run",
    "interface.theory": (
        "basis_pursuit bregman_divergence bregman_minimizer gradient_flow_limit hyperbolic_entropy "
        "inverse_mirror_map kkt_residual least_norm mirror_map power_minimizer"
    ),
    "interface.train": "train",
    "interface.verify": "Report verify",
    "network": "DiagonalLinearNet",
    "optimizer": "HeavyBall",
    "outputs.summary": "summarise",
    "problem": "Problem",
    "rates": "Momentum",
    "row_space": "RowSpace",
    "start": "Start biased gaussian power uniform",
}
"""The public names of each module below this package."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "Annealed",
    "Certificate",
    "DiagonalLinearNet",
    "Engine",
    "EngineOptions",
    "FlowPath",
    "FlowRun",
    "Flows",
    "HeavyBall",
    "InputError",
    "Momentum",
    "PathCertificate",
    "PathRecorder",
    "Problem",
    "Report",
    "RowSpace",
    "Run",
    "Snapshot",
    "Start",
    "Status",
    "__version__",
    "basis_pursuit",
    "biased",
    "bregman_divergence",
    "bregman_minimizer",
    "certify",
    "collect",
    "diabetes",
    "digits",
    "flow",
    "gaussian",
    "gradient_flow",
    "gradient_flow_limit",
    "hyperbolic_entropy",
    "inverse_mirror_map",
    "kkt_residual",
    "least_norm",
    "load",
    "margins",
    "max_margin",
    "mirror_map",
    "momentum_flow",
    "momentum_flows",
    "normalised_margin",
    "plot",
    "power",
    "power_minimizer",
    "results",
    "schedules",
    "sparse",
    "summarise",
    "sweep",
    "train",
    "uniform",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dln-momentum")
    if name == "schedules":
        return import_module("dln_momentum.schedules")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with naming_extra():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
