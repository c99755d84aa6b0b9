"""Where configs lie, and how their directories get names of their own."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from omegaconf import OmegaConf

_HERE = Path(__file__).resolve().parent.parent
CONF_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""Beside the package in an installed wheel, else the repository's."""


def register_resolvers() -> None:
    """Register the resolvers of the configs.

    ``${run_id:}`` makes output directories unique; ``${options:GROUP,...}`` are the options of
    groups for ``--help``.
    """
    if not OmegaConf.has_resolver("run_id"):
        OmegaConf.register_new_resolver("run_id", lambda: uuid4().hex[:6], use_cache=True)
        OmegaConf.register_new_resolver("options", _options)


def _options(*groups: str) -> str:
    """A line ``group: option, ...`` for each group."""
    files = {group: sorted((CONF_DIR / group).glob("*.yaml")) for group in groups}
    return "\n".join(f"{group}: {', '.join(f.stem for f in files[group])}" for group in groups)
