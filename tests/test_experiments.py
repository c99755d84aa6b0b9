"""Every experiment runs at tiny size from its config alone, twice to the same numbers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import experiments.__main__ as reproduction
from dln_momentum.config import CONF_DIR
from dln_momentum.errors import InputError
from experiments import CLAIMS
from experiments.claim import VERDICTS, configured, run
from experiments.page import page, tables
from tests.helpers import blank_figures


def run_tiny(name: str, directory: Path) -> dict:
    module = importlib.import_module(f"experiments.{name}")
    settings = configured(name, "scale=tiny", "num_workers=1")
    return run(settings, module.SECTION, module.CLAIM, module.study, directory)


def load(directory: Path) -> xr.Dataset:
    return xr.open_dataset(directory / "results.nc", engine="h5netcdf").load()


@pytest.mark.parametrize("name", CLAIMS)
def test_every_experiment_runs_and_repeats(name: str, tmp_path: Path) -> None:
    with blank_figures():  # drawing takes most of the time, and figures are not compared
        claim = run_tiny(name, tmp_path / "first")
        again = run_tiny(name, tmp_path / "second")
    assert claim["verdict"].startswith(VERDICTS)
    assert claim["name"] == name
    for file in ("figure.png", "figure.pdf", "results.nc", "config.yaml"):
        assert (tmp_path / "first" / file).stat().st_size > 0
    written = [(tmp_path / k / "claim.json").read_text() for k in ("first", "second")]
    assert written[0] == written[1]
    assert json.loads(written[0])["claim"] == again["claim"] == claim["claim"]
    assert load(tmp_path / "first").identical(load(tmp_path / "second"))
    assert f"## {name}" in page([json.loads(written[0])], "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_every_figure_can_be_drawn(name: str, tmp_path: Path) -> None:
    run_tiny(name, tmp_path)
    for file in ("figure.png", "figure.pdf"):
        assert (tmp_path / file).stat().st_size > 10_000


def test_an_experiment_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("{}")
    with pytest.raises(InputError, match="already holds an experiment"):
        run_tiny(CLAIMS[0], tmp_path)


def test_every_config_has_a_place_in_the_catalogue() -> None:
    written = {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")}
    assert written == set(CLAIMS)


def test_the_command_line_takes_overrides_and_gives_the_numbers_of_the_config(
    tmp_path: Path,
) -> None:
    """In a process of its own; a key that is overridden is not changed by the scale."""
    overrides = ["scale=tiny", "num_workers=1", "data_seeds=3"]
    command = [sys.executable, "-m", "experiments.acceleration_rule", *overrides]
    subprocess.run([*command, f"hydra.run.dir={tmp_path / 'cli'}"], check=True)
    module = importlib.import_module("experiments.acceleration_rule")
    settings = configured("acceleration_rule", *overrides)
    run(settings, module.SECTION, module.CLAIM, module.study, tmp_path / "call")
    assert load(tmp_path / "cli").sizes["data_seed"] == 3
    assert load(tmp_path / "cli").identical(load(tmp_path / "call"))
    claims = [(tmp_path / k / "claim.json").read_text() for k in ("cli", "call")]
    assert claims[0] == claims[1]


def test_a_scale_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="scale = 'huge' must be one of full, fast, tiny"):
        configured("plane", "scale=huge")


def test_one_failure_loses_no_other_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table and the page have a row for each experiment; the exit status says that one failed.

    `no_such` is no module, so that its process fails.
    """
    names = ("acceleration_rule", "no_such")
    monkeypatch.setattr(reproduction, "CLAIMS", names)
    monkeypatch.setattr(reproduction, "OUTPUTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["experiments", "--scale", "tiny", "--jobs", "1"])
    assert reproduction.main() == 1
    table = capsys.readouterr().out
    assert "failed to run" in table
    assert "no_such" in table
    assert "confirmed" in table
    text = (tmp_path / "reproduction.md").read_text()
    assert "| 1 | [acceleration_rule](#acceleration_rule) | 2 | " in text
    assert "| 2 | no_such | - | **failed to run** |" in text
    (figure,) = [line for line in text.splitlines() if line.startswith("![")]
    assert (tmp_path / figure.split("](")[1].rstrip(")")).exists()
    (log,) = tmp_path.glob("reproduction/*/no_such/log.txt")
    assert "No module named experiments.no_such" in log.read_text()


def test_numbers_with_the_same_columns_share_a_table() -> None:
    by_lam = {f"lambda={k}": [0.5 * k, 1.0 * k, 2.0 * k] for k in (1, 2)}
    text = tables({"error": by_lam, "flag": True, "gap": {"a": by_lam | {"lambda=2": None}}})
    assert text == (
        "|  |  |\n|---|---|\n| flag | True |\n\n"
        "|  | lambda=1 | lambda=2 |\n|---|---|---|\n"
        "| error | 1 [0.5, 2] | 2 [1, 4] |\n"
        "| gap, a | 1 [0.5, 2] | - |\n"
    )


def test_a_wide_table_is_turned_on_its_side() -> None:
    rows = {name: {f"lambda={k}": k for k in range(12)} for name in ("a_b", "c")}
    lines = tables(rows).splitlines()
    assert lines[0] == "|  | a b | c |"
    assert lines[2] == "| lambda=0 | 0 | 0 |"
    assert len(lines) == 14
