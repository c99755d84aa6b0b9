"""A certificate is evidence only if a fault would show in it: faults are planted here.

Also what a run's numbers must not depend on: blocks, records, and how its path sums are carried.
"""

from __future__ import annotations

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from torch import Tensor

from dln_momentum import (
    DiagonalLinearNet,
    Engine,
    EngineOptions,
    InputError,
    Problem,
    Snapshot,
    sparse,
    summarise,
)
from dln_momentum.data import BatchStream
from dln_momentum.engine import reference_iterates
from dln_momentum.outputs.summary import BY_CONSTRUCTION
from dln_momentum.record_plan import RecordPlan
from dln_momentum.theory.initial_speed import gradient_velocity
from dln_momentum.training.datamodule import BlockDataModule
from dln_momentum.training.module import Gradient, HeavyBallModule
from dln_momentum.training.trainer import fit, quiet
from tests.helpers import column, default_problem, make_engine, run_app
from tests.test_sweep import run_sweep

backends = pytest.mark.parametrize("backend", ["numba", "torch"])
from_iterates = pytest.mark.parametrize("path_sums", ["telescoped", "direct"])

CHECKS = ("path_identity_error", "kkt_residual", "log_free_error")
"""What holds at every step, converged or not."""
SEEN = 1e-4
"""Far above what an intact run shows, 1e-11, and below what a corruption of 30 % does, 0.01 to 1.
The relative weight of a corruption falls with what the run does afterwards."""


def corrupted(w: Tensor, seed: int = 0) -> Tensor:
    """The same weights, each off by 30 % at random."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(w.shape, generator=generator, dtype=w.dtype)
    return w * (1 + 0.3 * noise.to(w.device))


def checks(engine: Engine) -> dict[str, Tensor]:
    found = summarise(engine.snapshot(), engine.problem)
    return {name: found[name] for name in CHECKS}


# ---- corrupted weights


@backends
@from_iterates
@pytest.mark.parametrize("kept", ["momentum", "increments"])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_corrupted_weights_show_in_every_certificate(
    backend: str, path_sums: str, kept: str, batch_size: int | None
) -> None:
    """Whether what the engine carries beside w is left as it was, or made to fit the new w."""
    beta = column(0.0, 0.5, 0.9, 0.99)
    keys = {"backend": backend, "path_sums": path_sums, "tol": 0.0, "runs": 4}
    batches = BatchStream(20, batch_size, "with_replacement", seeds=range(4))
    gamma = 0.01 * (1 - beta)
    intact, broken = (
        make_engine(default_problem(), gamma, beta, alpha=0.3, batches=batches, **keys)
        for _ in range(2)
    )
    for engine in (intact, broken):
        engine.advance(1234)
    state = broken.state
    before = state.w.clone()
    state.w.copy_(corrupted(before))
    if kept == "increments":
        state.p += (1 - beta[:, None]) * (state.w - before)
    for engine in (intact, broken):
        engine.advance(1000)
    for value in checks(intact).values():
        assert (value < 1e-9).all()
    for name, value in checks(broken).items():
        assert (value > SEEN).all(), name


@backends
def test_one_corrupted_weight_shows(backend: str) -> None:
    """One entry of w_+ by 1 %, in the middle of a run; one of w_- in another."""
    engine = make_engine(default_problem(), backend=backend, runs=2, tol=0.0)
    engine.advance(1500)
    engine.state.w[0, 0, 7] *= 1.01
    engine.state.w[1, 1, 7] *= 1.01
    engine.advance(1500)
    found = checks(engine)
    # w_{k-1} was not moved with it, and at beta = 0.9 takes 0.9 of it back
    assert (found["path_identity_error"] > 5e-4).all()
    assert (found["kkt_residual"] > 1e-5).all()


@backends
def test_what_holds_by_construction_is_not_a_number(backend: str) -> None:
    keys = {"backend": backend, "path_sums": "gradient_sum", "tol": 1e-12}
    snapshot = (engine := make_engine(default_problem(), 0.05, **keys)).run(100_000)
    assert not snapshot.certifies
    found = summarise(snapshot, engine.problem)
    for name in set(BY_CONSTRUCTION) & set(found):
        assert found[name].isnan().all(), name
    # what does not test the theorem is there
    assert found["distance_to_gradient_flow_minimizer"].isfinite().all()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dln_momentum.outputs.plotting.overview", lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)


def corrupt_once(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Corrupt the weights of every engine when it first is at a step or beyond."""
    advance_to = Engine.advance_to

    def corrupting(self: Engine, target: int) -> None:
        if self.step < step <= target:
            advance_to(self, step)
            self.state.w.copy_(corrupted(self.state.w))
        advance_to(self, target)

    monkeypatch.setattr(Engine, "advance_to", corrupting)


