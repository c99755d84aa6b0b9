"""The compiled kernels: products, path sums to the last digits, and the same bits in any layout."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

import dln_momentum
from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, Problem, sparse
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine.cpu import kernel
from dln_momentum.engine.cpu.carried import Buffers, Carried
from dln_momentum.engine.cpu.compiled import apart, compiled, zeros_at
from dln_momentum.engine.cpu.passes import add_path_sums, telescoped_update, update
from dln_momentum.engine.cpu.products import (
    MOST_VECTORS,
    add_block_product,
    add_span_product,
    less_block_product,
    set_block_product,
    set_span_product,
)
from dln_momentum.engine.cpu.registers import LANES, WIDTH
from dln_momentum.problem import stack
from tests.helpers import default_problem


@compiled
def _block(out, height, A, row_stride, k_stride, B, length, accumulate):
    if accumulate:
        add_block_product(out, 0, height, A, 0, row_stride, k_stride, B, 0, length)
    else:
        set_block_product(out, 0, height, A, 0, row_stride, k_stride, B, 0, length)


@compiled
def _less(out, height, A, row_stride, k_stride, B, length, less):
    less_block_product(out, 0, height, A, 0, row_stride, k_stride, B, 0, length, less, 0)


@compiled
def _span(out, vectors, a, B, length, accumulate):
    if accumulate:
        add_span_product(out, 0, vectors, a, B, 0, length)
    else:
        set_span_product(out, 0, vectors, a, B, 0, length)


@pytest.mark.slow
def test_kernels_run_where_nothing_can_be_kept() -> None:
    """As in a container whose package folder and home are read-only."""
    program = (
        "import logging; logging.basicConfig();"
        "from dln_momentum.engine.cpu.compiled import compiled, unsigned;"
        "print(compiled(lambda x: 2 * x)(21), unsigned(3))"
    )
    # the one place that numba may then look for is named by a variable, which is not set
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["42", "3"]
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1


GENERIC = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt"}
"""For numba, a processor of the year 2009, with two doubles a register."""

ONE_PRODUCT = """
import numpy as np
from dln_momentum.engine.cpu.compiled import compiled
from dln_momentum.engine.cpu.products import set_block_product
from dln_momentum.engine.cpu.registers import LANES, WIDTH

@compiled
def product(out, A, B):
    set_block_product(out, 0, 3, A, 0, 5, 1, B, 0, 5)

