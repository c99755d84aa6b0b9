"""The kernel of a GPU against the CPU's, where there is a GPU; its layout everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, InputError, Problem, sparse
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine.backends import Backend, choose_backend
from dln_momentum.engine.gpu import kernel
from dln_momentum.engine.gpu.kernel import COLUMN_TILES, PARTS, ROW_TILES, TILE, Layout, layout_of
from dln_momentum.engine.problems import Problems
from tests.helpers import default_problem
from tests.test_kernels import assert_same_bits, engine_of

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
path_sums = pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])


@given(n=st.integers(1, 100), d=st.integers(1, 600), shared=st.integers(2**14, 2**18))
def test_a_layout_has_every_entry_and_fits(n: int, d: int, shared: int) -> None:
    layout = layout_of(n, d, shared)
    if layout is None:
        parts = -(-d // (TILE * COLUMN_TILES))
        one_group = Layout(n, d, parts, 1, 1).shared_bytes(1)
        assert n > TILE * ROW_TILES or parts > PARTS or one_group > shared
        return
    assert layout.parts * COLUMN_TILES * TILE >= d
    assert 1 <= layout.groups <= 15  # of the barriers, one is everybody's
    assert layout.threads <= 1024
    assert 16 * n * d <= layout.shared_bytes(layout.groups) <= shared


def test_a_cpu_is_no_place_for_it() -> None:
    engine, _ = engine_of(default_problem(), 1)
    with pytest.raises(
        InputError, match=r"'cuda' runs on a CUDA device only.*on cpu; must be .* numba"
    ):
        Engine(
            *(engine.problem, [0.1], [0.5], [[1.0] * 30], [[1.0] * 30]),
            options=EngineOptions(backend="cuda"),
        )


def close(there: Engine, here: Engine) -> None:
    for name, expected in here.state_dict().items():
        found = there.state_dict()[name].cpu()
        # A hundred steps that each round at 1e-16 of the terms of their sums. What that is of an
        # iterate that comes close to 0 on the way is much more, and so of its terms of S: 6e-10
        # was the largest difference found. Integers are equal.
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@on_a_gpu
@path_sums
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("shape", [(20, 30), (40, 100), (5, 8), (3, 7), (64, 80), (10, 400)])
def test_agrees_with_the_cpu(shape: tuple[int, int], path_sums: str, drawn: bool) -> None:
    """Whole tiles and padded ones, runs of one warp and of many, eights and what is left of one."""
    problem = sparse(*shape, 1, seed=0)
    keys = {"path_sums": path_sums, "drawn": drawn}
    here, _ = engine_of(problem, 43, **keys)
    there, _ = engine_of(problem.to("cuda"), 43, backend="cuda", **keys)
    for engine in (here, there):
        engine.advance(7)
        engine.advance(96)
        engine.stop()
    assert there.backend.name == "cuda"
    close(there, here)


@on_a_gpu
@path_sums
@pytest.mark.parametrize("shape", [(20, 30), (40, 100)])
@pytest.mark.parametrize("drawn", [False, True])
def test_bits_do_not_depend_on_neighbours_tiles_and_blocks(
    shape: tuple[int, int], path_sums: str, drawn: bool
) -> None:
    problem = sparse(*shape, 3, seed=1).to("cuda")
    keys = {"path_sums": path_sums, "drawn": drawn, "backend": "cuda"}
    whole, _ = engine_of(problem, 85, **keys)
    whole.advance(100)
    for chosen, more in ((None, {"tile_runs": 7}), (slice(3, 4), {}), (slice(10, 23), {})):
        engine, which = engine_of(problem, 85, chosen, **keys, **more)
        for steps in (1, 36, 63):
            engine.advance(steps)
        assert_same_bits(engine, whole, which.cuda())


def on(device: str, problem: Problem, gamma: list[float], start: float = 0.1, **keys) -> Engine:
    """Runs at beta = 0.9 from one start."""
    net = DiagonalLinearNet.uniform(problem.d, start, runs=(len(gamma),))
    rates = torch.tensor([gamma, [0.9] * len(gamma)], dtype=torch.float64)
    given = (t.detach().to(device) for t in (*rates, net.w_plus, net.w_minus))
    backend = "numba" if device == "cpu" else "cuda"
    return Engine(problem.to(device), *given, options=EngineOptions(backend=backend, **keys))


@on_a_gpu
def test_runs_end_where_they_end_on_the_cpu() -> None:
    """At the same steps, by the same verdict, and left as they were there."""
    # far from the edge of stability, where a rounding moves an end by a check
    gamma = [*torch.logspace(-3, -0.7, 40, dtype=torch.float64).tolist(), 5.0, 10.0, 50.0]
    here, there = (on(device, default_problem(), gamma, tol=1e-8) for device in ("cpu", "cuda"))
    for engine in (here, there):
        engine.advance(3000)
        engine.stop()
    assert set(here.status_labels) == {"converged", "diverged", "max_steps"}
    assert there.status_labels == here.status_labels
    assert there.state.steps.tolist() == here.state.steps.tolist()
    ended = here.state.status == 1
    found, expected = (engine.state.w.cpu()[:, ended] for engine in (there, here))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@on_a_gpu
def test_a_run_that_overflows_leaves_its_neighbours_alone() -> None:
    problem = default_problem()
    alone, together = (on("cuda", problem, gamma, divergence_bound=float("inf"), tol=0.0)
                       for gamma in ([0.01], [5.0, 0.01, 50.0]))  # fmt: skip
    for engine in (alone, together):
        engine.advance(500)
    assert not together.state.w[:, ::2].isfinite().all()
    assert torch.equal(together.state.w[:, 1:2], alone.state.w)
    assert torch.equal(sums_of(together)[:, 1:2], sums_of(alone))


@on_a_gpu
@pytest.mark.parametrize("start", [1e-60, 1e-100, 1e-145, 1e60])
def test_sums_of_tiny_and_of_huge_iterates(start: float) -> None:
    """Where w_k w_{k+1} is near the ends of float64 a term takes two reciprocals."""
    problem = default_problem()
    if start > 1:
        problem = Problem(X=problem.X * 1e-60, y=problem.y * 1e60)
    here, there = (on(device, problem, [0.01], start) for device in ("cpu", "cuda"))
    for engine in (here, there):
        engine.advance(200)
    assert sums_of(here).abs().max() > 1e-3
    torch.testing.assert_close(sums_of(there).cpu(), sums_of(here), rtol=1e-10, atol=1e-13)


def sums_of(engine: Engine) -> torch.Tensor:
    assert engine.state.path_sums is not None
    return engine.state.path_sums


@on_a_gpu
def test_a_term_of_the_sum_has_all_its_digits() -> None:
    """One step of a fifth to twice w, so that no digits of the step are lost before the term."""
    gamma = torch.linspace(0.5, 3, 60, dtype=torch.float64).tolist()
    here, there = (on(device, default_problem(), gamma) for device in ("cpu", "cuda"))
    for engine in (here, there):
        engine.advance(1)
    # w_k+1 may be a tenth of w_k, of whose rounding a term has the tenfold, twice
    torch.testing.assert_close(sums_of(there).cpu(), sums_of(here), rtol=2e-13, atol=1e-15)


@on_a_gpu
@pytest.mark.parametrize("shape", [(20, 30), (40, 100), (64, 80)])
def test_bits_do_not_depend_on_how_many_groups_a_block_has(shape: tuple[int, int]) -> None:
    layout = kernel._layout_on(*shape, torch.device("cuda"))
    assert layout is not None
    everywhere = torch.cuda.get_device_properties(0).multi_processor_count
    runs = TILE * everywhere * layout.groups + 5
    assert layout.groups > 1
    problem = sparse(*shape, 3, seed=1).to("cuda")
    whole, _ = engine_of(problem, runs, backend="cuda")
    whole.advance(50)
    for chosen in (slice(3, 4), slice(100, 131), slice(runs - 9, runs)):
        engine, which = engine_of(problem, runs, chosen, backend="cuda")
        engine.advance(50)
        assert_same_bits(engine, whole, which.cuda())


@on_a_gpu
@pytest.mark.parametrize("seeds", [0, [0] * 21])
def test_one_draw_for_all_runs(seeds: int | list[int]) -> None:
    """Batches and noise of one seed, drawn once or repeated by a stride of 0."""
    problem = default_problem()
    found = []
    for device in ("cpu", "cuda"):
        net = DiagonalLinearNet.uniform(problem.d, 0.1, runs=(21,))
        gamma = torch.linspace(0.004, 0.012, 21, dtype=torch.float64)
        given = (t.detach().to(device) for t in (gamma, 50 * gamma, net.w_plus, net.w_minus))
        engine = Engine(
            *(problem.to(device), *given),
            batches=BatchStream(problem.n, 3, sampling="with_replacement", seeds=seeds),
            label_noise=LabelNoise(problem.n, 0.01, until=50, seeds=seeds),
        )
        engine.advance(73)
        found.append(engine)
    assert found[1].backend.name == "cuda"
    close(found[1], found[0])


@on_a_gpu
def test_steps_are_launched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that end in one are left alone by the next."""
    gamma = [0.001, 0.05, 5.0, 0.2]
    whole = on("cuda", default_problem(), gamma, tol=1e-6)
    whole.advance(900)
    monkeypatch.setattr(kernel, "LAUNCH_STEPS", 77)
    parts = on("cuda", default_problem(), gamma, tol=1e-6)
    parts.advance(900)
    assert {*parts.status_labels} == {"running", "converged", "diverged"}
    for name, expected in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], expected), name


