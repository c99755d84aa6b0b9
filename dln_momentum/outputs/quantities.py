"""The vocabulary: every quantity under the one name that all files, dashboards and classes use.

The table is ``quantities.csv``; ``python -m dln_momentum.outputs.quantities`` writes
``docs/quantities.md`` from it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

SEEDS = ("seed", "data_seed")

NOT_RUN = "not run"
"""The status of a point of a grid whose run is not there, as in one shard of a sweep."""

PATH = "_path"
"""``NAME_path`` in results.nc holds the values of ``NAME`` at the recorded steps."""

PLACES = {
    "t": "summary.json of dln-train",
    "f": "summary.json of dln-flow",
    "w": "summary.json of dln-sweep",
    "v": "verify.json",
    "h": "history.nc of dln-train",
    "s": "history.nc of dln-train, where gamma and beta change along the run",
    "g": "summary.json, history.nc and results.nc, where the loss is one of classification",
    "c": "history.nc of dln-flow (continuous time)",
    "m": "results.nc and summary.json of dln-flow with many lambda",
    "p": "history.nc and summary.json of dln-flow compare=DIR",
    "r": "results.nc of dln-sweep",
    "a": "attribute of Run, Snapshot or FlowPath",
    "o": "history.nc of dln-train with callbacks=curvature or callbacks=average",
    "b": "TensorBoard alone",
}
"""Where a quantity is found, by the letter that stands for the place in `Quantity.found`."""


@dataclass(frozen=True)
class Quantity:
    """A row of the table.

    Attributes:
        name: the name everywhere, a Python identifier.
        symbol: LaTeX, without dollar signs.
        long_name: what it is.
        found: letters of `PLACES`.
        group: of its TensorBoard tag, with ``/log10`` where it spans decades; empty without a tag.
        units: "1" for pure numbers and for quantities in the units of the data.
    """

    name: str
    symbol: str
    units: str
    group: str
    found: str
    long_name: str


with Path(__file__).with_suffix(".csv").open(newline="") as file:
    QUANTITIES = {row["name"]: Quantity(**row) for row in csv.DictReader(file)}
"""The table, by name."""


def quantity(name: str) -> Quantity:
    r"""The row of a name; that of ``NAME`` for ``NAME_path``.

    Raises:
        KeyError: for a name that is not in the table.

    >>> quantity("balancedness").symbol, quantity("train_loss_path").name
    ('\\Delta', 'train_loss')
    """
    return QUANTITIES[name if name in QUANTITIES else name.removesuffix(PATH)]


def tag(name: str) -> str:
    """The TensorBoard tag of a quantity.

    >>> tag("l1_norm"), tag("kkt_residual")
    ('errors/l1_norm', 'implicit_bias/log10 kkt_residual')
    """
    return f"{QUANTITIES[name].group}{' ' if spans_decades(name) else '/'}{name}"


def group_of(name: str) -> str:
    """The group that dashboards and loggers put a quantity into; empty for none."""
    return QUANTITIES[name].group.partition("/")[0] if name in QUANTITIES else ""


def spans_decades(name: str) -> bool:
    """Whether dashboards show the decimal logarithm of a quantity."""
    return QUANTITIES[name].group.endswith("/log10")


def attributes(name: str) -> dict[str, str]:
    """``long_name``, ``units`` and ``symbol`` of a variable of a NetCDF file."""
    row = quantity(name)
    long_name = row.long_name + (", at the recorded steps" if row.name != name else "")
    return {"long_name": long_name, "units": row.units, "symbol": row.symbol}


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset, with `attributes` on each variable of the table; it is changed in place.

    What a user's own monitor records under other names stays as it is.
    """
    for name, variable in dataset.variables.items():
        if str(name).removesuffix(PATH) in QUANTITIES:
            variable.attrs |= attributes(str(name))
    return dataset


def document() -> str:
    """``docs/quantities.md``: the table."""
    where = "\n".join(f"- {letter}: {place}" for letter, place in PLACES.items())
    rows = "\n".join("| " + " | ".join(_cells(row)) + " |" for row in QUANTITIES.values())
    return (
        "# Quantities\n\n"
        "Every quantity has one name, in files, on dashboards and in Python. This page is written\n"
        "by `python -m dln_momentum.outputs.quantities` from `outputs/quantities.csv`.\n\n"
        "Variables of NetCDF files have the attributes `long_name`, `units` and `symbol`; the\n"
        "files themselves have `kind`, `config` (the YAML text), `versions`, `commit`,\n"
        "`data_hash` and `processor`. `NAME_path` in results.nc holds the values of `NAME` at\n"
        "the recorded steps. TensorBoard shows `group/name`, or `group/log10 name` where values\n"
        "span decades. Units of `1` are those of the data, or none.\n\n"
        f"Found in:\n\n{where}\n\n"
        "| name | symbol | what it is | units | TensorBoard group | found in |\n"
        f"|---|---|---|---|---|---|\n{rows}\n"
    )


def _cells(row: Quantity) -> list[Any]:
    # a bare | would end the cell
    symbol = row.symbol.replace("|", r"\vert ").replace(r"\\vert", r"\Vert")
    text = row.long_name.replace("|", r"\|")
    return [
        f"`{row.name}`",
        f"${symbol}$" if symbol else "",
        text,
        row.units,
        row.group,
        " ".join(row.found),
    ]


if __name__ == "__main__":
    page = Path(__file__).resolve().parents[2] / "docs" / "quantities.md"
    page.write_text(document())
    print(page)
