"""The functions of a notebook: what they accept, the shapes they give, and that they agree."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum import Snapshot
from dln_momentum.cli.flow import flow as flow_command
from tests.helpers import make_engine, run_job

PROBLEM = dln.sparse(n=5, d=8, s=1, seed=0)
SHORT: dict[str, Any] = {"max_steps": 300, "tol": 0.0, "records": 5}


@pytest.mark.slow
def test_it_needs_neither_lightning_nor_hydra() -> None:
    code = (
        "import sys, dln_momentum as dln;"
        "assert 'torch' not in sys.modules, 'the names alone need no torch';"
        "run = dln.train(dln.sparse(n=3, d=5, s=1), max_steps=20);"
        "dln.flow(dln.sparse(n=3, d=5, s=1), lam=0.5, time=1.0);"
        "sys.exit(bool({'lightning', 'hydra', 'omegaconf', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_call_is_one_run_of_the_engine() -> None:
    engine = make_engine(PROBLEM, 0.02, 0.9, tol=0.0)
    engine.advance(300)
    run = dln.train(PROBLEM, dln.uniform(0.1), gamma=0.02, beta=0.9, **SHORT)
    assert run.status == "max_steps"
    assert run.steps == 300
    np.testing.assert_array_equal(run.theta, engine.snapshot().theta[0].numpy())
    np.testing.assert_array_equal(run.s_plus, engine.snapshot().path_sums[0, 0].numpy())


@pytest.mark.parametrize(
    "gamma",
    [
        [0.01, 0.02],
        (0.01, 0.02),
        np.array([0.01, 0.02]),
        torch.tensor([0.01, 0.02], dtype=torch.float64),
    ],
    ids=["list", "tuple", "numpy", "torch"],
)
def test_arrays_broadcast_and_each_run_is_the_run_alone(gamma: Any) -> None:
    start = dln.uniform(alpha=[[0.1], [0.2], [0.3]])
    runs = dln.train(PROBLEM, start, gamma=gamma, beta=0.9, **SHORT)
    assert runs.theta.shape == (3, 2, 8)
    assert runs.status.shape == runs.steps.shape == (3, 2)
    for i, alpha in enumerate((0.1, 0.2, 0.3)):
        for j, rate in enumerate((0.01, 0.02)):
            one = dln.train(PROBLEM, dln.uniform(alpha), gamma=rate, beta=0.9, **SHORT)
            np.testing.assert_array_equal(runs.theta[i, j], one.theta)
            assert runs.summary["kkt_residual"][i, j] < 1e-11


def test_single_precision_is_cast() -> None:
    gamma = np.array([0.01, 0.02], dtype=np.float32)
    runs = dln.train(PROBLEM, gamma=gamma, beta=0.5, **SHORT)
    assert runs.theta.dtype == np.float64
    whole: Any = [[1, 2]], [3]
    assert dln.Problem(*whole).X.dtype == torch.float64


@pytest.mark.parametrize(
    "pair", [{"lam": 1.0, "eps": 0.1}, {"lam": 1.0, "beta": 0.9}, {"lam": 1.0, "gamma": 0.01}]
)
def test_any_pair_names_the_run(pair: dict[str, float]) -> None:
    run = dln.train(PROBLEM, **pair, **SHORT)
    same = dln.train(PROBLEM, gamma=0.01, beta=0.9, **SHORT)
    np.testing.assert_allclose(run.theta, same.theta, rtol=1e-11)


def test_seeds_are_those_of_each_run() -> None:
    keys = {"batch_size": 2, **SHORT}
    runs = dln.train(PROBLEM, gamma=0.02, beta=np.full(3, 0.9), seed=[5, 6, 5], **keys)
    one = dln.train(PROBLEM, gamma=0.02, beta=0.9, seed=6, **keys)
    np.testing.assert_array_equal(runs.theta[1], one.theta)
    np.testing.assert_array_equal(runs.theta[0], runs.theta[2])
    assert (runs.theta[0] != runs.theta[1]).any()


def test_callbacks_see_every_record() -> None:
    seen: list[tuple[int, float]] = []

    def watch(snapshot: Snapshot) -> None:
        seen.append((snapshot.step, float(snapshot.loss[0])))

    run = dln.train(PROBLEM, gamma=0.02, callbacks=[watch], **SHORT)
    recorded = run.to_dataset()
    assert [step for step, _ in seen] == recorded["step"].values.tolist()
    assert [loss for _, loss in seen] == recorded["train_loss"].values.tolist()


def test_what_is_recorded_is_labelled_and_certified() -> None:
    run = dln.train(PROBLEM, gamma=0.02, beta=0.9)
    recorded = run.to_dataset()
    assert recorded["theta"].dims == ("step", "coordinate")
    assert recorded["step"][-1] == run.steps
    # theta is the minimiser on its own level set at every record, and the interpolator at the end
    assert recorded["own_level_set_distance"].max() < 1e-8
    assert recorded["distance_to_minimizer"][-1] < 1e-8
    assert recorded["kkt_residual"].max() < 1e-10
    np.testing.assert_allclose(recorded["w_plus"][-1] - recorded["w_minus"][-1], 2 * run.v)
    found = run.certify()
    assert found.path_identity_error < 1e-10
    np.testing.assert_allclose(found.minimizer, run.theta, atol=1e-8)
    many = dln.train(PROBLEM, gamma=[0.01, 0.02], beta=0.9, **SHORT).to_dataset()
    assert many["theta"].dims == ("step", "run", "coordinate")
    assert many["gamma"].values.tolist() == [0.01, 0.02]


def test_distances_are_left_out_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = dln.train(PROBLEM, gamma=[0.01, 0.02], beta=0.9, **SHORT)
    assert "distance_to_limit" in runs.to_dataset()
    assert "distance_to_limit" not in runs.to_dataset(distances=False)
    monkeypatch.setattr("dln_momentum.interface.run.MOST_DISTANCES", 5)
    assert "distance_to_limit" not in runs.to_dataset()
    assert "distance_to_limit" in runs.to_dataset(distances=True)
    assert runs.to_dataset()["status"].values.tolist() == ["max_steps", "max_steps"]
    scalars = dln.train(PROBLEM, trajectories=False, **SHORT)
    with pytest.raises(dln.InputError, match="distances need trajectories"):
        scalars.to_dataset(distances=True)


def test_whole_numbers_of_any_type_count_steps() -> None:
    counts: dict[str, Any] = {"max_steps": np.int64(30), "records": 5.0}
    assert dln.train(PROBLEM, **counts).steps == 30


def test_results_are_shown_in_a_line() -> None:
    seen: list[Snapshot] = []
    run = dln.train(PROBLEM, gamma=[0.01, 0.02], callbacks=seen.append, **SHORT)
    for shown in (run, run.certify(), dln.flow(PROBLEM, time=1.0).certify(), seen[0], PROBLEM):
        assert len(repr(shown)) < 300
    assert "kkt_residual: median" in repr(run.certify())


def test_the_gradient_sum_certifies_nothing() -> None:
    run = dln.train(PROBLEM, path_sums="gradient_sum", **SHORT)
    with pytest.raises(dln.InputError, match="certifies nothing"):
        run.certify()
    assert np.isnan(run.summary["kkt_residual"])
    assert run.to_dataset()["own_level_set_distance"].isnull().all()


def test_a_run_has_a_figure_of_its_own() -> None:
    run = dln.train(PROBLEM, **SHORT)
    assert len(run.plot().axes) == 6
    with pytest.raises(dln.InputError, match="one run"):
        dln.train(PROBLEM, gamma=[0.01, 0.02], **SHORT).plot()


def test_problems_of_their_own() -> None:
    from dln_momentum.problem import stack

    problems = [dln.sparse(n=5, d=8, s=1, seed=seed) for seed in range(3)]
    runs = dln.train(stack(problems), gamma=0.02, **SHORT)
    for run, problem in enumerate(problems):
        np.testing.assert_array_equal(
            runs.theta[run], dln.train(problem, gamma=0.02, **SHORT).theta
        )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gamma": -1.0}, r"gamma = -1 .* must be finite and > 0"),
        ({"beta": [0.5, 1.0]}, r"beta = 1 \(1 of 2\) must be in \[0, 1\)"),
        ({"lam": 1.0}, "give exactly one of the pairs"),
        ({"lam": 1.0, "eps": 2.0}, r"give beta = -1 .* must be in \[0, 1\)"),
        ({"gamma": "fast"}, "gamma = 'fast' must be a number"),
        ({"gamma": [0.1, 0.2], "beta": [0.1, 0.2, 0.3]}, "shapes must broadcast to one"),
        ({"start": dln.Start([1.0, 2.0], [0.0, 0.0])}, "start has 2 coordinates, must have d = 8"),
        ({"start": 0.1}, "start is a float; it must be a Start"),
        ({"batch_size": 9}, "^batch_size = 9"),
        ({"max_steps": 0}, "max_steps = 0 must be an integer >= 1"),
        ({"seed": 0.5}, "seed = 0.5 must be an integer"),
        ({"max_steps": 1.5}, "max_steps = 1.5 must be an integer >= 1"),
        ({"seed": [-1]}, r"seed = \[-1\] must be an integer"),
        ({"tol": -1.0}, "tol"),
        ({"speed": np.nan}, "speed = nan must be a finite number"),
        ({"label_noise": 0.1}, "noise_until = 0 must be >= 1 for label_noise = 0.1"),
        ({"tol": "small"}, "tol = 'small' must be one number"),
        ({"speed": [1.0, 2.0]}, r"speed = \[1.0, 2.0\] must be one number"),
        ({"callbacks": 3}, "callbacks: 3 must be a function"),
        ({"path_sums": "none"}, "path_sums"),
    ],
)
def test_errors_of_use_are_one_message(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(dln.InputError, match=message):
        dln.train(PROBLEM, **keys)


def test_data_that_is_no_problem_is_refused() -> None:
    with pytest.raises(dln.InputError, match="problem is a list"):
        dln.train([[1.0, 2.0]])  # type: ignore[arg-type]


# ---- starts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dln.uniform(0.0), "alpha = 0 must be finite and > 0"),
        (lambda: dln.uniform([0.1, np.nan]), "alpha = nan must be finite"),
        (lambda: dln.uniform("small"), "alpha = 'small' must be a number"),
        (lambda: dln.uniform([[0.1], [0.1, 0.2]]), "alpha = .* must be a number, or an array"),
        (lambda: dln.uniform([]), r"alpha has shape \(0,\); it must have at least one entry"),
        (lambda: dln.biased([0.1, 0.2], [0.3, 0.4, 0.5]), r"one: scale \[2\], phi \[3\]"),
        (lambda: dln.biased(phi=1.0), "condition"),
        (lambda: dln.gaussian(seed=-1), "seed = -1"),
        (lambda: dln.Start([1.0], [1.0]), "condition"),
        (lambda: dln.Start([1.0, 2.0], [0.0, 0.0, 0.0]), r"broadcast to one: u \[2\], v \[3\]"),
        (lambda: dln.Start([np.inf], [0.0]), "must be finite"),
        (lambda: dln.Start("u", [0.0]), "u = 'u' must be a number"),
    ],
)
def test_starts_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(dln.InputError, match=message):
        make()


def test_starts_are_those_of_the_networks() -> None:
    for start, net in (
        (dln.uniform(0.2), dln.DiagonalLinearNet.uniform(7, 0.2)),
        (dln.gaussian(0.2, seed=4), dln.DiagonalLinearNet.gaussian(7, 0.2, seed=4)),
    ):
        u, v = start.layers(7)
        assert torch.equal(u, net.u.detach())
        assert torch.equal(v, net.v.detach())


# ---- flows, sweeps, verdicts


def test_one_flow_and_many() -> None:
    lams = np.array([[0.0, 0.5], [2.0, 0.0]])
    many = dln.flow(PROBLEM, dln.uniform(0.1), lam=lams, time=5.0, tol=None)
    assert many.theta.shape == (2, 2, 2, 8)
    assert many.t.shape == many.train_loss.shape == (2, 2, 2)
    np.testing.assert_array_equal(many.lam, lams)
    for place, lam in np.ndenumerate(lams):
        one = dln.flow(PROBLEM, dln.uniform(0.1), lam=lam, time=5.0, tol=None)
        assert one.status == many.status[place] == "time_reached"
        # the solvers of one and of many aim at 1e-9 and better
        np.testing.assert_allclose(one.theta[-1], many.theta[:, *place][-1], rtol=1e-7, atol=1e-9)
        assert one.sign_changes == many.sign_changes[place]
    recorded = many.to_dataset()
    assert recorded["theta"].dims == ("time", "run_0", "run_1", "coordinate")
    np.testing.assert_array_equal(recorded["lam"], lams)
    np.testing.assert_array_equal(recorded["t"][-1], 5.0)
    with pytest.raises(dln.InputError, match="certify and plot need every step of one flow"):
        many.certify()


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_a_flow_is_certified_recorded_and_drawn(lam: float) -> None:
    path = dln.flow(PROBLEM, dln.uniform(0.1), lam=lam)
    assert path.status == "converged"
    found = path.certify()
    # the solver's 1e-9 a step, and the quadrature near sign changes, of which there are some at 0.5
    allowed = 1e-7 + found.path_integral_uncertainty
    assert max(found.kkt_residual, found.path_identity_error, found.energy_balance_error) < allowed
    np.testing.assert_allclose(found.minimizer, path.theta[-1], atol=1e-7)
    recorded = path.to_dataset()
    assert recorded["theta"].dims == ("time", "coordinate")
    np.testing.assert_array_equal(recorded["time"], path.t)
    # I_+- as the theorem uses it: Delta_inf = Delta_0 exp(-(I_+ + I_-))
    end = recorded.isel(time=-1)
    predicted = path.balancedness[0] * np.exp(-(end["i_plus"] + end["i_minus"]))
    np.testing.assert_allclose(predicted, path.balancedness[-1], rtol=1e-7)
    assert len(path.plot().axes) == 6


def test_a_flow_at_the_times_that_are_asked_for() -> None:
    path = dln.flow(PROBLEM, lam=0.5, times=[0.5, 1.1, 2.0], rtol=1e-11)
    assert path.t.tolist() == [0.0, 0.5, 1.1, 2.0]
    many = dln.flow(PROBLEM, lam=[0.0, 0.5], times=[0.5, 1.1, 2.0], rtol=1e-11)
    np.testing.assert_array_equal(many.t, np.array([path.t, path.t]).T)
    recorded = many.to_dataset()
    np.testing.assert_array_equal(recorded["time"], path.t)
    assert recorded["status"].values.tolist() == ["time_reached"] * 2
    np.testing.assert_allclose(many.theta[:, 1], path.theta, rtol=1e-7, atol=1e-9)
    still = dln.flow(PROBLEM, lam=0.5, times=[1.0])
    moving = dln.flow(PROBLEM, lam=0.5, times=[1.0], speed=1.0)
    # gradient flow's velocity is ahead of rest
    assert moving.train_loss[-1] < still.train_loss[-1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lam": -1.0}, "lam = -1 .* must be finite and >= 0"),
        ({"lam": [0.0, 1.0], "speed": 1.0}, "gradient flow has no initial speed"),
        ({"lam": 1.0, "times": [2.0, 1.0]}, "times must be increasing"),
        ({"lam": [1.0, 2.0], "times": [2.0, 1.0]}, "times must be increasing"),
        ({"lam": 1.0, "times": [0.0]}, "the last of them > 0"),
        ({"lam": 1.0, "times": [1.0], "time": 2.0}, "time and times given"),
        ({"lam": 1.0, "time": "long"}, "time = 'long' must be one number"),
        ({"lam": 1.0, "tol": None}, "time = inf needs a tol"),
        ({"lam": 1.0, "rtol": 2.0}, "rtol = 2"),
    ],
)
def test_errors_of_use_of_a_flow(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(dln.InputError, match=message):
        dln.flow(PROBLEM, **keys)


def test_a_sweep_is_labelled_by_its_axes() -> None:
    grid = dln.sweep(
        lambda seed: dln.sparse(n=5, d=8, s=1, seed=seed),
        dln.uniform(0.1),
        gamma=[0.01, 0.02],
        beta=[0.5],
        data_seed=[0, 3],
        **SHORT,
    )
    assert dict(grid["status"].sizes) == {"gamma": 2, "beta": 1, "data_seed": 2}
    assert grid["theta"].dims == ("gamma", "beta", "data_seed", "coordinate")
    for gamma, seed in ((0.02, 0), (0.01, 3), (0.02, 3)):
        one = dln.train(dln.sparse(n=5, d=8, s=1, seed=seed), gamma=gamma, beta=0.5, **SHORT)
        np.testing.assert_array_equal(
            grid["theta"].sel(gamma=gamma, beta=0.5, data_seed=seed).values, one.theta
        )
    assert grid["theta"].attrs["long_name"]
    scales = dln.sweep(PROBLEM, dln.uniform([0.1, 0.2]), gamma=[0.01, 0.02], **SHORT)
    assert scales["alpha"].values.tolist() == [0.1, 0.2]
    one = dln.train(PROBLEM, dln.uniform(0.2), gamma=0.01, beta=0.9, **SHORT)
    np.testing.assert_array_equal(scales["theta"].sel(gamma=0.01, alpha=0.2), one.theta)
    indexed = dln.sweep(PROBLEM, dln.biased([0.1, 0.2]), gamma=[0.01], **SHORT)
    assert dict(indexed["status"].sizes) == {"gamma": 1, "start": 2}
    with pytest.raises(dln.InputError, match="function of the seed"):
        dln.sweep(PROBLEM, data_seed=[0, 1])


def test_a_sweep_varies_what_one_engine_cannot_carry() -> None:
    def problem(n: int, data_seed: int) -> dln.Problem:
        return dln.sparse(n=n, d=8, s=1, seed=data_seed)

    grid = dln.sweep(
        problem,
        dln.biased,
        n=[4, 6],
        phi=[0.1, 0.5],
        batch_size=[None, 2],
        data_seed=[0, 3],
        tol=[1e-6, 1e-12],
        gamma=[0.02, 0.03],
        beta=[0.5, 0.8],
        zip=["gamma", "beta"],
        max_steps=3000,
    )
    assert dict(grid["status"].sizes) == {
        "n": 2, "phi": 2, "batch_size": 2, "data_seed": 2, "tol": 2, "gamma_beta": 2,
    }  # fmt: skip
    assert grid["data_hash"].dims == grid["theta_star"].dims[:-1] == ("n", "data_seed")
    assert set(grid["status"].values.flat) == {"converged", "max_steps"}
    for n, phi, place, seed, tol, pair in ((4, 0.5, 1, 3, 1e-6, 0), (6, 0.1, 0, 0, 1e-12, 1)):
        one = dln.train(
            problem(n, seed), dln.biased(phi=phi), gamma=(0.02, 0.03)[pair], beta=(0.5, 0.8)[pair],
            batch_size=(None, 2)[place], tol=tol, max_steps=3000,
        )  # fmt: skip
        found = grid.sel(n=n, phi=phi, data_seed=seed, tol=tol).isel(
            gamma_beta=pair, batch_size=place
        )
        assert (found["status"], found["steps"]) == (one.status, one.steps)
        # compiled kernels may add in another order for another number of runs
        np.testing.assert_allclose(found["theta"], one.theta, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"n": [5, 6]}, "n: the data are given, with n = "),
        ({"gamma": [0.1, 0.2], "zip": ["gamma", "beta"]}, "zip: beta must be a key with a list"),
        ({"seed": [0.5]}, "must be a list of integers"),
        ({"beta": [0.5, 1.5]}, "beta = 1.5"),
    ],
)
def test_errors_of_use_of_a_sweep(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(dln.InputError, match=message):
        dln.sweep(PROBLEM, **keys)


def test_a_pair_of_rates_without_a_run_is_invalid() -> None:
    grid = dln.sweep(PROBLEM, lam=[1.0, 4.0], eps=[0.1, 2.0], **SHORT)
    assert grid["status"].sel(lam=1.0).values.tolist()[1] == "invalid"
    assert (grid["status"] == "invalid").sum() == 1
    assert np.isnan(grid["theta"].sel(lam=1.0, eps=2.0)).all()


def test_rates_that_meet_at_beta_0_are_valid_in_spite_of_rounding() -> None:
    gamma, lam = np.geomspace(0.7, 0.003, 10), np.geomspace(0.003, 0.7, 10)
    grid = dln.sweep(PROBLEM, gamma=gamma, lam=lam, max_steps=1)
    table = (grid["status"] != "invalid").to_numpy()
    assert table[:, ::-1].diagonal().all()
    assert table.sum() == 55  # gamma <= lam


def test_verdicts_print_as_a_table() -> None:
    data: Any = [[1.0, 2.0]], [2.0]
    problem, start = dln.Problem(*data), dln.Start([0.5], [0.0])
    report = dln.verify(problem, start, lam=0.2)
    assert report.violated == []
    assert len(report.to_dataframe()) == len(report)
    assert len(report.holds) > 20
    printed = str(report)
    assert "verdict" in printed
    assert printed.count("\n") > len(report)
    assert max(len(line) for line in printed.splitlines()) <= 150
    assert repr(report).endswith("VIOLATED: 0)")


@pytest.mark.slow
def test_a_lambda_in_single_precision_violates_nothing() -> None:
    rates: Any = {"single": np.float32(0.2), "list": [1, 2]}
    data: Any = [[1.0, 2.0]], [2.0]
    assert type(dln.Momentum(rates["single"]).gamma) is float
    problem, start = dln.Problem(*data), dln.Start([0.5], [0.0])
    assert dln.verify(problem, start, lam=rates["single"]).violated == []
    with pytest.raises(dln.InputError, match=r"lam = \[1, 2\] must be one number"):
        dln.verify(problem, start, lam=rates["list"])


@pytest.mark.slow
def test_seeds_and_problems_are_arrays_like_any_other() -> None:
    """A list of problems and an array of seeds broadcast; each run is what it is alone."""
    problems = [dln.sparse(n=5, d=8, s=1, seed=seed) for seed in range(3)]
    keys: dict[str, Any] = {"gamma": 0.01, "beta": 0.9, "batch_size": 2, "max_steps": 300}
    runs = dln.train(problems, seed=[[4], [5]], **keys)
    assert runs.theta.shape == (2, 3, 8)
    distances = runs.to_dataset()["own_level_set_distance"]
    for i, seed in enumerate((4, 5)):
        for j, problem in enumerate(problems):
            alone = dln.train(problem, seed=seed, **keys)
            np.testing.assert_array_equal(runs.theta[i, j], alone.theta)
            assert runs.summary["recovery_error"][i, j] == alone.summary["recovery_error"]
            # the solver's stopping depends on what is solved beside it
            np.testing.assert_allclose(
                distances[:, i, j], alone.to_dataset()["own_level_set_distance"], atol=1e-9
            )


def test_problems_of_several_shapes_are_one_error() -> None:
    with pytest.raises(dln.InputError, match="all must have one shape"):
        dln.train([dln.sparse(n=5, d=8, s=1), dln.sparse(n=5, d=9, s=1)])


@pytest.mark.parametrize("runs_each", [2, 9], ids=["stacked", "a group for each"])
def test_runs_on_several_problems_are_the_runs_alone(
    runs_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where runs end at different steps, and what is drawn for them comes in pieces."""
    monkeypatch.setattr("dln_momentum.engine.random_inputs.CHUNK_BYTES", 2**11)
    problems = [dln.sparse(n=5, d=8, s=1, seed=seed) for seed in range(2)]
    gamma = 0.01 * np.arange(runs_each, 0, -1)[:, None]  # the first end first
    alpha = 0.3 + 0.1 * gamma
    seeds = np.arange(2 * runs_each).reshape(runs_each, 2)[::-1].copy()
    keys: dict[str, Any] = {
        "speed": 0.3, "batch_size": 2, "label_noise": 0.1, "noise_until": 50, "max_steps": 300,
        "records": 4, "beta": 0.5, "num_workers": 2, "tol": 1e-3,
    }  # fmt: skip
    runs = dln.train(problems, dln.uniform(alpha), gamma=gamma, seed=seeds, **keys)
    assert len(np.unique(runs.steps)) > 1
    found, sums = runs.to_dataset(), runs.snapshot.gradient_sum.reshape(runs_each, 2, 8)
    for place in ((0, 0), (0, 1), (runs_each - 1, 0), (runs_each - 1, 1)):
        alone = dln.train(
            problems[place[1]],
            dln.uniform(alpha[place[0], 0]),
            gamma=gamma[place[0], 0],
            seed=int(seeds[place]),
            **keys,
        )
        np.testing.assert_array_equal(runs.theta[place], alone.theta)
        np.testing.assert_array_equal(runs.s_plus[place], alone.s_plus)
        np.testing.assert_allclose(sums[place], alone.snapshot.gradient_sum[0], 1e-12)
        for name, value in alone.summary.items():
            np.testing.assert_allclose(runs.summary[name][place], value, 1e-9, 1e-12, err_msg=name)
        own = found.isel(run_0=place[0], run_1=place[1])
        for name, values in alone.to_dataset().data_vars.items():
            if "step" not in values.dims:
                assert own[name].item() == values.item()
                continue
            both = np.intersect1d(own.step, values.step)
            np.testing.assert_allclose(
                own[name].sel(step=both), values.sel(step=both), 1e-9, 1e-12, err_msg=str(name)
            )


