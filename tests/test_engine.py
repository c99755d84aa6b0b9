"""The engine against the poster's recursion, and its promises: independence and repeatability."""

from __future__ import annotations

from functools import cache
from itertools import islice, product
from typing import Any

import pytest
import torch

from dln_momentum import (
    DiagonalLinearNet,
    Engine,
    EngineOptions,
    InputError,
    Problem,
    Status,
    sparse,
)
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine import reference_iterates
from dln_momentum.engine.backends import ROWS, SHARED_FROM
from dln_momentum.engine.cpu import registers
from dln_momentum.engine.cpu.registers import LANES
from dln_momentum.engine.parallel import for_each
from dln_momentum.engine.problems import Problems
from dln_momentum.engine.status import divergence_ceiling, judge
from dln_momentum.problem import stack
from tests.helpers import column, default_problem, make_engine, run_to_end

backends = pytest.mark.parametrize("backend", ["torch", "numba"])
QUICK = {("torch", "telescoped", 5)}
path_sums = pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])


def oracle(problem, net, gamma, beta, steps, weights=None):
    """theta after ``steps`` steps of the reference recursion, and the sign changes until then."""
    u, v = net.u.detach(), net.v.detach()
    iterates = reference_iterates(problem, u, v, gamma, beta, weights)
    before, changes = _signs(u, v), torch.zeros(u.shape[:-1], dtype=torch.int64)
    for u, v in islice(iterates, steps):
        now = _signs(u, v)
        changes, before = changes + (now != before).sum((0, -1)), now
    return u * v, changes


def _signs(u, v):
    return torch.stack([u + v, u - v]).signbit()


RUNS = LANES + 1
"""A SIMD block goes side by side, and one run alone."""


def runs_of_the_reference(batch_size):
    """lambda is 0.25, 1, 4 and 9: gamma, beta, the networks and their mini-batches."""
    beta = column(1 - 0.1 / 3, 0.8, 0.9, 0.95).repeat(LANES)[:RUNS]
    batches = BatchStream(20, batch_size, sampling="with_replacement", seeds=range(RUNS))
    net = DiagonalLinearNet.uniform(30, 0.1, runs=(RUNS,))
    return torch.full_like(beta, 0.01), beta, net, batches


@cache
def reference_end(batch_size):
    """What `oracle` gives for them, which no engine has a part in, after 1e4 steps."""
    gamma, beta, net, batches = runs_of_the_reference(batch_size)
    weights = batches.weights(0, 10_000, None)
    return oracle(default_problem(), net, gamma[:, None], beta[:, None], 10_000, weights)


# of torch, the slower one, one case is quick
@pytest.mark.parametrize(
    ("backend", "path_sums", "batch_size"),
    [
        pytest.param(*case, marks=() if case[0] != "torch" or case in QUICK else pytest.mark.slow)
        for case in product(
            ["torch", "numba"],
            ["telescoped", "direct", "gradient_sum"],
            [None, 5],
        )
    ],
)
def test_equals_the_reference_stepper(backend: str, path_sums: str, batch_size: int | None) -> None:
    """1e-12 after 1e4 steps, sign changes included."""
    gamma, beta, net, batches = runs_of_the_reference(batch_size)
    engine = make_engine(
        default_problem(), gamma, beta, runs=RUNS, net=net, batches=batches,
        backend=backend, path_sums=path_sums, tol=0.0,
    )  # fmt: skip
    for _ in range(10):
        engine.advance(1000)
    theta, changes = reference_end(batch_size)
    snapshot = engine.snapshot()
    assert int(snapshot.sign_changes[0]) > 0
    assert torch.equal(snapshot.sign_changes, changes)
    error = (snapshot.theta - theta).norm(dim=-1) / theta.norm(dim=-1)
    assert error.max() < 1e-12


@backends
def test_one_problem_for_each_run(backend: str) -> None:
    problems = [sparse(6, 9, 2, seed=seed) for seed in range(3)]
    engine = make_engine(stack(problems), runs=3, backend=backend, tol=0.0)
    engine.advance(500)
    for run, problem in enumerate(problems):
        theta, _ = oracle(problem, DiagonalLinearNet.uniform(9, 0.1), 0.01, 0.9, 500)
        # 500 steps that each round at 1e-16, in another order of summation
        torch.testing.assert_close(engine.snapshot().theta[run], theta, rtol=1e-11, atol=1e-14)


