"""Citations lead somewhere: anchors of docs/theory.md exist, and a section is the poster's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
THEORY = ROOT / "docs" / "theory.md"
SOURCES = sorted(
    path for folder in ("dln_momentum", "experiments") for path in (ROOT / folder).rglob("*.py")
)
ANCHORS = re.findall(r'<a id="([\w-]+)"></a>', THEORY.read_text())


def test_anchors_are_unique_and_links_inside_the_theory_resolve() -> None:
    assert len(ANCHORS) == len(set(ANCHORS))
    links = re.findall(r"\]\(#([\w-]+)\)", THEORY.read_text())
    assert len(links) > len(ANCHORS)
    assert set(links) <= set(ANCHORS)


def test_every_cited_anchor_exists() -> None:
    cited = {
        (path.name, anchor)
        for path in SOURCES
        for anchor in re.findall(r"docs/theory\.md#([\w-]+)", path.read_text())
    }
    assert len(cited) > 30
    assert not {(name, anchor) for name, anchor in cited if anchor not in ANCHORS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_section_is_cited_by_the_number_of_the_poster(path: Path) -> None:
    """One numbering: docs/theory.md is cited by anchors, the poster by its sections."""
    text = path.read_text()
    for match in re.finditer(r"\bsections? \d", text):
        assert "poster" in text[max(0, match.start() - 100) : match.start()], match[0]


def test_the_theory_stands_alone() -> None:
    assert not re.findall(r"\.\./|shared/", THEORY.read_text())
