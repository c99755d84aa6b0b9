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
from dln_momentum.cli.collect import main
from dln_momentum.outputs.aggregation import aggregate
from dln_momentum.outputs.found import Job
from dln_momentum.outputs.provenance import data_hash
from dln_momentum.outputs.sweep_files import rows_of_dataset
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
    for name in ("interrupted", "cycle", "no_file/config.yaml", "multi/1", "broken"):
        (folder / name).mkdir(parents=True)
    status = {"state": "interrupted", "message": "by Ctrl-C"}
    (folder / "interrupted" / "status.json").write_text(json.dumps(status))
    (folder / "cycle" / "config.yaml").write_text("a: 1\nb: &b {c: *b}\n")
    (folder / "multi" / "multirun.yaml").touch()
    (folder / "broken" / "results.nc").write_bytes(b"\x89HDF\r\n\x1a\n")
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
    dataset = xr.Dataset(
        {"status": "converged", "train_loss": 1.0, "theta": ("coordinate", [1.0, 2.0])},
        {"gamma": 0.01},
    )
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
    # a run of a sweep has the value of its own point
    sweep = table[table["path"] == "sweep"]
    assert list(sweep["optimizer.gamma"]) == list(sweep["gamma"]) == [0.01] * 3 + [0.02] * 3
    assert list(sweep["data.seed"]) == [0, 1, 2] * 2
    assert not {"data.n", "data.d", "model.alpha", "defaults", "sweep.gamma"} & set(table)


