"""Momentum gradient flow of many networks at once."""

from dln_momentum.flows.batched.momentum_flows import DEFAULT_RTOL, LARGEST_LAM, momentum_flows
from dln_momentum.flows.path import Flows

__all__ = ["DEFAULT_RTOL", "LARGEST_LAM", "Flows", "momentum_flows"]
