"""``dln-collect``: everything that was run below some folders, in one table and one results.nc.

The files are written whole or not at all. A file that is there already is replaced only if it is
this command's own product of the same folders, byte for byte; anything else is refused.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.process import answered
from dln_momentum.cli.signals import interruptible
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.nearest import did_you_mean
from dln_momentum.outputs.status import Lock

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from dln_momentum.interface.collect import Collection

FORMATS = ("csv", "parquet", "md", "tex")
LISTED = 40
"""Lines of what has no result or failed that the terminal shows."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: 0 done, 1 with ``--strict`` and something missing, 2 refused, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    with answered(), interruptible():
        complete = collect(options)
    raise SystemExit(1 if options.strict and not complete else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dln-collect",
        description="Collect runs, multiruns, sweeps, shards and flows into results.nc and a table "
        "with a row for each run. What is missing, failed, corrupt or diverged is listed.",
    )
    add = parser.add_argument
    add("directory", nargs="+", metavar="DIR", help="folders that are searched for jobs")
    add("-o", "--out", metavar="DIR", help="where to write; by default collected/ in the first DIR")
    add("--over", type=_words, default=[], metavar="KEY[,KEY]",
        help="also write over_KEY.*: median, quantiles, count and failures over seed, data_seed or "
        "any other key; runs on different data are kept apart")  # fmt: skip
    add("--quantiles", type=_numbers, default=[0.25, 0.75], metavar="Q[,Q]",
        help="of --over (default: 0.25,0.75)")  # fmt: skip
    add("--format", type=_words, default=["csv", "md"], metavar="FORMAT[,FORMAT]",
        help=f"of the tables: {', '.join(FORMATS)} (default: csv,md)")  # fmt: skip
    add("--columns", type=_words, default=[], metavar="NAME[,NAME]",
        help="of the md and tex tables; csv and parquet hold every column")  # fmt: skip
    add("--strict", action="store_true", help="exit with 1 if anything is missing or failed")
    return parser


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in _words(text)]


def collect(options: argparse.Namespace) -> bool:
    """Read, write and report; whether every job had a result.

    Raises:
        InputError: before anything is written.
    """
    raise_if_any(_wrong_options(options))
    # pandas and xarray take a second: not before the options are right
    from dln_momentum.interface.collect import find
    from dln_momentum.outputs.aggregation import aggregate

    found = find(*options.directory)
    tables = {"runs": found.table}
    if options.over:
        name = "over_" + "_".join(key.replace(".", "_") for key in options.over)
        tables[name] = aggregate(
            found.table, found.settings, options.over, found.unfinished, options.quantiles
        )
    raise_if_any(_wrong_columns(options.columns, tables["runs"]))
    out = Path(options.out or Path(options.directory[0]) / "collected")
    written = _write(out, found, tables, options)
    _print(found, tables, out, written)
    return not found.skipped and not found.failures


def _wrong_options(options: argparse.Namespace) -> list[str]:
    from dln_momentum.outputs.tables import has_parquet

    errors = [
        f"--format {name} must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        for name in options.format
        if name not in FORMATS
    ]
    if "parquet" in options.format and not has_parquet():
        errors.append('--format parquet needs pyarrow: pip install "dln-momentum[parquet]"')
    return errors


def _wrong_columns(columns: Sequence[str], table: pd.DataFrame) -> list[str]:
    known = [str(name) for name in table]
    return [
        f"--columns {name} is no column of the table{did_you_mean(name, known)}"
        for name in columns
        if name not in known
    ]


