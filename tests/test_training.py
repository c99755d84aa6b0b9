"""Training through Lightning: counters, endings, resuming, autograd, and the dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from dln_momentum import DiagonalLinearNet, EngineOptions, InputError, sparse
from dln_momentum.data import BatchStream
from dln_momentum.engine.cpu import registers
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import Gradient, HeavyBallModule
from dln_momentum.training.trainer import fit
from tests.helpers import column, run_app

SMALL = ["data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=3000", "trainer.records=20"]


def small_module(gradient: Gradient = "closed_form", batch_size: int | None = 2) -> HeavyBallModule:
    problem = sparse(5, 8, 1, seed=0)
    data = BlockDataModule(
        problem, RecordPlan(500, 10, 100), BatchStream(5, batch_size, "with_replacement", seeds=0)
    )
    options = EngineOptions(path_sums="direct", tol=0.0)
    net = DiagonalLinearNet.uniform(8, alpha=0.1)
    return HeavyBallModule(net, 0.02, 0.9, data, options=options, gradient=gradient)


def test_says_which_backend_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="dln_momentum"):
        small_module()
    why = f"fastest on a CPU; register block {registers.CHOICE}"
    assert caplog.messages == [f"engine: numba ({why}) for R = 1, n = 5, d = 8"]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_closed_form_and_autograd_train_the_same_network(batch_size: int | None) -> None:
    fast, slow = (small_module(g, batch_size) for g in ("closed_form", "autograd"))
    for module in (fast, slow):
        module.stepper.advance(500)
    a, b = fast.snapshot(), slow.snapshot()
    assert a is not None
    assert b is not None
    # u - v cancels on the autograd side: 1e-16 of |w_+| relative to |w_-|, over 1 - beta
    torch.testing.assert_close(a.theta, b.theta, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(a.balancedness, b.balancedness, rtol=1e-10, atol=0)
    torch.testing.assert_close(a.path_sums, b.path_sums, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(a.boundary, b.boundary, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(a.gradient_sum, b.gradient_sum, rtol=1e-9, atol=1e-10)


def test_the_parameters_follow_the_engine() -> None:
    """After a block, u, v and the optimizer's increments continue the run by themselves."""
    module = small_module(batch_size=None)
    module.stepper.advance(100)
    other = small_module(batch_size=None)
    other.stepper.advance(101)
    net, problem = module.net, module.data.problem
    assert isinstance(net, DiagonalLinearNet)
    module.optimizer.zero_grad()
    ((net(problem.X) - problem.y).square().sum() / (2 * problem.n)).backward()
    module.optimizer.step()
    expected = other.snapshot()
    assert expected is not None
    torch.testing.assert_close(net.theta.detach(), expected.theta[0], rtol=1e-12, atol=1e-15)


def test_any_module_trains_by_autograd(tmp_path: Path) -> None:
    problem = sparse(5, 8, 1, seed=0)
    data = BlockDataModule(
        problem, RecordPlan(300, 5, 100), BatchStream(5, 2, "reshuffle", seeds=0)
    )
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    module = HeavyBallModule(net, 0.01, 0.9, data, options=EngineOptions(tol=0.0))
    before = float(module.stepper.loss)
    fit(module, tmp_path, [CSVLogger(tmp_path)])
    assert module.trainer.global_step == 300
    assert module.snapshot() is None
    assert set(module.history.values) == {"train_loss"}
    assert module.history.steps == sorted(data.plan.recorded)
    assert float(module.history.column("train_loss")[0]) == before
    assert float(module.stepper.loss) < 0.1 * before
    assert module.status_labels == ["max_steps"]