@backends
def test_labels_of_its_own_for_each_run(backend: str) -> None:
    shared, signs = default_problem(), torch.linspace(-1, 1, 19, dtype=torch.float64)[:, None]
    problem = Problem(X=shared.X, y=signs * shared.y)
    engine = make_engine(problem, runs=19, backend=backend, tol=0.0)
    engine.advance(200)
    theta, _ = oracle(problem, DiagonalLinearNet.uniform(30, 0.1, runs=(19,)), 0.01, 0.9, 200)
    torch.testing.assert_close(engine.snapshot().theta, theta, rtol=1e-11, atol=1e-14)


@backends
def test_label_noise_perturbs_the_targets(backend: str) -> None:
    """A step with noise is a step on a problem with other labels; the reference takes no noise."""
    problem, net = default_problem(), DiagonalLinearNet.gaussian(30, 0.3, seed=0, runs=(18,))
    noise = LabelNoise(20, 0.5, until=100, seeds=range(18))
    rate = torch.full((18,), 0.01, dtype=torch.float64)
    engine = Engine(
        problem, rate, 0 * rate, net.w_plus.detach(), net.w_minus.detach(),
        label_noise=noise, options=EngineOptions(backend=backend),
    )  # fmt: skip
    engine.advance(1)
    xi = noise.label_noise(0, 1)
    assert xi is not None
    residual = problem.residual(net.theta) - xi[0]
    gradient = residual @ problem.X / 20
    w_plus = (net.w_plus - 0.01 * gradient * net.w_plus).detach()
    torch.testing.assert_close(engine.snapshot().w[0], w_plus, rtol=1e-14, atol=1e-15)


@backends
def test_the_two_path_sums_agree(backend: str) -> None:
    """(docs/theory.md#telescoped-sum.)"""
    engine = make_engine(default_problem(), 0.05, backend=backend, path_sums="direct", tol=1e-20)
    run_to_end(engine)
    snapshot = engine.snapshot()
    assert snapshot.path_sums_from_iterates is not None
    difference = snapshot.path_sums_from_iterates - snapshot.path_sums_from_gradients
    assert engine.status_labels == ["converged"]
    assert difference.abs().max() < 1e-11


