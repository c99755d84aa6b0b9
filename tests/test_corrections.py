"""The poster's text against its corrections, as the table of the README has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.corrections import rows

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.slow
def test_the_text_is_wrong_and_the_correction_is_not() -> None:
    """(docs/theory.md#corrections.) And the README says what the command prints."""
    section = README.read_text().partition("## Corrections to the poster")[2].partition("\n## ")[0]
    shown = re.findall(r"\| ([\d.e+-]+) \| ([\d.e+-]+) \|$", section, re.MULTILINE)
    found = [(float(wrong), float(right)) for _, _, wrong, right in rows()]
    assert len(found) == len(shown) == 6
    for (wrong, right), (said_wrong, said_right) in zip(found, shown, strict=True):
        # the sizes of errors of formulas: to their two digits
        assert wrong == pytest.approx(float(said_wrong), rel=0.05)
        # those of rounding and of the solver depend on the processor
        assert right < 10 * float(said_right)
