"""The Python of the README and of the docs runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (page.relative_to(ROOT).as_posix(), place, block)
    for page in PAGES
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "place", "block"), BLOCKS, ids=[f"{p}-{k}" for p, k, _ in BLOCKS])
def test_the_python_of_a_page_runs(page: str, place: int, block: str) -> None:
    exec(compile(block, f"{page}, block {place}", "exec"), {"__name__": "__main__"})


def test_the_readme_has_python_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:45])
    assert "import dln_momentum as dln" in first
    assert "make train" in first
