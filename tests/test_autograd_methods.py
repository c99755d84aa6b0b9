"""One network by autograd and `HeavyBall`: rates that change at any step, and every loss."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import lightning.pytorch as pl
import pytest
import torch

from dln_momentum import DiagonalLinearNet, EngineOptions, Problem, schedules, sparse, summarise
from dln_momentum.data import BatchStream
from dln_momentum.method import Method
from dln_momentum.record_plan import RecordPlan
from dln_momentum.training.callbacks import BalancednessMonitor
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import Gradient, HeavyBallModule
from tests.test_evidence import CHECKS, HalveTheStepSize, module_with_callbacks

FORWARD_CHECKS = tuple(name for name in CHECKS if name != "log_free_error")
"""With rates that change there is no log-free sum."""


class DrawTheRates(pl.Callback):
    """As a scheduler with ``cycle_momentum`` does: gamma and beta change, beta both ways."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert isinstance(pl_module, HeavyBallModule)
        pl_module.optimizer.param_groups[0] |= {
            "lr": 0.02 / (1 + batch_idx % 3),
            "momentum": (0.5, 0.8, 0.0, 0.95)[batch_idx % 4],
        }


@pytest.mark.parametrize("callback", [HalveTheStepSize, DrawTheRates])
def test_autograd_follows_what_changes_the_rates_and_certifies_it(
    tmp_path: Path, callback: type[pl.Callback]
) -> None:
    changed = module_with_callbacks(tmp_path, "autograd", callback())
    constant = module_with_callbacks(tmp_path, "autograd", BalancednessMonitor())
    a, b = changed.snapshot(), constant.snapshot()
    assert a is not None
    assert b is not None
    assert (a.theta - b.theta).abs().max() > 1e-4
    found = summarise(a, changed.data.problem)
    for name in FORWARD_CHECKS:
        # w_- = u - v cancels, over 1 - beta
        assert found[name].item() < 1e-9, name


def test_a_fault_under_rates_that_change_shows(tmp_path: Path) -> None:
    """A gradient step that leaves the rows, planted in the weights, is in no sum of gradients."""
    changed = module_with_callbacks(tmp_path, "autograd", DrawTheRates())
    with torch.no_grad():
        changed.net.u[0] += 1e-6  # type: ignore[operator]
    snapshot = changed.snapshot()
    assert snapshot is not None
    found = summarise(snapshot, changed.data.problem)
    assert found["path_identity_error"].item() > 1e-8
    assert found["kkt_residual"].item() > 1e-9


METHODS = [
    (schedules.Cosine(200), "squared"),
    (schedules.NesterovMomentum(), "logistic"),
    (schedules.StepDecay(every=50, factor=0.5), "exponential"),
]


def small_method(gradient: Gradient, schedule: schedules.Schedule, loss: str) -> HeavyBallModule:
    problem = sparse(5, 8, 1, seed=0)
    if loss != "squared":
        problem = Problem(problem.X, problem.y.sign(), loss=loss)
    data = BlockDataModule(problem, RecordPlan(300, 5, 100), BatchStream(5, 2, "reshuffle", 0))
    return HeavyBallModule(
        DiagonalLinearNet.uniform(8, 0.3), 0.02, 0.9, data, gradient=gradient, speed=0.5,
        method=Method(schedule=schedule), options=EngineOptions(tol=0.0),
    )  # fmt: skip


@pytest.mark.parametrize(("schedule", "loss"), METHODS)
def test_autograd_and_the_engine_follow_the_same_schedule_and_loss(
    schedule: schedules.Schedule, loss: str
) -> None:
    a, b = (small_method(gradient, schedule, loss) for gradient in get_args(Gradient))
    for module in (a, b):
        module.stepper.advance(150)
    fast, slow = a.snapshot(), b.snapshot()
    assert fast is not None
    assert slow is not None
    # u - v cancels on the autograd side: 1e-16 of |w_+| relative to |w_-|, over 1 - beta
    assert torch.allclose(fast.theta, slow.theta, rtol=1e-11, atol=1e-14)
    for x, y in (
        (fast.predicted_balancedness, slow.predicted_balancedness),
        (fast.log_init, slow.log_init),
    ):
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-9)
    assert {k: float(v) for k, v in a.changing_rates.items()} == {
        k: float(v) for k, v in b.changing_rates.items()
    }


def test_autograd_goes_on_within_a_schedule() -> None:
    """A checkpoint holds the sums and the present rates; the config those of the run."""
    whole, cut, rest = (small_method("autograd", *METHODS[0]) for _ in range(3))
    whole.stepper.advance(150)
    cut.stepper.advance(80)
    rest.net.load_state_dict(cut.net.state_dict())
    rest.optimizer.load_state_dict(cut.optimizer.state_dict())
    rest.stepper.load_state_dict(cut.stepper.state_dict())
    rest.stepper.advance(70)
    a, b = whole.snapshot(), rest.snapshot()
    assert a is not None
    assert b is not None
    assert torch.equal(a.w, b.w)
    assert torch.equal(a.exponents, b.exponents)
    assert torch.equal(a.path_sums_from_gradients, b.path_sums_from_gradients)


def test_autograd_ends_a_schedule_with_steps_of_size_0() -> None:
    """Which no curvature makes unstable."""
    module = small_method("autograd", schedules.Cosine(steps=10), "squared")
    module.stepper.advance(20)
    found = module.snapshot()
    assert found is not None
    assert float(found.threshold) == float("inf")
