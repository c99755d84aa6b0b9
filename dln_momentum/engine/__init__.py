"""Many runs at once: the engine, what it carries, and the oracle it is tested against."""

from dln_momentum.engine.engine import Engine
from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.snapshot import Snapshot
from dln_momentum.engine.status import Status
from dln_momentum.theory.reference import reference_iterates

__all__ = ["Engine", "EngineOptions", "Snapshot", "Status", "reference_iterates"]
