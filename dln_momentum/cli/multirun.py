"""A multirun: what varies names a job's directory, and what ran there before is found again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.job import WRITTEN
from dln_momentum.cli.saved_config import saved_hash
from dln_momentum.outputs.status import STATUS, read_status

LONGEST = 100
"""Characters in the name of a job's directory; the name of a file may have 255 bytes."""


def fixed_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that every job of a multirun is given the same value of.

    >>> fixed_keys(["data.n=5", "seed=range(3)", "optimizer.lam=interval(0.1, 1)"])
    ['data.n']
    """
    found = OverridesParser.create().parse_overrides(list(overrides))
    return [o.get_key_element().lstrip("+~") for o in found if not o.is_sweep_override()]


def job_name(overrides: Sequence[str], fixed: Sequence[str] = ()) -> str:
    """The name of a job's directory, by what varies: no separators of Hydra's grammar, no spaces.

    The last part of a key says which it is, unless two keys share it. A name that leaves something
    out, or has been cut, ends with a hash of everything.

    >>> job_name(["optimizer.gamma=0.01", "optimizer.beta=0.9", "data.n=5"], ["data.n"])
    'gamma_0.01-beta_0.9'
    >>> job_name(["data.seed=1", "seed=2"])
    'data.seed_1-seed_2'
    >>> job_name(["data.path=some/file.npz"])
    'path_some_file.npz-dd3c1597'
    >>> job_name([])
    'run'
    """
    pairs = [word.lstrip("+~").partition("=") for word in overrides]
    pairs = [(key, value) for key, _, value in pairs if key not in fixed]
    ends = Counter(key.rpartition(".")[2] for key, _ in pairs)
    text = "-".join(
        f"{last if ends[last := key.rpartition('.')[2]] == 1 else key}_{value}"
        for key, value in pairs
    )
    safe = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).rstrip("_.")
    if safe == text and len(safe) <= LONGEST:
        return safe or "run"
    digest = blake2b(",".join(map(str, pairs)).encode(), digest_size=4).hexdigest()
    return f"{safe[: LONGEST - 9].rstrip('_.-')}-{digest}"


def job_directory(*, _root_: DictConfig) -> str:
    """The resolver ``${job_name:}``: `job_name` of the job whose config this is."""
    hydra = _root_.hydra
    # an override may hold an interpolation, which is not of hydra's section
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return job_name(words, list(hydra.job.config.override_dirname.exclude_keys))


def register_job_name() -> None:
    """Register the resolver that names the directories of a multirun's jobs."""
    if not OmegaConf.has_resolver("job_name"):
        OmegaConf.register_new_resolver("job_name", job_directory)


def place_of(named: Path, folder: Path, config_hash: str) -> Path:
    """Where a job of a multirun runs.

    That is where the same config ran before, finished or not, below the folder of the multirun;
    else the directory that is named for it, with a part of the hash where another run has that
    name.
    """
    if saved_hash(named) == config_hash:
        return named
    known = [path for path in _directories(folder).get(config_hash, ()) if path.is_dir()]
    if known:
        return known[0]
    if any((named / name).exists() for name in (*WRITTEN, STATUS)):
        return named.with_name(f"{named.name}-{config_hash[:8]}")
    return named


@cache
def _directories(folder: Path) -> dict[str, list[Path]]:
    """The directories of each config below the folder of a multirun, finished runs first.

    Read once a process and multirun: what its jobs do meanwhile they find under their own names.
    """
    found: dict[str, list[Path]] = {}
    states = {}
    for path in sorted(folder.rglob(STATUS)):
        status = read_status(path.parent)
        if "config_hash" in status:
            states[path.parent] = status["state"]
            found.setdefault(status["config_hash"], []).append(path.parent)
    for paths in found.values():
        paths.sort(key=lambda path: states[path] != "done")
    return found


def forget_directories() -> None:
    """Read the folders of multiruns anew."""
    _directories.cache_clear()
