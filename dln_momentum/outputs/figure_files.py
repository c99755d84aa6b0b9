"""Figures as files: laid out once for all of them, with few colours and small fonts."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from dln_momentum.outputs.plotting import style


def lay_out(figure: Figure) -> None:
    """Give the parts of a figure their places, for all files that it will be saved to."""
    if (engine := figure.get_layout_engine()) is not None:
        with style():
            engine.execute(figure)
        figure.set_layout_engine(None)


def save(figure: Figure, path: Path) -> None:
    """Save a figure in the package's style, undated, so that the same numbers give one file.

    Args:
        figure: the figure.
        path: where it goes, in the format of its suffix.
    """
    # which tells every glyph that it embeds into a .pdf
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    lay_out(figure)
    # colours of the cycle are looked up when the figure is drawn
    with style():
        # cutting the margins off takes another drawing
        mpl.rcParams["savefig.bbox"] = None
        if path.suffix == ".png":
            _picture(figure).save(path)
        elif path.suffix == ".pdf":
            with _fonts_as_drawn():
                figure.savefig(path, metadata={"CreationDate": None})
        else:
            figure.savefig(path)


@contextmanager
def _fonts_as_drawn() -> Iterator[None]:
    """Embed fonts without the tables that text is set by, in two fifths of the time.

    GSUB, GPOS and GDEF say which glyphs take the place of which, and how far apart they stand; a
    PDF names the glyphs that were drawn, and their places. matplotlib has no setting for it; with a
    version of fontTools that keeps its defaults elsewhere the tables are embedded, too.
    """
    from fontTools.subset import Options

    usual: list[str] | None = getattr(Options, "_drop_tables_default", None)
    if usual is None:
        yield
        return
    Options._drop_tables_default = [*usual, "GSUB", "GPOS", "GDEF"]
    try:
        yield
    finally:
        Options._drop_tables_default = usual


def _picture(figure: Figure) -> Image.Image:
    """A figure in 256 of its colours: the eye sees no difference, and a third is left."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba")
    width, height = (figure.get_size_inches() * mpl.rcParams["savefig.dpi"]).astype(int)
    whole = Image.frombytes("RGBA", (int(width), int(height)), drawn.getvalue())
    return whole.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE)
