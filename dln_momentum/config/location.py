"""Where configs lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

_HERE = Path(__file__).resolve().parent.parent
CONF_DIR = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""Beside the package in an installed wheel, else the repository's."""
added = list[Path]()
"""Folders of the user's own options, which ``--config-dir`` of the command at work names."""


@contextmanager
def initialised() -> Iterator[None]:
    """Hydra with the configs of this package and of the user's own folders, to compose with."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        path = loader.get_search_path()
        for folder in added:
            path.prepend("command-line", f"file://{folder}", "schema")
        # the sources of a loader are those of its search path when it was made
        loader.repository.initialize_sources(path)  # pyright: ignore[reportAttributeAccessIssue]
        yield


FOR_VERIFY = {"flow": {"of_optimizer"}, "optimizer": {"of_flow"}}
"""Options that leave out keys which every command but dln-verify needs."""
NOT_FOR_VERIFY = {"flow": {"annealed", "gradient", "momentum", "nesterov_ode"}}
"""Options with keys that dln-verify does not have."""


def unusable(group: str, app: str) -> set[str]:
    """The options of a group that are for other commands."""
    return (NOT_FOR_VERIFY if app == "verify" else FOR_VERIFY).get(group, set())


def options_of(group: str, app: str | None = None) -> list[str]:
    """The options of a group, all or those that a command can use, in alphabetical order.

    >>> options_of("optimizer")
    ['eps_beta', 'gamma_beta', 'lam_beta', 'lam_eps', 'lam_gamma', 'layer_rates', 'of_flow']
    >>> options_of("flow", "flow")
    ['annealed', 'gradient', 'momentum', 'nesterov_ode']
    """
    folders = [CONF_DIR, *added]
    found = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(found if app is None else found - unusable(group, app))
