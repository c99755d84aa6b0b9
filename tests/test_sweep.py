"""Sweeps: the grid, the runs in it against single runs, the file they leave, what is refused."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

import dln_momentum as dln
from dln_momentum import InputError, Momentum, sparse
from dln_momentum.cli.sweep import sweep
from dln_momentum.config import composed
from dln_momentum.engine import problems as problems_module
from dln_momentum.engine.problems import Problems
from dln_momentum.outputs.divergence import NAMES as DIVERGED
from dln_momentum.outputs.grid import Axis, Grid
from dln_momentum.outputs.sweep_figure import overview
from dln_momentum.outputs.sweep_maps import lambda_levels
from dln_momentum.outputs.sweep_report import COLUMNS, QUANTITIES, print_report
from dln_momentum.rates import PAIRS
from dln_momentum.sweeps.assembly import build
from dln_momentum.sweeps.axes import axis_values, read_axes
from dln_momentum.sweeps.points import Points
from tests.helpers import run_app, run_job

SMALL = ["data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=400", "trainer.records=5"]
SMALL += ["trainer.block_size=100", "engine.num_workers=1"]
NOT_MEASURED = {
    *DIVERGED,
    "kind",
    "method",
    "schedule",
    "loss_name",
    "depth",
    "weight_decay",
    "dampening",
    "gamma_u",
    "gamma_v",
    "versions",
    "commit",
    "processor",
    "data_hash",
    "seconds",
    "status",
    "data",
    "path_sums",
    "batch_size",
    "n",
    "d",
    "data_path",
    "data_noise",
    "label_noise",
    "best_recovery_error",
    "best_recovery_step",
    "best_test_error",
    "best_test_step",
}


SAME_BITS = {
    "theta": "theta",
    "balancedness": "balancedness",
    "train_loss_path": "train_loss",
    "sign_changes_path": "sign_changes",
}
"""What a run leaves that is the state of the engine, in a sweep and in a history of its own."""


def configured(*overrides: str) -> DictConfig:
    return composed("sweep", overrides)


def run_sweep(directory: Path, *overrides: str) -> xr.Dataset:
    """``dln-sweep OVERRIDES`` in this process, and its results read back from the file."""
    run_job("sweep", sweep, directory, *SMALL, *overrides)
    return xr.load_dataset(directory / "results.nc", engine="h5netcdf")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of single runs and sweeps, which takes longer than the runs."""
    monkeypatch.setattr("dln_momentum.outputs.plotting.overview", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)


# ---- axes and grid


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gamma", 0.01, [0.01]),
        ("gamma", [0.02, 1], [0.02, 1.0]),
        ("beta", "linspace:0.5:0.9:3", [0.5, 0.7, 0.9]),
        ("lam", "geomspace:1e-2:1e2:5", [0.01, 0.1, 1, 10, 100]),
        ("alpha", "geomspace:1:1e-2:3", [1, 0.1, 0.01]),
        ("seed", "range:0:4", [0, 1, 2, 3]),
        ("data_seed", "range:9:0:-3", [9, 6, 3]),
        ("seed", "linspace:0:8:3", [0, 4, 8]),
        ("beta", [-0.5, 1.0], [-0.5, 1.0]),
    ],
)
def test_an_axis_is_a_number_a_list_or_a_span(name: str, value: object, expected: list) -> None:
    errors: list[str] = []
    found = axis_values(name, value, errors)
    assert errors == []
    assert found is not None
    # geomspace rounds its inner values, once each
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert {type(value) for value in found} == {int if "seed" in name else float}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", "linspace:0:1"), ("gamma", "geomspace:-1:1:5"), ("gamma", "logspace:1:2:3"),
        ("gamma", "linspace:a:1:3"), ("gamma", "linspace:0.1:1:0"), ("gamma", "linspace:0.1:inf:3"),
        ("gamma", "linspace:0.1:1:100000000000"), ("gamma", []), ("gamma", ["x"]), ("gamma", True),
        ("gamma", 0.0), ("gamma", [0.1, -0.1]), ("gamma", [float("nan")]), ("gamma", [0.1, 0.1]),
        ("n", "range:5:5"), ("lam", "linspace:0:1:5"), ("alpha", 0), ("beta", float("inf")),
        ("eps", 0), ("gamma", [1, 1.0]), ("max_steps", [100, 100.0]),
        ("seed", -1), ("seed", 0.5), ("seed", "linspace:0:1:3"), ("seed", "range:5:5"),
        ("seed", "range:0:3:0"), ("data_seed", 2**63), ("gamma", {"a": 1}), ("gamma", ""),
        # a float cannot hold it, and would stand for its neighbour
        ("seed", f"linspace:0:{2**53 + 1}:2"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(name: str, value: object) -> None:
    errors: list[str] = []
    assert axis_values(name, value, errors) is None
    assert len(errors) == 1
    assert errors[0].startswith(f"sweep.{name} = ")


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ("geomspace:0:1:4", "must have both ends > 0"),
        ("linspace:0:inf:3", "must have finite ends"),
        ("linspace:0:1:0", "has 0 values; must have 1 to"),
    ],
)
def test_a_span_that_is_none_is_refused_with_its_reason(span: str, reason: str) -> None:
    errors: list[str] = []
    axis_values("gamma", span, errors)
    assert errors[0].startswith(f"sweep.gamma = '{span}' {reason}")