@backends
@path_sums
def test_layout_does_not_matter(
    backend: str, path_sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's numbers depend neither on tiles, nor on neighbours, nor on block lengths."""
    monkeypatch.setattr("dln_momentum.engine.backends.SHARED_FROM", 0)  # short blocks, too
    problem = default_problem()
    gamma, beta = column(0.01, 0.02, 0.005, 0.03, 0.01), column(0.9, 0.5, 0.95, 0.0, 0.6)
    keys = {"backend": backend, "path_sums": path_sums, "tol": 0.0}
    together = make_engine(problem, gamma, beta, runs=5, **keys)
    tiled = make_engine(problem, gamma, beta, runs=5, tile_runs=2, num_workers=2, **keys)
    together.advance(500)
    for steps in (1, 10, 239, 250):
        tiled.advance(steps)
    for run in range(5):
        alone = make_engine(problem, gamma[run : run + 1], beta[run : run + 1], **keys)
        alone.advance(500)
        one = alone.snapshot()
        for many in (together.snapshot(), tiled.snapshot()):
            torch.testing.assert_close(many.w[:, run], one.w[:, 0], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(
                many.path_sums[:, run], one.path_sums[:, 0], rtol=1e-10, atol=1e-12
            )


@backends
@path_sums
def test_blocks_of_one_layout_are_bitwise_repeatable(backend: str, path_sums: str) -> None:
    keys = {"backend": backend, "path_sums": path_sums, "tol": 0.0, "runs": 3}
    batches = BatchStream(20, 5, sampling="without_replacement", seeds=7)
    whole, pieces = (make_engine(default_problem(), batches=batches, **keys) for _ in range(2))
    whole.advance(300)
    for steps in (1, 99, 200):
        pieces.advance(steps)
    resumed = make_engine(default_problem(), batches=batches, **keys)
    resumed.load_state_dict(pieces.state_dict())
    for engine in (whole, pieces, resumed):
        engine.advance(50)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieces.state_dict()[name]), name
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@backends
def test_a_diverging_run_is_a_status_and_harms_no_neighbour(backend: str) -> None:
    gamma, beta = column(0.05, 5.0, 0.05), column(0.9, 0.9, 0.9)
    engine = make_engine(default_problem(), gamma, beta, runs=3, backend=backend, tol=1e-12)
    run_to_end(engine)
    assert engine.status_labels == ["converged", "diverged", "converged"]
    theta = engine.snapshot().theta
    torch.testing.assert_close(theta[0], theta[2], rtol=1e-13, atol=0)
    assert theta[0].isfinite().all()


@backends
@path_sums
def test_a_run_that_overflows_changes_no_bit_of_another(backend: str, path_sums: str) -> None:
    """A run that leaves float64 within ten steps, in one SIMD block with others and taken alone."""
    runs, wild = LANES + 1, [3, LANES]
    gamma = torch.full((runs,), 0.01, dtype=torch.float64)
    blown = gamma.clone()
    blown[wild] = 1e3
    calm, mixed = (
        make_engine(
            default_problem(), rate, runs=runs, backend=backend, path_sums=path_sums, tol=0.0
        )
        for rate in (gamma, blown)
    )
    for engine in (calm, mixed):
        engine.advance(300)
    assert not mixed.state.loss[wild].isfinite().any()
    assert mixed.state.steps[wild].tolist() == [10, 10]
    assert [label == "diverged" for label in mixed.status_labels] == [
        run in wild for run in range(runs)
    ]
    others = [run for run in range(runs) if run not in wild]
    assert torch.equal(mixed.state.w[:, others], calm.state.w[:, others])
    ended = mixed.state_dict()
    for engine in (calm, mixed):
        engine.advance(300)
    # a product of fewer runs may add up in another order
    torch.testing.assert_close(
        mixed.state.w[:, others], calm.state.w[:, others], rtol=1e-12, atol=1e-16
    )
    torch.testing.assert_close(
        mixed.state.w[:, wild], ended["w"][:, wild], rtol=0, atol=0, equal_nan=True
    )


def test_a_loss_that_overflows_is_diverged_however_large_it_was() -> None:
    loss = column(torch.inf, 1e302, torch.nan)
    ceiling = divergence_ceiling(column(1e300, 1e300, torch.inf), tol=1e-24, divergence_bound=1e10)
    found = judge(loss, ceiling, tol=1e-24)
    assert found.tolist() == [Status.DIVERGED, Status.RUNNING, Status.DIVERGED]


@pytest.mark.parametrize("runs", [1, LANES - 1, LANES, LANES + 1, 5 * LANES + 7])
@pytest.mark.parametrize("shape", [(1, 2), (2, 3)])
@backends
def test_any_number_of_tiny_networks(backend: str, shape: tuple[int, int], runs: int) -> None:
    """Less than a register of rows, of coordinates and of runs."""
    problem = sparse(*shape, 1, seed=0)
    gamma = torch.linspace(0.004, 0.02, runs, dtype=torch.float64)
    beta = torch.linspace(0, 0.95, runs, dtype=torch.float64)
    net = DiagonalLinearNet.gaussian(shape[1], 0.3, seed=0, runs=(runs,))
    engine = make_engine(problem, gamma, beta, runs=runs, net=net, backend=backend, tol=0.0)
    engine.advance(123)
    theta, changes = oracle(problem, net, gamma[:, None], beta[:, None], 123)
    snapshot = engine.snapshot()
    # 123 steps that each round at 1e-16
    torch.testing.assert_close(snapshot.theta, theta, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(snapshot.loss, problem.loss(theta), rtol=1e-9, atol=1e-20)
    assert torch.equal(snapshot.sign_changes, changes)


@backends
def test_finished_runs_keep_their_state(backend: str) -> None:
    gamma, beta = column(0.05, 0.0005), column(0.9, 0.9)
    engine = make_engine(default_problem(), gamma, beta, runs=2, backend=backend, tol=1e-12)
    while len(engine.running) == 2:
        engine.advance(1000)
    ended = engine.snapshot()
    engine.advance(1000)
    after = engine.snapshot()
    assert torch.equal(after.w[:, 0], ended.w[:, 0])
    assert int(after.steps[0]) == int(ended.steps[0]) < int(after.steps[1])
    engine.stop()
    assert engine.status_labels == ["converged", "max_steps"]


@pytest.mark.parametrize("problems", [1, 2])
def test_a_part_of_a_snapshot_is_the_snapshot_of_a_part(problems: int) -> None:
    data = Problems(
        [default_problem(seed) for seed in range(problems)], torch.arange(20) % problems
    )
    engine = make_engine(data, runs=20, path_sums="direct")
    assert len(engine.groups) == problems
    engine.advance(100)
    whole = engine.snapshot()
    for runs in (slice(1, 3), torch.tensor([4, 0])):
        part = engine.snapshot(runs)
        assert torch.equal(part.w, whole.w[:, runs])
        assert torch.equal(part.previous, whole.previous[:, runs])
        # logarithms of vectors of other lengths, which the library may round differently by an ulp
        torch.testing.assert_close(part.log_init, whole.log_init[runs], rtol=1e-14, atol=1e-15)
        # a product of other shape sums in another order
        torch.testing.assert_close(part.gradient_sum, whole.gradient_sum[runs])


@pytest.mark.parametrize("rates", [{"gamma": 0.0}, {"gamma": torch.nan}, {"beta": 1.0}])
def test_rates_out_of_range_are_refused(rates: dict) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(rates))} must be "):
        make_engine(default_problem(), **rates)


