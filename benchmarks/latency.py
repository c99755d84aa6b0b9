"""CPU seconds of the command line: what a command, and a further job of a multirun, costs, and why.

Each command runs the default problem in processes of its own, one after the other in turn, and is
timed with all its children; the median of the rounds stands beside its target. A further job is the
difference of two multiruns over their difference in jobs. Then each command runs once more with its
parts timed (`benchmarks.phases`), which itself adds some tenths of a second.

    python -m benchmarks.latency --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.machine import header, machine

TARGETS = {
    "dln-train": 6.0,
    "dln-train outputs=minimal": None,
    "dln-flow": 3.0,
    "a further job of dln-train -m": 0.5,
    "a further job, outputs=minimal": 0.2,
}
"""What is timed, and how many CPU seconds it should take at most."""

FEW, MANY = 2, 12
"""Jobs of the two multiruns."""

SMALLEST = 0.01
"""Parts that take fewer seconds are added up."""


def cpu_seconds(words: Sequence[str], folder: Path) -> float:
    """User and system time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", f"dln_momentum.cli.{words[0]}", *words[1:]]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def further_job(folder: Path, *words: str) -> float:
    """CPU seconds that each job of a multirun adds."""
    few, many = (
        cpu_seconds(["train", "-m", f"seed=range(0,{jobs})", *words], folder)
        for jobs in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW)


def parts_of(words: Sequence[str], folder: Path) -> dict[str, float]:
    """CPU seconds of a command by part, the longest first."""
    command = [sys.executable, "-m", "benchmarks.phases", *words]
    ran = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, env=_environment()
    )
    seconds = json.loads(ran.stdout.splitlines()[-1])["seconds"]
    shown = {part: value for part, value in seconds.items() if value >= SMALLEST}
    rest = sum(seconds.values()) - sum(shown.values())
    longest = sorted(shown.items(), key=lambda item: -float(item[1]))
    return {**dict(longest), "what is shorter": float(rest)}


def _environment() -> dict[str, str]:
    """This checkout for the processes, with one thread each."""
    root = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in TARGETS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cpu_seconds(["train", "debug=quick"], folder)  # compiles the kernels where there are none
        for _ in range(arguments.rounds):
            figures = (
                cpu_seconds(["train"], folder),
                cpu_seconds(["train", "outputs=minimal"], folder),
                cpu_seconds(["flow"], folder),
                further_job(folder),
                further_job(folder, "outputs=minimal"),
            )
            for key, seconds in zip(found, figures, strict=True):
                found[key].append(seconds)
        parts = {app: parts_of([app], folder) for app in ("train", "flow")}
    console = Console()
    console.print(header(machine()))
    table = Table("CPU seconds", "median", "lowest", "highest", "target")
    for key, values in found.items():
        target = TARGETS[key]
        numbers = (median(values), min(values), max(values))
        goal = "" if target is None else f"{target:g}"
        table.add_row(key, *(f"{value:.2f}" for value in numbers), goal)
    console.print(table)
    for app, seconds in parts.items():
        table = Table(f"part of dln-{app}", "CPU seconds")
        for part, value in seconds.items():
            table.add_row(part, f"{value:.2f}")
        table.add_row("all", f"{sum(seconds.values()):.2f}", style="bold")
        console.print(table)


if __name__ == "__main__":
    main()
