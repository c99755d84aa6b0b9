"""Packages that not everyone installs: what imports them says which extra has them.

The core needs torch, NumPy, SciPy, numba and xarray. All else is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dln_momentum.errors import InputError

EXTRAS = {
    "train": ("hydra", "joblib", "lightning", "omegaconf", "rich", "tensorboard", "threadpoolctl"),
    "data": ("h5netcdf", "h5py", "pandas", "sklearn", "yaml"),
    "plot": ("PIL", "matplotlib"),
    "parquet": ("pyarrow",),
}
"""The modules of each extra, by their names in Python."""

EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


class MissingExtraError(InputError, ImportError):
    """Raised when what is asked for needs a package that is not installed.

    Args:
        module: the package, by its name in Python.

    >>> raise MissingExtraError("matplotlib")
    Traceback (most recent call last):
    dln_momentum.extras.MissingExtraError: matplotlib is not installed: pip install
    'dln-momentum[plot]', or 'dln-momentum[all]' for all that the package can use
    """

    def __init__(self, module: str) -> None:
        wanted = f"'dln-momentum[{EXTRA_OF[module]}]'"
        everything = "'dln-momentum[all]' for all that the package can use"
        super().__init__([f"{module} is not installed: pip install {wanted}, or {everything}"])
        self.name = module

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.name,)


@contextmanager
def naming_extra() -> Iterator[None]:
    """Import in this context: the error for a package of an extra says which one to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        raise MissingExtraError(module) from error