@settings(max_examples=60, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    first=st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=4, unique=True),
    second=st.lists(st.floats(1e-3, 2.0), min_size=1, max_size=4, unique=True),
)
def test_every_point_of_any_pair_is_valid_exactly_where_a_run_exists(
    pair: tuple[str, str], first: list[float], second: list[float]
) -> None:
    grid = Grid([Axis({pair[0]: first}), Axis({pair[1]: second})])
    # the optimizer has nothing to add to a pair of axes
    points = Points(OmegaConf.create({"optimizer": {"gamma": 0.5, "beta": 0.5}}), grid)
    assert grid.size == len(first) * len(second)
    gamma, beta = points.rates
    for index, point in enumerate(zip(*(grid.at_points(name) for name in pair), strict=True)):
        try:
            expected = Momentum.from_pair(**dict(zip(pair, map(float, point), strict=True)))
        except InputError:
            # up to the rounding of beta at 0, which is forgiven
            assert not points.with_momentum[index] or beta[index] == 0
        else:
            assert points.with_momentum[index]
            # one rounding apart: NumPy and Python square differently
            found, wanted = (gamma[index], beta[index]), (expected.gamma, expected.beta)
            np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=1e-15)


def test_axes_that_meet_at_beta_0_are_valid_in_spite_of_rounding() -> None:
    axes = read_axes({"lam": "geomspace:0.003:0.7:9", "gamma": "geomspace:0.7:0.003:9"}, [])
    assert [axis.name for axis in axes] == ["gamma", "lam"]
    points = Points(OmegaConf.create({"optimizer": {}}), Grid(axes))
    table = points.with_momentum.reshape(9, 9)
    assert table[:, ::-1].diagonal().all()
    assert table.sum() == 45  # gamma <= lam


@pytest.mark.parametrize(
    ("swept", "fixed", "gamma", "beta"),
    [
        ({"gamma": [0.1, 0.2]}, {"beta": 0.9}, [0.1, 0.2], [0.9, 0.9]),
        ({"beta": [0.1, 0.2]}, {"gamma": 0.01}, [0.01, 0.01], [0.1, 0.2]),
        ({"lam": [1, 4]}, {"beta": 0.5}, [0.25, 1.0], [0.5, 0.5]),
        ({"lam": [1, 4]}, {"gamma": 0.01}, [0.01, 0.01], [0.9, 0.95]),
        ({"gamma": [0.01, 0.04]}, {"lam": 1}, [0.01, 0.04], [0.9, 0.8]),
        ({"eps": [0.1, 0.2]}, {"lam": 1}, [0.01, 0.04], [0.9, 0.8]),
        ({"alpha": [0.1, 0.2]}, {"lam": 1, "eps": 0.1}, [0.01, 0.01], [0.9, 0.9]),
    ],
)
def test_the_optimizer_completes_the_axes(
    swept: dict, fixed: dict, gamma: list[float], beta: list[float]
) -> None:
    points = Points(OmegaConf.create({"optimizer": fixed}), Grid(read_axes(swept, [])))
    np.testing.assert_allclose(points.rates[0], gamma, rtol=1e-14)
    np.testing.assert_allclose(points.rates[1], beta, rtol=1e-14)


