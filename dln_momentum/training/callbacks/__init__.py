"""What is watched during training, one callback a file."""

from dln_momentum.training.callbacks.average import AverageMonitor
from dln_momentum.training.callbacks.balancedness import BalancednessMonitor
from dln_momentum.training.callbacks.balances import BalanceMonitor
from dln_momentum.training.callbacks.checkpoints import StepCheckpoints
from dln_momentum.training.callbacks.curvature import CurvatureMonitor
from dln_momentum.training.callbacks.implicit_bias import ImplicitBiasMonitor
from dln_momentum.training.callbacks.monitor import Monitor
from dln_momentum.training.callbacks.path_sums import PathSumsMonitor
from dln_momentum.training.callbacks.progress import BlockProgress
from dln_momentum.training.callbacks.recovery import RecoveryMonitor

__all__ = [
    "AverageMonitor",
    "BalanceMonitor",
    "BalancednessMonitor",
    "BlockProgress",
    "CurvatureMonitor",
    "ImplicitBiasMonitor",
    "Monitor",
    "PathSumsMonitor",
    "RecoveryMonitor",
    "StepCheckpoints",
]
