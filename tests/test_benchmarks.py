"""Benchmarks say what they were measured on, and one table is of one machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.machine import header, machine
from dln_momentum.engine.cpu.registers import CHOICE, WIDTH


def kept(path: Path, processor: str, microseconds: float) -> Path:
    """What `benchmarks.engine --json` would keep of two contenders."""
    results = [
        {"n": 20, "d": 30, "runs": 64, "contender": name, "microseconds": [cost * microseconds]}
        for name, cost in ((report.ENGINE, 2.0), (report.PEAK, 1.0), ("floor, any", 1.6))
    ]
    machine = {"processor": processor, "caches": "L1 32K"}
    path.write_text(json.dumps({"machine": machine, "results": results}))
    return path


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["processor"]
    assert found["doubles a register"] == str(WIDTH)
    assert found["register block"] == str(CHOICE)
    assert ("avx" in found["vector features"]) == (WIDTH >= 4)
    assert int(found["cores"].split()[0]) >= 1
    assert "missing" not in (found["torch"], found["numba"])
    assert header(found).startswith(f"measured on: processor {found['processor']}; ")


def test_the_report_has_a_section_for_each_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = kept(tmp_path / "a.json", "Z80", 1.0), kept(tmp_path / "b.json", "6502", 2.0)
    again = kept(tmp_path / "c.json", "Z80", 1.0)
    monkeypatch.setattr(sys, "argv", ["report", str(one), str(other), str(again)])
    report.main()
    first, second = capsys.readouterr().out.split("## ")[1:]
    assert first.startswith("Z80\n\nmeasured on: processor Z80; caches L1 32K\n")
    assert "| 20, 30 | 64 | 1.6 | 2 | 2.00" in first
    assert second.startswith("6502\n\nmeasured on: processor 6502; caches L1 32K\n")
    assert "| 20, 30 | 64 | 3.2 | 4 | 2.00" in second
