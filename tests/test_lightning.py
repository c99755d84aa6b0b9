"""Lightning's own ways: callbacks that watch a metric, checkpoints, test, predict, max_steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from dln_momentum import DiagonalLinearNet, EngineOptions, InputError, Problem, sparse
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.problems import Problems
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training import reloading
from dln_momentum.training.callbacks import (
    BalancednessMonitor,
    ImplicitBiasMonitor,
    PathSumsMonitor,
    RecoveryMonitor,
)
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import Gradient, HeavyBallModule
from tests.helpers import run_app

PLAN = RecordPlan(400, 12, 60)


def made(
    *, net: nn.Module | None = None, gradient: Gradient = "closed_form", speed: float = 0.0,
    plan: RecordPlan = PLAN,
) -> HeavyBallModule:  # fmt: skip
    data = BlockDataModule(
        sparse(5, 8, 1, seed=0),
        plan,
        BatchStream(5, 2, "reshuffle", seeds=3),
        LabelNoise(5, 0.1, 50, seeds=3),
    )
    net = net or DiagonalLinearNet.uniform(8, 0.1)
    options = EngineOptions(tol=0.0, path_sums="direct")
    return HeavyBallModule(net, 0.02, 0.9, data, options=options, gradient=gradient, speed=speed)


def trainer(folder: Path, callbacks: Sequence[pl.Callback] = (), **given: Any) -> pl.Trainer:
    """A plain Trainer, as a user makes one."""
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), **given,
    )  # fmt: skip


def fitted(folder: Path, module: HeavyBallModule, **given: Any) -> HeavyBallModule:
    monitors = [BalancednessMonitor(), PathSumsMonitor(), RecoveryMonitor(), ImplicitBiasMonitor()]
    trainer(folder, monitors, **given).fit(module, module.data)
    return module


def test_early_stopping_ends_a_run_at_a_recorded_step(tmp_path: Path) -> None:
    module = made()
    # ||theta||_1 grows from the start on, so the second and third records are no better
    stopping = EarlyStopping("l1_norm", patience=2, mode="min")
    trainer(tmp_path, [RecoveryMonitor(), stopping]).fit(module, module.data)
    recorded = sorted(PLAN.recorded)
    assert module.stepper.step == recorded[3]
    assert module.status_labels == ["stopped"]
    assert module.history.steps == recorded[:4]


def test_a_checkpoint_of_the_best_record(tmp_path: Path) -> None:
    module = made()
    best = ModelCheckpoint(tmp_path, monitor="test_error", filename="best")
    trainer(tmp_path, [RecoveryMonitor(), best]).fit(module, module.data)
    errors = module.history.column("test_error")[1:, 0]
    assert best.best_model_score == errors.min()
    loaded = HeavyBallModule.load_from_checkpoint(best.best_model_path)
    assert loaded.stepper.step == module.history.steps[1:][int(errors.argmin())]
    assert loaded.data.problem.test_error(loaded.snapshot().theta) == errors.min()  # pyright: ignore


@pytest.mark.parametrize(
    ("gradient", "speed"), [("closed_form", 0.0), ("closed_form", 0.5), ("autograd", 0.5)]
)
def test_a_loaded_module_goes_on_bitwise(tmp_path: Path, gradient: Gradient, speed: float) -> None:
    whole = fitted(tmp_path, made(gradient=gradient, speed=speed))
    half = trainer(tmp_path, max_steps=150)
    first = made(gradient=gradient, speed=speed)
    half.fit(first, first.data)
    half.save_checkpoint(tmp_path / "half.ckpt")
    loaded = HeavyBallModule.load_from_checkpoint(tmp_path / "half.ckpt")
    assert loaded.stepper.step == 150
    assert loaded.hparams["gamma"] == 0.02
    assert loaded.hparams["plan"] == {
        "max_steps": 400, "records": 12, "block_size": 60, "checkpoint_every": 0
    }  # fmt: skip
    assert loaded.identity == first.identity
    loaded.stepper.reopen()
    again = trainer(tmp_path)
    again.fit(loaded, loaded.data)
    assert again.global_step == loaded.stepper.step == 400
    one, other = whole.snapshot(), loaded.snapshot()
    assert one is not None
    assert other is not None
    assert torch.equal(one.theta, other.theta)
    assert torch.equal(one.path_sums, other.path_sums)


def test_a_checkpoint_without_data_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "LARGEST", 100)
    module, path = made(), tmp_path / "a.ckpt"
    short = trainer(tmp_path, max_steps=20)
    short.fit(module, module.data)
    short.save_checkpoint(path)
    with pytest.raises(InputError, match=r"no data.*give data="):
        HeavyBallModule.load_from_checkpoint(path)
    other = made()
    loaded = HeavyBallModule.load_from_checkpoint(path, data=other.data, net=other.net)
    assert torch.equal(loaded.stepper.loss, module.stepper.loss)
    (tmp_path / "text.ckpt").write_text("step 1")
    with pytest.raises(InputError, match="no checkpoint"):
        HeavyBallModule.load_from_checkpoint(tmp_path / "text.ckpt")


def test_many_runs_on_several_problems_keep_no_data() -> None:
    """Their checkpoints would hold every data set."""
    problems = Problems([sparse(5, 8, 1, seed=s) for s in (0, 1)], torch.tensor([0, 1]))
    data = BlockDataModule(problems, PLAN, BatchStream(5, None, "reshuffle", 0))
    assert reloading.origin(DiagonalLinearNet.uniform(8, 0.1, runs=(2,)), data) is None


def test_trainer_test_gives_the_errors_and_the_certificate(tmp_path: Path) -> None:
    module = fitted(tmp_path, made())
    (found,) = trainer(tmp_path).test(module, module.data, verbose=False)
    last = {name: float(module.history.column(name)[-1]) for name in found}
    assert found == last
    assert {"test_error", "recovery_error", "kkt_residual"} <= set(found)
    # it is computed from the sums over the iterates: rounding of some hundred terms
    assert found["kkt_residual"] < 1e-12


@pytest.mark.parametrize(("asked", "reached"), [(77, 77), (400, 400), (1000, 400)])
def test_trainer_max_steps_ends_a_run_at_that_step(
    tmp_path: Path, asked: int, reached: int
) -> None:
    module = fitted(tmp_path, made(), max_steps=asked)
    assert module.trainer.global_step == module.stepper.step == reached
    assert module.status_labels == ["max_steps"]
    assert module.history.steps[-1] == reached
    alone = made(plan=replace(PLAN, max_steps=reached))
    alone.stepper.advance(reached)
    one, other = module.snapshot(), alone.snapshot()
    assert one is not None
    assert other is not None
    assert torch.equal(one.theta, other.theta)


def test_a_module_of_ones_own_trains_tests_and_predicts(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    net = nn.Linear(8, 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(1, 8, generator=generator))
    module = fitted(tmp_path, made(net=net))
    (found,) = trainer(tmp_path).test(module, module.data, verbose=False)
    problem = module.data.problem
    assert isinstance(problem.X_test, torch.Tensor)
    residual = net(problem.X_test).squeeze() - problem.y_test
    assert found["test_error"] == pytest.approx(float((residual**2).mean().detach() / 2), rel=1e-14)
    assert found["train_loss"] == float(module.stepper.loss)
    rows = DataLoader(problem.X, batch_size=2)  # pyright: ignore[reportArgumentType]
    shown: Any = trainer(tmp_path).predict(module, rows)
    # a product of one row less or more is summed in another order
    torch.testing.assert_close(torch.cat(shown), net(problem.X).detach(), rtol=1e-13, atol=1e-14)  # pyright: ignore


def test_other_batches_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="blocks of steps, given Tensor"):
        trainer(tmp_path).fit(made(), DataLoader(torch.zeros(3, 8)))  # pyright: ignore[reportArgumentType]


def test_scalars_are_where_callbacks_look_for_them(tmp_path: Path) -> None:
    seen: dict[int, set[str]] = {}

    class Spy(pl.Callback):
        monitor = "train_loss"

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen[trainer.global_step] = set(trainer.callback_metrics)
            loss = trainer.callback_metrics["train_loss"]
            assert isinstance(pl_module, HeavyBallModule)
            assert loss == pl_module.stepper.loss

    module = made()
    monitors = [BalancednessMonitor(), PathSumsMonitor(), RecoveryMonitor(), ImplicitBiasMonitor()]
    trainer(tmp_path, [*monitors, Spy()]).fit(module, module.data)
    assert sorted(seen) == module.history.steps[1:]
    wanted = {"train_loss", "balancedness_l1", "path_identity_error", "kkt_residual"}
    assert all(wanted <= names for names in seen.values())


@pytest.mark.parametrize("option", [pytest.param("early_stopping", marks=pytest.mark.slow), "best"])
def test_callbacks_that_watch_a_metric_are_options(tmp_path: Path, option: str) -> None:
    keys = ["data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=300", "trainer.records=12"]
    run = run_app(tmp_path, *keys, f"callbacks={option}")
    assert run.summary["status"] in ("stopped", "max_steps")
    assert (tmp_path / "checkpoints" / "best.ckpt").exists() == (option == "best")


def test_the_loaded_problem_is_the_problem(tmp_path: Path) -> None:
    module = made()
    short = trainer(tmp_path, max_steps=10)
    short.fit(module, module.data)
    short.save_checkpoint(tmp_path / "a.ckpt")
    loaded = HeavyBallModule.load_from_checkpoint(tmp_path / "a.ckpt").data
    assert isinstance(loaded.problem, Problem)
    for name in reloading.TENSORS:
        assert torch.equal(getattr(loaded.problem, name), getattr(module.data.problem, name))
    assert loaded.problem.name == module.data.problem.name
    assert (loaded.batches, loaded.label_noise) == (module.data.batches, module.data.label_noise)
