"""Run every experiment and gather the verdicts on one page.

    python -m experiments [--scale full|fast|tiny] [--jobs 2] [--only NAME ...] [--publish]

Each experiment runs in a process of its own, into ``outputs/reproduction/TIME/NAME``. The page is
``reproduction.md`` beside them; ``outputs/reproduction.md`` points at the latest. ``--publish``
also copies page and figures to ``experiments/reproduction/``, the copy that is committed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments import CLAIMS
from experiments.claim import SCALES
from experiments.page import page

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs"


def main() -> int:
    """Run, gather, print; 1 if an experiment failed to run."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    folder = OUTPUTS / "reproduction" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    claims = run_all(arguments.only, arguments.scale, arguments.jobs, folder)
    text = page(claims, arguments.scale)
    (folder / "reproduction.md").write_text(text)
    latest = page(claims, arguments.scale, folder.relative_to(OUTPUTS).as_posix() + "/")
    (OUTPUTS / "reproduction.md").write_text(latest)
    if arguments.publish:
        publish(folder, text, [claim["name"] for claim in claims if "verdict" in claim])
    console = Console()
    console.print(verdicts(claims))
    console.print(f"page: {folder / 'reproduction.md'}", soft_wrap=True, highlight=False)
    return int(any("verdict" not in claim for claim in claims))


def run_all(names: list[str], scale: str, jobs: int, folder: Path) -> list[dict[str, Any]]:
    """The contents of every claim.json, in the order of the poster; failures have an ``error``."""
    with Progress(disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("experiments", total=len(names))

        def one(name: str) -> dict[str, Any]:
            claim = run_one(name, scale, folder / name, workers=1 if jobs > 1 else None)
            progress.advance(task)
            return claim

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, names))


def run_one(name: str, scale: str, directory: Path, workers: int | None) -> dict[str, Any]:
    """Run one experiment in its own process; its output is kept in ``log.txt``."""
    command = [sys.executable, "-m", f"experiments.{name}", f"scale={scale}"]
    command += [f"hydra.run.dir={directory}", f"num_workers={workers or 'null'}"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log.txt").write_text(done.stdout + done.stderr)
    claim = directory / "claim.json"
    if done.returncode or not claim.exists():
        return {"name": name, "seconds": seconds, "error": f"see {directory / 'log.txt'}"}
    return json.loads(claim.read_text()) | {"seconds": seconds}


def publish(folder: Path, text: str, names: list[str]) -> None:
    """Copy the page and its figures to where they are committed."""
    target = ROOT / "experiments" / "reproduction"
    target.mkdir(exist_ok=True)
    (target / "README.md").write_text(text)
    for name in names:
        (target / name).mkdir(exist_ok=True)
        for file in ("figure.png", "claim.json"):
            shutil.copy2(folder / name / file, target / name / file)


def verdicts(claims: list[dict[str, Any]]) -> Table:
    """The table that ends a reproduction."""
    table = Table("#", "experiment", "section", "verdict", "seconds")
    table.columns[1].no_wrap = True
    for claim in claims:
        number = str(CLAIMS.index(claim["name"]) + 1)
        verdict = claim.get("verdict") or f"[red]failed to run[/red]: {claim['error']}"
        section = claim.get("section", "")
        table.add_row(number, claim["name"], section, verdict, f"{claim['seconds']:.0f}")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
