"""The largest stable step that stands beside a run that diverged, and who says it where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dln_momentum as dln
from dln_momentum.outputs.divergence import why_diverged
from dln_momentum.outputs.stability import stability
from dln_momentum.theory.curvature import sharpness_threshold
from tests.helpers import run_app

PROBLEM = dln.sparse(n=6, d=9, s=2, seed=0)
SMALL = ["data.n=6", "data.d=9", "data.s=2"]


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, {}),
        ({"method": "nesterov"}, {"nesterov": True}),
        ({"weight_decay": 0.3}, {"weight_decay": 0.3}),
        ({"method": "nesterov", "weight_decay": 0.3}, {"nesterov": True, "weight_decay": 0.3}),
        ({"weight_decay": 0.3, "decoupled": True}, {"decoupled": 0.3}),
        ({"weight_decay": 0.3, "decay_until": 2}, {}),
    ],
    ids=["heavy_ball", "nesterov", "coupled", "nesterov-coupled", "decoupled", "ended"],
)
def test_at_the_largest_stable_step_the_threshold_is_the_sharpness(
    settings: dict[str, Any], threshold: dict[str, Any]
) -> None:
    """(docs/theory.md#sharpness.)"""
    run = dln.train(PROBLEM, gamma=3.0, beta=0.5, max_steps=100, **settings)
    assert run.status == "diverged"
    found = stability(run.snapshot, run.problem, run.method)
    gamma = found["stable_gamma"]
    if "decoupled" in threshold:
        threshold = {"decoupled": 0.3 * gamma}
    steepest = max(found["initial_sharpness"], found["limit_sharpness"])
    # a few divisions
    assert sharpness_threshold(gamma, 0.5, **threshold) == pytest.approx(steepest, rel=1e-12)


def test_where_the_threshold_changes_no_recorded_step_is_compared_with_the_last_one() -> None:
    """A step of size 0, which ends the schedule, has no threshold either."""
    cosine = dln.schedules.Cosine(steps=5)
    run = dln.train(PROBLEM, gamma=8.0, beta=0.5, max_steps=100, schedule=cosine)
    assert run.status == "diverged"
    found = stability(run.snapshot, run.problem, run.method)
    assert found["unstable_step"] is None
    assert np.isnan(found["stable_gamma"])
    assert "its last step has size 0" in repr(run)


def test_the_first_step_that_is_too_sharp_is_the_first_above_the_threshold() -> None:
    run = dln.train(PROBLEM, gamma=1.0, beta=0.9, max_steps=100, records=30, curvature=True)
    assert run.status == "diverged"
    recorded = run.to_dataset()
    above = (recorded.sharpness > sharpness_threshold(1.0, 0.9)).values
    assert not above[0]
    first = int(recorded.step[int(above.argmax())])
    assert f"at step {first} the path is too sharp" in repr(run)


def test_steps_near_the_limit_grow_just_above_it_and_shrink_just_below() -> None:
    """From a start near gradient flow's limit, which is then the same to first order."""
    limit = dln.flow(PROBLEM, dln.uniform(0.5), lam=0.0)
    # off the limit in every direction, by so little that 40 steps stay in the linear regime
    ruler = 1 + 1e-6 * np.linspace(-1, 1, PROBLEM.d)
    near = dln.Start(limit.u[-1] * ruler, limit.v[-1])
    huge = dln.train(PROBLEM, near, gamma=50.0, beta=0.5)
    assert huge.status == "diverged"
    stable = stability(huge.snapshot, huge.problem, huge.method)["stable_gamma"]
    # the root of the sharpest mode is then -1 -+ 0.02 * 2 (1 + beta)/(1 - beta) = -0.88 and -1.12
    runs = dln.train(PROBLEM, near, gamma=stable * np.array([0.98, 1.02]), beta=0.5, max_steps=40)
    u, v = near.layers(PROBLEM.d)
    ratio = runs.train_loss / float(PROBLEM.loss(u * v))
    # the loss grows by the square of the root; most of it need not be in that mode
    assert ratio[0] < 1
    assert ratio[1] > 1.12**40


def test_a_run_that_diverged_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = dln.train(PROBLEM, gamma=5.0)
    (line,) = [part for part in repr(run).split("; ") if "largest stable step" in part]
    assert line.startswith("gamma = 5 > ")
    assert "2 (1 + beta)/" in line
    several = dln.train([PROBLEM, dln.sparse(6, 9, 2, seed=1)], gamma=[[0.01], [5.0]])
    assert "; run (1, 0): gamma = 5 > " in repr(several)
    assert "stable" not in repr(dln.train(PROBLEM, max_steps=10))
    # the command has the same line and the numbers it is made of
    done = run_app(tmp_path, *SMALL, "optimizer.gamma=5", "outputs.dashboard=false")
    assert line.rstrip(")") in " ".join(capsys.readouterr().out.split())
    assert done.summary["stable_gamma"] < 5
    assert f"{done.summary['stable_gamma']:.4g}" in line


def test_a_run_that_diverged_below_the_bound_says_that() -> None:
    s = {"gamma": 0.1, "stable_gamma": 0.2, "initial_sharpness": 19.0, "limit_sharpness": None,
         "unstable_step": 7, "method": "nesterov", "schedule": "cosine", "weight_decay": 0.1,
         "dampening": 0.0, "batch_size": 2, "n": 6}  # fmt: skip
    line = why_diverged(s)
    assert line.startswith("gamma = 0.1 < 0.2 = 2 (1 + beta)/(1 + 2 beta)/(19 + what weight decay")
    for words in (
        "at the start",
        "schedule cosine",
        "full batch",
        "at step 7 the path is too sharp",
    ):
        assert words in line


def test_what_other_callbacks_record_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*SMALL, "trainer.max_steps=20", "outputs.dashboard=false"]
    done = run_app(tmp_path / "c", *keys, "callbacks=curvature")
    printed = capsys.readouterr().out
    assert "batch sharpness" in printed
    assert "<= 380 once converged" in printed
    assert f"{done.history()['sharpness'].values[-1]:.4g}" in printed
    run_app(tmp_path / "a", *keys, "callbacks=average")
    assert "average recovery error" in capsys.readouterr().out
