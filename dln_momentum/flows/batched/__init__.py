"""Momentum gradient flow of many networks at once."""

from dln_momentum.flows.batched.momentum_flows import DEFAULT_RTOL, momentum_flows
from dln_momentum.flows.path import Flows

__all__ = ["DEFAULT_RTOL", "Flows", "momentum_flows"]
