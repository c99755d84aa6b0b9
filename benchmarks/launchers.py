"""What a job of a multirun costs by each launcher.

Runs one multirun of ``dln-train`` by Hydra's own launcher, by joblib and by the vectorised one, in
turn and each in a process of its own, and prints wall and CPU seconds (children included), in all
and for a job, and the ratio to joblib.

    python -m benchmarks.launchers --jobs 256
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine

LAUNCHERS = ("basic", "joblib", "vectorized")


def seconds(launcher: str, jobs: int, words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one multirun over step sizes; every job must be done."""
    gammas = ",".join(f"{gamma:.6g}" for gamma in np.geomspace(0.005, 0.02, jobs))
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "dln_momentum.cli.train", "-m", f"hydra/launcher={launcher}",
            f"optimizer.gamma={gammas}", f"hydra.sweep.dir={folder}/jobs", *words,
        ]  # fmt: skip
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = (
            time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        )  # fmt: skip
        done = len(list(Path(folder).glob("jobs/*/summary.json")))
        if done != jobs:
            raise RuntimeError(f"{launcher}: {done} of {jobs} jobs are done")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


def main() -> None:
    """Time each launcher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=256)
    parser.add_argument("--launchers", nargs="+", default=LAUNCHERS, choices=LAUNCHERS)
    parser.add_argument("words", nargs="*", help="further words of the command line")
    options = parser.parse_args()
    console = Console(width=120)
    console.print(header(machine()))
    table = Table(title=f"{options.jobs} jobs of dln-train {' '.join(options.words)}")
    for column in (
        "launcher",
        "wall, s",
        "CPU, s",
        "CPU ms a job",
        "wall / joblib",
        "CPU / joblib",
    ):
        table.add_column(column, justify="right")
    found = {name: seconds(name, options.jobs, options.words) for name in options.launchers}
    for name, (wall, cpu) in found.items():
        ratios = [
            f"{mine / its:.3f}"
            for mine, its in zip((wall, cpu), found.get("joblib", (np.nan, np.nan)), strict=True)
        ]
        per_job = f"{1000 * cpu / options.jobs:.0f}"
        table.add_row(name, f"{wall:.1f}", f"{cpu:.1f}", per_job, *ratios)
    console.print(table)


if __name__ == "__main__":
    main()