def test_shapes_that_do_not_fit_are_refused() -> None:
    problem, rate, w = default_problem(), column(0.1, 0.1), torch.ones(2, 30, dtype=torch.float64)
    for arguments, message in (
        ((problem, rate, rate[:1], w, w), r"beta is \[1\]; must be \[2\]"),
        ((problem, rate, rate, w[:, 1:], w), r"w_plus is \[2, 29\]"),
        ((problem, rate[:0], rate[:0], w[:0], w[:0]), r"gamma is \[0\]"),
        ((stack([problem] * 3), rate, rate, w, w), r"problem is a stack of \[3\]"),
    ):
        with pytest.raises(InputError, match=message):
            Engine(*arguments)


def test_a_tile_leaves_no_place_empty() -> None:
    backend = make_engine(default_problem()).backend
    for d in (2, 30, 100, 1000, 10_000):
        assert backend.tile_runs(d) % LANES == 0
        assert backend.tile_runs(d) >= 128


def test_auto_takes_compiled_code_on_a_cpu() -> None:
    backend = make_engine(default_problem()).backend
    why = f"fastest on a CPU; register block {registers.CHOICE}"
    assert (backend.name, backend.why) == ("numba", why)


def test_threads_of_torch_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dln_momentum.engine.backends.SHARED_FROM", 0)  # short blocks, too
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        make_engine(default_problem(), runs=4, tile_runs=1, num_workers=2).advance(1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_run_that_starts_at_an_interpolator_takes_no_step() -> None:
    problem = sparse(3, 5, 1, signal=[0.25], seed=0)
    theta = problem.theta_star
    assert theta is not None
    u, v = theta.abs().sqrt() + 0.1 * (theta == 0), theta.sign() * theta.abs().sqrt()
    net = DiagonalLinearNet(2 * u[None], v[None] / 2)
    engine = make_engine(problem, net=net)
    assert engine.status_labels == ["converged"]
    engine.advance(10)
    assert engine.step == 0


@pytest.mark.parametrize("other", [{"runs": 2}, {"path_sums": "direct"}])
def test_a_state_of_another_shape_is_refused(other: dict) -> None:
    saved = make_engine(default_problem(), **other).state_dict()
    with pytest.raises(ValueError, match="checkpoint holds"):
        make_engine(default_problem()).load_state_dict(saved)


def test_a_run_goes_on_with_another_backend() -> None:
    first = make_engine(default_problem(), backend="torch")
    first.advance(100)
    second = make_engine(default_problem(), backend="numba")
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.snapshot().w, first.snapshot().w)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backend": "fortran"}, "backend = 'fortran'"),
        ({"path_sums": "both"}, "path_sums = "),
        ({"tol": -1.0, "num_workers": 0}, "2 problems"),
    ],
)
def test_bad_options_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**keys)


