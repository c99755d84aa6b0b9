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
        margins,
        max_margin,
        mirror_map,
        normalised_margin,
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

_HOMES = {
    "Annealed": "flows.coefficients",
    "Certificate": "interface.certificate",
    "DiagonalLinearNet": "network",
    "Engine": "engine",
    "EngineOptions": "engine",
    "FlowPath": "flows",
    "FlowRun": "interface.flow_run",
    "Flows": "flows.batched",
    "HeavyBall": "optimizer",
    "InputError": "errors",
    "Momentum": "rates",
    "PathCertificate": "interface.path_certificate",
    "PathRecorder": "interface.path_recorder",
    "Problem": "problem",
    "Report": "interface.verify",
    "RowSpace": "row_space",
    "Run": "interface.run",
    "Snapshot": "engine",
    "Start": "start",
    "Status": "engine",
    "basis_pursuit": "interface.theory",
    "biased": "start",
    "certify": "interface.certify",
    "collect": "interface.collect",
    "bregman_divergence": "interface.theory",
    "bregman_minimizer": "interface.theory",
    "diabetes": "data",
    "digits": "data",
    "flow": "interface.flow",
    "gaussian": "start",
    "gradient_flow": "flows",
    "gradient_flow_limit": "interface.theory",
    "hyperbolic_entropy": "interface.theory",
    "inverse_mirror_map": "interface.theory",
    "kkt_residual": "interface.theory",
    "least_norm": "interface.theory",
    "load": "data",
    "margins": "interface.theory",
    "max_margin": "interface.theory",
    "mirror_map": "interface.theory",
    "momentum_flow": "flows",
    "momentum_flows": "flows.batched",
    "normalised_margin": "interface.theory",
    "plot": "interface.plot",
    "power": "start",
    "power_minimizer": "interface.theory",
    "results": "interface.collect",
    "sparse": "data",
    "summarise": "outputs.summary",
    "sweep": "interface.grid",
    "train": "interface.train",
    "uniform": "start",
    "verify": "interface.verify",
}
"""The module, below this package, that each public name is in."""

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
