"""One vocabulary: what commands leave and what Python returns, against the table of names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dln_momentum as dln
from dln_momentum.cli.flow import flow
from dln_momentum.cli.sweep import sweep
from dln_momentum.cli.train import train
from dln_momentum.cli.verify import verify
from dln_momentum.outputs.provenance import commit, data_hash, processor
from dln_momentum.outputs.quantities import QUANTITIES, attributes, document, quantity, tag
from tests.helpers import blank_figures, run_job

SMALL = ["data.n=5", "data.d=8", "data.s=1"]
SHORT = [*SMALL, "trainer.max_steps=300", "trainer.records=4"]
OLD = {"lambda", "epsilon", "lambda_ks", "theta_inf", "Delta_inf", "status_label", "flow_lambda"}


@dataclass(frozen=True)
class Files:
    """What one command left."""

    numbers: dict
    dataset: xr.Dataset | None
    tags: set[str]


def left_by(command, config_name: str, directory: Path, *overrides: str) -> Files:
    with blank_figures():
        run_job(config_name, command, directory, *overrides)
    (kept,) = (*directory.glob("summary.json"), *directory.glob("verify.json"))
    found = [*directory.glob("history.nc"), *directory.glob("results.nc")]
    dataset = xr.load_dataset(found[0], engine="h5netcdf") if found else None
    tags = {
        tag
        for path in directory.rglob("*.tfevents")
        for tag in EventAccumulator(str(path)).Reload().Tags()["scalars"]
    }
    return Files(json.loads(kept.read_text()), dataset, tags)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    folder = tmp_path_factory.mktemp("left")
    axes = ["sweep.gamma=[0.01,0.02]", "sweep.data_seed=[0,1]", "sweep.trajectories=true"]
    return {
        "train": left_by(train, "train", folder / "train", *SHORT),
        "flow": left_by(flow, "flow", folder / "flow", *SMALL, "flow.records=5"),
        "sweep": left_by(sweep, "sweep", folder / "sweep", *SHORT, *axes),
        "verify": left_by(verify, "verify", folder / "verify", *SMALL, "flow.lam=0.5"),
    }


@pytest.fixture(scope="module")
def problem() -> dln.Problem:
    return dln.sparse(n=5, d=8, s=1)


@pytest.fixture(scope="module")
def run(problem: dln.Problem) -> dln.Run:
    return dln.train(problem, gamma=0.01, beta=0.9, max_steps=300, records=4)


@pytest.fixture(scope="module")
def grid(problem: dln.Problem) -> xr.Dataset:
    start = dln.uniform(np.array([0.1, 0.2]))
    return dln.sweep(
        lambda seed: problem, start, lam=[0.5, 1.0], eps=0.1, data_seed=[0, 1], max_steps=100
    )


def names_at(letter: str) -> set[str]:
    return {row.name for row in QUANTITIES.values() if letter in row.found}


@pytest.mark.parametrize(
    ("command", "letter"), [("train", "t"), ("flow", "f"), ("sweep", "w"), ("verify", "v")]
)
def test_a_summary_has_the_quantities_that_the_table_says(
    files: dict[str, Files], command: str, letter: str
) -> None:
    assert set(files[command].numbers) == names_at(letter)
    assert files[command].numbers["kind"] == command
    assert isinstance(files[command].numbers["status"], str)


@pytest.mark.parametrize(("command", "letter"), [("train", "h"), ("flow", "c")])
def test_a_history_has_the_quantities_that_the_table_says(
    files: dict[str, Files], command: str, letter: str
) -> None:
    dataset = files[command].dataset
    assert dataset is not None
    # the balances of the layers are what a callback adds that is not there by default
    assert set(map(str, dataset.variables)) == names_at(letter) - {"balance_error"}


def test_both_sweeps_have_the_quantities_that_the_table_says(
    files: dict[str, Files], grid: xr.Dataset
) -> None:
    written = files["sweep"].dataset
    assert written is not None
    ends = {str(name) for name in written.variables if not str(name).endswith("_path")}
    paths = set(map(str, written.variables)) - ends
    # seed is a setting of the command, start an array of starts in Python
    assert ends == names_at("r") - {"start"}
    assert {name.removesuffix("_path") for name in paths} <= names_at("h")
    assert set(map(str, grid.variables)) == names_at("r") - {"start", "seed", "step"}
    assert dict(grid["status"].sizes) == {"lam": 2, "alpha": 2, "data_seed": 2}


def test_every_variable_is_described(
    files: dict[str, Files], grid: xr.Dataset, run: dln.Run
) -> None:
    left = [found.dataset for found in files.values() if found.dataset is not None]
    assert len(left) == 3
    for dataset in (*left, grid, run.to_dataset()):
        for name, variable in dataset.variables.items():
            assert str(name).isidentifier()
            assert attributes(str(name)).items() <= variable.attrs.items()
            assert str(name) not in OLD


def test_s_plus_has_one_name(files: dict[str, Files], grid: xr.Dataset, run: dln.Run) -> None:
    left = {name: files[name].dataset for name in ("train", "sweep")}
    for dataset in (*left.values(), grid, run.to_dataset()):
        assert dataset is not None
        named = {str(name) for name, v in dataset.variables.items() if v.attrs["symbol"] == "S_+"}
        assert {"s_plus"} <= named <= {"s_plus", "s_plus_path"}
    np.testing.assert_array_equal(run.s_plus, run.to_dataset()["s_plus"][-1])


def test_python_and_the_command_give_the_same_history(
    files: dict[str, Files], run: dln.Run
) -> None:
    written, returned = files["train"].dataset, run.to_dataset()
    assert written is not None
    # theta* and the minimiser at the end are attributes of a Problem and of a Certificate
    assert set(written.variables) - set(returned.variables) == {"theta_star", "minimizer"}
    # how a run ended is in summary.json
    for name in set(returned.variables) - {"status", "steps"}:
        # the minimisers are found from other first guesses
        if name not in ("own_level_set_distance", "distance_to_minimizer", "distance_to_limit"):
            np.testing.assert_array_equal(written[name], returned[name])


def test_tags_are_group_and_name(files: dict[str, Files]) -> None:
    tags = {tag(name) for name, row in QUANTITIES.items() if row.group}
    for command in ("train", "flow", "sweep"):
        assert files[command].tags
        assert files[command].tags <= tags
    for name in names_at("h") & names_at("c"):
        if QUANTITIES[name].group:
            assert {tag(name)} <= files["train"].tags & files["flow"].tags & files["sweep"].tags


def test_attributes_have_the_names_of_the_table(problem: dln.Problem, run: dln.Run) -> None:
    flow_run = dln.flow(problem, lam=1.0, times=[0.0, 1.0])
    objects = (run, run.snapshot, flow_run, getattr(flow_run, "path", flow_run))
    for name in names_at("a"):
        assert any(hasattr(found, name) for found in objects), name
    classes = [found for found in dln.Run.__mro__ if found is not object]
    of_run = {name for found in classes for name in vars(found) if not name.startswith("_")}
    assert of_run - set(QUANTITIES) == {
        "summary", "certify", "measure", "to_dataset", "dims", "plot"
    }  # fmt: skip
    assert set(run.summary) <= names_at("t")


def test_files_say_where_they_come_from(files: dict[str, Files], problem: dln.Problem) -> None:
    for command in ("train", "flow", "sweep"):
        found = files[command]
        assert found.dataset is not None
        attrs = found.dataset.attrs
        assert OmegaConf.create(attrs["config"]).data.n == 5
        assert json.loads(attrs["versions"]) == found.numbers["versions"]
        assert attrs["kind"] == command
        assert (attrs["commit"] or None) == found.numbers["commit"] == commit()
        assert attrs["processor"] == found.numbers["processor"] == processor()
        assert attrs["data_hash"] == found.numbers["data_hash"]
    assert files["train"].numbers["data_hash"] == data_hash(problem)
    sweeps = files["sweep"].dataset
    assert sweeps is not None
    assert sweeps["data_hash"].sel(data_seed=0) == data_hash(problem)
    assert sweeps["data_hash"].sel(data_seed=1) == data_hash(dln.sparse(n=5, d=8, s=1, seed=1))


def test_time_is_eps_times_the_step(files: dict[str, Files]) -> None:
    history = files["train"].dataset
    assert history is not None
    np.testing.assert_array_equal(history["time"], history["step"] * history["eps"])
    assert history["eps"] == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("name", list(QUANTITIES))
def test_a_name_is_an_identifier_with_a_meaning(name: str) -> None:
    row = quantity(name)
    assert name.isidentifier()
    assert name not in OLD
    assert row.long_name
    assert row.found


def test_the_page_is_current() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "quantities.md"
    assert page.read_text() == document()
