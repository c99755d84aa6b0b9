"""Run every experiment and gather what they found on one page.

    python -m experiments [--scale full|fast|tiny] [--jobs 2] [--only NAME ...] [--publish]

Each experiment runs in a process of its own, into ``outputs/reproduction/TIME/NAME``. The page is
``README.md`` beside them, with a page of numbers in each of their folders;
``outputs/reproduction.md`` points at the latest. ``--publish`` copies pages and figures to
``experiments/reproduction/``, the copy that is committed. With ``--only`` the published page keeps
the entries of the other claims, each with the commit and date of its own run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dln_momentum.outputs.files import write_json
from experiments import CLAIMS
from experiments.claim import SCALES
from experiments.claim_page import claim_page
from experiments.page import page

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs"
PUBLISHED = ROOT / "experiments" / "reproduction"
PUBLISHED_FILES = ("README.md", "claim.json", "figure.png", "figure.pdf")


def main() -> int:
    """Run, gather, print; 1 if an experiment failed to run."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs} must be >= 1")
    if arguments.publish and arguments.scale != "full":
        parser.error("--publish: only runs at scale full are published")
    folder = OUTPUTS / "reproduction" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True)
    names = [name for name in CLAIMS if name in arguments.only]
    claims = run_all(names, arguments.scale, arguments.jobs, folder)
    write_pages(folder, claims)
    latest = page(claims, CLAIMS, folder.relative_to(OUTPUTS).as_posix() + "/")
    (OUTPUTS / "reproduction.md").write_text(latest)
    if arguments.publish:
        publish(folder, [claim["name"] for claim in claims if "verdict" in claim])
    console = Console()
    console.print(verdicts(claims))
    console.print(f"page: {folder / 'README.md'}", soft_wrap=True, highlight=False)
    return int(any("verdict" not in claim for claim in claims))


def run_all(names: list[str], scale: str, jobs: int, folder: Path) -> list[dict[str, Any]]:
    """The contents of every claim.json, in the order of `names`; failures have an ``error``."""
    commit = commit_of(ROOT)
    with Progress(disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("experiments", total=len(names))

        def one(name: str) -> dict[str, Any]:
            claim = run_one(name, scale, folder / name, 1 if jobs > 1 else None, commit)
            progress.advance(task)
            return claim

        with ThreadPoolExecutor(jobs) as pool:
            # the longest first, so that all workers are busy to the end
            running = {name: pool.submit(one, name) for name in longest_first(names)}
        return [running[name].result() for name in names]


def longest_first(names: list[str]) -> list[str]:
    """The names by the seconds that their published runs took; those without one first of all."""

    def seconds(name: str) -> float:
        path = PUBLISHED / name / "claim.json"
        if not path.exists():
            return math.inf
        return float(json.loads(path.read_text()).get("run", {}).get("seconds", math.inf))

    return sorted(names, key=seconds, reverse=True)


def run_one(
    name: str, scale: str, directory: Path, workers: int | None, commit: str
) -> dict[str, Any]:
    """Run one experiment in its own process; its output is kept in ``log.txt``.

    The commit, the date and the seconds of the run are added to its ``claim.json``.
    """
    command = [sys.executable, "-m", f"experiments.{name}", f"scale={scale}"]
    command += [f"hydra.run.dir={directory}", f"num_workers={workers or 'null'}"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    record = {
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seconds": time.perf_counter() - started,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log.txt").write_text(done.stdout + done.stderr)
    path = directory / "claim.json"
    if done.returncode or not path.exists():
        return {"name": name, "error": f"see {directory / 'log.txt'}", "run": record}
    claim = json.loads(path.read_text()) | {"run": record}
    write_json(path, claim)
    return claim


def commit_of(root: Path) -> str:
    """The commit that is checked out, and whether files of it were changed; or "unknown"."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with uncommitted changes" if changed else commit


def write_pages(folder: Path, claims: list[dict[str, Any]]) -> None:
    """Write the page of all claims, and in the folder of each claim that ran the page of it."""
    for claim in claims:
        if "verdict" in claim:
            number = CLAIMS.index(claim["name"]) + 1
            (folder / claim["name"] / "README.md").write_text(claim_page(claim, number))
    (folder / "README.md").write_text(page(claims, CLAIMS))


def publish(folder: Path, names: list[str]) -> None:
    """Copy these claims to where they are committed, and write the page of all that are there.

    Claims that are published already, and are not among these, keep their entries.
    """
    PUBLISHED.mkdir(exist_ok=True)
    for name in names:
        (PUBLISHED / name).mkdir(exist_ok=True)
        for file in PUBLISHED_FILES:
            shutil.copy2(folder / name / file, PUBLISHED / name / file)
    found = [PUBLISHED / name / "claim.json" for name in CLAIMS]
    claims = [json.loads(path.read_text()) for path in found if path.exists()]
    # a new claim changes the numbers of those after it
    write_pages(PUBLISHED, claims)


def verdicts(claims: list[dict[str, Any]]) -> Table:
    """The table that ends a reproduction."""
    table = Table("#", "experiment", "verdict", "finding", "seconds")
    table.columns[1].no_wrap = True
    for claim in claims:
        number = str(CLAIMS.index(claim["name"]) + 1)
        verdict = claim.get("verdict", "[red]failed to run[/red]")
        finding = claim.get("finding") or claim["error"]
        table.add_row(number, claim["name"], verdict, finding, f"{claim['run']['seconds']:.0f}")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
