"""From configs to runs: every documented key works, every bad input is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dln_momentum import InputError
from dln_momentum.cli.setup import Setup, build
from dln_momentum.cli.verify import build_setting
from dln_momentum.config import composed
from dln_momentum.sweeps.assembly import build as build_sweep


def setup(*overrides: str) -> Setup:
    return build(composed("train", overrides))


@pytest.mark.parametrize(
    ("overrides", "gamma", "beta"),
    [
        ([], 0.01, 0.9),
        (["optimizer.beta=0.5"], 0.01, 0.5),
        (["optimizer.gamma=0.02"], 0.02, 0.9),
        (["optimizer.gamma=0.02", "optimizer.beta=0.1"], 0.02, 0.1),
        (["optimizer.lam=1", "optimizer.eps=0.1"], 0.01, 0.9),
        (["optimizer.lam=4", "optimizer.beta=0.95"], 0.01, 0.95),
        (["optimizer.lam=1", "optimizer.gamma=0.01"], 0.01, 0.9),
    ],
)
def test_any_pair_names_the_optimizer(overrides: list[str], gamma: float, beta: float) -> None:
    momentum = setup(*overrides).momentum
    assert momentum.gamma == pytest.approx(gamma, rel=1e-13)
    assert momentum.beta == pytest.approx(beta, rel=1e-13)


@pytest.mark.slow
def test_every_initialisation(tmp_path: Path) -> None:
    assert setup("model.alpha=0.2").net.balancedness[0].item() == pytest.approx(0.08)
    biased = setup("model=biased", "model.phi=0.5").net
    assert biased.u[0].item() == pytest.approx(0.05)
    squares = setup("model=biased", "model.phi=1", "model.parametrisation=squares").net
    assert squares.balancedness[0].item() == pytest.approx(0.04)
    one, two, again = (setup("model=gaussian", f"seed={seed}").net.u for seed in (1, 2, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    np.savez(tmp_path / "init.npz", u=np.arange(1, 31), v=np.zeros(30))
    stored = setup("model=arrays", f"model.path={tmp_path / 'init.npz'}").net
    assert stored.u[4].item() == 5
    listed = setup("data.n=2", "data.d=3", "data.s=1", "model=arrays",
                   "model.u=[1,2,3]", "model.v=[0,0,1]").net  # fmt: skip
    assert listed.theta.tolist() == [0, 0, 3]


@pytest.mark.parametrize("data", ["diabetes", "digits"])
def test_real_data_are_interpolable(data: str) -> None:
    problem = setup(f"data={data}").problem
    assert problem.row_space.rank == problem.n - 1 < problem.d  # standardised columns
    assert problem.row_space.range_residual(problem.y) < 1e-12


def test_the_users_own_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, theta = rng.normal(size=(4, 6)), np.eye(6)[2]
    np.savez(tmp_path / "problem.npz", X=X, y=X @ theta, theta_star=theta)
    problem = setup("data=file", f"data.path={tmp_path / 'problem.npz'}").problem
    np.testing.assert_array_equal(problem.X.numpy(), X)
    table = np.column_stack([X, X @ theta])
    header = ",".join([*"abcdef", "target"])
    np.savetxt(tmp_path / "problem.csv", table, delimiter=",", header=header, comments="")
    keys = ["data=file", f"data.path={tmp_path / 'problem.csv'}", "data.target=target"]
    np.testing.assert_allclose(setup(*keys).problem.X.numpy(), X, rtol=1e-15)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["optimizer.gamma=-1"], ["optimizer.gamma = -1 must be finite and > 0"]),
        (["optimizer.beta=1"], ["optimizer.beta = 1 must be in [0, 1)"]),
        (
            ["optimizer.lam=1"],
            ["optimizer.lam = 1 given: give exactly one of the pairs (gamma, beta)"],
        ),
        (
            ["optimizer.gamma=0.01", "optimizer.beta=0.9", "optimizer.lam=1"],
            ["give exactly one of the pairs"],
        ),
        (["optimizer.lam=1", "optimizer.eps=2"], ["optimizer.eps = 2 must be <= lam = 1"]),
        (["model.alpha=0"], ["model.alpha = 0 must be finite and > 0"]),
        (["model=biased", "model.phi=1"], ["model.phi = 1 makes u = v and Delta_0 = 0"]),
        (
            ["model=biased", "model.parametrisation=cubes"],
            ["model.parametrisation = 'cubes' must be one of product, squares"],
        ),
        (["model=arrays"], ["either both of model.u and model.v, or model.path"]),
        (["model=arrays", "model.u=[1,2]", "model.v=[0,0]"], ["2 coordinates, must have d = 30"]),
        (["data=file"], ["data.path must be given"]),
        (["data=file", "data.path=nowhere.npz"], ["nowhere.npz"]),
        (["model=gaussian", "seed=-1"], ["seed = -1 must be an integer in [0, 2^64)"]),
        (["seed=18446744073709551616"], ["seed = 18446744073709551616 must be an integer in"]),
        (["data.n=40"], ["data.n = 40 must be an integer in [1, d - 1] = [1, 29]"]),
        (["data.s=31", "data.design=cubic"], ["data.s = 31", "data.design = 'cubic'"]),
        (["sampling.batch_size=21"], ["sampling.batch_size = 21"]),
        (["sampling.kind=epochs"], ["sampling.kind = 'epochs' must be one of with_replacement"]),
        (["+data.replacement=true"], ["data.replacement is now sampling.kind: with_replacement"]),
        (["sampling.label_noise=0.1"], ["sampling.noise_until = 0 must be >= 1"]),
        (
            ["trainer.tol=-1", "trainer.records=1"],
            ["trainer.tol = -1.0", "trainer.records = 1 must be an integer in [2, 1000000]"],
        ),
        (["engine.backend=x"], ["engine.backend = 'x' must be one of auto, torch, numba"]),
        (["resume=nothing.ckpt"], ["resume = 'nothing.ckpt'"]),
        (["+data.mu_typo=1"], ["unknown key data.mu_typo"]),
        (["data.n=many"], ["data.n = 'many' must be of type int"]),
        (["data.kind=mars"], ["data.kind = 'mars' must be one of sparse, file, diabetes, digits"]),
    ],
)
def test_bad_input_is_refused_by_name(overrides: list[str], messages: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        setup(*overrides)
    for message in messages:
        assert message in str(refusal.value)


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(InputError) as refusal:
        setup("data.n=40", "optimizer.gamma=-1", "model.alpha=-1", "trainer.max_steps=0")
    assert len(refusal.value.problems) == 4


def test_what_was_dropped_from_a_table_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "table.csv").write_text("y,a,town,b\n1,2,Ulm,3\n")
    with caplog.at_level("INFO", logger="dln_momentum"):
        setup("data=file", f"data.path={tmp_path / 'table.csv'}", "data.target=y")
    assert "data: columns that are not numeric dropped: town" in caplog.messages


@pytest.mark.parametrize(
    ("app", "overrides", "told"),
    [
        ("train", ["seed=1"], "seed"),
        ("train", [], None),
        ("train", ["model=biased", "seed=1"], "seed"),
        # every batch has all rows
        ("train", ["sampling.batch_size=20", "sampling.kind=reshuffle", "seed=1"], "seed"),
        ("verify", ["seed=2"], "seed"),
        ("sweep", ["seed=1"], "seed"),
        ("sweep", ["sweep.seed=[1,2]"], "sweep.seed"),
        ("train", ["model=gaussian"], None),
        ("train", ["sampling.batch_size=20"], None),
        ("train", ["sampling.batch_size=5"], None),
        ("train", ["sampling.label_noise=0.1", "sampling.noise_until=9"], None),
        ("verify", ["sampling.batch_size=5"], None),
        ("sweep", ["sweep.seed=[1,2]", "model=gaussian"], None),
    ],
)
def test_a_seed_that_nothing_reads_is_told_once(
    app: str, overrides: list[str], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    builders = {"train": build, "verify": build_setting, "sweep": build_sweep}
    config = composed(app, overrides)
    with caplog.at_level("INFO", logger="dln_momentum"):
        builders[app](config)
    said = [message for message in caplog.messages if "is not read" in message]
    reason = f"full batch, no label noise, model={config.model.init} draws nothing"
    assert said == ([] if told is None else [f"{told} is not read: {reason}"])


@pytest.mark.parametrize("kind", ["text", "unnamed", "strings", "ragged"])
def test_bad_arrays_of_a_start_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "init.npz"
    if kind == "text":
        path.write_text("u, v")
    elif kind == "unnamed":
        with path.open("wb") as file:
            np.save(file, np.ones(30))
    else:
        bad = np.full(30, "a") if kind == "strings" else np.ones((2, 30))
        np.savez(path, u=bad, v=np.zeros(30))
    with pytest.raises(
        InputError,
        match=r"^model(\.path = .* cannot be read|\.u = .* must be a number|: one start is needed)",
    ):
        setup("model=arrays", f"model.path={path}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_is_asked_for_where_there_is_none() -> None:
    with pytest.raises(InputError, match=r"trainer.accelerator = 'gpu' needs a CUDA device"):
        setup("trainer.accelerator=gpu")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.ones((2, 3)), "y": np.array([1.0, 2.0])}, "not in the range of X"),
        ({"X": np.full((2, 3), np.nan), "y": np.ones(2)}, "not finite"),
        ({"X": np.tri(3, 2), "y": np.tri(3, 2).sum(1)}, "rank"),
        ({"X": np.ones((2, 3)), "y": np.ones(5)}, "y"),
        ({"A": np.ones((2, 3))}, "A"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        setup("data=file", f"data.path={tmp_path / 'bad.npz'}")
