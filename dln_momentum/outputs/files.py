"""JSON and NetCDF files, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import xarray as xr
import yaml


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null."""
    # a tensor, an array or a number of numpy; torch is not imported to find out
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@lru_cache(maxsize=2)
def read_yaml(text: str) -> Any:
    """What YAML text holds, by the compiled parser where there is one; not to be changed."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a dictionary as JSON, whole or not at all."""
    text = json.dumps(plain(dict(value)), indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda target: target.write_text(text))


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write a labelled dataset as NetCDF, whole or not at all."""
    from dln_momentum.outputs import netcdf

    write_whole(path, lambda target: netcdf.write(dataset, target))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    write_whole(path, lambda target: target.write_bytes(content))


def write_whole(path: Path, write: Callable[[Path], Any], *, durable: bool = False) -> None:
    """Write beside the file and move it into place: no reader ever sees half a result.

    ``write`` writes to the path that it is given; ``durable`` is as for `move_whole`.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        Path(name).chmod(0o644)
        move_whole(Path(name), path, durable=durable)
    finally:
        Path(name).unlink(missing_ok=True)


def move_whole(written: Path, path: Path, *, durable: bool) -> None:
    """Move a file that has been written to its final name.

    Args:
        written: the file, in the folder of ``path``.
        path: its final name.
        durable: whether the file outlives a power failure from here on. The system is then asked
            to bring the file to the disk before it is renamed, and the new name after; that takes
            some 8 ms on a virtual disk, as long as a small job of a multirun. So checkpoints and
            pieces of sweeps are durable, which are hours of work; of other files a power failure
            can leave an empty one, which is found when the job is continued and written anew. A
            process that is killed loses neither kind.
    """
    if durable:
        _to_disk(written)
    written.replace(path)
    if durable:
        # not every file system can do this with a folder
        with contextlib.suppress(OSError):
            _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
