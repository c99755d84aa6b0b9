"""Continuous time: momentum gradient flow and gradient flow, integrated."""

from dln_momentum.flows.coefficients import Annealed
from dln_momentum.flows.contour import ContourIntegrals, contour_integrals
from dln_momentum.flows.discretisation import DiscretisationOrders, discretisation_orders
from dln_momentum.flows.gradient_flow import effective_flow, gradient_flow
from dln_momentum.flows.momentum_flow import momentum_flow
from dln_momentum.flows.options import FlowOptions
from dln_momentum.flows.path import FlowPath, SolverReport
from dln_momentum.flows.quadrature import (
    SummedIntegrals,
    quadrature_path_integrals,
    summed_path_integrals,
)
from dln_momentum.flows.stepping import FlowStatus

__all__ = [
    "Annealed",
    "ContourIntegrals",
    "DiscretisationOrders",
    "FlowOptions",
    "FlowPath",
    "FlowStatus",
    "SolverReport",
    "SummedIntegrals",
    "contour_integrals",
    "discretisation_orders",
    "effective_flow",
    "gradient_flow",
    "momentum_flow",
    "quadrature_path_integrals",
    "summed_path_integrals",
]
