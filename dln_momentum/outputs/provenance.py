"""Where a result comes from: versions, commit, data and processor."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dln_momentum.problem import Problem

PACKAGES = ("dln-momentum", "torch", "lightning", "hydra-core", "numpy", "numba", "scipy")

CHUNK = 2**10
"""Rows of a tensor digested at once, so that one row expanded to many runs needs no memory."""


def provenance(*data_hashes: str) -> dict[str, Any]:
    """What ``summary.json`` and ``verify.json`` say of the origin of data with these hashes."""
    one = len(data_hashes) == 1
    return {
        "versions": versions(),
        "commit": commit(),
        "data_hash": data_hashes[0] if one else digest([], " ".join(data_hashes)),
        "processor": processor(),
    }


def data_hash(problem: Problem) -> str:
    """`digest` of X and y, and of the name of the loss where it is not the squared one."""
    loss = "" if problem.loss_name == "squared" else problem.loss_name
    return digest((problem.X, problem.y), loss)


def file_attributes(summary: Mapping[str, Any], config: str) -> dict[str, str]:
    """What a NetCDF file says of its origin, as text: `provenance` of a summary, and the config."""
    return {
        "kind": summary["kind"],
        "config": config,
        "versions": json.dumps(summary["versions"]),
        "commit": summary["commit"] or "",
        "data_hash": summary["data_hash"],
        "processor": summary["processor"],
    }


def versions() -> dict[str, str | None]:
    """The versions that a result was computed with; None for what is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


@cache
def _version(name: str) -> str | None:
    # a source tree on PYTHONPATH has no metadata
    with suppress(PackageNotFoundError):
        return version(name)


@cache
def commit() -> str | None:
    """The git commit of the package, with ``-dirty`` after changes; None outside a repository."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


@cache
def processor() -> str:
    """The name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def digest(tensors: Iterable[Tensor | None], text: str = "") -> str:
    """BLAKE2b of the values and shapes of tensors, 32 hexadecimal digits.

    >>> digest([torch.ones(2)]) == digest([torch.ones(2)]), digest([]) == digest([torch.ones(2)])
    (True, False)
    """
    found = blake2b(text.encode(), digest_size=16)
    for tensor in tensors:
        if tensor is not None:
            found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            for chunk in torch.atleast_1d(tensor.detach()).split(CHUNK):
                found.update(chunk.cpu().contiguous().numpy())
    return found.hexdigest()
