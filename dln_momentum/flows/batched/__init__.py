"""Momentum gradient flow of many networks at once."""

from dln_momentum.flows.batched.momentum_flows import momentum_flows
from dln_momentum.flows.batched.result import Flows

__all__ = ["Flows", "momentum_flows"]
