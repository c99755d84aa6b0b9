"""The tables of benchmarks/README.md, from what `benchmarks.engine --json` has kept.

python -m benchmarks.report results/*.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.machine import header

Costs = dict[str, np.ndarray]
"""Microseconds a step and run by contender, one of each round."""

ENGINE = "engine numba, gradient_sum"
PEAK = "peak of the processor"
RATIOS = {
    "engine / peak": (ENGINE, PEAK),
    "engine / floor": (ENGINE, "floor"),
    "engine, telescoped S / engine": ("engine numba, telescoped", ENGINE),
    "engine, direct S / floor": ("engine numba, direct", "floor"),
    "engine on torch / floor": ("engine torch, gradient_sum", "floor"),
    "JAX, same algebra / engine": ("JAX scan, by hand, gradient_sum S", ENGINE),
    "JAX, autograd, direct S / engine": ("JAX scan, autograd, direct S", ENGINE),
    "torch textbook, direct S / engine": ("torch textbook, direct S", ENGINE),
    "torch SGD + autograd / engine": ("torch SGD + autograd, no S", ENGINE),
}
ALONE = {
    "engine, blocks of 10,000": ENGINE,
    "engine, blocks of 1,000": "engine numba, gradient_sum, blocks of 1000",
    "engine, direct S": "engine numba, direct",
    "numba loop": "numba loop, no S",
    "JAX, same algebra": "JAX scan, by hand, gradient_sum S",
    "numpy loop": "numpy loop, no S",
    "torch SGD + autograd": "torch SGD + autograd, no S",
}


def read(paths: list[Path]) -> dict[tuple[int, int, int], Costs]:
    """Costs by (n, d, R)."""
    costs: dict[tuple[int, int, int], Costs] = defaultdict(dict)
    for path in paths:
        for result in json.loads(path.read_text())["results"]:
            key = (result["n"], result["d"], result["runs"])
            costs[key][result["contender"]] = np.array(result["microseconds"])
    for found in costs.values():
        found["floor"] = np.min([c for name, c in found.items() if name.startswith("floor")], 0)
    return dict(sorted(costs.items()))


def by_machine(paths: list[Path]) -> dict[str, list[Path]]:
    """The files of each machine, by the line that describes it; its figures are its own."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[header(json.loads(path.read_text())["machine"])].append(path)
    return dict(found)


def ratio(costs: Costs, name: str, base: str) -> str:
    """Median of the paired ratios and half the distance of their quartiles."""
    if name not in costs:
        return ""
    low, middle, high = np.quantile(costs[name] / costs[base], (0.25, 0.5, 0.75))
    digits = 2 if middle < 10 else 0
    return f"{middle:,.{digits}f} ± {(high - low) / 2:.{digits}f}"


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def many_runs(costs: dict[tuple[int, int, int], Costs]) -> list[str]:
    """The cost of the floor and of the engine, and ratios."""
    head = ["n, d", "R", "floor, us", "engine, us", *RATIOS]
    lines = [row(*head), row(*["---"] * len(head))]
    for (n, d, runs), found in costs.items():
        if runs > 1:
            medians = (f"{np.median(found[name]):.3g}" for name in ("floor", ENGINE))
            ratios = (ratio(found, name, base) for name, base in RATIOS.values())
            lines.append(row(f"{n}, {d}", str(runs), *medians, *ratios))
    return lines


def one_run(costs: dict[tuple[int, int, int], Costs]) -> list[str]:
    """Microseconds a step of a single run."""
    lines = [row("n, d", *ALONE), row(*["---"] * (len(ALONE) + 1))]
    for (n, d, runs), found in costs.items():
        if runs == 1:
            medians = (np.median(found[name]) if name in found else None for name in ALONE.values())
            lines.append(row(f"{n}, {d}", *("" if m is None else f"{m:,.3g}" for m in medians)))
    return lines


def section(where: str, paths: list[Path]) -> list[str]:
    """What one machine was measured to do: its processor, itself, many runs, and one run."""
    costs, processor = read(paths), json.loads(paths[0].read_text())["machine"]["processor"]
    lines = [f"## {processor}", "", where]
    for table, wanted in ((many_runs, lambda runs: runs > 1), (one_run, lambda runs: runs == 1)):
        if any(wanted(runs) for *_, runs in costs):
            lines += ["", *table(costs)]
    return lines


def main() -> None:
    """Print the tables, one section for each machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+", type=Path)
    found = by_machine(parser.parse_args().paths)
    print("\n\n".join("\n".join(section(*machine)) for machine in found.items()))


if __name__ == "__main__":
    main()