def _write(
    out: Path, found: Collection, tables: dict[str, pd.DataFrame], options: argparse.Namespace
) -> list[str]:
    """Write all files beside their places, then move them there; the list of files is the last.

    Two collections into one folder follow one another: what is there is whole, by the last one.
    """
    call = {"directories": [str(Path(name).resolve()) for name in options.directory]}
    names = ["results.nc", *(f"{name}.{kind}" for name in tables for kind in options.format)]
    raise_if_any(_not_ours(out, names, call))
    try:
        dataset = found.dataset()
    except (ValueError, OSError) as error:
        raise InputError([f"the sweep cannot be joined: {error}"]) from error
    dataset.attrs |= {"collected_from": "\n".join(call["directories"])}
    lock = Lock(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # another collection that writes there takes seconds
        lock.acquire(wait=True)
        _remove_unfinished(out)
    except OSError as error:
        lock.release()
        raise InputError([f"--out = {str(out)!r} cannot be written: {error.strerror}"]) from error
    try:
        # it may have written since
        raise_if_any(_not_ours(out, names, call))
        _write_locked(out, names, dataset, found, tables, options, call)
    finally:
        lock.release()
    return names


def _write_locked(
    out: Path,
    names: Sequence[str],
    dataset: xr.Dataset,
    found: Collection,
    tables: dict[str, pd.DataFrame],
    options: argparse.Namespace,
    call: dict[str, Any],
) -> None:
    from dln_momentum.outputs.files import write_dataset, write_json
    from dln_momentum.outputs.tables import READERS, WRITERS, for_readers

    with tempfile.TemporaryDirectory(dir=out, prefix=".collect-") as folder:
        place = Path(folder)
        write_dataset(place / "results.nc", dataset)
        for name, table in tables.items():
            chosen = options.columns if name == "runs" else ()
            short = for_readers(table, found.settings, chosen)
            for kind in options.format:
                path = place / f"{name}.{kind}"
                if kind in WRITERS:
                    WRITERS[kind](path, table)
                else:
                    path.write_text(READERS[kind](short))
        record = {
            **call,
            "over": options.over,
            "runs": len(found.table),
            "skipped": found.skipped,
            "failures": found.failures,
            "files": {name: _digest(place / name) for name in names},
        }
        # should the process be killed between the files, each is one that the record knows
        earlier = {name: _digest(out / name) for name in names if (out / name).exists()}
        write_json(out / "collect.json", record | {"complete": False, "earlier": earlier})
        for name in names:
            (place / name).replace(out / name)
        write_json(out / "collect.json", record)


def _remove_unfinished(out: Path) -> None:
    """Remove what a process that was killed had not moved into place."""
    for unfinished in out.glob(".collect-*"):
        shutil.rmtree(unfinished)
    for unfinished in out.glob(".collect.json.*"):
        unfinished.unlink()


def _not_ours(out: Path, names: Sequence[str], call: dict[str, Any]) -> list[str]:
    """What is in the way of writing the files."""
    if out.exists() and not out.is_dir():
        return [f"--out = {str(out)!r} must be a directory"]
    there = [name for name in names if (out / name).exists()]
    record = _record(out)
    if record is None:
        other = [name for name in there if name != "collect.json"]
        return [f"{out / name} is there and was not written by dln-collect; choose --out"
                for name in other]  # fmt: skip
    if record.get("directories") != call["directories"]:
        of = ", ".join(record.get("directories", []))
        return [f"{out} holds the collection of {of}; choose another --out"]
    known = [record.get("files", {}), record.get("earlier", {})]
    return [
        f"{out / name} is not what dln-collect wrote there; move it or choose another --out"
        for name in there
        if _digest(out / name) not in [files.get(name) for files in known]
    ]


def _record(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / "collect.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _print(
    found: Collection, tables: dict[str, pd.DataFrame], out: Path, written: Sequence[str]
) -> None:
    """Failures first, then how many runs there are, then where the files lie."""
    from dln_momentum.outputs.found import is_setting
    from dln_momentum.outputs.terminal import wide_console

    console = wide_console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    for title, lines in (
        ("without a result", found.skipped),
        ("with a result that is no number to compare", found.failures),
    ):
        if lines:
            say(f"{title}: {len(lines)}", "bold")
        for path, reason in lines[:LISTED]:
            say(f"  {path}: {reason}")
        if len(lines) > LISTED:
            say(f"  and {len(lines) - LISTED} more, in {out / 'collect.json'}")
    table = found.table
    counts: Any = table.groupby(["kind", "status"], sort=False).size() if len(table) else {}
    told = ", ".join(f"{n} {kind} {status}" for (kind, status), n in counts.items())
    say(f"{len(table)} runs: {told}" if told else "no runs")
    varied = [name for name in found.settings if is_setting(name)]
    say(f"varied: {', '.join(varied)}" if varied else "no setting varies")
    problems = table["data_hash"].nunique()
    say(f"data sets: {problems}")
    for name, other in tables.items():
        if name != "runs":
            again = other.attrs["repeated"]
            left_out = f"; {again} rows repeat another run and are left out" if again else ""
            say(f"{name}: {len(other)} groups{left_out}")
    say(f"{', '.join(written)} in {out}")


if __name__ == "__main__":
    main()
