"""The config that a job saves: its text, its hash, and the files of data that it names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dln_momentum.config import config_hash as hash_of
from dln_momentum.config.momentum import with_all_rates
from dln_momentum.outputs.found import flat
from dln_momentum.outputs.status import read_status

HYDRA_LINES = """\
defaults:
- paths: default
- _self_
- override hydra/job_logging: stdout
- override hydra/help: {app}
"""
"""The start of a saved config: with it ``--config-dir DIR --config-name config`` runs it again."""


def config_text(app: str, values: Mapping[str, Any]) -> str:
    """What ``config.yaml`` holds: every value, and gamma, beta, lam and eps that ran."""
    values = with_all_rates(values)
    # in an order that does not depend on how the config was composed
    ordered = {key: values[key] for key in sorted(map(str, values))}
    sections = (_dumped({key: value}) for key, value in ordered.items())
    return HYDRA_LINES.format(app=app) + "".join(sections)


_DUMPED: dict[str, str] = {}
"""The YAML text of sections, by how Python writes them; jobs of a multirun share most of them."""


def _dumped(section: dict[str, Any]) -> str:
    written = repr(section)
    if written not in _DUMPED:
        _DUMPED[written] = OmegaConf.to_yaml(section)
    return _DUMPED[written]


def files_of(values: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each file that a config names in its sections of data, start and axes."""
    found: dict[str, str] = {}
    sections = {name: values.get(name) for name in ("data", "model", "sweep")}
    for _, given in flat(sections):
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str) and "." in value:
                with contextlib.suppress(OSError, ValueError):  # a text that names no file
                    content = Path(value).expanduser().read_bytes()
                    found[value] = blake2b(content, digest_size=16).hexdigest()
    return found


def saved_hash(directory: Path) -> str | None:
    """The hash of the config that a directory holds, by ``config.yaml`` or else ``status.json``."""
    with contextlib.suppress(Exception):  # whatever the bytes of another file cause
        saved = OmegaConf.load(directory / "config.yaml")
        assert isinstance(saved, DictConfig)
        return hash_of(saved)
    return read_status(directory).get("config_hash")
