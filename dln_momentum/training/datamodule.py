"""The data of a run, handed out in blocks of mini-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.problems import Problems, first_of
from dln_momentum.pace import Pace
from dln_momentum.problem import Problem
from dln_momentum.record_plan import RecordPlan


@dataclass(frozen=True)
class Block:
    """The steps ``start <= k < stop``: one ``training_step`` of Lightning.

    Only the window is carried. Its mini-batches are a function of the seed and the step, so each
    tile of runs draws its own when it needs them, and thousands of runs need no memory for them.
    """

    start: int
    stop: int
    batches: BatchStream

    @property
    def steps(self) -> int:
        """Optimiser steps in the block."""
        return self.stop - self.start

    def indices(self) -> Tensor:
        """The rows of each batch, [steps, runs, batch size] (runs is 1 for a shared seed)."""
        return self.batches.indices(self.start, self.stop)


class BlockDataModule(LightningDataModule):
    """A problem and the stream of its mini-batches, cut into blocks by a plan.

    Args:
        problem: the data that all runs share, or several problems and which of them each run has.
        plan: where blocks end.
        batches: the mini-batches, a function of seed and step.
        label_noise: perturbs the targets of the early steps, if given.
    """

    def __init__(
        self,
        problem: Problem | Problems,
        plan: RecordPlan,
        batches: BatchStream,
        label_noise: LabelNoise | None = None,
    ) -> None:
        super().__init__()
        self.problems = problem
        self.plan = plan
        self.batches = batches
        self.label_noise = label_noise

    @property
    def problem(self) -> Problem:
        """The problem; of several the first, which has the shape of all."""
        return first_of(self.problems)

    def train_dataloader(self) -> BlockLoader:
        """Blocks from the present step on, so that a resumed run continues there.

        Lightning asks callbacks that watch a metric, as EarlyStopping and ModelCheckpoint, at the
        end of an epoch. With one among them an epoch ends at each recorded step; without, a run is
        a single epoch, so that no ``max_epochs`` ends it.
        """
        trainer: Any = self.trainer
        watched = trainer is not None and any(
            getattr(callback, "monitor", None) is not None for callback in trainer.callbacks
        )
        module = getattr(trainer, "lightning_module", None)
        step, pace = lambda: module.stepper.step if module else 0, getattr(module, "pace", None)
        return BlockLoader(self.batches, self._plan(), step, pace, by_record=watched)

    def test_dataloader(self) -> OneBatch:
        """One batch, for ``Trainer.test``: the module knows the held-out rows."""
        return OneBatch()

    def _plan(self) -> RecordPlan:
        """The plan, with the block size that callbacks need which depend on where blocks end.

        Lightning's ModelCheckpoint is one with ``every_n_train_steps``: it looks at block ends.
        """
        trainer: Any = self.trainer
        callbacks = () if trainer is None else trainer.callbacks
        sizes = [
            size
            for each in callbacks
            for key in ("block_size", "_every_n_train_steps")
            if (size := getattr(each, key, None))
        ]
        fixed = self.plan.block_size is not None or not sizes
        return self.plan if fixed else replace(self.plan, block_size=math.gcd(*sizes))

    def transfer_batch_to_device(
        self, batch: Block, device: torch.device, dataloader_idx: int
    ) -> Block:
        """A block holds no data; the engine draws the mini-batches where it needs them."""
        return batch


class BlockLoader:
    """Iterates over the remaining blocks: all of them, or those to the next recorded step."""

    def __init__(
        self,
        batches: BatchStream,
        plan: RecordPlan,
        start: Callable[[], int],
        pace: Pace | None,
        *,
        by_record: bool = False,
    ) -> None:
        self._batches = batches
        self._plan = plan
        self._start = start
        self._pace = pace
        self._by_record = by_record

    def __iter__(self) -> Iterator[Block]:
        # Lightning asks for a block while the one before it is still to be trained
        for start, stop in self._plan.blocks(self._start(), self._pace):
            yield Block(start, stop, self._batches)
            if self._by_record and stop in self._plan.recorded:
                return


class OneBatch:
    """A loader of a single empty batch."""

    def __iter__(self) -> Iterator[None]:
        yield None

    def __len__(self) -> int:
        return 1