def test_label_noise_is_that_of_the_seed() -> None:
    keys: dict[str, Any] = {"label_noise": 0.1, "noise_until": 50, **SHORT}
    first, second = (dln.train(PROBLEM, seed=seed, **keys).theta for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-6


def test_a_sweep_takes_one_problem_or_a_function() -> None:
    from dln_momentum.problem import stack

    problems = [dln.sparse(n=5, d=8, s=1, seed=seed) for seed in range(3)]
    with pytest.raises(dln.InputError, match=r"problem has run dimensions \[3\]"):
        dln.sweep(stack(problems), gamma=[0.01, 0.02, 0.03])
    with pytest.raises(dln.InputError, match="problem must make a Problem; it made a int"):
        dln.sweep(lambda seed: seed, data_seed=[0])  # type: ignore[arg-type, return-value]


def test_callbacks_may_be_an_iterator() -> None:
    seen: list[int] = []
    dln.train(PROBLEM, callbacks=iter([lambda s: seen.append(s.step)]), max_steps=100, records=4)
    assert seen == [0, 1, 10, 100]


def test_distances_of_a_run_are_known_up_to_where_it_diverged() -> None:
    run = dln.train(PROBLEM, gamma=3.0, beta=0.9)
    assert run.status == "diverged"
    distances = run.to_dataset()["own_level_set_distance"].values
    assert np.isfinite(distances[0])
    assert np.isnan(distances[-1])


@pytest.mark.parametrize(
    ("function", "given", "messages"),
    [
        (
            dln.train,
            {"gamma": -1, "beta": 2, "batch_size": 99, "seed": -1, "max_steps": 0, "tol": "x",
             "method": "adam", "sampling": "some", "records": 1},
            ["gamma = -1", "beta = 2", "batch_size = 99", "seed = -1", "max_steps = 0", "tol = 'x'",
             "method = 'adam'", "sampling = 'some'", "records = 1"],
        ),
        (
            dln.flow,
            {"lam": -1, "friction": 0, "speed": "x", "tol": [1, 2]},
            ["lam = -1", "friction = 0", "speed = 'x'", "tol = [1, 2]"],
        ),
        (
            dln.verify,
            {"gamma": -1, "beta": 0.5, "batch_size": 99, "max_steps": 0, "tol": "x"},
            ["gamma = -1", "batch_size = 99", "max_steps = 0", "tol = 'x'"],
        ),
    ],
    ids=["train", "flow", "verify"],
)  # fmt: skip
def test_all_that_is_wrong_is_listed_at_once(
    function: Any, given: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(dln.InputError) as caught:
        function(PROBLEM, **given)
    lines = caught.value.problems
    assert len(lines) == len(messages)
    for message in messages:
        assert any(line.startswith(message) for line in lines), message


def test_problems_of_two_shapes_are_named_once_and_one_run_says_its_steps() -> None:
    with pytest.raises(dln.InputError) as caught:
        dln.train([dln.sparse(n=5, d=8, s=1), dln.sparse(n=4, d=8, s=1)])
    (line,) = caught.value.problems
    assert line.endswith("all must have one shape")
    assert repr(dln.train(PROBLEM, max_steps=20)).endswith("max_steps after 20 steps)")


@pytest.mark.parametrize(
    ("function", "key", "message"),
    [
        (dln.train, "momentum", "unknown argument momentum (did you mean beta?)"),
        (dln.train, "lr", "unknown argument lr (did you mean gamma?)"),
        (dln.train, "alpha", "unknown argument alpha (did you mean start=dln.uniform(alpha)?)"),
        (dln.flow, "frictoin", "unknown argument frictoin (did you mean friction?)"),
        (dln.flow, "gamma", "unknown argument gamma (did you mean lam = gamma/(1-beta)^2?)"),
        (dln.flow, "momentum", "unknown argument momentum (did you mean lam = gamma/(1-beta)^2?)"),
        (dln.verify, "qqq", "unknown argument qqq"),
        (dln.certify, "momentum", "unknown argument momentum (did you mean beta?)"),
        (dln.sweep, "momentum", "unknown key momentum (did you mean beta?)"),
        (dln.sweep, "curvature", "curvature: a sweep holds the end of each run alone"),
    ],
)
def test_an_unknown_argument_is_answered_with_the_nearest(
    function: Any, key: str, message: str
) -> None:
    with pytest.raises(dln.InputError) as caught:
        function(PROBLEM, **{key: 0.9})
    assert str(caught.value).startswith(message)


def test_checked_functions_keep_their_signatures() -> None:
    for function in (dln.train, dln.flow, dln.verify, dln.certify):
        parameters = inspect.signature(function).parameters
        assert "kwargs" not in parameters
        assert next(iter(parameters)) == "problem"
        assert function.__doc__


def test_both_ways_to_a_flow_refuse_the_same(tmp_path: Path) -> None:
    """What a flow cannot reach is known in one place (`flow_errors`)."""
    keys = ["data.n=5", "data.d=8", "data.s=1"]
    wrong: Any = ({"friction": 1e-200}, {"lam": 1e9}, {"lam": 1e9, "friction": 0.5})
    for given in wrong:
        with pytest.raises(dln.InputError) as python:
            dln.flow(dln.sparse(n=5, d=8, s=1), **given)
        words = [f"flow.{key}={value}" for key, value in given.items()]
        with pytest.raises(dln.InputError) as command:
            run_job("flow", flow_command, tmp_path, *keys, *words)
        (one,), (other,) = python.value.problems, command.value.problems
        # the limits of the steps and the tolerances of the two differ, and with them the numbers
        assert other.replace("flow.", "").startswith(re.split(r" about|, or a", one)[0])


def test_a_flow_that_runs_out_of_steps_says_when() -> None:
    problem = dln.sparse(n=6, d=12, s=2, seed=146)
    path = dln.flow(problem, dln.uniform(1e-3), lam=1.0, max_steps=50)
    assert path.status == "failed"
    assert len(path.t) == 51
    assert repr(path).endswith(f"failed; more than 50 steps, at t = {path.t[-1]:.4g})")
