"""``dln-plot``: a figure of runs, multiruns, sweeps, flows or a table, as PNG and PDF.

No file is replaced: a figure that differs from the one that is there gets the next number.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dln_momentum.cli.process import answered
from dln_momentum.cli.signals import interruptible
from dln_momentum.errors import raise_if_any
from dln_momentum.nearest import did_you_mean

KEYS = ("x", "y", "z", "hue", "col", "kind", "out")
SUFFIXES = (".png", ".pdf")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: 0 done, 2 refused, 130 Ctrl-C."""
    words = _parser().parse_args(arguments).word
    with answered(), interruptible():
        for path in plot(words):
            print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dln-plot",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Draw runs over keys of their configs and quantities (docs/quantities.md).",
        epilog="""\
DIR is a folder of runs, multiruns, sweeps and flows, a results.nc, or a table (.csv, .parquet).
  x=NAME y=NAME      columns: quantities, or dotted keys of the config
  hue=NAME col=NAME  a curve, a panel, for each of its values
  z=NAME             colours of a heat map over x and y
  kind=KIND          line (default), scatter, heatmap (default with z), overview (without names)
  out=FILE           .png or .pdf, or a name that gets both; by default in the first DIR

  dln-plot outputs/study x=lam y=recovery_error hue=alpha
  dln-plot outputs/sweep/DATE/TIME kind=heatmap x=gamma y=beta z=recovery_error
  dln-plot outputs/train/DATE/TIME    the overview of one run""",
    )
    parser.add_argument("word", nargs="+", metavar="DIR | KEY=VALUE")
    return parser


def plot(words: Sequence[str]) -> list[Path]:
    """Draw what some words say, and write it; the files.

    Raises:
        InputError: before anything is written.
    """
    places, named = _read(words)
    out = named.pop("out", None)
    raise_if_any(_wrong_out(out))
    # matplotlib, pandas and xarray take seconds: not before the words are right
    from dln_momentum.interface.plot import plot as draw

    figure = draw(*places, **named)
    name = "-".join(named.values()).replace(".", "_") or "overview"
    folder = Path(places[0])
    target = Path(out) if out else (folder if folder.is_dir() else folder.parent) / name
    suffixes = [target.suffix] if target.suffix in SUFFIXES else SUFFIXES
    return _save(figure, target.with_suffix("") if len(suffixes) == 1 else target, suffixes)


def _read(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The sources, and the names by key."""
    places, named, errors = [], dict[str, str](), []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            places.append(word)
        elif key not in KEYS:
            errors.append(
                f"{word}: unknown key {key}{did_you_mean(key, KEYS)}; known: {', '.join(KEYS)}"
            )
        elif key in named or not value:
            errors.append(f"{word}: give {key} once, with a value")
        else:
            named[key] = value
    if not places:
        errors.append("give a folder, a results.nc or a table to draw")
    raise_if_any(errors)
    return places, named


def _wrong_out(out: str | None) -> list[str]:
    if out is None:
        return []
    path = Path(out)
    if path.suffix and path.suffix not in SUFFIXES and re.fullmatch(r"\.[a-z]{2,4}", path.suffix):
        return [f"out = {out} must end in .png or .pdf, or be a name that gets both"]
    return [] if path.parent.is_dir() else [f"out = {out}: there is no folder {path.parent}"]


def _save(figure: object, target: Path, suffixes: Sequence[str]) -> list[Path]:
    """Write the files of one figure under one name, which nothing else has yet."""
    from dln_momentum.outputs.figure_files import save

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".plot-") as folder:
        made = {suffix: Path(folder) / f"figure{suffix}" for suffix in suffixes}
        for path in made.values():
            save(figure, path)  # type: ignore[arg-type]
        number = 1
        while True:
            name = target.name if number == 1 else f"{target.name}-{number}"
            places = {suffix: target.with_name(name + suffix) for suffix in suffixes}
            if all(_is_free(places[suffix], made[suffix]) for suffix in suffixes):
                break
            number += 1
        for suffix, path in made.items():
            path.replace(places[suffix])
    return list(places.values())


def _is_free(place: Path, made: Path) -> bool:
    """Whether a file is not there, or holds this very figure."""
    return not place.exists() or place.read_bytes() == made.read_bytes()


if __name__ == "__main__":
    main()
