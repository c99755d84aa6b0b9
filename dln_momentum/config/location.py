"""Where configs lie."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
CONF_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""Beside the package in an installed wheel, else the repository's."""


def options_of(group: str) -> list[str]:
    """The options of a group, in alphabetical order.

    >>> options_of("optimizer")
    ['gamma_beta', 'lam_beta', 'lam_eps', 'lam_gamma', 'of_flow']
    """
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