def several(device: str, runs_each: int, **keys) -> Engine:
    """Runs on three problems of one shape."""
    problems = [sparse(5, 8, 1, seed=seed).to(device) for seed in range(3)]
    index = torch.arange(3 * runs_each) % 3
    net = DiagonalLinearNet.uniform(8, 0.1, runs=(len(index),))
    gamma = torch.linspace(0.01, 0.05, len(index), dtype=torch.float64)
    given = (t.detach().to(device) for t in (gamma, 10 * gamma, net.w_plus, net.w_minus))
    engine = Engine(Problems(problems, index.to(device)), *given, options=EngineOptions(**keys))
    engine.advance(60)
    return engine


@on_a_gpu
@pytest.mark.parametrize("runs_each", [2, 9])
def test_several_problems_agree_with_the_cpu(runs_each: int) -> None:
    """Stacked, with data of its own for each run, torch takes them; groups of one X this does."""
    there = several("cuda", runs_each)
    assert there.backend.name == ("torch" if runs_each == 2 else "cuda")
    close(there, several("cpu", runs_each))


def test_the_choice_is_told_of_data_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides on a GPU, seen on a CPU: the first problem alone has one X in any case."""
    asked = []

    def spy(*given: Any, **keys: Any) -> Backend:
        asked.append(keys["shared"])
        return choose_backend(*given, **keys)

    monkeypatch.setattr("dln_momentum.engine.engine.choose_backend", spy)
    several("cpu", 2)
    several("cpu", 9)
    assert asked == [False, True]


@on_a_gpu
def test_no_toolkit_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    kernel._compiled.cache_clear()
    kernel._why_not_compiled.cache_clear()
    assert kernel.why_not(20, 30, torch.device("cuda")) is None


@on_a_gpu
def test_auto_takes_it_for_what_fits_and_torch_for_the_rest() -> None:
    small, large = default_problem().to("cuda"), sparse(50, 900, 3, seed=0).to("cuda")
    assert on("cuda", small, [0.01]).backend.name == "cuda"
    assert kernel.why_not(20, 30, small.X.device) is None
    with pytest.raises(
        InputError, match=r"'cuda' needs n <= 64, d <= 480 and .*not one of 50 x 900"
    ):
        on("cuda", large, [0.01])
    auto, _ = engine_of(large, 2, backend="auto")
    assert (auto.backend.name, "50 x 900" in auto.backend.why) == ("torch", True)