def test_the_last_axis_runs_fastest() -> None:
    axes = read_axes({"seed": "range:0:3", "beta": 0.5, "gamma": [1, 2], "alpha": [0.1]}, [])
    grid = Grid(axes)
    # a list of one value is a dimension, a value alone is not
    assert grid.dims == ("gamma", "alpha", "seed")
    assert grid.shape == (2, 1, 3)
    assert grid.at_points("gamma").tolist() == [1, 1, 1, 2, 2, 2]
    assert grid.at_points("seed").tolist() == [0, 1, 2, 0, 1, 2]
    assert grid.at_points("beta").tolist() == [0.5] * 6


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    chosen=st.sets(st.integers(0, 3)),
)
def test_combinations_are_the_settings_of_every_point(lengths: list[int], chosen: set[int]) -> None:
    # values repeat within an axis, as those of a zipped one may
    axes = [Axis({f"a{i}": [j // 2 for j in range(n)], f"b{i}": list(range(n))})
            for i, n in enumerate(lengths)]  # fmt: skip
    grid = Grid(axes)
    names = [f"a{i}" for i in chosen if i < len(lengths)]
    combinations, index = grid.combinations(names)
    assert len(combinations) == len({tuple(c.items()) for c in combinations})
    for name in names:
        found = [combinations[place][name] for place in index]
        assert found == grid.at_points(name).tolist()
    # which points a value depends on, and where along its own dimensions
    dims, points = grid.reduced(names)
    assert dims == tuple(axes[i].name for i in sorted(chosen) if i < len(lengths))
    assert points.shape == tuple(lengths[i] for i in sorted(chosen) if i < len(lengths))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gamma": [1, 2], "zip": ["gamma", "beta"]}, "sweep.zip: beta must be one of the axes"),
        ({"gamma": [1, 2], "beta": [0.5], "zip": ["gamma", "beta"]}, "gamma has 2, beta has 1"),
        ({"gamma": [1, 2], "zip": ["gamma"]}, "sweep.zip = ['gamma'] must be a list of two"),
        ({"gamma": [1, 2], "zip": ["gamma", "gamma"]}, "each named once"),
        ({"gamma": [1, 2], "beta": 0.5, "zip": ["gamma", "beta"]}, "beta must be one of the axes"),
        ({"n": [5, 5]}, "has a value twice"),
        ({"n": []}, "sweep.n = [] must have a value"),
        ({"axes": {"paths.root": ["a", "b"]}}, "paths.root cannot vary within a sweep"),
        ({"axes": {"optimizer.gamma": [1]}, "gamma": [2]}, "optimizer.gamma is sweep.gamma"),
        ({"axes": [1]}, "sweep.axes = [1] must be values by key"),
    ],
)  # fmt: skip
def test_wrong_axes_are_refused(section: dict, message: str) -> None:
    errors: list[str] = []
    read_axes(section, errors)
    assert message in "; ".join(errors)


def test_zipped_axes_move_together() -> None:
    section = {"gamma": [0.1, 0.1, 0.2], "beta": [0.5, 0.9, 0.5], "n": [5, 6]}
    grid = Grid(read_axes({**section, "zip": ["gamma", "beta"]}, []))
    assert grid.dims == ("gamma_beta", "n")
    assert grid.shape == (3, 2)
    assert grid.at_points("beta").tolist() == [0.5, 0.5, 0.9, 0.9, 0.5, 0.5]
    assert grid.coordinates["gamma"].dims == ("gamma_beta",)


# ---- runs


def assert_same_runs(results: xr.Dataset, tmp_path: Path, *common: str, **axes: str) -> None:
    """Every point of the results against a dln-train of its own.

    Args:
        results: what the sweep left.
        tmp_path: where the single runs go.
        *common: overrides of all single runs.
        **axes: the key of dln-train that each dimension stands for.
    """
    for number, place in enumerate(np.ndindex(results["status"].shape)):
        at = dict(zip(results["status"].dims, place, strict=True))
        point = results.isel(at)
        keys = [f"{axes[str(name)]}={point[name].item()!r}" for name in at]
        one = run_app(tmp_path / str(number), *SMALL, *common, *keys)
        assert one.summary["status"] == point["status"].item()
        for name in set(one.summary) - NOT_MEASURED:
            # what is measured of many runs at once adds up in another order
            expected = np.nan if one.summary[name] is None else one.summary[name]
            np.testing.assert_allclose(
                point[name], expected, rtol=1e-10, atol=1e-10, err_msg=f"{name} at {at}"
            )
        history = one.history()
        for mine, its in SAME_BITS.items():
            expected = history[its] if mine.endswith("_path") else history[its][-1]
            np.testing.assert_array_equal(point[mine], expected, err_msg=f"{mine} at {at}")
        # read off the gradient sum, S of many runs is a product of another shape
        np.testing.assert_allclose(point["s_plus"], history["s_plus"][-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(point["s_minus"], history["s_minus"][-1], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_grid_equals_its_single_runs(tmp_path: Path, no_figures: None) -> None:
    results = run_sweep(
        tmp_path / "sweep", "sweep.gamma=[0.005,0.01,0.02]", "sweep.beta=linspace:0.5:0.9:2"
    )
    assert results["status"].dims == ("gamma", "beta")
    assert_same_runs(results, tmp_path, gamma="optimizer.gamma", beta="optimizer.beta")


@pytest.mark.slow
def test_seeds_and_data_sets_equal_single_runs_on_mini_batches(
    tmp_path: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["sampling.batch_size=2", "model=gaussian", "optimizer.gamma=0.02"]
    axes = ["sweep.seed=range:0:2", "sweep.data_seed=range:5:7"]
    results = run_sweep(tmp_path / "sweep", *keys, *axes)
    assert results["status"].dims == ("seed", "data_seed")
    assert results["theta_star"].dims == ("data_seed", "coordinate")
    star = sparse(5, 8, 1, seed=6).theta_star
    assert star is not None
    np.testing.assert_array_equal(results["theta_star"].sel(data_seed=6), star.numpy())
    assert_same_runs(results, tmp_path, *keys, seed="seed", data_seed="data.seed")
    # so few runs on one data set are stacked; the same with a shared X for each data set
    monkeypatch.setattr(problems_module, "SHARED_RUNS", 1)
    shared = run_sweep(tmp_path / "shared", *keys, *axes)
    xr.testing.assert_allclose(shared, results, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_initialisation_scales_are_an_axis(tmp_path: Path, no_figures: None) -> None:
    keys = ["model=gaussian", "optimizer.gamma=0.02"]
    results = run_sweep(tmp_path / "sweep", *keys, "sweep.alpha=[0.1,0.2]", "sweep.seed=3")
    assert results["seed"].ndim == 0
    assert_same_runs(results, tmp_path, *keys, "seed=3", alpha="model.alpha")


@pytest.mark.slow
def test_invalid_and_diverged_points_keep_their_place_and_disturb_nobody(
    tmp_path: Path, no_figures: None
) -> None:
    beta = "sweep.beta=[0.5,1.0]"
    results = run_sweep(tmp_path / "a", "sweep.gamma=[0.01,0.02,50]", beta)
    assert results["status"].values.tolist() == [
        ["max_steps", "invalid"], ["max_steps", "invalid"], ["diverged", "invalid"],
    ]  # fmt: skip
    invalid, diverged = results.isel(beta=1), results.isel(gamma=2, beta=0)
    for name in ("theta", "train_loss", "steps", "kkt_residual", "sign_changes"):
        assert np.isnan(invalid[name]).all()
    assert diverged["steps"] < 400  # stopped early
    for name in ("kkt_residual", "distance_to_minimizer", "distance_to_unperturbed_minimizer"):
        assert np.isnan(diverged[name])
    calm = run_sweep(tmp_path / "b", "sweep.gamma=[0.01,0.02]", beta)
    same = results.isel(gamma=slice(2))
    # a kernel may add in another order for another number of runs
    xr.testing.assert_allclose(same, calm, rtol=1e-12, atol=1e-13)


def test_a_run_that_blows_up_within_a_block_is_diverged(tmp_path: Path, no_figures: None) -> None:
    results = run_sweep(
        tmp_path, "sweep.gamma=[0.01,2]", "trainer.records=2", "trainer.block_size=400"
    )
    assert results["status"].values.tolist() == ["max_steps", "diverged"]
    # left as it was at the look that saw it, beyond 1e10 times its first loss
    assert results["steps"][1] % 10 == 0
    assert not results["train_loss"][1] <= 1e10 * results["train_loss_path"][0, 1]
    assert np.isnan(results["kkt_residual"][1])
    assert results["kkt_residual"][0] < 1e-10


def test_runs_that_converge_leave_and_keep_their_end(tmp_path: Path, no_figures: None) -> None:
    keys = ["trainer.max_steps=20000", "trainer.tol=1e-12", "trainer.records=10"]
    results = run_sweep(tmp_path, *keys, "sweep.gamma=[0.001,0.02,0.05]")
    assert results["status"].values.tolist() == ["max_steps", "converged", "converged"]
    assert (results["train_loss"][1:] <= 1e-12).all()
    assert results["steps"][2] < results["steps"][1] < results["steps"][0] == 20000
    assert (results["steps"] == results["steps_to_tol"])[1:].all()
    assert np.isnan(results["steps_to_tol"][0])
    assert (results["distance_to_minimizer"][1:] < 1e-5).all()


@pytest.mark.slow
def test_a_sweep_goes_on_from_its_checkpoint(tmp_path: Path, no_figures: None) -> None:
    keys = ["sweep.gamma=[0.01,0.02]", "sweep.data_seed=[0,1]", "trainer.tol=0"]
    whole = run_sweep(tmp_path / "whole", *keys)
    run_sweep(tmp_path / "first", *keys, "trainer.max_steps=200")
    checkpoint = tmp_path / "first" / "checkpoints"
    rest = run_sweep(tmp_path / "rest", *keys, f"resume={checkpoint}")
    np.testing.assert_array_equal(rest["theta"], whole["theta"])
    np.testing.assert_array_equal(rest["s_plus"], whole["s_plus"])
    summary = json.loads((tmp_path / "rest" / "summary.json").read_text())
    assert summary["run_steps"] == 4 * 400
    # the speed is that of the steps taken now
    now = summary["run_steps_per_second"] * summary["seconds_training"]
    assert round(now) == 4 * 200


# ---- pieces and shards

MIXED = (
    "sweep.piece_runs=4",
    "sweep.n=[4,6]", "sweep.batch_size=[null,5]", "sweep.lam=[0.5,1]", "sweep.eps=[0.1,0.2]",
         "sweep.zip=[lam,eps]", "sweep.data_seed=[0,1,2]")  # fmt: skip


def assert_same_bytes(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Every variable has the same bytes, type, dimensions and attributes."""
    assert set(found.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        other = found[name].variable
        assert (other.dims, other.dtype, other.attrs) == (
            variable.dims, variable.dtype, variable.attrs
        )  # fmt: skip
        if variable.dtype.kind in "fiu":
            assert other.values.tobytes() == variable.values.tobytes(), name
        else:
            assert (other.values == variable.values).all(), name


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A sweep over shapes, batch sizes, pairs of rates and data seeds, in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)
        return run_sweep(tmp_path_factory.mktemp("mixed") / "a", *MIXED)


def test_a_sweep_varies_what_one_engine_cannot_carry(mixed: xr.Dataset) -> None:
    assert dict(mixed["status"].sizes) == {
        "lam_eps": 2, "n": 2, "batch_size": 2, "data_seed": 3,
    }  # fmt: skip
    # a batch of 5 rows of 4 is not allowed
    assert (mixed["status"].sel(n=4, batch_size=5) == "invalid").all()
    assert (mixed["status"] == "invalid").sum() == 6
    assert mixed["theta_star"].dims == ("n", "data_seed", "coordinate")
    assert mixed["lam"].dims == ("lam_eps",)
    same = dln.sweep(
        lambda n, data_seed: sparse(n, 8, 1, seed=data_seed), batch_size=5, n=[6],
        lam=[0.5, 1.0], eps=[0.1, 0.2], zip=["lam", "eps"], data_seed=[0, 1, 2], max_steps=400,
        tol=1e-20,
    )  # fmt: skip
    found = mixed.sel(batch_size=5, n=6)
    for name in ("theta", "s_plus", "recovery_error", "kkt_residual"):
        expected = same[name].isel(n=0).transpose(*found[name].dims)
        # compiled kernels may add in another order for another number of runs
        np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_to_the_same_bytes(
    tmp_path: Path, no_figures: None, mixed: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dln_momentum.training import module

    taken = module.HeavyBallModule.training_step

    def interrupted(*args: Any) -> None:
        budget[0] -= 1
        if budget[0] < 0:
            raise KeyboardInterrupt
        taken(*args)

    monkeypatch.setattr(module.HeavyBallModule, "training_step", interrupted)
    keys = (*MIXED, "trainer.checkpoint_seconds=1e-9")
    attempt = 0
    for attempt in range(1, 60):
        budget = [2 * attempt]
        # Lightning turns Ctrl-C into an exit
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            assert_same_bytes(run_sweep(tmp_path, *keys), mixed)
            break
        # a process that ends gives its lock back; here the interrupted job may hang in a cycle
        gc.collect()
        saved = sorted(path.name for path in tmp_path.glob("checkpoints/*/*"))
        assert not any(name.startswith(".") for name in saved)
    assert attempt > 3
    for folder in tmp_path.glob("checkpoints/*"):
        assert len(list(folder.glob("step_*.ckpt"))) <= 2


@pytest.mark.slow
def test_shards_make_the_whole(tmp_path: Path, no_figures: None, mixed: xr.Dataset) -> None:
    keys = (*MIXED, "sweep.num_shards=2")
    shards = [run_sweep(tmp_path / f"{i}", *keys, f"sweep.shard={i}") for i in range(2)]
    run = [shard["status"] != "not run" for shard in shards]
    assert (run[0] ^ run[1] | (mixed["status"] == "invalid")).all()
    counts = [json.loads((tmp_path / f"{i}/summary.json").read_text()) for i in range(2)]
    assert sum(one["runs"] for one in counts) == int((mixed["status"] != "invalid").sum())
    assert {one["grid_size"] for one in counts} == {mixed["status"].size}
    for name in ("theta", "status", "train_loss_path"):
        joined = shards[0][name].where(run[0], shards[1][name])
        assert joined.transpose(*mixed[name].dims).identical(mixed[name])


@pytest.mark.slow
def test_finished_pieces_of_other_data_are_not_used(tmp_path: Path, no_figures: None) -> None:
    np.savez(tmp_path / "a.npz", X=np.eye(2, 3), y=np.ones(2))
    file = ("data=file", f"data.path={tmp_path / 'a.npz'}", "sweep.gamma=[0.01,0.02]")
    keys = [key for key in SMALL if not key.startswith("data.")]
    run_job("sweep", sweep, tmp_path / "s", *keys, *file)
    np.savez(tmp_path / "a.npz", X=np.eye(2, 3), y=2 * np.ones(2))
    with pytest.raises(InputError, match="data have changed"):
        run_job("sweep", sweep, tmp_path / "s", *keys, *file)


@pytest.mark.slow
def test_a_piece_that_was_cut_off_is_trained_again(tmp_path: Path, no_figures: None) -> None:
    keys = ("sweep.gamma=[0.01,0.02,0.03]", "sweep.piece_runs=2")
    whole = run_sweep(tmp_path / "s", *keys)
    (tmp_path / "s" / "summary.json").unlink()
    cut = tmp_path / "s" / "pieces" / "0001.npz"
    cut.write_bytes(cut.read_bytes()[:500])
    assert_same_bytes(run_sweep(tmp_path / "s", *keys), whole)
    # a piece of other points is not taken for this one
    (tmp_path / "s" / "summary.json").unlink()
    (tmp_path / "s" / "pieces" / "0000.npz").replace(cut)
    with pytest.raises(InputError, match=r"0001.npz has other points"):
        run_sweep(tmp_path / "s", *keys)


def test_a_point_that_is_trained_by_autograd_is_not_allowed() -> None:
    with pytest.raises(InputError, match="trains one network"):
        build(configured(*SMALL, "sweep.axes={trainer.gradient:[closed_form,autograd]}"))


def test_a_callback_of_one_run_is_refused(tmp_path: Path) -> None:
    """Early stopping by a median would make the results depend on sweep.piece_runs."""
    with pytest.raises(InputError, match=r"callbacks.early_stopping = EarlyStopping acts on"):
        run_job("sweep", sweep, tmp_path / "s", *SMALL, "callbacks=early_stopping")
    assert not (tmp_path / "s").exists()


def test_files_of_data_are_an_axis_without_a_file_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.npz" for name in "ab"]
    for number, file in enumerate(files):
        np.savez(file, X=np.eye(2, 3), y=np.ones(2) + number)
    keys = [key for key in SMALL if not key.startswith("data.")]
    given = ",".join(map(str, files))
    study = build(configured(*keys, "data=file", f"sweep.path=[{given}]"))
    assert [problem.y[0].item() for problem in study.points.data.made if problem] == [1, 2]


def test_python_and_the_command_line_group_by_the_same_layout() -> None:
    """A stack that lacks test rows or theta* anywhere has neither: that is not a run's neighbour's
    business."""

    def made(kind: int) -> dln.Problem:
        full = sparse(4, 8, 1, seed=kind, n_test=5)
        return full if kind else dln.Problem(full.X, full.y)

    found = dln.sweep(made, kind=[0, 1, 2], gamma=0.01, beta=0.5, max_steps=5)
    for name in ("recovery_error", "test_error"):
        assert np.isfinite(found[name].to_numpy()).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gamma": [0.1, 0.1]}, "gamma = .* has a value twice"),
        ({"gamma": [1, 1.0]}, "gamma = .* has a value twice"),
        ({"gamma": [0.1, 0.2], "seed": [1, 2, 3], "zip": ["gamma", "seed"]}, "gamma has 2, seed"),
    ],
)
def test_axes_of_python_are_those_of_the_command_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dln.sweep(sparse(4, 8, 1, seed=0), beta=0.5, max_steps=5, **keys)


# ---- what is left


def test_the_file_is_labelled(tmp_path: Path) -> None:
    results = run_sweep(
        tmp_path, "sweep.lam=[0.5,1,2]", "sweep.eps=[0.1,0.6]", "sweep.alpha=0.05",
        "sweep.seed=7",
    )  # fmt: skip
    assert dict(results["status"].sizes) == {"lam": 3, "eps": 2}
    assert results["theta"].dims == ("lam", "eps", "coordinate")
    assert results["train_loss_path"].dims == ("step", "lam", "eps")
    assert "theta_path" not in results
    assert (results["alpha"].item(), results["seed"].item()) == (0.05, 7)
    assert results["status"].sel(lam=0.5, eps=0.6) == "invalid"
    for name in ("gamma", "beta", "lam_ks"):
        assert results.coords[name].dims == ("lam", "eps")
    assert results["gamma"].sel(lam=2, eps=0.1).item() == pytest.approx(0.005, rel=1e-14)
    assert results["lam_ks"].sel(lam=2, eps=0.1).item() == pytest.approx(1.95, rel=1e-14)
    one = run_app(tmp_path / "one", *SMALL, "optimizer.lam=1", "optimizer.eps=0.1")
    assert set(one.summary) - NOT_MEASURED <= set(results.variables)
    assert all(
        {"long_name", "units", "symbol"} <= set(variable.attrs)
        for variable in results.variables.values()
    )
    assert results["rank"].sel(lam=1, eps=0.1) == 5
    assert OmegaConf.create(results.attrs["config"]).sweep.alpha == 0.05
    assert "torch" in json.loads(results.attrs["versions"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["endings"] == {"max_steps": 5, "invalid": 1}
    assert summary["data_hash"] == results["data_hash"].item() == one.summary["data_hash"]
    assert summary["axes"] == {"lam": 3, "eps": 2}
    assert summary["run_steps"] == 5 * 400
    for name in ("config.yaml", "overview.png", "overview.pdf", "dashboard.tfevents"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
def test_trajectories_are_kept_on_request(tmp_path: Path, no_figures: None) -> None:
    results = run_sweep(
        tmp_path, "sweep.gamma=[0.01,0.02]", "sweep.trajectories=true", "trainer.progress=true"
    )
    assert results["theta_path"].dims == ("step", "gamma", "coordinate")
    assert results["step"].values[[0, -1]].tolist() == [0, 400]
    np.testing.assert_array_equal(results["theta_path"][-1], results["theta"])
    assert {"own_level_set_distance_path", "distance_to_limit_path"} <= set(results)


@pytest.mark.slow
def test_the_figure_shows_every_quantity(tmp_path: Path, no_figures: None) -> None:
    axes = ["sweep.gamma=geomspace:1e-3:1e-1:4", "sweep.data_seed=[0,1]"]
    results = run_sweep(tmp_path, *axes, "sweep.beta=linspace:0.5:1:3")
    figure = overview(results)
    assert figure is not None
    panels = figure.axes[:6]
    assert [ax.get_xscale() for ax in panels] == ["log"] * 6
    assert all(any(isinstance(c, QuadMesh) for c in ax.collections) for ax in panels)
    curves = overview(results.isel(beta=0))
    assert curves is not None
    assert sum(len(ax.lines) for ax in curves.axes) >= 6
    assert overview(results.isel(beta=0, gamma=0, data_seed=0)) is None


@pytest.mark.slow
def test_levels_are_those_that_some_run_has(tmp_path: Path, no_figures: None) -> None:
    results = run_sweep(tmp_path, "sweep.gamma=[0.001,0.01]", "sweep.beta=[0.5,0.8,1.1]")
    levels = lambda_levels(results.sortby(["gamma", "beta"]), ["gamma", "beta"])
    # lambda from 0.004 to 0.25, and without end towards beta = 1
    np.testing.assert_allclose(levels["lam"].powers, [0.01, 0.1])


@pytest.mark.slow
def test_what_has_no_value_is_drawn_as_such(tmp_path: Path, no_figures: None) -> None:
    results = run_sweep(tmp_path, "sweep.gamma=[50,60]", "sweep.beta=[0.5,0.9]")
    assert (results["status"] == "diverged").all()
    for part in (results, results.isel(beta=0)):
        figure = overview(part)
        assert figure is not None
        assert all(ax.texts[0].get_text() == "no value" for ax in figure.axes[:5])


@pytest.mark.parametrize("axes", [1, 3, 5])
def test_tables_fit_80_columns_with_whole_numbers(
    tmp_path: Path, no_figures: None, axes: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    given = ["sweep.gamma=[0.0123,50]", "sweep.beta=[0.512,0.987]", "sweep.alpha=[0.0512,0.123]",
             "sweep.data_seed=[0,1]", "sweep.seed=[123456789]"]  # fmt: skip
    run_sweep(tmp_path, *given[:axes], "model=gaussian", "trainer.progress=false")
    printed = capsys.readouterr().out
    tables = [line for line in printed.splitlines() if line.startswith(("│", "┃", "┏"))]
    assert max(map(len, tables)) <= 80
    assert "…" not in printed
    assert "diverged" in printed


@pytest.mark.slow
def test_the_memory_of_stacked_data_counts_a_copy_for_every_run() -> None:
    keys = [*SMALL, "data.n=20", "data.d=40", "sweep.data_seed=range:0:2000", "sweep.beta=[0,0.5]"]
    with pytest.raises(InputError, match="GiB that 4000 runs") as few:
        build(configured(*keys, "sweep.memory_gb=1.01", "sweep.piece_runs=4000"))
    needed = float(str(few.value).split("less than the ")[1].split(" GiB")[0])
    # X, its scaled form, its row space and the test rows, of each data set and of each run
    assert needed > 1 + 6000 * (4 * 20 + 100) * 40 * 8 / 2**30


@pytest.mark.slow
def test_a_sweep_does_not_go_on_from_another(tmp_path: Path, no_figures: None) -> None:
    run_sweep(tmp_path / "first", "sweep.gamma=[0.01,0.02]")
    resume = f"resume={tmp_path / 'first' / 'checkpoints'}"
    for axis, message in (
        ("sweep.gamma=[0.01,0.03]", "other gamma and beta"),
        ("sweep.gamma=[0.01,0.02,0.03]", "other initial weights"),
        ("sweep.data_seed=[3,4]", "other data"),
    ):
        with pytest.raises(InputError, match=message):
            run_sweep(tmp_path / axis, axis, resume)
        assert not (tmp_path / axis).exists()


def test_help_and_axes_need_no_torch() -> None:
    code = "import sys, dln_momentum.cli.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what is refused


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["sweep.gamma=nonsense"], ["sweep.gamma = 'nonsense' must be a number"]),
        (["+sweep.delta=1"], ["unknown key sweep.delta", "keys of sweep: alpha, axes"]),
        (["sweep.gamma=[0.1]", "sweep.beta=0.5", "sweep.lam=[1,2]"], ["exactly one of the pairs"]),
        (["sweep.gamma=[0.1]", "sweep.beta=0.5", "optimizer.lam=1"], ["optimizer.lam = 1, sweep"]),
        (["sweep.gamma=[0.1]", "optimizer.gamma=0.1"], ["given, though it is swept"]),
        (["sweep.lam=[1,2]"], ["sweep.lam given: give exactly one of the pairs"]),
        (["sweep.gamma=[0.1]", "optimizer.beta=1.5"], ["optimizer.beta = 1.5 must be in [0, 1)"]),
        (["optimizer.gamma=-1"], ["optimizer.gamma = -1 must be finite and > 0"]),
        (["sweep.beta=[1,2]"], ["none of the 2 grid points has beta in [0, 1)"]),
        (["model=biased", "sweep.alpha=[0.1]"], ["no model.alpha to sweep"]),
        (["trainer.gradient=autograd"], ["a sweep needs closed_form"]),
        (["sweep.num_shards=2"], ["sweep.num_shards = 2 must be at most 1, the number of pieces"]),
        (["sweep.shard=1", "sweep.piece_runs=0"], ["sweep.shard = 1 must", "piece_runs = 0 must"]),
        (["sweep.n=[5,9]", "sweep.s=[1,9]"], ["data.n = 9 must be", "data.s = 9 must be"]),
        (["sweep.phi=[0.1,0.2]"], ["sweep.phi is given, but this config has no model.phi"]),
        (["sweep.axes={logger.x:[1]}"], ["logger.x cannot vary within a sweep"]),
        (["sweep.memory_gb=0"], ["sweep.memory_gb = 0 must be > 0"]),
        (["sweep.seed=range:0:5000", "sweep.gamma=[1,2]", "sweep.memory_gb=1.01"],
         ["than the", "GiB that 10000 runs"]),
        (["sweep.seed=range:0:99999", "sweep.data_seed=range:0:99999"], ["9999800001 grid points"]),
        (["sampling.batch_size=6", "sweep.gamma=0"], ["batch_size = 6", "sweep.gamma = 0"]),
        (["data.n=9", "sweep.seed=-1", "model.alpha=0"], ["data.n", "sweep.seed", "model.alpha"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], messages: list[str]
) -> None:
    with pytest.raises(InputError) as refusal:
        run_job("sweep", sweep, tmp_path / "sweep", *SMALL, "sweep.memory_gb=1.5", *overrides)
    for message in messages:
        assert message in str(refusal.value)
    assert not (tmp_path / "sweep").exists()


def test_a_larger_sweep_is_let_through_by_its_limit() -> None:
    keys = [*SMALL, "sweep.seed=range:0:20000"]
    with pytest.raises(InputError, match=r"sweep.memory_gb = 0.01 is less than"):
        build(configured(*keys, "sweep.memory_gb=0.01"))
    study = build(configured(*keys, "sweep.memory_gb=1.5"))
    assert sum(len(piece.points) for piece in study.pieces) == study.grid.size == 20000


# ---- problems of the runs


@settings(max_examples=30, deadline=None)
@given(places=st.lists(st.integers(0, 4), min_size=1, max_size=60), shared=st.sampled_from([1, 16]))
def test_every_run_is_in_one_group_with_its_own_data(places: list[int], shared: int) -> None:
    each = [sparse(2, 4, 1, seed=seed) for seed in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems_module, "SHARED_RUNS", shared)
        groups = Problems(each, torch.tensor(places)).groups
    members = torch.cat([group.runs for group in groups if group.runs is not None])
    assert sorted(members.tolist()) == list(range(len(places)))
    for group in groups:
        assert group.runs is not None
        X = group.problem.X.expand(len(group.runs), 2, 4)
        for row, run in zip(X, group.runs.tolist(), strict=True):
            assert torch.equal(row, each[places[run]].X)


def test_a_report_of_runs_that_differ_in_their_path_sums(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No attribute says what all share then, and a quantity may have no value in any run."""
    results = xr.Dataset(
        {name: ("engine_path_sums", [np.nan] * 3) for name in QUANTITIES}
        | {name: ("engine_path_sums", [10.0, 20.0, np.nan]) for name in ("steps", "train_loss")}
        | {"status": ("engine_path_sums", ["max_steps", "max_steps", "not run"])},
        {"engine_path_sums": ["direct", "telescoped", "gradient_sum"]},
    )
    empty = ("engine_path_sums", [np.nan] * 3)
    columns = {name: empty for name in COLUMNS if name not in results}
    summary = {
        "data": "drawn", "runs": 2, "grid_size": 3, "axes": {"engine_path_sums": 3},
        "endings": {"max_steps": 2}, "seconds_training": 1.0, "run_steps_per_second": 1.0,
    }  # fmt: skip
    print_report(results.assign(columns), summary, tmp_path)
    printed = capsys.readouterr().out
    assert "2 of 3 runs over engine_path_sums (3)" in printed
    # the one that is another shard's is not among those that did not diverge
    assert "runs that did not diverge: 2" in printed
