"""Shell completion, as docs/completion.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def answered(line: str, query: str, folder: Path) -> str:
    """What a command prints to the shell that completes a line."""
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, "-m", "dln_momentum.cli.train", "-sc", query]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_options_and_keys_are_completed(tmp_path: Path) -> None:
    assert "hydra_bash_completion()" in answered("", "install=bash", tmp_path)
    options = answered("dln-train optimizer=", "query=bash", tmp_path).split()
    assert {"optimizer=gamma_beta", "optimizer=lam_eps"} <= set(options)
    assert "trainer.max_steps=" in answered("dln-train trainer.max", "query=bash", tmp_path)
    assert not list(tmp_path.iterdir())
