"""The overview cut into its panels, each of which can be read on a card of TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dln_momentum.outputs import events

PANELS = (
    ("1 errors", "2 balancedness", "3 exponents"),
    ("4 distances", "5 identities", "6 theta"),
)
"""The panels of `dln_momentum.outputs.plotting.overview`, by row and column."""

MARGIN = 0.003
"""Fraction of the width that is left above and to the right of the axes."""
COLOURS = 32
"""Of a panel: lines, and enough shades for smooth text, in a third of the bytes."""

Box = tuple[int, int, int, int]


def panels(figure: Path) -> list[events.Value]:
    """The panels of a saved overview as images of their own; another picture is shown whole."""
    from PIL import Image

    with Image.open(figure) as opened:
        picture = opened.convert("RGB")
    boxes = dict(_boxes(*picture.size)) or {"0 all": (0, 0, *picture.size)}
    found = []
    for name, box in boxes.items():
        panel, file = picture.crop(box), io.BytesIO()
        panel.quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(file, "png")
        found += events.image(f"overview/{name}", file.getvalue(), *panel.size)
    return found


def _boxes(width: int, height: int) -> Iterator[tuple[str, Box]]:
    """Each panel's name and box (left, top, right, bottom): labels are below and to the left."""
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from dln_momentum.outputs.plotting import OVERVIEW_SIZE, PLACES

    if abs(width / height - OVERVIEW_SIZE[0] / OVERVIEW_SIZE[1]) > 0.01:
        return
    places: dict[str, Any] = PLACES
    _, upper, _, right = GridSpec(2, 3, **places).get_grid_positions(Figure())
    margin = round(MARGIN * width)
    tops = [round((1 - edge) * height) - margin for edge in upper]
    rights = [*(round(edge * width) + margin for edge in right[:-1]), width]
    for names, top, bottom in zip(PANELS, tops, [*tops[1:], height], strict=True):
        for name, left, end in zip(names, [0, *rights], rights, strict=False):
            yield name, (left, top, end, bottom)