rng = np.random.default_rng(0)
A, B, out = rng.standard_normal((3, 5)), rng.standard_normal((5, LANES)), np.zeros(3 * LANES)
product(out, A.ravel(), B.ravel())
# 5 terms of order one, added up in another order
assert abs(out.reshape(3, LANES) - A @ B).max() < 1e-14
print(WIDTH, sum(product.stats.cache_hits.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="features of x86-64")
def test_registers_follow_what_numba_compiles_for_and_kept_code_does_not_mix(
    tmp_path: Path,
) -> None:
    """One cache for two processors: each finds its own code there, and no other's."""
    program = tmp_path / "one_product.py"
    program.write_text(ONE_PRODUCT)
    plain = {k: v for k, v in os.environ.items() if k not in GENERIC}
    paths = {
        "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
        "PYTHONPATH": os.pathsep.join([str(Path(dln_momentum.__file__).parents[1]), *sys.path]),
    }

    def width_and_hits(environment: dict[str, str]) -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment | paths, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        width, hits = done.stdout.split()
        return int(width), int(hits)

    own = width_and_hits(plain)
    assert own[1] == 0
    assert width_and_hits(plain | GENERIC) == (2, 0)
    assert width_and_hits(plain) == (own[0], 1)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("height", [*range(1, 14), 25])
@pytest.mark.parametrize("accumulate", [False, True])
def test_block_products(height: int, accumulate: bool) -> None:
    A, B, before = numbers(height, 7), numbers(7, LANES), numbers(height, LANES)
    expected = A @ B + (before if accumulate else 0)
    for matrix, strides in ((A, (7, 1)), (np.ascontiguousarray(A.T), (1, height))):
        out = before.copy().ravel()
        _block(out, height, matrix.ravel(), *strides, B.ravel(), 7, accumulate)
        # 8 terms of order one, added up in another order
        np.testing.assert_allclose(out.reshape(height, LANES), expected, rtol=0, atol=1e-14)
        if accumulate:
            # what it was less another array, and the array is not changed
            less, fresh = -before.ravel(), np.full(height * LANES, np.nan)
            _less(fresh, height, matrix.ravel(), *strides, B.ravel(), 7, less)
            np.testing.assert_array_equal(fresh, out)
            np.testing.assert_array_equal(less, -before.ravel())


@pytest.mark.parametrize("vectors", range(1, MOST_VECTORS + 1))
@pytest.mark.parametrize("accumulate", [False, True])
def test_span_products(vectors: int, accumulate: bool) -> None:
    a, B, before = numbers(9), numbers(9, vectors * WIDTH), numbers(vectors * WIDTH)
    out = before.copy()
    _span(out, vectors, a, B.ravel(), 9, accumulate)
    np.testing.assert_allclose(out, a @ B + (before if accumulate else 0), rtol=0, atol=1e-14)


def exact_term(w: float, w_next: float, beta: float) -> Any:
    """One step's term of S by its definition, to 60 digits."""
    with mpmath.workdps(60):
        w, w_next, beta = mpmath.mpf(w), mpmath.mpf(w_next), mpmath.mpf(beta)

        def r(z):
            return z - 1 - mpmath.log(abs(z))

        return (r(w_next / w) + beta * r(w / w_next)) / (1 - beta)


@pytest.mark.parametrize("size_of_w", [1.0, 1e-290, 1e290])
def test_path_sums_keep_their_relative_accuracy(size_of_w: float) -> None:
    """Tiny steps, large ones, and steps across zero; 4 ulp for a dozen roundings."""
    rng = np.random.default_rng(0)
    w = size_of_w * rng.standard_normal(400)
    step = rng.choice([-1, 1], 400) * 10 ** rng.uniform(-9, 0.5, 400)
    w_next, beta = w * (1 + step), rng.uniform(0, 0.99, 400)
    sums = np.zeros(400)
    zero, size = np.uintp(0), np.uintp(400)
    add_path_sums(w, w_next, beta, sums, zero, zero, zero, size)
    exact = [exact_term(*entries) for entries in zip(w, w_next, beta, strict=True)]
    # near a step across zero the terms of r cancel, and only their own size bounds the error
    scale = np.maximum(np.abs([float(e) for e in exact]), np.where(np.abs(step) > 0.1, 1.0, 0.0))
    errors = [float(abs(mpmath.mpf(s) - e)) for s, e in zip(sums, exact, strict=True)]
    assert (np.array(errors) / scale).max() < 1e-15


@pytest.mark.parametrize("size_of_w", [1e-310, 1e-290, 1e-155, 1.0, 1e155, 1e290])
def test_telescoped_terms_where_products_leave_float64(size_of_w: float) -> None:
    """Against 60 digits: one division where w_k w_{k+1} is a float64, two where it is not."""
    # rows of any register block: 384 is a multiple of 2, 4 and 8 doubles by 1 to 4 registers
    rng, count = np.random.default_rng(1), 384
    old = size_of_w * rng.choice([-1, 1], 2 * count) * rng.uniform(0.5, 2, 2 * count)
    # one momentum for each lane, laid out for all rows
    beta, zero = np.resize(rng.uniform(0, 0.99, LANES), count), np.uintp(0)
    # with p and a gradient of 0, w_{k+1} = p + beta w_k
    p = old * rng.choice([-1, 1], 2 * count) * 10 ** rng.uniform(-3, 0, 2 * count)
    w, sums = old.copy(), np.zeros(2 * count)
    carried = Carried(w, p, np.zeros(0), sums, np.zeros(2 * count))
    counts = np.zeros(count, np.int64)
    buffers = Buffers(beta, np.zeros(count), np.zeros(count), counts, np.zeros(2 * count))
    telescoped_update(carried, buffers, zero, np.uintp(count), zero, np.uintp(count))
    assert counts.sum() == ((w < 0) != (old < 0)).sum() > 0
    with mpmath.workdps(60):
        for i in range(2 * count):
            a, b, s = mpmath.mpf(old[i]), mpmath.mpf(w[i]), mpmath.mpf(beta[i % count])
            exact = (b - a) * (1 / a - s / b)
            # each of the two terms rounds, at worst as often as there are operations
            size = abs((b - a) / a) + abs(s * (b - a) / b)
            assert abs(mpmath.mpf(sums[i]) - exact) <= 8 * 2.0**-52 * size


@pytest.mark.parametrize("telescoped", [False, True])
def test_an_entry_beyond_the_range_of_one_division_changes_no_neighbour(telescoped: bool) -> None:
    """The rare entries take a branch of their own; all others keep their bits, nan or not."""
    rng = np.random.default_rng(2)
    step = telescoped_update if telescoped else update
    zero, size = np.uintp(0), np.uintp(2 * LANES)

    def results(w: np.ndarray) -> list[np.ndarray]:
        p, sums = 0.1 * w, np.zeros(4 * LANES)
        carried = Carried(w, p, np.zeros(0), sums, np.zeros(4 * LANES))
        beta, gradient = np.full(2 * LANES, 0.7), np.linspace(-1, 1, 2 * LANES)
        theta, counts = np.zeros(2 * LANES), np.zeros(2 * LANES, np.int64)
        buffers = Buffers(beta, gradient, theta, counts, np.zeros(4 * LANES))
        step(carried, buffers, zero, size, zero, size)
        return [array.reshape(-1, 2 * LANES) for array in (w, p, sums, theta)]

    whole = rng.standard_normal(4 * LANES)
    for extreme in (1e-200, 1e200, 0.0, np.nan):
        changed = whole.copy()
        changed[3] = extreme
        others = np.arange(2 * LANES) != 3
        for found, expected in zip(results(changed), results(whole.copy()), strict=True):
            assert np.array_equal(found[:, others], expected[:, others])


@pytest.mark.parametrize("columns", [1, 30, 64, 100])
def test_what_a_pass_goes_through_side_by_side_begins_at_different_places(columns: int) -> None:
    """w_+, w_-, p_+ and the others of a step: a load of one is not taken for a store of another."""
    rows, slots = torch.randn(2, 40, columns).double(), kernel.slots_of(40)
    size = len(slots) * columns
    packed = list(kernel.pack_all((rows, rows, rows[0, :, :3], rows, rows[0]), slots))
    places = []
    for array in (*(packed[k] for k in (0, 1, 3, 4)), zeros_at(size, 7)):
        halves = (0,) if len(array) == size else (0, apart(size))
        assert len(array) == halves[-1] + size
        places += [array[start:].ctypes.data % 4096 for start in halves]
    assert places == [512 * place for place in range(8)]
    # and they hold what they are made of
    for half, start in enumerate((0, apart(size))):
        found = packed[0][start:][:size].reshape(-1, columns, LANES).swapaxes(1, 2)
        assert np.array_equal(found.reshape(-1, columns), rows[half][slots])


def engine_of(
    problem: Problem, runs: int, chosen: slice | None = None, **options
) -> tuple[Engine, torch.Tensor]:
    """An engine on some of ``runs`` different runs, and which they are."""
    which = torch.arange(runs)[chosen or slice(None)]
    gamma = torch.linspace(0.004, 0.012, runs, dtype=torch.float64)[which]
    beta = torch.linspace(0.0, 0.95, runs, dtype=torch.float64)[which]
    seeds = which.tolist()
    drawn, n = options.pop("drawn", False), problem.n
    net = DiagonalLinearNet.uniform(problem.d, 0.1, runs=(len(which),))
    engine = Engine(
        problem,
        *(t.to(problem.X.device) for t in (gamma, beta, net.w_plus.detach(), net.w_minus.detach())),
        batches=BatchStream(n, 3, sampling="with_replacement", seeds=seeds) if drawn else None,
        label_noise=LabelNoise(n, 0.01, until=50, seeds=seeds) if drawn else None,
        options=EngineOptions(**{"backend": "numba", "tol": 1e-6} | options),
    )
    return engine, which


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])
@pytest.mark.parametrize("shape", [(20, 30), (70, 230)])
def test_the_layout_does_not_change_a_bit(
    shape: tuple[int, int], path_sums: str, drawn: bool
) -> None:
    """Full SIMD blocks, padded ones, single runs, tiles and threads."""
    n, d = shape
    problem = sparse(n, d, 3, seed=1)
    keys = {"path_sums": path_sums, "drawn": drawn}
    whole, _ = engine_of(problem, 85, **keys)
    whole.advance(100)
    layouts = (
        (None, {"tile_runs": 7}),
        (None, {"num_workers": 3}),
        (slice(3, 4), {}),
        (slice(10, 23), {}),
        (slice(0, 40), {}),
    )
    for chosen, options in layouts:
        engine, which = engine_of(problem, 85, chosen, **keys, **options)
        for steps in (1, 36, 63):
            engine.advance(steps)
        assert_same_bits(engine, whole, which)


