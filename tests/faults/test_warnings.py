"""Every command with Python's warnings as errors: none of them is ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OF_DEPENDENCIES: list[tuple[str, str, str, str]] = []
"""Warnings of packages about themselves, while they are imported or called by one another: the
beginning of the message, the category, the module that it is told of, and the reason."""

SMALL = ["debug=quick", "hydra.run.dir=run"]
COMMANDS: dict[str, list[list[str]]] = {
    "train": [["train", *SMALL]],
    "train, from its checkpoint": [["train", *SMALL, "trainer.checkpoint_every=500"],
                                   ["train", "debug=quick", "resume=run/checkpoints/last.ckpt"]],
    "train, mini-batches and a schedule": [
        ["train", *SMALL, "sampling=reshuffle", "sampling.batch_size=2", "schedule=cosine",
         "method=nesterov", "callbacks=curvature", "logger=csv"],
    ],
    "flow": [["flow", "data.n=5", "data.d=8", "data.s=1", "hydra.run.dir=run"]],
    "flows": [["flow", "data.n=5", "data.d=8", "data.s=1", "flow.lam=[0.1,1]"]],
    "verify": [["verify", "data.n=5", "data.d=8", "data.s=1", "max_steps=200"]],
    "sweep": [["sweep", "data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=500",
               "sweep.gamma=[0.01,0.02]", "sweep.beta=[0.5,0.9]", "hydra.run.dir=run"]],
    "multirun, joblib": [["train", "-m", "debug=quick", "optimizer.beta=0.5,0.9",
                          "hydra/launcher=joblib", "hydra.sweep.dir=jobs"]],
    "collect and plot": [
        ["sweep", "data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=500",
         "sweep.gamma=[0.01,0.02]", "sweep.seed=[0,1]", "hydra.run.dir=run"],
        ["collect", ".", "--out", "all", "--over", "seed"],
        ["plot", "run", "x=gamma", "y=recovery_error"],
        ["plot", "run"],
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_warning_is_ours(name: str, tmp_path: Path) -> None:
    # of several that fit, the last one counts
    filters = ["error", *(f"ignore:{text}:{kind}:{module}" for text, kind, module, _ in
                          OF_DEPENDENCIES)]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONWARNINGS": ",".join(filters),
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "agg",
    }
    for app, *words in COMMANDS[name]:
        done = subprocess.run(
            [sys.executable, "-m", f"dln_momentum.cli.{app}", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        assert "Warning" not in done.stderr + done.stdout
