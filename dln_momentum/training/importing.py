"""Lightning's imports without the slowest of those that nothing here uses."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


def import_torchmetrics() -> None:
    """Import torchmetrics, which Lightning needs, without scipy.signal.

    torchmetrics imports scipy.signal for the sake of another package only: it gives it a function
    ``hamming``, which SciPy has renamed. That import takes as long as numpy, pandas and xarray
    together. Here it finds a module that has one; whoever imports scipy.signal later gets SciPy's.
    """
    name = "scipy.signal"
    if name in sys.modules or "torchmetrics" in sys.modules:
        return
    sys.modules[name] = found = ModuleType(name)
    found.hamming = None  # type: ignore[attr-defined]
    try:
        import_module("torchmetrics")
    except ImportError:
        # it is not this package's business what else a version of it wants of SciPy
        pass
    finally:
        del sys.modules[name]
