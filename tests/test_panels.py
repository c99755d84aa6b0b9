"""The panels of X follow the caches of the machine, and no number follows the panels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, sparse
from dln_momentum.engine.cpu import kernel, panels
from dln_momentum.engine.cpu.panels import USUAL, Caches, panel_sizes, reported_caches

KILO = 2**10


def listed(folder: Path, *caches: tuple[str, str, str]) -> Path:
    """A folder of caches as Linux has it, of (level, type, size)."""
    for at, cache in enumerate(caches):
        index = folder / f"index{at}"
        index.mkdir()
        for name, text in zip(("level", "type", "size"), cache, strict=True):
            (index / name).write_text(text + "\n")
    return folder


def test_caches_as_linux_lists_them(tmp_path: Path) -> None:
    listed(
        tmp_path, ("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"),
        ("3", "Unified", "260M"),
    )  # fmt: skip
    assert reported_caches(tmp_path) == (48 * KILO, 2 * KILO**2)


@pytest.mark.parametrize("size", ["", "K", "0K", "-32K", "many", "32X"])
def test_what_is_not_reported_is_assumed(tmp_path: Path, size: str) -> None:
    assert reported_caches(tmp_path / "missing") == USUAL
    listed(tmp_path, ("1", "Data", size), ("2", "Unified", "1024K"))
    (tmp_path / "index9").mkdir()
    assert reported_caches(tmp_path) == (USUAL.level_1, KILO**2)


@pytest.mark.parametrize("lanes", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("caches", [USUAL, Caches(48 * KILO, 2 * KILO**2), Caches(2**17, 2**24)])
def test_panels_fit_the_caches(caches: Caches, lanes: int) -> None:
    rows, columns = panel_sizes(caches, lanes)
    assert (8 * lanes + 64) * rows <= caches.level_1 / 2
    assert 8 * rows * columns <= caches.level_2 / 2


def test_tiny_caches_leave_panels_of_some_size() -> None:
    assert panel_sizes(Caches(1, 1), 16) == (16, 16)


def test_panels_are_of_this_machine() -> None:
    assert panel_sizes(reported_caches(), kernel.LANES) == (
        panels.PANEL_ROWS,
        panels.PANEL_COLUMNS,
    )


def trained(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, group: int) -> Engine:
    """40 steps of runs with a momentum each."""
    for name, value in (("PANEL_ROWS", rows), ("PANEL_COLUMNS", columns)):
        monkeypatch.setattr(kernel, name, value)
    monkeypatch.setattr(kernel, "blocks_together", lambda *_: group)
    problem, runs = sparse(70, 90, 3, seed=1), 2 * kernel.LANES
    net = DiagonalLinearNet.uniform(90, 0.1, runs=(runs,))
    beta = torch.linspace(0, 0.95, runs, dtype=torch.float64)
    options = EngineOptions(backend="numba", path_sums="telescoped")
    starts = (net.w_plus.detach(), net.w_minus.detach())
    engine = Engine(problem, torch.full_like(beta, 0.005), beta, *starts, options=options)
    engine.advance(40)
    return engine


def test_no_bit_depends_on_the_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, *others = (
        trained(monkeypatch, *sizes).state for sizes in ((256, 102, 4), (16, 16, 1), (33, 41, 2))
    )
    for other in others:
        for name in ("w", "p", "path_sums", "residual_sum", "loss"):
            assert torch.equal(getattr(whole, name), getattr(other, name)), name