def here_and_on_a_gpu(runs: int, steps: int, **options) -> tuple[Engine, Engine]:
    """The same runs by torch on either device, after 7 steps and a block of so many more."""
    problem = default_problem()
    here, _ = engine_of(problem, runs, backend="torch", **options)
    there, _ = engine_of(problem.to("cuda"), runs, backend="torch", **options)
    for engine in (here, there):
        engine.advance(7)
        engine.advance(steps)
    return here, there


def assert_same_bits(engine: Engine, whole: Engine, which: torch.Tensor) -> None:
    expected = whole.state.state_dict()
    for name, found in engine.state.state_dict().items():
        axis = 1 if name in ("w", "p", "path_sums", "summed_until") else 0
        assert torch.equal(found, expected[name].index_select(axis, which)), name


def test_data_of_its_own_for_each_run_gives_the_bits_of_shared_data() -> None:
    problem = default_problem()
    shared, _ = engine_of(problem, 20, drawn=True)
    own, which = engine_of(stack([problem] * 20), 20, drawn=True)
    for engine in (shared, own):
        engine.advance(75)
    assert_same_bits(own, shared, which)


@pytest.mark.parametrize(("n", "d"), [(1, 2), (3, 50), (300, 410)])
def test_any_shape_agrees_with_torch(n: int, d: int) -> None:
    """Blocks of rows and of columns, and less than a register of either."""
    problem = sparse(n, d, 1, seed=0)
    rates = (torch.full((18,), 0.005, dtype=torch.float64), torch.linspace(0, 0.9, 18).double())
    net = DiagonalLinearNet.uniform(d, 0.1, runs=(18,))
    engines = [
        Engine(problem, *rates, net.w_plus.detach(), net.w_minus.detach(),
               options=EngineOptions(backend=name, tol=0.0))
        for name in ("numba", "torch")
    ]  # fmt: skip
    for engine in engines:
        engine.advance(30)
    ours, other = (engine.snapshot() for engine in engines)
    # 30 steps that each round at 1e-16, with sums of 410 terms
    torch.testing.assert_close(ours.w, other.w, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.loss, other.loss, rtol=1e-11, atol=1e-20)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])
def test_a_gpu_agrees_with_the_cpu(path_sums: str, drawn: bool) -> None:
    here, there = here_and_on_a_gpu(40, 500, path_sums=path_sums, drawn=drawn)
    for name, expected in here.state_dict().items():
        found = there.state_dict()[name].cpu()
        # 507 steps that each round at 1e-16 of the terms of their sums, which the loss of some runs
        # and S, where its terms cancel, are a thousandth of; counts and steps are integers
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
