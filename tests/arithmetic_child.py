"""Runs, flows and a sweep whose summaries `tests.test_arithmetic` compares between processors.

    python -m tests.arithmetic_child SHIFT FILE

writes the summary of each of `CASES` from a start that is larger by the share SHIFT.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from dln_momentum.cli.flow import flow
from dln_momentum.cli.sweep import sweep
from dln_momentum.cli.train import train
from tests.helpers import run_job

WORK = {"train": train, "flow": flow, "sweep": sweep}

QUIET = {
    "train": ["outputs=minimal"],
    "flow": ["outputs=minimal"],
    "sweep": ["callbacks=none", "logger=none"],
}
"""What keeps a command from writing more than its summary."""

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "the default run": ("train", ()),
    "large lambda": ("train", ("optimizer=lam_eps", "optimizer.lam=30", "optimizer.eps=0.5")),
    "label noise": ("train", ("sampling.label_noise=0.2", "sampling.noise_until=500")),
    "mini-batches": ("train", ("sampling=with_replacement", "seed=3")),
    "reshuffled": ("train", ("sampling=reshuffle", "optimizer.gamma=0.02")),
    "tiny start": ("train", ("model.alpha=1e-6", "optimizer.beta=0.95")),
    "cosine": ("train", ("schedule=cosine", "schedule.steps=2000", "method=nesterov")),
    "depth 3": ("train", ("model=power", "model.depth=3", "optimizer.gamma=0.003")),
    "classes": ("train", ("loss=logistic", "trainer.margin=4", "optimizer.gamma=0.1")),
    # the sharpness then settles at 2/gamma, from where the loss still falls
    "edge of stability": ("train", ("optimizer.gamma=0.9", "optimizer.beta=0")),
    "chaotic": (
        "train",
        (
            "data.n=2",
            "data.d=3",
            "data.s=1",
            "optimizer.gamma=1.2",
            "optimizer.beta=0",
            "trainer.max_steps=3000",
        ),
    ),
    "gradient flow": ("flow", ("flow.lam=0",)),
    "momentum flow": ("flow", ("flow.lam=1",)),
    "oscillating flow": ("flow", ("flow.lam=30",)),
    "many flows": ("flow", ("flow.lam=geomspace:0.01:10:4",)),
    "sweep": ("sweep", ("sweep.gamma=[0.005,0.02]", "sweep.beta=[0,0.9,0.97]", "sweep=grid")),
}
"""By name the command and what it is given; all of them start at ``model.alpha``."""


def main(shift: float, file: Path) -> None:
    """Run all cases one after the other."""
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (app, given)) in enumerate(CASES.items()):
            alpha = [word for word in given if word.startswith("model.alpha=")]
            start = float(alpha[0].partition("=")[2]) if alpha else 0.1
            words = [word for word in given if word not in alpha]
            words += QUIET[app]
            words.append(f"model.alpha={start * (1 + shift)!r}")
            found[name] = run_job(app, WORK[app], Path(folder) / str(number), *words)
    file.write_text(json.dumps(found, default=float))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
