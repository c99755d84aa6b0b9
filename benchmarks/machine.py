"""What a benchmark was measured on: without it a figure says nothing about another machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib

from dln_momentum.engine.cpu.registers import CHOICE, WIDTH, compiled_for
from dln_momentum.outputs.provenance import processor

PACKAGES = ("torch", "numpy", "numba", "jax", "dln-momentum")
VECTORS = ("sse4.2", "avx", "fma", "avx2", "avx512f", "neon", "sve")
"""Features that say how wide a register is and whether a*b + c is one operation."""


def machine() -> dict[str, str]:
    """The processor, as far as the system tells, and the versions of what ran on it."""
    features = compiled_for().split(",")
    return {
        "processor": processor(),
        "vector features": ", ".join(name for name in VECTORS if f"+{name}" in features) or "none",
        "doubles a register": str(WIDTH),
        "register block": str(CHOICE),
        "cores": f"{joblib.cpu_count(only_physical_cores=True)} physical, {_usable()} usable",
        "caches": _caches(Path("/sys/devices/system/cpu/cpu0/cache")) or "unknown",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def header(found: Mapping[str, str]) -> str:
    """One line for the head of a report.

    >>> header({"processor": "Z80", "caches": "none"})
    'measured on: processor Z80; caches none'
    """
    return "measured on: " + "; ".join(f"{name} {value}" for name, value in found.items())


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caches(folder: Path) -> str:
    """The data caches of one core, as Linux lists them."""
    found = []
    for index in sorted(folder.glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