def test_thousands_of_runs_go_through_the_same_module() -> None:
    problem = sparse(5, 8, 1, seed=0)
    data = BlockDataModule(
        problem, RecordPlan(100, 5, 50), BatchStream(5, None, "with_replacement", seeds=0)
    )
    gammas = torch.linspace(0.001, 0.02, 1000, dtype=torch.float64)
    module = HeavyBallModule(
        DiagonalLinearNet.uniform(8, 0.1, runs=(1000,)), gammas, column(0.9).expand(1000), data
    )
    module.stepper.advance(100)
    many = module.snapshot()
    assert many is not None
    for run in (0, 500, 999):
        net = DiagonalLinearNet.uniform(8, 0.1)
        alone = HeavyBallModule(net, gammas[run].item(), 0.9, data)
        alone.stepper.advance(100)
        one = alone.snapshot()
        assert one is not None
        torch.testing.assert_close(many.theta[run], one.theta[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("model", "alpha"),
    [
        (["model=uniform", "model.alpha=0.2"], 0.2),
        (["model=biased", "model.scale=0.1", "model.phi=0.05"], 2.0),
        (["model=arrays", "model.u=[1,1,1]", "model.v=[0,-3,0]"], 3.0),
    ],
)
def test_alpha_is_the_scale_of_the_start(tmp_path: Path, model: list[str], alpha: float) -> None:
    data = ["data.n=2", "data.d=3", "data.s=1", "trainer.max_steps=50"]
    assert run_app(tmp_path, *data, *model).summary["alpha"] == pytest.approx(alpha, rel=1e-15)


def test_global_step_counts_optimiser_steps(tmp_path: Path) -> None:
    run = run_app(tmp_path, "trainer.checkpoint_every=1000", "trainer.tol=0", *SMALL)
    saved = torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == run.summary["steps"] == 3000
    names = {path.name for path in (run.directory / "checkpoints").iterdir()}
    # the last two on the way, and the end
    assert {"step_2000.ckpt", "step_3000.ckpt", "last.ckpt"} == names


@pytest.mark.slow
def test_two_runs_of_one_config_are_bitwise_equal(tmp_path: Path) -> None:
    keys = [*SMALL, "sampling.batch_size=2", "seed=3", "model=gaussian"]
    first, second = (run_app(tmp_path / name, *keys).history() for name in ("a", "b"))
    assert first.identical(second)


@pytest.mark.parametrize("gradient", ["closed_form", "autograd"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path, gradient: str) -> None:
    keys = [*SMALL, "sampling.batch_size=2", "trainer.tol=0", f"trainer.gradient={gradient}"]
    keys += ["trainer.max_steps=600", "trainer.block_size=100"]
    # in the middle of a block, and of a chunk of the stream of mini-batches
    whole = run_app(tmp_path / "whole", *keys, "trainer.checkpoint_every=170")
    checkpoint = whole.directory / "checkpoints" / "step_340.ckpt"
    resumed = run_app(tmp_path / "resumed", *keys, f"resume={checkpoint}")
    # the configs differ in what was resumed
    histories = [run.history().assign_attrs(config="") for run in (whole, resumed)]
    assert histories[1].identical(histories[0])
    final = [
        torch.load(run.directory / "checkpoints" / "last.ckpt", weights_only=True)
        for run in (whole, resumed)
    ]
    for name, parameter in final[0]["state_dict"].items():
        assert torch.equal(parameter, final[1]["state_dict"][name])
    assert final[1]["global_step"] == 600


def test_a_finished_run_goes_on_with_more_steps(tmp_path: Path) -> None:
    first = run_app(tmp_path / "first", *SMALL, "trainer.tol=0", "trainer.max_steps=500")
    checkpoint = first.directory / "checkpoints" / "last.ckpt"
    more = run_app(
        tmp_path / "more", *SMALL, "trainer.tol=0", "trainer.max_steps=700", f"resume={checkpoint}"
    )
    assert first.summary["status"] == more.summary["status"] == "max_steps"
    assert more.summary["steps"] == 700
    whole = run_app(tmp_path / "whole", *SMALL, "trainer.tol=0", "trainer.max_steps=700")
    # the blocks differ, the numbers do not
    assert whole.summary["l1_norm"] == more.summary["l1_norm"]
    assert more.history()["step"].max() == 700


def test_a_converged_run_goes_on_to_a_lower_tolerance(tmp_path: Path) -> None:
    keys = [*SMALL, "optimizer.gamma=0.02", "trainer.max_steps=20000"]
    first = run_app(tmp_path / "first", *keys, "trainer.tol=1e-6")
    checkpoint = first.directory / "checkpoints" / "last.ckpt"
    more = run_app(tmp_path / "more", *keys, "trainer.tol=1e-10", f"resume={checkpoint}")
    whole = run_app(tmp_path / "whole", *keys, "trainer.tol=1e-10")
    assert first.summary["status"] == more.summary["status"] == "converged"
    for name in ("steps", "steps_to_tol", "train_loss", "l1_norm"):
        assert more.summary[name] == whole.summary[name]
    assert more.summary["steps"] > first.summary["steps"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = run_app(tmp_path_factory.mktemp("run"), *SMALL, "trainer.tol=0", "trainer.max_steps=50")
    return run.directory / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.seed=1", "other data"),
        ("data.n=6", "other data"),
        ("model.alpha=0.3", "other initial weights"),
        ("optimizer.gamma=0.02", "other gamma and beta"),
        ("sampling.batch_size=2", "other mini-batches"),
        ("trainer.gradient=autograd", "other gradient and path sums"),
        ("engine=gradient_sum", "other gradient and path sums"),
        ("trainer.max_steps=40", "trainer.max_steps = 40 must be >= 50"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, checkpoint: Path, key: str, message: str
) -> None:
    """Continued under another gamma, a run would satisfy no theorem, and its numbers look sound."""
    keys = [*SMALL, "trainer.tol=0", "trainer.max_steps=50", f"resume={checkpoint}", key]
    with pytest.raises(InputError, match=message) as caught:
        run_app(tmp_path / "other", *keys)
    assert not list(tmp_path.iterdir())
    # the settings of the run lie beside its checkpoint, unless they are not what is wrong
    hint = f"--config-dir {checkpoint.parent.parent} --config-name config takes the settings of"
    assert (hint in str(caught.value)) == message.startswith("other")


@pytest.mark.parametrize("kind", ["text", "foreign"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.ckpt"
    if kind == "text":
        path.write_text("step 1: 0.1")
    else:
        torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="resume"):
        run_app(tmp_path / "run", *SMALL, f"resume={path}")


@pytest.mark.parametrize(
    ("runs", "gradient", "message"),
    [((), "auto", "one of closed_form, autograd"), ((2,), "autograd", "trains one network")],
    ids=["unknown", "two-runs"],
)
def test_gradients_that_do_not_exist_are_refused(
    runs: tuple[int, ...], gradient: Any, message: str
) -> None:
    data = BlockDataModule(
        sparse(5, 8, 1, seed=0),
        RecordPlan(100, 5, 50),
        BatchStream(5, None, "with_replacement", seeds=0),
    )
    net = DiagonalLinearNet.uniform(8, 0.1, runs=runs)
    with pytest.raises(InputError, match=message):
        HeavyBallModule(net, 0.01, 0.9, data, gradient=gradient)
    with pytest.raises(InputError, match=r"parameters of torch.float32"):
        HeavyBallModule(nn.Linear(8, 1), 0.01, 0.9, data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "status"),
    [
        (["trainer.tol=1e-6"], "converged"),
        (["trainer.tol=10"], "converged"),  # from the start
        (["optimizer.gamma=5"], "diverged"),
        (["trainer.max_steps=50", "trainer.tol=0"], "max_steps"),
    ],
)
def test_every_ending_is_a_recorded_status(tmp_path: Path, keys: list[str], status: str) -> None:
    run = run_app(tmp_path, *SMALL, "optimizer.gamma=0.02", *keys, drawn=True)
    assert run.summary["status"] == status
    history = run.history()
    assert history["step"][0] == 0
    assert history["step"][-1] == run.summary["steps"]
    assert (run.directory / "overview.png").stat().st_size > 10_000


@pytest.mark.parametrize("engine", ["telescoped", "gradient_sum"])
def test_the_table_fits_80_columns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run_app(tmp_path, *SMALL, "trainer.max_steps=50", f"engine={engine}")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(table) == 16  # none of them wrapped
    assert all(len(line) <= 80 for line in table)
    checks = {"telescoped": "0 once converged", "gradient_sum": "by construction"}
    assert (
        sum(checks[engine] in line for line in table)
        == {"telescoped": 2, "gradient_sum": 4}[engine]
    )
