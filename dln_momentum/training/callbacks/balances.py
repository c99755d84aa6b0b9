"""The log-free identity of balances along a training, of any module of homogeneous layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from dln_momentum.errors import InputError
from dln_momentum.interface.balance_recorder import Balance, BalanceRecorder, balances_of
from dln_momentum.training.engine_stepper import EngineStepper
from dln_momentum.training.module import HeavyBallModule


class BalanceMonitor(pl.Callback):
    """Logs ``balance_error``: the error of the balances over how far they have moved.

    The balances u_{l+1}^2 - u_l^2 of products, ||a_j||^2 - ||w_j||^2 - b_j^2 of ReLU neurons and
    W_{l+1}^T W_{l+1} - W_l W_l^T of linear layers are functions of the increments alone, for heavy
    ball and Nesterov's method with schedules and weight decay (docs/theory.md#balances; not on the
    poster). The callback hooks the optimizer of any module: `HeavyBallModule` by autograd, where it
    records at the recorded steps, or one with `torch.optim.SGD` or `HeavyBall`, where it logs after
    each epoch.

    Args:
        balances: what to watch; those that `balances_of` finds in the module by default.

    Raises:
        InputError: at the start of the training, for another optimizer, and for a module trained by
            the closed-form gradient, whose steps the optimizer does not take; as it goes, if the
            run has left the family.

    Attributes:
        balance_error: the last value.
    """

    def __init__(self, balances: Sequence[Balance] | None = None) -> None:
        self._balances = balances
        self.recorder: BalanceRecorder | None = None
        self.balance_error = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch the optimizer."""
        if len(trainer.optimizers) != 1:
            raise InputError(f"{len(trainer.optimizers)} optimizers; BalanceMonitor watches one")
        if isinstance(pl_module, HeavyBallModule) and isinstance(pl_module.stepper, EngineStepper):
            raise InputError(
                "gradient = closed_form takes no steps of the optimizer: BalanceMonitor needs "
                "gradient = autograd"
            )
        if self.recorder is not None:
            self.recorder.close()
        balances = self._balances or balances_of(pl_module)
        self.recorder = BalanceRecorder(trainer.optimizers[0], balances)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record at the steps of the plan of a `HeavyBallModule`."""
        if isinstance(pl_module, HeavyBallModule) and pl_module.due:
            error = torch.tensor([self._measured()], dtype=torch.float64)
            pl_module.record("balances", {"balance_error": error})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log it, for another module."""
        if not isinstance(pl_module, HeavyBallModule):
            pl_module.log("balance_error", self._measured())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the optimizer as it was."""
        if self.recorder is not None:
            self.balance_error = self._measured()
            self.recorder.close()

    def _measured(self) -> float:
        assert self.recorder is not None
        self.balance_error = self.recorder.error()
        return self.balance_error
