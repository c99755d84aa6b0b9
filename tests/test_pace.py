"""Blocks find their own length, and no number of a run depends on it."""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from dln_momentum import DiagonalLinearNet, EngineOptions, sparse
from dln_momentum.cli.fitting import tell_of_costs
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.state import State
from dln_momentum.method import Method
from dln_momentum.pace import BLOCK_SECONDS, FIRST_STEPS, Pace
from dln_momentum.record_plan import RecordPlan
from dln_momentum.schedules import Cosine
from dln_momentum.training.callbacks import AverageMonitor, BalancednessMonitor, RecoveryMonitor
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.engine_stepper import EngineStepper
from dln_momentum.training.module import HeavyBallModule
from dln_momentum.training.trainer import fit

METHODS = {
    "heavy ball": Method(),
    "nesterov, cosine": Method("nesterov", Cosine(steps=500)),
    "weight decay": Method(weight_decay=0.01),
}
PLAN = RecordPlan(700, 9, checkpoint_every=250)


class AnyPace(Pace):
    """Blocks of 1 to 60 steps, whatever they take."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self._draw.randint(1, 60)

    def measured(self, steps: int, seconds: float) -> None:
        pass


def module_of(method: Method, plan: RecordPlan = PLAN, pace: Pace | None = None) -> HeavyBallModule:
    problem, seeds = sparse(5, 8, 1, seed=0), [3, 4]
    data = BlockDataModule(
        problem, plan, BatchStream(5, 2, "reshuffle", seeds), LabelNoise(5, 0.1, 50, seeds)
    )
    net = DiagonalLinearNet.uniform(8, 0.1, runs=(2,))
    gamma, beta = torch.tensor([[0.02, 0.01], [0.9, 0.8]], dtype=torch.float64)
    options = EngineOptions(tol=0.0)
    module = HeavyBallModule(net, gamma, beta, data, method=method, options=options)
    module.pace = pace or module.pace
    return module


def trained(folder: Path, module: HeavyBallModule, resume: Path | None = None) -> HeavyBallModule:
    fit(module, folder, monitors=[BalancednessMonitor(), RecoveryMonitor()], resume=resume)
    return module


def state_of(module: HeavyBallModule) -> dict[str, Tensor]:
    assert isinstance(module.stepper, EngineStepper)
    state: State = module.stepper.engine.state
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    return {name: value for name, value in values.items() if value is not None}


def assert_same(first: HeavyBallModule, second: HeavyBallModule) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert first.history.steps == second.history.steps
    for name, value in first.history.columns().items():
        assert torch.equal(value, second.history.columns()[name]), name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "heavy ball")) for name in METHODS],
)
def test_the_length_of_blocks_changes_no_bit(name: str, tmp_path: Path) -> None:
    """Against blocks of one step, on the way and resumed from a checkpoint on the way."""
    method = METHODS[name]
    exact = trained(tmp_path / "exact", module_of(method, RecordPlan(700, 9, 1, 250)))
    assert exact.history.steps == sorted(PLAN.recorded)
    for seed in (0, 1):
        free = trained(tmp_path / f"{seed}", module_of(method, pace=AnyPace(seed)))
        assert_same(exact, free)
    checkpoint = tmp_path / "0" / "step_250.ckpt"
    assert checkpoint.exists()
    resumed = trained(tmp_path / "on", module_of(method, pace=AnyPace(2)), resume=checkpoint)
    assert_same(exact, resumed)


def test_a_run_takes_few_blocks(tmp_path: Path) -> None:
    """Ten thousand steps of a small run: a few short blocks to measure, and one or two more."""
    module, taken = module_of(Method(), RecordPlan(10_000, 2)), []
    advance = module.stepper.advance
    module.stepper.advance = lambda steps: (taken.append(steps), advance(steps))[1]  # type: ignore
    trained(tmp_path, module)
    assert max(taken[:2]) == FIRST_STEPS
    assert sum(taken) == 10_000
    # each step takes a few microseconds, a block of 0.1 s has at least a thousand of them
    assert len(taken) <= 12


def test_the_pace_follows_the_cost_of_a_step() -> None:
    pace = Pace(work=1)
    assert pace.steps == FIRST_STEPS
    pace.measured(100, 1.0)
    assert pace.steps == BLOCK_SECONDS * 100
    pace.measured(10, 0.001)
    assert pace.steps == 1000 * BLOCK_SECONDS / 0.1
    before = pace.steps
    pace.measured(0, 5.0)
    assert pace.steps == before
    pace.measured(1, 60.0)
    assert pace.steps == 1
    # X of 8 GB and one run: not a hundred passes over it before anything is known
    assert Pace(work=10**9).steps == 1


def test_a_callback_whose_numbers_depend_on_blocks_fixes_them(tmp_path: Path) -> None:
    """The average along the run is by the ends of blocks: at most 2,000 steps each."""
    averages = []
    for plan in (RecordPlan(5000, 4), RecordPlan(5000, 4, AverageMonitor.block_size)):
        module = module_of(Method(), plan)
        fit(module, tmp_path, monitors=[AverageMonitor()])
        averages.append(module.history.columns()["theta_average"])
    assert torch.equal(*averages)


def test_checkpoints_of_lightning_by_steps_are_taken_at_them(tmp_path: Path) -> None:
    """It looks at the ends of blocks, which therefore fall on its steps."""
    every = ModelCheckpoint(tmp_path / "every", every_n_train_steps=700, save_top_k=-1)
    fit(module_of(Method(), RecordPlan(3000, 2)), tmp_path, monitors=[every])
    taken = {path.stem.partition("step=")[2] for path in (tmp_path / "every").glob("*.ckpt")}
    assert {"700", "1400", "2100", "2800"} <= taken


def test_a_long_cost_beside_the_steps_is_told_by_its_key(caplog: pytest.LogCaptureFixture) -> None:
    """Before the run begins; what costs minutes at most is not told."""
    for plan in (RecordPlan(10**9, 2), RecordPlan(10**6, 2, 1), RecordPlan(10**6, 2, None, 100)):
        tell_of_costs(plan)
    assert caplog.text == ""
    tell_of_costs(RecordPlan(10**9, 2, block_size=1, checkpoint_every=1000))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("trainer.block_size = 1 cuts trainer.max_steps = 1000000000 into")
    assert "139 hours" in first
    assert second.startswith("trainer.checkpoint_every = 1000 cuts trainer.max_steps = 1000000000")
    assert "167 minutes" in second or "2.78 hours" in second
