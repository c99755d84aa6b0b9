"""Schedules, methods, losses and depths: from Python, configs, sweeps and checkpoints."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import dln_momentum as dln
from dln_momentum.cli.setup import build
from dln_momentum.cli.sweep import sweep
from dln_momentum.cli.train import train
from dln_momentum.cli.verify import verify
from dln_momentum.config import CONF_DIR, composed, config_hash
from dln_momentum.config.location import options_of
from dln_momentum.interface.methods import as_plain, from_plain
from dln_momentum.method import Method
from dln_momentum.schedules import SCHEDULES
from dln_momentum.theory.losses import LOSSES
from dln_momentum.training.module import HeavyBallModule
from tests.helpers import run_app, run_job

SMALL = ["data.n=5", "data.d=8", "data.s=1"]
SHORT = [*SMALL, "trainer.max_steps=400", "trainer.records=6"]
S = dln.schedules

KKT = 1e-10
"""Relative rounding of S_+- over 400 steps, times the condition of the projection."""
IDENTITY = 1e-9
"""The same of Delta: an ulp of w_+- a step, times p_k <= 1/(1-beta), times 8 coordinates."""

MEMBERS = [
    "schedule=cosine schedule.steps=300",
    "schedule=warmup schedule.steps=50",
    "schedule=step_decay schedule.every=100 schedule.factor=0.5",
    "schedule=inverse_sqrt schedule.offset=100",
    "schedule=nesterov_momentum",
    "schedule=acceleration schedule.steps=200",
    "schedule=annealed_lambda schedule.steps=200",
    "schedule=arrays schedule.gamma=[0.005,0.01,0.02] schedule.beta=[0.5,0.9]",
    "method=nesterov",
    "method=nesterov schedule=nesterov_momentum",
    "method.weight_decay=1e-3 method.decay_until=100",
    "method.weight_decay=1e-3 method.decoupled=true",
    "method.dampening=0.5",
    "method.kappa=[1,2,1,1,0.5,1,1,1]",
    "optimizer.gamma_u=0.02 optimizer.gamma_v=0.005",
    "model=power model.alpha=0.3 optimizer.gamma=0.003",
    "model=power model.alpha=0.3 model.depth=2.5 loss=logistic schedule=cosine schedule.steps=300",
    "loss=logistic",
    "loss=exponential sampling.batch_size=2",
]
"""A command line for each member of the family."""


@pytest.fixture(scope="module")
def problem() -> dln.Problem:
    return dln.sparse(n=5, d=8, s=1)


# ---- configs


def test_every_schedule_and_loss_is_an_option_of_its_group() -> None:
    assert options_of("schedule") == sorted(SCHEDULES)
    assert options_of("loss") == sorted(LOSSES)
    assert options_of("method") == ["heavy_ball", "nesterov"]


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"arrays"}))
def test_a_schedule_has_the_defaults_of_its_config(name: str) -> None:
    # what a run makes of each is in the slow tests
    config: Any = OmegaConf.load(CONF_DIR / f"schedule/{name}.yaml")
    python = fields(SCHEDULES[name])
    assert set(config) == {"name", *(field.name for field in python)}
    for field in python:
        assert field.default in (MISSING, config[field.name]), field.name


def test_a_method_has_the_defaults_of_its_config() -> None:
    config = composed("train").method
    assert {key: getattr(Method(), key) for key in config} == dict(config)
    assert build(composed("train", SMALL)).method.is_plain


@pytest.mark.slow
def test_an_npz_of_rates(tmp_path: Path) -> None:
    np.savez(tmp_path / "rates.npz", gamma=np.linspace(0.01, 0.02, 5))
    words = [*SMALL, "schedule=arrays", f"schedule.path={tmp_path / 'rates.npz'}"]
    schedule = build(composed("train", words)).method.schedule
    assert schedule == S.Arrays(gamma=np.linspace(0.01, 0.02, 5))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            "schedule=acceleration schedule.rho=20 method.dampening=1 data.n=50 loss.name=l1",
            [
                "data.n = 50", "method.dampening = 1 must be in [0, 1)",
                "loss.name = 'l1' must be one of squared, logistic, exponential",
            ],
        ),
        pytest.param(
            "schedule=acceleration schedule.rho=20",
            ["schedule.rho = 20 must be in (0, 10]"],
            marks=SLOW,
        ),
        pytest.param(
            "schedule=warmup schedule.steps=0",
            ["schedule.steps = 0 must be finite and >= 1"],
            marks=SLOW,
        ),
        pytest.param(
            "schedule=warmup +schedule.every=5",
            ["unknown key schedule.every"],
            marks=SLOW,
        ),
        pytest.param(
            "schedule=arrays",
            ["schedule.gamma and schedule.beta, or schedule.path"],
            marks=SLOW,
        ),
        pytest.param(
            "method.weight_decay=fast",
            ["method.weight_decay = 'fast' must be of type float"],
            marks=SLOW,
        ),
        pytest.param(
            "method.kappa=[1,2]",
            ["method.kappa has 2 numbers, must have d = 30"],
            marks=SLOW,
        ),
        pytest.param(
            "optimizer.gamma_u=-1",
            ["optimizer.gamma_u = -1 must be finite and > 0"],
            marks=SLOW,
        ),
        ("optimizer.gamma_u=1 optimizer.gamma=1", ["(gamma_u, gamma_v, beta)"]),
        (
            "optimizer=layer_rates optimizer.gamma_u=1e300 optimizer.gamma_v=1e-300",
            ["gamma_v/gamma_u must be in the range of float64"],
        ),
        ("model=power model.depth=1e300", ["alpha^depth must be between 1e-290 and 1e+290"]),
        ("model=power model.alpha=1e300", ["alpha^depth must be between 1e-290 and 1e+290"]),
        pytest.param(
            "method=nesterov method.dampening=0.5",
            ["dampening must be 0"],
            marks=SLOW,
        ),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(words: str, messages: list[str]) -> None:
    with pytest.raises(dln.InputError) as refused:
        build(composed("train", words.split()))
    for message in messages:
        assert message in str(refused.value)


@pytest.mark.slow
def test_autograd_trains_by_no_other_method() -> None:
    setup = build(composed("train", [*SMALL, "method=nesterov", "trainer.gradient=autograd"]))
    with pytest.raises(dln.InputError, match="with a schedule or without"):
        setup.module()


@pytest.mark.slow
def test_the_hash_of_a_config_tells_methods_apart() -> None:
    others = ["method=nesterov", "method.weight_decay=0.1", "schedule=cosine", "loss=logistic"]
    configs = [composed("train", [word]) for word in ["seed=0", *others]]
    hashes = [config_hash(config) for config in configs]
    assert len(set(hashes)) == len(hashes)
    # a config that was saved before there were these sections is of the same run
    old = OmegaConf.masked_copy(
        configs[0], sorted({*map(str, configs[0])} - {"schedule", "method", "loss"})
    )
    assert config_hash(old) == hashes[0]


# ---- checkpoints


@pytest.mark.slow
def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    run = run_app(tmp_path / "one", *SHORT, "method=nesterov")
    last = run.directory / "checkpoints" / "last.ckpt"
    for words, other in (([], "method"), (["loss=logistic", "method=nesterov"], "loss")):
        with pytest.raises(dln.InputError, match=f"other {other}"):
            build(composed("train", [*SHORT, *words])).module(resume=last)
    loaded = HeavyBallModule.load_from_checkpoint(last)
    assert loaded.method == Method("nesterov")
    found = loaded.snapshot()
    assert found is not None
    assert found.loss.item() == run.summary["train_loss"]


def test_a_method_survives_a_checkpoint() -> None:
    schedule = S.Arrays(gamma=np.linspace(0.01, 0.02, 40))
    for method in (Method(), Method("nesterov", schedule=schedule), Method(kappa=[1.0, 2.0])):
        assert from_plain(as_plain(method)) == method


# ---- one run


@pytest.mark.slow
@pytest.mark.parametrize("words", MEMBERS)
def test_the_certificate_of_every_member_is_at_rounding(tmp_path: Path, words: str) -> None:
    run = run_app(tmp_path, *SHORT, *words.split())
    assert run.summary["kkt_residual"] < KKT
    assert run.summary["path_identity_error"] < IDENTITY
    along = run.history()
    assert float(along.kkt_residual.max()) < KKT
    assert float(along.path_identity_error.max()) < IDENTITY


def test_the_rates_along_a_run_are_in_its_history(tmp_path: Path) -> None:
    run = run_app(tmp_path, *SHORT, "method=nesterov", "schedule=step_decay", "schedule.every=100")
    history = run.history()
    assert run.summary["method"] == "nesterov"
    assert run.summary["schedule"] == "step_decay"
    assert run.summary["kkt_residual"] < KKT
    # of the last step taken; of step 1 where none is
    last = np.maximum(history.step.to_numpy(), 1)
    gamma_k = 0.01 * 0.1 ** ((last - 1) // 100)
    np.testing.assert_allclose(history.gamma_k, gamma_k, rtol=1e-15)
    np.testing.assert_allclose(history.lam_k, gamma_k / 0.1**2, rtol=1e-14)
    # 100 steps at each rate, and eps = 10 gamma
    np.testing.assert_allclose(history.time[-1], 100 * 0.1 * 1.111, rtol=1e-13)


# ---- many runs


def test_numbers_of_a_method_broadcast(problem: dln.Problem) -> None:
    steps, decay = np.array([50.0, 100.0]), np.array([[0.0], [1e-3], [1e-2]])
    runs = dln.train(
        problem,
        schedule=S.Warmup(torch.from_numpy(steps)),
        weight_decay=decay,
        decay_until=200,
        max_steps=300,
    )
    assert runs.theta.shape == (3, 2, 8)
    assert runs.certify().kkt_residual.max() < KKT
    one = dln.train(problem, schedule=S.Warmup(100), weight_decay=1e-3, decay_until=200,
                    max_steps=300)  # fmt: skip
    # the same arithmetic, in blocks of other sizes
    np.testing.assert_allclose(runs.theta[1, 1], one.theta, rtol=1e-12)
    np.testing.assert_allclose(runs.to_dataset().gamma_k.sel(step=0), np.tile(0.01 / steps, (3, 1)))


@pytest.mark.slow
def test_a_sweep_over_numbers_and_methods(tmp_path: Path, problem: dln.Problem) -> None:
    axes = "{schedule.steps: [50,100], method.weight_decay: [0,1e-3], method.name: [heavy_ball,nesterov]}"  # noqa: E501
    words = [*SHORT, "schedule=warmup", "trainer.tol=0", f"sweep.axes={axes}", "callbacks=none"]
    run_job("sweep", sweep, tmp_path, *words)
    import xarray as xr

    found = xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf")
    assert dict(found.status.sizes) == {
        "schedule_steps": 2, "weight_decay": 2, "method_name": 2,
    }  # fmt: skip
    assert float(found.kkt_residual.max()) < KKT
    same = dln.sweep(
        problem, dln.uniform(0.1), schedule=S.Warmup, steps=[50, 100], weight_decay=[0, 1e-3],
        method=["heavy_ball", "nesterov"], max_steps=400, tol=0.0,
    )  # fmt: skip
    # weight decay has an axis of its own, which comes first
    theta = found.theta.transpose("schedule_steps", ...)
    np.testing.assert_array_equal(theta.to_numpy(), same.theta.to_numpy())


def test_the_layers_of_a_sweep_have_rates(problem: dln.Problem) -> None:
    found = dln.sweep(problem, gamma_u=[0.01, 0.02], gamma_v=0.02, beta=[0.5, 0.9], max_steps=200)
    np.testing.assert_allclose(found.gamma[:, 0], [0.02 / 2**0.5, 0.02], rtol=1e-15)
    assert float(found.kkt_residual.max()) < KKT


@pytest.mark.slow
def test_depths_of_a_sweep_are_trained_together(problem: dln.Problem) -> None:
    given: dict[str, Any] = {"gamma": 0.003, "beta": [0.5, 0.9], "max_steps": 300}
    found = dln.sweep(problem, dln.power, alpha=0.3, depth=[2.5, 3.0], **given)
    assert dict(found.status.sizes) == {"depth": 2, "beta": 2}
    assert float(found.kkt_residual.max()) < KKT
    same = dln.sweep(problem, dln.power(0.3, [2.5, 3.0]), **given)
    np.testing.assert_array_equal(found.theta.to_numpy(), same.theta.to_numpy().swapaxes(0, 1))


def test_margins_of_classification(problem: dln.Problem) -> None:
    labels = problem.with_loss("logistic")
    run = dln.train(labels, dln.power(0.3, 3), gamma=0.01, max_steps=300)
    margin = (labels.y.numpy() * (labels.X.numpy() @ run.theta)).min()
    np.testing.assert_allclose(run.summary["min_margin"], margin, rtol=1e-13)
    np.testing.assert_allclose(run.summary["l1_margin"], margin / np.abs(run.theta).sum())
    assert run.certify().kkt_residual < KKT
    assert np.isnan(run.summary["distance_to_minimizer"])  # there is no interpolator to end at


def test_what_train_refuses(problem: dln.Problem) -> None:
    given: list[tuple[str, Any]] = [
        ("method", "adam"), ("weight_decay", -1), ("schedule", "cosine"),
    ]  # fmt: skip
    for key, value in given:
        with pytest.raises(dln.InputError, match=f"^{key}"):
            dln.train(problem, **{key: value})
    with pytest.raises(dln.InputError, match="shapes must broadcast"):
        dln.train(problem, weight_decay=[0.1, 0.2], dampening=[0.1, 0.2, 0.3])
    with pytest.raises(dln.InputError, match=r"schedule\.rho = 20"):
        dln.train(problem, schedule=S.Acceleration(20.0, 10))


# ---- statements


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["method=nesterov schedule=cosine schedule.steps=1000", "loss=logistic"]
)
def test_verify_judges_the_run_of_its_own_method(tmp_path: Path, words: str) -> None:
    run_job("verify", verify, tmp_path, *SMALL, "max_steps=2000", *words.split())
    import json

    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["violated"] == []
    own = [s for s in found["statements"] if "its own level set (KKT" in s["name"]]
    assert [s["verdict"] for s in own] == ["holds"]
    unmet = [s for s in found["statements"] if s["verdict"] == "hypotheses not met"]
    assert any("heavy ball at constant" in str(s) or "squared loss" in str(s) for s in unmet)


@pytest.mark.slow
def test_train_is_what_the_command_does(tmp_path: Path, problem: dln.Problem) -> None:
    run = dln.train(problem, method="nesterov", max_steps=400, tol=0.0)
    run_job("train", train, tmp_path, *SHORT, "method=nesterov", "trainer.tol=0", "callbacks=none")
    module = HeavyBallModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    snapshot = module.snapshot()
    assert snapshot is not None
    # one kernel, in blocks of other sizes: the same bits
    np.testing.assert_array_equal(snapshot.theta[0].numpy(), run.theta)


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_a_run_ends_at_a_margin(problem: dln.Problem, loss: str) -> None:
    """At l(m)/n no row has a margin below m, and one of them has at most m + ln n, up to 1e-2."""
    labels = problem.with_loss(loss)
    run = dln.train(labels, dln.uniform(0.3), gamma=0.02, margin=3.0, max_steps=20_000)
    assert run.status == "converged"
    assert run.summary["min_margin"] >= 3.0
    # the loss of the last check but one was above l(m)/n, that of one row of margin m in n
    assert run.summary["min_margin"] <= 3.0 + np.log(labels.n) + 0.1
    same = dln.train(labels, dln.uniform(0.3), gamma=0.02, tol=_loss(loss) / 5, max_steps=20_000)
    np.testing.assert_array_equal(run.theta, same.theta)
    for norm in ("l1", "l2"):
        most = dln.normalised_margin(labels, dln.max_margin(labels, norm), norm)
        np.testing.assert_allclose(run.summary[f"max_{norm}_margin"], most, rtol=1e-9)
        assert run.summary[f"{norm}_margin"] < most
    with pytest.raises(dln.InputError, match="margin = 3 must be null with loss = squared"):
        dln.train(problem, margin=3.0)


@pytest.mark.parametrize("loss", ["squared", "logistic", "exponential"])
def test_a_run_ends_at_a_small_gradient(problem: dln.Problem, loss: str) -> None:
    """The bound proves the gradient to be small, and a loss 100 times larger does not end a run."""
    data = problem if loss == "squared" else problem.with_loss(loss)
    given = {"gamma": 0.02, "max_steps": 20_000}
    run = dln.train(data, dln.uniform(0.3), gradient_tol=1e-2, **given)
    assert run.status == "converged"
    gradient = data.gradient(torch.as_tensor(run.theta))
    assert float(torch.linalg.vector_norm(gradient)) <= 1e-2
    size = torch.linalg.vector_norm(data.X, dim=-1).max()
    if loss == "squared":
        size = torch.linalg.matrix_norm(data.X, 2)
    tol = data.n / 2 * 1e-4 / size**2 if loss == "squared" else 1e-2 / size
    same = dln.train(data, dln.uniform(0.3), tol=float(tol), **given)
    np.testing.assert_array_equal(run.theta, same.theta)
    with pytest.raises(dln.InputError, match="gradient_tol = 0"):
        dln.train(data, gradient_tol=0.0)
    with pytest.raises(dln.InputError, match="must be null with several problems"):
        dln.train([data, data], gamma=[0.01, 0.01], gradient_tol=0.1)


def _loss(name: str) -> float:
    """l(3)."""
    return float(np.log1p(np.exp(-3.0)) if name == "logistic" else np.exp(-3.0))


def test_a_power_start_moves_with_the_speed_of_its_own_gradient(problem: dln.Problem) -> None:
    """u_1 - u_0 = -eps speed D u^(D-1) grad L, from Python as from the command line."""
    seen: list[np.ndarray] = []
    gamma, beta, alpha, depth = 1e-3, 0.9, 0.3, 3.0
    dln.train(
        problem, dln.power(alpha, depth), gamma=gamma, beta=beta, speed=0.5, max_steps=1, records=2,
        callbacks=lambda snapshot: seen.append(snapshot.u[0].numpy().copy()),
    )  # fmt: skip
    slope = depth * alpha ** (depth - 1) * problem.gradient(torch.zeros(problem.d).double()).numpy()
    increment = -gamma / (1 - beta) * 0.5 * slope
    # one step in double precision
    np.testing.assert_allclose(
        seen[-1], alpha - gamma * slope + beta * increment, rtol=1e-14, atol=0
    )


def test_a_flow_has_depth_2(problem: dln.Problem) -> None:
    with pytest.raises(dln.InputError, match=r"start has depth = 3\.0: a flow is of theta = u v"):
        dln.flow(problem, dln.power(0.3), lam=1.0)


def test_the_report_names_the_method_and_leaves_out_what_it_has_not(
    problem: dln.Problem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "trainer.max_steps=20", "trainer.records=2", "outputs=minimal"]
    run_job("train", train, tmp_path / "plain", *words)
    plain = capsys.readouterr().out
    assert "log-free" in plain
    assert "schedule" not in plain
    own = ["loss=logistic", "method=nesterov", "schedule=warmup", "method.weight_decay=0.01"]
    run_job("train", train, tmp_path / "own", *words, *own)
    found = capsys.readouterr().out
    assert "nesterov, schedule warmup, weight decay 0.01, loss logistic" in found
    assert "log-free" not in found
    assert "argmin" not in found
    assert "(lambda" not in found
