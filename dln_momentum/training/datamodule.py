"""The data of a run, handed out in blocks of mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.problems import Problems, first_of
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
        """Blocks from the present step on, so that a resumed run continues there."""
        return BlockLoader(self, lambda: self.trainer.global_step if self.trainer else 0)

    def transfer_batch_to_device(
        self, batch: Block, device: torch.device, dataloader_idx: int
    ) -> Block:
        """A block holds no data; the engine draws the mini-batches where it needs them."""
        return batch


class BlockLoader:
    """Iterates over the remaining blocks."""

    def __init__(self, data: BlockDataModule, start: Callable[[], int]) -> None:
        self._data = data
        self._start = start

    def __iter__(self) -> Iterator[Block]:
        for start, stop in self._data.plan.blocks(self._start()):
            yield Block(start, stop, self._data.batches)
