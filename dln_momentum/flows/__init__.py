"""Continuous time: momentum gradient flow, gradient flow and what the theory says of them."""

from dln_momentum.flows.continuous_bias import (
    ContinuousBias,
    boundary_terms,
    effective_flow,
    limit_bias,
    path_integrals,
    running_bias,
)
from dln_momentum.flows.discretisation import DiscretisationOrders, discretisation_orders
from dln_momentum.flows.gradient_flow import gradient_flow
from dln_momentum.flows.mirror_flow import (
    linear_term,
    mirror_flow_residual,
    mirror_position,
    mirror_velocity,
)
from dln_momentum.flows.momentum_flow import momentum_flow
from dln_momentum.flows.options import FlowOptions
from dln_momentum.flows.path import FlowPath, SolverReport
from dln_momentum.flows.quadrature import (
    SummedIntegrals,
    quadrature_path_integrals,
    summed_path_integrals,
)
from dln_momentum.flows.small_lambda import (
    balance_drift,
    balance_drift_bound,
    lambda_threshold,
    small_lambda_balancedness,
)
from dln_momentum.flows.stepping import FlowStatus
from dln_momentum.flows.three_point import three_point_sides

__all__ = [
    "ContinuousBias",
    "DiscretisationOrders",
    "FlowOptions",
    "FlowPath",
    "FlowStatus",
    "SolverReport",
    "SummedIntegrals",
    "balance_drift",
    "balance_drift_bound",
    "boundary_terms",
    "discretisation_orders",
    "effective_flow",
    "gradient_flow",
    "lambda_threshold",
    "limit_bias",
    "linear_term",
    "mirror_flow_residual",
    "mirror_position",
    "mirror_velocity",
    "momentum_flow",
    "path_integrals",
    "quadrature_path_integrals",
    "running_bias",
    "small_lambda_balancedness",
    "summed_path_integrals",
    "three_point_sides",
]