def small_engine(problem: Problem, runs: int, **keys) -> Engine:
    rates = torch.full((runs,), 0.05, dtype=torch.float64)
    w = torch.full((runs, 2), 0.5, dtype=torch.float64)
    return Engine(problem, rates, 10 * rates, w, w, **keys)


def test_a_previous_iterate_of_another_shape_is_refused() -> None:
    problem = Problem(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0]))
    flat = torch.tensor([0.4, 0.3], dtype=torch.float64)
    with pytest.raises(InputError, match=r"previous\[0\] is \[2\]; must be \[2, 2\]"):
        small_engine(problem, 2, previous=(flat, flat))


def test_steps_and_blocks_have_a_least_length() -> None:
    engine = small_engine(Problem(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0])), 1)
    with pytest.raises(InputError, match="steps = -3 must be an integer >= 0"):
        engine.advance(-3)
    with pytest.raises(InputError, match="block_size = 0 must be an integer >= 1"):
        engine.run(10, block_size=0)


def test_a_network_s_parameters_may_be_given_as_they_are() -> None:
    net = DiagonalLinearNet.uniform(2, 0.5)
    rate = torch.tensor([0.05], dtype=torch.float64)
    problem = Problem(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0]))
    engine = Engine(problem, rate, rate, net.w_plus[None], net.w_minus[None])
    engine.advance(3)
    assert not engine.snapshot().w.requires_grad


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_one_matrix_for_all_and_labels_for_each(backend: str) -> None:
    """X [1, n, d] is one matrix for every run, as X [n, d] is."""
    y = torch.tensor([[1.0], [2.0], [3.0]])
    both = [
        small_engine(Problem(torch.tensor(X), y), 3, options=EngineOptions(backend=backend))
        for X in ([[1.0, 2.0]], [[[1.0, 2.0]]])
    ]
    for engine in both:
        engine.advance(50)
    assert torch.equal(*(engine.state.w for engine in both))
    assert torch.equal(*(engine.snapshot(torch.tensor([2])).theta for engine in both))


def test_an_increment_of_negative_beta_is_read_out() -> None:
    problem = Problem(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0]))
    rate, w = torch.tensor([0.05], dtype=torch.float64), torch.full((1, 2), 0.5).double()
    engine = Engine(problem, rate, -10 * rate, w, w)
    engine.advance(1)
    before = engine.snapshot().w
    engine.advance(1)
    # carried times beta = -1/2: a rounding or two
    torch.testing.assert_close(engine.snapshot().previous, before, rtol=1e-15, atol=0)


def test_without_a_tolerance_even_an_interpolator_goes_on() -> None:
    loss = torch.zeros(1, dtype=torch.float64)
    assert judge(loss, loss, -torch.inf).tolist() == [Status.RUNNING]
    assert judge(loss, loss, 0.0).tolist() == [Status.CONVERGED]


def test_short_blocks_have_one_thread_and_long_ones_as_many_as_there_are_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread takes longer to begin than a few steps do; the bits are those of one thread."""
    asked: list[int] = []

    def noted(function: Any, tiles: Any, workers: int) -> None:
        asked.append(workers)
        for_each(function, tiles, workers)

    keys = {"runs": 40, "tol": 0.0, "backend": "numba"}
    engine = make_engine(default_problem(), num_workers=2, **keys)
    alone = make_engine(default_problem(), num_workers=1, **keys)
    monkeypatch.setattr("dln_momentum.engine.engine.for_each", noted)
    n, d = engine.problem.n, engine.problem.d
    least = -(-SHARED_FROM // ((n + ROWS) * d * 40))
    for steps in (1, least - 1, least):
        engine.advance(steps)
    assert asked == [1, 1, 2]
    alone.advance(2 * least)
    assert torch.equal(engine.state.w, alone.state.w)
