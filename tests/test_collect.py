"""dln.collect: what every command left below a folder, one row for each run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dln_momentum as dln
from dln_momentum.outputs.provenance import data_hash
from tests.helpers import run_app
from tests.test_flow_app import run_flow
from tests.test_sweep import run_sweep

KEYS = ["data.n=5", "data.d=8", "data.s=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a flow and a sweep, and directories that hold no finished job."""
    folder = tmp_path_factory.mktemp("outputs")
    for beta in (0.5, 0.9):
        run_app(
            folder / "runs" / str(beta), *KEYS, "trainer.max_steps=200", f"optimizer.beta={beta}"
        )
    run_flow(folder / "flow", *KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)
        run_sweep(folder / "point", "sweep.gamma=[0.01]")
        run_sweep(folder / "sweep", "sweep.gamma=[0.01,0.02]", "sweep.data_seed=[0,1,2]")
    for name in ("unfinished", "crashed", "torn", "odd", ".hidden", "claim"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text("data: {n: 5}\n")
    (folder / "crashed" / "error.txt").write_text("Traceback\n\nMemoryError: no room\n")
    (folder / "torn" / "summary.json").write_text('{"kind": "tra')
    (folder / "odd" / "summary.json").write_text('{"kind": [1], "status": "converged"}')
    (folder / "unfinished" / "error.txt").write_bytes(b"\xff")
    (folder / "claim" / "claim.json").write_text("{}")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return dln.collect(folder)


def test_every_run_has_a_row(table: pd.DataFrame) -> None:
    assert list(table["kind"]) == ["flow", "sweep", "train", "train", *["sweep"] * 6]
    assert list(table["path"].unique()) == ["flow", "point", "runs/0.5", "runs/0.9", "sweep"]
    assert set(table["status"]) == {"converged", "max_steps"}


def test_a_grid_without_axes_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"kind": "sweep", "status": "converged"}')
    dataset = xr.Dataset({"train_loss": 1.0, "theta": ("coordinate", [1.0, 2.0])}, {"gamma": 0.01})
    dataset.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    table = dln.collect(tmp_path)
    assert table.attrs["skipped"] == []
    assert table[["gamma", "train_loss"]].to_numpy().tolist() == [[0.01, 1.0]]


def test_numbers_are_those_of_the_files(folder: Path, table: Any) -> None:
    summary = json.loads((folder / "runs" / "0.9" / "summary.json").read_text())
    (row,) = table[table["path"] == "runs/0.9"].to_dict("records")
    for name, value in summary.items():
        if isinstance(value, int | float):
            assert row[name] == value
    assert np.isnan(row["steps_to_tol"])
    results = xr.load_dataset(folder / "sweep" / "results.nc", engine="h5netcdf")
    points = table[table["path"] == "sweep"].to_dict("records")
    for one in points:
        seed = int(one["data_seed"])
        point = results.sel(gamma=one["gamma"], data_seed=seed)
        for name in ("train_loss", "kkt_residual", "lam", "initial_balancedness_l1"):
            assert one[name] == float(point[name])
        assert one["data_hash"] == data_hash(dln.sparse(n=5, d=8, s=1, seed=seed))
    # of the whole sweep, not of a run
    assert "run_steps" not in table
    assert table.loc[table["kind"] == "sweep", "seconds"].isna().all()


def test_settings_that_differ_are_columns(table: pd.DataFrame) -> None:
    assert list(table.loc[table["kind"] == "train", "optimizer.beta"]) == [0.5, 0.9]
    assert "sweep.gamma" in table
    assert not {"data.n", "data.d", "model.alpha"} & set(table)


def test_what_is_skipped_is_said(
    folder: Path, table: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    skipped = dict(table.attrs["skipped"])
    assert set(skipped) == {"unfinished", "crashed", "torn", "odd", "claim"}
    assert "MemoryError: no room" in skipped["crashed"]
    assert "summary.json cannot be read" in skipped["torn"]
    with caplog.at_level(logging.WARNING):
        dln.collect(folder / "torn")
    assert "summary.json cannot be read" in caplog.text


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    assert len(dln.collect(tmp_path)) == 0
    assert list(dln.collect(tmp_path)) == ["kind", "path", "status", "data_hash"]
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        dln.collect(tmp_path / "nowhere")