PRINTED = ("path_sum_balancedness_error", "path_identity_error", "kkt_residual",
           "log_free_error", "distance_to_minimizer")  # fmt: skip


@pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])
def test_dln_train_certifies_no_corrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None, path_sums: str
) -> None:
    keys = ["trainer.max_steps=60000", "trainer.records=20", f"engine={path_sums}"]
    intact = run_app(tmp_path / "intact", *keys)
    corrupt_once(monkeypatch, 100)
    broken = run_app(tmp_path / "broken", *keys)
    assert intact.summary["status"] == broken.summary["status"] == "converged"
    for name in PRINTED:
        if path_sums == "gradient_sum":
            assert math.isnan(broken.summary[name])
        else:
            assert intact.summary[name] < 1e-9
            assert broken.summary[name] > SEEN, name
    last = broken.history().isel(step=-1)
    for name in ("own_level_set_distance", "distance_to_limit", "kkt_residual"):
        assert not last[name] < SEEN, name


@pytest.mark.parametrize("gradient", ["closed_form", "autograd"])
def test_autograd_certifies_no_corrupted_run(tmp_path: Path, gradient: Gradient) -> None:
    """A callback that writes to the network is refused by the closed form, and shows otherwise."""
    problem = sparse(5, 8, 1, seed=0)
    data = BlockDataModule(
        problem, RecordPlan(600, 10, 100), BatchStream(5, None, "with_replacement", seeds=0)
    )
    net = DiagonalLinearNet.uniform(8, 0.3)
    module = HeavyBallModule(net, 0.02, 0.9, data, gradient=gradient)
    module.stepper.advance(300)
    with torch.no_grad():
        net.u.copy_(corrupted(net.u))
    if gradient == "closed_form":
        with pytest.raises(InputError, match="u was changed after step 300"):
            module.stepper.advance(1)
        return
    for _ in range(2):
        snapshot = module.snapshot()
        assert snapshot is not None
        found = summarise(snapshot, problem)
        for name in ("path_identity_error", "kkt_residual"):
            assert found[name].item() > SEEN, name
        module.stepper.advance(300)


@pytest.mark.slow
def test_dln_sweep_certifies_no_corrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_figures: None
) -> None:
    keys = ["sweep.gamma=[0.05,0.08]", "sweep.beta=[0.5,0.9]", "trainer.max_steps=60000"]
    keys += ["trainer.tol=1e-24", "trainer.block_size=1000"]
    intact = run_sweep(tmp_path / "intact", *keys)
    corrupt_once(monkeypatch, 100)
    broken = run_sweep(tmp_path / "broken", *keys)
    unchecked = run_sweep(tmp_path / "unchecked", *keys, "engine=gradient_sum")
    for name in PRINTED:
        assert (intact[name] < 1e-8).all(), name
        assert (broken[name] > SEEN).all(), name
        assert unchecked[name].isnull().all(), name


# ---- initial speed


