"""The overview cut into its panels, each of which can be read on a card of TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dln_momentum.outputs import events

PANELS = (
    ("1 errors", "2 balancedness", "3 exponents"),
    ("4 distances", "5 identities", "6 theta"),
)
"""The panels of `dln_momentum.outputs.plotting.overview`, by row and column."""

DARK = 80
"""Axes are drawn in black, and their frames are the long lines of it."""
MARGIN = 0.003
"""Share of the width that is left above and to the right of a frame."""
COLOURS = 32
"""Of a panel: lines, and enough shades for smooth text, in a third of the bytes."""

Box = tuple[int, int, int, int]


def panels(figure: Path) -> list[events.Value]:
    """The panels of a saved overview as images of their own; all of it where they are not found."""
    from PIL import Image

    with Image.open(figure) as opened:
        picture = opened.convert("RGB")
    boxes = dict(_boxes(np.asarray(picture.convert("L")) < DARK))
    if len(boxes) != sum(map(len, PANELS)):
        boxes = {"0 all": (0, 0, *picture.size)}
    found = []
    for name, box in boxes.items():
        panel, file = picture.crop(box), io.BytesIO()
        panel.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(file, "png")
        found += events.image(f"overview/{name}", file.getvalue(), *panel.size)
    return found


def _boxes(dark: np.ndarray) -> Iterator[tuple[str, Box]]:
    """Each panel's name and box (left, top, right, bottom), from the lines under its axes."""
    height, width = dark.shape
    margin = round(MARGIN * width)
    lines = [
        (y, runs) for y in np.flatnonzero(dark.sum(1) > width // 2) if (runs := _runs(dark[y]))
    ]
    # a line is a few pixels thick
    bases = [lines[i] for i in range(len(lines)) if i == 0 or lines[i][0] > lines[i - 1][0] + 9]
    if [len(runs) for _, runs in bases] != [len(names) for names in PANELS]:
        return
    tops = []
    for y, runs in bases:
        frame = dark[: y + 1, runs[0][0] : runs[0][0] + 4].sum(axis=1)
        tops.append(max(0, int(y - np.argmin(frame[::-1] > 0)) - margin))
    for names, top, bottom, (_, runs) in zip(PANELS, tops, [*tops[1:], height], bases, strict=True):
        rights = [right + margin for _, right in runs[:-1]] + [width]
        for name, left, right in zip(names, [0, *rights], rights, strict=False):
            yield name, (left, top, right, bottom)


def _runs(line: np.ndarray) -> list[tuple[int, int]]:
    """Where the long stretches of a line begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    pairs = edges.reshape(-1, 2)
    return [(int(a), int(b)) for a, b in pairs if b - a > len(line) // 10]
