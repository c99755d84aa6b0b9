"""What Lightning adds to a block of optimiser steps.

Runs the same steps of the default problem (a) by the engine in a plain loop and (b) through
``Trainer.fit``, in blocks of K, interleaved, and prints the median and quartiles of the paired
ratios (b)/(a) of CPU seconds. K = 0 is the default, blocks whose length the run itself finds;
``--records 200`` ends blocks at the records of a default run; no contender measures them.

    python -m benchmarks.lightning_overhead --runs 1 256
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine
from dln_momentum import DiagonalLinearNet, EngineOptions, sparse
from dln_momentum.data import BatchStream
from dln_momentum.engine.options import PATH_SUMS
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.trainer import quiet


def make_module(
    runs: int, steps: int, block: int, path_sums: str, records: int = 2
) -> HeavyBallModule:
    """So many runs on the default problem, in blocks that end where something is recorded."""
    problem = sparse(20, 30, 3, seed=0)
    plan = RecordPlan(steps, records, block or None)
    data = BlockDataModule(problem, plan, BatchStream(20, None, "reshuffle", 0))
    options = EngineOptions(tol=0.0, path_sums=path_sums)
    net = DiagonalLinearNet.uniform(30, 0.1, runs=(runs,))
    return HeavyBallModule(net, 0.01, 0.9, data, options=options)


def plain_seconds(*setting: Any) -> float:
    """The blocks of `make_module` in a loop."""
    module = make_module(*setting)
    started, clock = time.process_time(), time.perf_counter
    for start, stop in module.data.plan.blocks(0, module.pace):
        began = clock()
        module.stepper.advance(stop - start)
        module.pace.measured(stop - start, clock() - began)
    return time.process_time() - started


def lightning_seconds(*setting: Any) -> float:
    """The same blocks under Trainer.fit, its set-up not counted."""
    module = make_module(*setting)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = pl.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, module.data)
    return clock.seconds


class Clock(pl.Callback):
    """Times the training loop alone."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self._started = time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds = time.process_time() - self._started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--blocks", type=int, nargs="+", default=[10, 100, 1000, 2000, 0])
    parser.add_argument("--records", type=int, default=2)
    parser.add_argument("--path-sums", default="telescoped", choices=PATH_SUMS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("runs R", "block K", "plain, us/step", "Lightning / plain, median (quartiles)")
    for runs in arguments.runs:
        for block in arguments.blocks:
            # enough blocks to time; a tenth of the steps where there are many runs
            steps = max(arguments.steps // (10 if runs > 16 else 1), 10 * block)
            table.add_row(str(runs), str(block or "open"), *compare(arguments, runs, steps, block))
    Console().print(header(machine()))
    Console().print(table)


def compare(arguments: argparse.Namespace, runs: int, steps: int, block: int) -> tuple[str, str]:
    """Microseconds a plain step, and the paired ratios to it."""
    setting = (runs, steps, block, arguments.path_sums, arguments.records)
    plain_seconds(runs, 100, 100, arguments.path_sums)  # compiles, and warms the caches
    pairs = [
        (plain_seconds(*setting), lightning_seconds(*setting)) for _ in range(arguments.repeats)
    ]
    ratios = [through / plain for plain, through in pairs]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    plain = np.median([plain for plain, _ in pairs]) / steps * 1e6
    return f"{plain:.2f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