def moving_engine(problem: Problem, backend: str, path_sums: str, runs: int = 3) -> Engine:
    """Runs with w_1 - w_0 of the size of w itself, in both of its signs."""
    generator = torch.Generator().manual_seed(1)
    net = DiagonalLinearNet.gaussian(problem.d, 0.3, seed=3, runs=(runs,))
    w_plus, w_minus = net.w_plus.detach(), net.w_minus.detach()
    shape = (2, runs, problem.d)
    kick = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return Engine(
        problem,
        torch.full((runs,), 0.01, dtype=torch.float64),
        torch.linspace(0.0, 0.9, runs, dtype=torch.float64),
        w_plus,
        w_minus,
        previous=(w_plus * (1 - kick[0]), w_minus * (1 - kick[1])),
        options=EngineOptions(backend=backend, path_sums=path_sums, tol=0.0),
    )


@backends
@from_iterates
@pytest.mark.parametrize("steps", [1, 7, 3000])
def test_the_theorem_holds_with_initial_speed(backend: str, path_sums: str, steps: int) -> None:
    """(docs/theory.md#initial-speed.)"""
    engine = moving_engine(default_problem(), backend, path_sums)
    engine.advance(steps)
    snapshot = engine.snapshot()
    for name, value in checks(engine).items():
        # S to 1e-13 a step of a few, amplified by 1/|w| where w_+- passes near zero
        assert (value < 1e-9).all(), name
    assert snapshot.speed_term is not None
    difference = snapshot.path_sums - snapshot.path_sums_from_gradients
    assert difference.abs().max() < 1e-9
    # without the term the theorem would fail: it is no formality
    assert snapshot.speed_term[:, 1:].abs().min() > 1e-4


def reference_from(problem: Problem, engine: Engine, run: int, steps: int) -> Tensor:
    """theta of one run of the recursion with initial speed, by the reference's own update."""
    first = engine.snapshot()
    increment = first.initial_increment
    assert increment is not None
    u, v = first.u[run], first.v[run]
    du, dv = (increment[0] + increment[1]) / 2, (increment[0] - increment[1]) / 2
    gamma, beta = first.gamma[run], first.beta[run]
    before = (u - du[run], v - dv[run])
    now = (u, v)
    for _ in range(steps):
        g = problem.gradient(now[0] * now[1])
        after = tuple(now[i] - gamma * g * now[1 - i] + beta * (now[i] - before[i]) for i in (0, 1))
        before, now = now, after
    return now[0] * now[1]


