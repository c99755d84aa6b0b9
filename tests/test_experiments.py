"""Every experiment runs at tiny size from its config alone, twice to the same numbers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import xarray as xr

from dln_momentum.config import CONF_DIR
from dln_momentum.errors import InputError
from experiments import CLAIMS
from experiments.claim import VERDICTS, configured, run
from experiments.page import page

WRITTEN = [name for name in CLAIMS if (CONF_DIR / "experiment" / f"{name}.yaml").exists()]


def run_tiny(name: str, directory: Path) -> dict:
    module = importlib.import_module(f"experiments.{name}")
    settings = configured(name, "scale=tiny", "num_workers=1")
    return run(settings, module.SECTION, module.CLAIM, module.study, directory)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_experiment_runs_and_repeats(name: str, tmp_path: Path) -> None:
    claim = run_tiny(name, tmp_path / "first")
    assert claim["verdict"].startswith(VERDICTS)
    assert claim["name"] == name
    for file in ("figure.png", "figure.pdf", "results.nc", "config.yaml"):
        assert (tmp_path / "first" / file).stat().st_size > 0
    assert json.loads((tmp_path / "first" / "claim.json").read_text())["claim"] == claim["claim"]
    run_tiny(name, tmp_path / "second")
    first, second = (
        xr.open_dataset(tmp_path / which / "results.nc", engine="h5netcdf").load()
        for which in ("first", "second")
    )
    assert first.identical(second)
    assert f"## {name}" in page([claim], "tiny")


def test_an_experiment_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("{}")
    with pytest.raises(InputError, match="already holds an experiment"):
        run_tiny(WRITTEN[0], tmp_path)


def test_every_config_has_a_place_in_the_catalogue() -> None:
    assert {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")} <= set(CLAIMS)