def test_what_is_skipped_is_said(
    folder: Path, table: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    skipped = dict(table.attrs["skipped"])
    assert set(skipped) == {
        "unfinished", "crashed", "torn", "odd", "claim", "interrupted", "cycle", "no_file",
        "multi/1", "broken",
    }  # fmt: skip
    assert "MemoryError: no room" in skipped["crashed"]
    assert "summary.json cannot be read" in skipped["torn"]
    assert skipped["interrupted"].startswith("interrupted, without summary.json")
    assert skipped["interrupted"].endswith(": by Ctrl-C")
    assert "config.yaml cannot be read: b.c is a YAML alias" in skipped["cycle"]
    assert "config.yaml cannot be read: it is not a file" in skipped["no_file"]
    assert skipped["multi/1"] == "empty: the job never began"
    assert "results.nc cannot be read" in skipped["broken"]
    with caplog.at_level(logging.WARNING):
        dln.collect(folder / "torn")
    assert "summary.json cannot be read" in caplog.text


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    assert len(dln.collect(tmp_path)) == 0
    assert list(dln.collect(tmp_path)) == ["kind", "path", "status", "data_hash"]
    with pytest.raises(dln.InputError, match=r"nowhere' must be a folder or a results.nc; there"):
        dln.collect(tmp_path / "nowhere")
    with pytest.raises(dln.InputError, match="one folder or more"):
        dln.collect()


# ---- aggregation


def rows(*runs: dict[str, Any]) -> pd.DataFrame:
    blank = {"kind": "train", "status": "converged", "data_hash": "a", "path": ""}
    return pd.DataFrame([blank | run for run in runs])


def test_statistics_over_seeds_are_those_of_the_runs_that_did_not_diverge(
    folder: Path, table: Any
) -> None:
    found = dln.collect(folder, over="data_seed", quantiles=[0.1])
    sweep = found[found["kind"] == "sweep"]
    # the point is one of the runs of the sweep: it counts once
    assert list(sweep["count"]) == [3, 3]
    assert found.attrs["repeated"] == 1
    points = table[(table["path"] == "sweep") & (table["gamma"] == 0.02)]
    row = sweep.iloc[1]
    assert row["optimizer.gamma"] == 0.02
    assert row["train_loss_median"] == points["train_loss"].median()
    assert row["train_loss_q10"] == points["train_loss"].quantile(0.1)
    assert row["failures"] == 0
    assert row["lam"] == points["lam"].iloc[0]


def test_a_failure_counts_and_its_numbers_do_not() -> None:
    table = rows(
        {"seed": 0, "l1_norm": 1.0, "beta": 0.5},
        {"seed": 1, "l1_norm": 1e30, "beta": 0.5, "status": "diverged"},
        {"seed": 2, "l1_norm": 3.0, "beta": 0.5, "status": "max_steps"},
        {"seed": 0, "l1_norm": 5.0, "beta": 0.9},
    )
    lost = Job(Path(), "", {"beta": 0.9, "seed": 1}, {}, "failed")
    other = Job(Path(), "", {"beta": 0.99, "seed": 0}, {}, "failed")
    found = aggregate(table, ["seed", "beta"], ["seed"], [lost, other, other])
    assert found["count"].tolist() == [3, 1, 0]
    assert found["converged"].tolist() == [1, 1, 0]
    assert found["failures"].tolist() == [1, 1, 2]
    assert found["l1_norm_median"].tolist()[:2] == [2.0, 5.0]
    assert found["beta"].tolist() == [0.5, 0.9, 0.99]


def test_runs_on_different_data_are_never_mixed() -> None:
    table = rows(
        {"data_hash": "a", "seed": 0, "data_seed": 0, "l1_norm": 1.0},
        {"data_hash": "b", "seed": 1, "data_seed": 1, "l1_norm": 2.0},
    )
    settings = ["seed", "data_seed"]
    assert len(aggregate(table, settings, ["seed"])) == 2
    # the same keys, other data: only the hash tells them apart
    assert len(aggregate(table, ["seed"], ["seed"])) == 2
    assert len(aggregate(table, settings, ["data_seed"])) == 2
    assert aggregate(table, settings, ["seed", "data.seed"])["count"].tolist() == [2]


def test_a_wrong_key_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(dln.InputError) as caught:
        dln.collect(folder, over="optimizer.gama", quantiles=[2])
    assert "over = 'optimizer.gama' is no key of any run (did you mean optimizer.gamma?)" in str(
        caught.value
    )
    assert "quantile = 2 must be in [0, 1]" in str(caught.value)


# ---- shards


def cut(directory: Path, folder: Path, ran: np.ndarray, shard: int, of: int) -> xr.Dataset:
    """A shard as dln-sweep leaves it: what other shards run is nan and ``not run``."""
    full = xr.load_dataset(directory / "results.nc", engine="h5netcdf")
    mask = xr.Variable(full["status"].dims, ran.reshape(full["status"].shape))
    part = full.copy()
    for name, value in full.data_vars.items():
        if set(mask.dims) <= set(value.dims):
            blank: Any = "not run" if name == "status" else np.nan
            part[name] = value.variable.where(mask, blank).transpose(*value.dims)
    job = folder / str(shard)
    job.mkdir(parents=True)
    part.attrs["config"] = (
        (directory / "config.yaml").read_text().replace("shard: 0", f"shard: {shard}")
    )
    part.to_netcdf(job / "results.nc", engine="h5netcdf")
    (job / "summary.json").write_text((directory / "summary.json").read_text())
    config = (directory / "config.yaml").read_text()
    assert "\n  num_shards: 1\n  shard: 0\n" in config
    config = config.replace("num_shards: 1\n  shard: 0", f"num_shards: {of}\n  shard: {shard}")
    (job / "config.yaml").write_text(config)
    return full


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with recorded paths, whose runs end at different steps."""
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)
        axes = ["sweep.gamma=[0.5,1,1000]", "sweep.data_seed=[0,1]", "sweep.trajectories=true"]
        run_sweep(
            directory, *axes, "sweep.beta=[0.0,0.5]", "trainer.tol=1e-3", "trainer.records=40"
        )
    return directory


@pytest.mark.slow
def test_shards_make_the_sweep_that_was_not_cut(whole: Path, tmp_path: Path) -> None:
    places = np.arange(12)
    full, *_ = (cut(whole, tmp_path, places % 3 == shard, shard, 3) for shard in range(3))
    joined = dln.results(tmp_path)
    assert joined.attrs["config"] == full.attrs["config"]
    assert set(joined.variables) == set(full.variables)
    for name, value in full.variables.items():
        other = joined[name].variable
        assert (value.dims, value.dtype, value.attrs) == (other.dims, other.dtype, other.attrs)
        if value.dtype == object:
            assert value.values.tolist() == other.values.tolist()
        else:
            assert value.values.tobytes() == other.values.tobytes(), name
    table = dln.collect(tmp_path)
    assert len(table) == 12
    assert table.attrs["skipped"] == []


@pytest.mark.slow
def test_a_shard_that_is_missing_or_there_twice_is_named(whole: Path, tmp_path: Path) -> None:
    for folder, shard in (("a", 0), ("b", 2), ("c", 2)):
        cut(whole, tmp_path / folder, np.arange(12) % 4 == shard, shard, 4)
    table = dln.collect(tmp_path)
    assert table.attrs["skipped"] == [
        ("c/2", "shard 2 again; b/2 is taken"),
        ("a/0", "shards 1, 3 of 4 missing (counted from 0)"),
    ]
    assert len(table) == 6
    status = dln.results(tmp_path)["status"].values.ravel()
    assert (status == "not run").tolist() == [False, True] * 6


@pytest.mark.slow
def test_other_sweeps_and_runs_are_no_shards(whole: Path, folder: Path, tmp_path: Path) -> None:
    for shard in range(2):
        cut(whole, tmp_path, np.arange(12) % 2 == shard, shard, 2)
    both = dln.results(tmp_path, folder)
    assert both.sizes == {"run": 12 + len(dln.collect(folder))}
    assert set(both["path"].values) > {f"{tmp_path}/0", f"{folder}/flow"}
    # a shard of another sweep: the grid is not the same
    text = (tmp_path / "1" / "config.yaml").read_text()
    (tmp_path / "1" / "config.yaml").write_text(text.replace("tol: 0.001", "tol: 0.002"))
    missing = dict(dln.collect(tmp_path).attrs["skipped"])
    assert missing["0"] == "shard 1 of 2 missing (counted from 0)"
    assert missing["1"] == "shard 0 of 2 missing (counted from 0)"


# ---- the command


def collected(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_the_command_writes_tables_and_names_what_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    call = [folder, "--out", out, "--over", "data_seed", "--format", "csv,md,tex,parquet"]
    assert collected(*call) == 0
    shown = capsys.readouterr().out
    assert "interrupted: interrupted, without summary.json" in shown
    assert "broken: results.nc cannot be read" in shown
    assert collected(*call, "--strict") == 1
    table = dln.collect(folder)
    read = pd.read_csv(out / "runs.csv")
    assert list(read) == list(table)
    assert read["train_loss"].tolist() == table["train_loss"].tolist()
    parquet = pd.read_parquet(out / "runs.parquet")
    assert parquet["kkt_residual"].tolist() == table["kkt_residual"].tolist()
    dataset = xr.load_dataset(out / "results.nc", engine="h5netcdf")
    assert dataset["l1_norm"].values.tolist() == table["l1_norm"].tolist()
    assert dataset["l1_norm"].attrs["symbol"]
    assert (out / "over_data_seed.tex").read_text().count(r"\\") > 2
    record = json.loads((out / "collect.json").read_text())
    assert ["interrupted", dict(table.attrs["skipped"])["interrupted"]] in record["skipped"]
    # its own folder holds no job
    assert len(dln.collect(tmp_path)) == 0


@pytest.mark.slow
def test_the_command_replaces_only_its_own_product(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert collected(folder, "--out", out) == 0
    assert collected(folder, "--out", out, "--over", "seed") == 0
    assert collected(folder / "runs", "--out", out) == 2
    assert "holds the collection of" in capsys.readouterr().err
    (out / "runs.csv").write_text("mine")
    assert collected(folder, "--out", out) == 2
    assert "is not what dln-collect wrote there" in capsys.readouterr().err
    assert (out / "runs.csv").read_text() == "mine"
    (tmp_path / "results.nc").write_text("mine")
    assert collected(folder, "--out", tmp_path) == 2
    assert "was not written by dln-collect" in capsys.readouterr().err
    for wrong in (["--format", "csvs"], ["--columns", "path,l1_nrom"], ["--over", "sead"]):
        assert collected(folder, "--out", tmp_path / "new", *wrong) == 2
        assert "did you mean" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_collection_that_is_stopped_twice_knows_its_first_product(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", Path.replace
    assert collected(folder, "--out", out) == 0
    first = (out / "runs.csv").read_bytes()

    def stop(self: Path, target: Path) -> Path:
        if self.name == "runs.csv":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as stopping:
        stopping.setattr(Path, "replace", stop)
        assert collected(folder, "--out", out, "--columns", "path,l1_norm") == 130
        assert collected(folder, "--out", out, "--columns", "path,train_loss") == 130
    assert (out / "runs.csv").read_bytes() == first
    assert collected(folder, "--out", out, "--columns", "path") == 0
    assert (out / "runs.csv").read_bytes() != first


def test_an_axis_over_files_is_not_taken_for_the_directory_of_the_job(tmp_path: Path) -> None:
    results = xr.Dataset({"status": ("path", ["converged", "max_steps"])}, {"path": ["a", "b"]})
    rows = rows_of_dataset(results, Job(tmp_path, "study/3", {"data.path": "???"}, {}))
    assert rows.values["path"].tolist() == ["study/3", "study/3"]
    assert rows.config["data.path"].tolist() == ["a", "b"]