@backends
def test_initial_speed_moves_the_run_as_written(backend: str) -> None:
    problem = default_problem()
    engine = moving_engine(problem, backend, "telescoped")
    expected = [reference_from(problem, engine, run, 200) for run in range(3)]
    engine.advance(200)
    # 200 steps that each round at 1e-16; beta = 0 has no past
    torch.testing.assert_close(
        engine.snapshot().theta, torch.stack(expected), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("gradient", ["closed_form", "autograd"])
@pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])
def test_a_module_starts_with_the_speed_it_is_given(gradient: Gradient, path_sums: str) -> None:
    """w_1 - w_0 = eps w'(0) with w'(0) = -speed grad F; the first step then starts from there."""
    problem, speed, gamma, beta = sparse(5, 8, 1, seed=0), 1.5, 0.02, 0.9
    data = BlockDataModule(
        problem, RecordPlan(400, 10, 100), BatchStream(5, None, "with_replacement", seeds=0)
    )
    net = DiagonalLinearNet.gaussian(8, 0.3, seed=0)
    u, v = net.u.detach().clone(), net.v.detach().clone()
    options = EngineOptions(path_sums=path_sums, tol=0.0)
    module = HeavyBallModule(
        net, gamma, beta, data, gradient=gradient, speed=speed, options=options
    )
    module.stepper.advance(1)
    g = problem.gradient(u * v)
    # the increment that the start had, times beta, and the gradient step
    factor = gamma + beta * gamma / (1 - beta) * speed
    torch.testing.assert_close(net.u.detach(), u - factor * g * v, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(net.v.detach(), v - factor * g * u, rtol=1e-13, atol=1e-15)
    module.stepper.advance(399)
    snapshot = module.snapshot()
    assert snapshot is not None
    found = summarise(snapshot, problem)
    for name in CHECKS:
        # autograd reads w_- = u - v, which cancels
        assert found[name].isnan().all() if path_sums == "gradient_sum" else found[name] < 1e-8


def test_dln_train_takes_an_initial_speed(tmp_path: Path, no_figures: None) -> None:
    """In the flow's units, so that the limit of small steps is a flow that starts with it."""
    run = run_app(tmp_path, "model.speed=1", "trainer.max_steps=50000", "trainer.records=20")
    assert run.summary["status"] == "converged"
    for name in (*CHECKS, "distance_to_minimizer"):
        assert run.summary[name] < 1e-9, name
    still = run_app(tmp_path / "still", "trainer.max_steps=50000", "trainer.records=20")
    assert abs(still.summary["l1_norm"] - run.summary["l1_norm"]) > 1e-5


def test_the_velocity_of_gradient_flow() -> None:
    problem, net = default_problem(), DiagonalLinearNet.gaussian(30, 0.3, seed=0)
    u, v = (w.detach().requires_grad_() for w in (net.u, net.v))
    loss = problem.loss(u * v)
    du, dv = torch.autograd.grad(loss, (u, v))
    plus, minus = gradient_velocity(problem, net.w_plus.detach(), net.w_minus.detach(), 2.0)
    torch.testing.assert_close(plus, -2 * (du + dv), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(minus, -2 * (du - dv), rtol=1e-12, atol=1e-14)


# ---- what the numbers must not depend on


@pytest.mark.slow
@backends
def test_a_run_ends_at_the_look_that_meets_the_tolerance(backend: str) -> None:
    """Whatever the blocks: every number of the run is the same, and its loss was above before."""
    problem = default_problem()
    ends: list[Snapshot] = []
    for blocks in ([5000], [7] * 800, [1000, 250, 1, 999, 3000]):
        engine = make_engine(
            problem, column(0.05, 0.04), column(0.5, 0.9), backend=backend, runs=2, tol=1e-6
        )
        for steps in blocks:
            engine.advance(steps)
        assert engine.status_labels == ["converged", "converged"]
        ends.append(engine.snapshot())
    first = ends[0]
    for other in ends[1:]:
        for name in ("w", "boundary", "loss", "steps", "sign_changes", "path_sums_from_iterates"):
            assert torch.equal(getattr(first, name), getattr(other, name)), name
    assert (first.loss <= 1e-6).all()
    assert (first.steps % 10 == 0).all()
    # ten steps before, it was not there yet, by the reference recursion
    for run in range(2):
        net = DiagonalLinearNet.uniform(30, 0.1)
        iterates = reference_iterates(
            problem, net.u.detach(), net.v.detach(), first.gamma[run], first.beta[run]
        )
        thetas = [u * v for (u, v), _ in zip(iterates, range(int(first.steps[run])), strict=False)]
        at, before = thetas[-1], thetas[-11]
        assert problem.loss(at) <= 1.000001e-6
        assert problem.loss(before) > 1e-6


@pytest.mark.parametrize("gradient", ["closed_form", "autograd"])
def test_records_and_checkpoints_move_no_end(
    tmp_path: Path, no_figures: None, gradient: str
) -> None:
    keys = ["data.n=5", "data.d=8", "data.s=1", "optimizer.gamma=0.02", "trainer.tol=1e-5"]
    keys += [f"trainer.gradient={gradient}"]
    ends = [
        run_app(tmp_path / str(i), *keys, *more).summary
        for i, more in enumerate(
            (
                ["trainer.block_size=2000", "trainer.records=5"],
                ["trainer.block_size=37", "trainer.records=50"],
                ["trainer.checkpoint_every=90", "trainer.records=2"],
            )
        )
    ]
    assert ends[0]["status"] == "converged"
    for end in ends[1:]:
        for name in ("steps", "steps_to_tol", "train_loss", "l1_norm", "kkt_residual"):
            assert end[name] == ends[0][name], name
    assert ends[0]["steps"] == ends[0]["steps_to_tol"]


@pytest.mark.slow
def test_a_sweep_goes_on_to_a_lower_tolerance(tmp_path: Path, no_figures: None) -> None:
    """Runs that had converged at different steps go on, each from its own, to the same bits."""
    keys = ["sweep.gamma=[0.01,0.02,0.05]", "sweep.beta=[0.5,0.9]", "trainer.max_steps=40000"]
    run_sweep(tmp_path / "first", *keys, "trainer.tol=1e-6")
    checkpoint = tmp_path / "first" / "checkpoints"
    more = run_sweep(tmp_path / "more", *keys, "trainer.tol=1e-12", f"resume={checkpoint}")
    whole = run_sweep(tmp_path / "whole", *keys, "trainer.tol=1e-12")
    assert (more["status"] == "converged").all()
    assert (more["train_loss"] <= 1e-12).all()
    for name in ("steps", "steps_to_tol", "train_loss", "theta", "s_plus", "kkt_residual"):
        assert more[name].equals(whole[name]), name


# ---- writes from outside


def module_with_callbacks(
    tmp_path: Path,
    gradient: Gradient,
    *callbacks: pl.Callback,
    net: DiagonalLinearNet | None = None,
) -> HeavyBallModule:
    data = BlockDataModule(
        sparse(5, 8, 1, seed=0),
        RecordPlan(300, 5, 100),
        BatchStream(5, None, "with_replacement", seeds=0),
    )
    module = HeavyBallModule(
        net or DiagonalLinearNet.uniform(8, 0.3), 0.02, 0.9, data, gradient=gradient,
        options=EngineOptions(tol=0.0),
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, callbacks=list(callbacks), logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with quiet():
        trainer.fit(module, module.data)
    return module


class HalveTheStepSize(pl.Callback):
    """As a learning-rate scheduler does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert isinstance(pl_module, HeavyBallModule)
        pl_module.optimizer.param_groups[0]["lr"] *= 0.5


class AverageTheWeights(pl.Callback):
    """As an exponential moving average that is swapped in does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert isinstance(pl_module, HeavyBallModule)
        with torch.no_grad():
            pl_module.net.u.mul_(0.99)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("callback", "what"), [(HalveTheStepSize, "gamma"), (AverageTheWeights, "u")]
)
def test_the_closed_form_refuses_what_it_would_pass_over(
    tmp_path: Path, callback: type[pl.Callback], what: str
) -> None:
    with pytest.raises(InputError, match=f"{what} was changed after step 1"):
        module_with_callbacks(tmp_path, "closed_form", callback())


def test_a_checkpoint_s_parameters_are_no_write_from_outside(tmp_path: Path) -> None:
    modules = []
    for name, steps in (("first", 200), ("second", 300)):
        data = BlockDataModule(
            sparse(5, 8, 1, seed=0),
            RecordPlan(steps, 5, 100),
            BatchStream(5, None, "with_replacement", seeds=0),
        )
        net = DiagonalLinearNet.uniform(8, 0.3)
        module = HeavyBallModule(net, 0.02, 0.9, data, options=EngineOptions(tol=0.0))
        resume = tmp_path / "first" / "last.ckpt" if modules else None
        fit(
            module, tmp_path / name, [CSVLogger(tmp_path / name)],
            resume=None if resume is None else str(resume),
        )  # fmt: skip
        modules.append(module)
    assert modules[1].stepper.step == 300
