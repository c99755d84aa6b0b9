"""What a job of a multirun costs by each launcher.

Runs one multirun of ``dln-train`` by Hydra's own launcher, by joblib and by the vectorised one, in
turn and each in a process of its own, and prints wall and CPU seconds (children included), in all
and for a job, and the ratio to joblib. Joblib takes minutes for 256 jobs: with ``--extrapolate`` it
and Hydra's own launcher do two smaller multiruns, and what those take is continued linearly in the
number of jobs. The vectorised launcher always does them all.

    python -m benchmarks.launchers --jobs 256
    python -m benchmarks.launchers --jobs 256 --launchers joblib vectorized --extrapolate 24 72
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
TOGETHER = "vectorized"
"""Always timed at all jobs: what it takes is not linear in their number."""


def seconds(launcher: str, jobs: int, words: list[str]) -> np.ndarray:
    """Wall and CPU seconds of one multirun over step sizes, [2]; every job must be done."""
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
    return np.array([wall, cpu])


def extrapolated(few: np.ndarray, many: np.ndarray, at: tuple[int, int], jobs: int) -> np.ndarray:
    """What so many jobs take by the line through what fewer take.

    >>> extrapolated(np.array([5.0]), np.array([7.0]), (10, 20), jobs=100)
    array([23.])
    """
    return few + (many - few) * (jobs - at[0]) / (at[1] - at[0])


def main() -> None:
    """Time each launcher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=256)
    parser.add_argument("--launchers", nargs="+", default=LAUNCHERS, choices=LAUNCHERS)
    parser.add_argument("--extrapolate", nargs=2, type=int, metavar=("FEW", "MANY"))
    parser.add_argument("words", nargs="*", help="further words of the command line")
    options = parser.parse_args()
    jobs, smaller = options.jobs, options.extrapolate
    if smaller is not None and not 0 < smaller[0] < smaller[1]:
        parser.error("--extrapolate needs two numbers of jobs, the smaller one first")
    console = Console(width=120)
    console.print(header(machine()))
    found: dict[str, np.ndarray] = {}
    for name in options.launchers:
        if smaller is None or name == TOGETHER:
            found[name] = seconds(name, jobs, options.words)
        else:
            few, many = (seconds(name, number, options.words) for number in smaller)
            found[name] = extrapolated(few, many, smaller, jobs)
    title = f"{jobs} jobs of dln-train {' '.join(options.words)}"
    if smaller is not None:
        title += f"; * extrapolated from {smaller[0]} and {smaller[1]} jobs"
    table = Table(title=title)
    columns = ("launcher", "wall, s", "CPU, s", "CPU ms a job", "wall / joblib", "CPU / joblib")
    for column in columns:
        table.add_column(column, justify="right")
    for name, (wall, cpu) in found.items():
        mark = "" if smaller is None or name == TOGETHER else " *"
        ratios = found[name] / found.get("joblib", np.full(2, np.nan))
        shown = (f"{ratio:.3f}" for ratio in ratios)
        table.add_row(
            name + mark, f"{wall:.1f}", f"{cpu:.1f}", f"{1000 * cpu / jobs:.0f}", *shown
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
