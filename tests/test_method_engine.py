"""The engine's general kernels against runs written out, S by its definition, and faults."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dln_momentum import Engine, EngineOptions, InputError, sparse
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine.family_snapshot import FamilySnapshot
from dln_momentum.engine.problems import Problems, select
from dln_momentum.engine.torch_family import FamilySteps
from dln_momentum.method import Method
from dln_momentum.schedules import (
    Acceleration,
    Arrays,
    Cosine,
    InverseSqrt,
    NesterovMomentum,
    StepDecay,
    Warmup,
)
from tests.family_reference import path_sums, weights_of, written_run

RUNS, STEPS = 9, 160
PROBLEM = sparse(5, 9, 2, seed=3)
GAMMA = torch.linspace(0.01, 0.03, RUNS, dtype=torch.float64)
BETA = torch.linspace(0.4, 0.92, RUNS, dtype=torch.float64)
EACH = torch.arange(RUNS, dtype=torch.float64)
KAPPA = torch.linspace(0.5, 1.5, PROBLEM.d, dtype=torch.float64)
METHODS: dict[str, Method] = {
    "warmup": Method(schedule=Warmup(20 + 5 * EACH)),
    "cosine": Method(schedule=Cosine(150, final=0.1)),
    "steps": Method(schedule=StepDecay(30 + EACH, 0.5)),
    "arrays": Method(
        schedule=Arrays(
            gamma=GAMMA * (0.5 + torch.rand(50, RUNS, dtype=torch.float64)),
            beta=0.9 * torch.rand(50, RUNS, dtype=torch.float64),
        )
    ),
    "accelerated": Method(schedule=Acceleration(1.5, 100)),
    "nesterov": Method("nesterov"),
    "nesterov_momentum": Method("nesterov", schedule=NesterovMomentum()),
    "nesterov_decay": Method("nesterov", InverseSqrt(50), weight_decay=0.1, decay_until=70),
    "decay": Method(weight_decay=0.02 * EACH, decay_until=100),
    "decoupled": Method(schedule=Warmup(30), weight_decay=0.05 * EACH, decoupled=True),
    "dampening": Method(dampening=0.05 * EACH, weight_decay=0.1),
    "kappa": Method(kappa=KAPPA, schedule=Cosine(200)),
    "layers": Method(layer_ratio=0.5 + 0.25 * EACH),
    "kappa_layers": Method("nesterov", kappa=KAPPA, layer_ratio=2.0),
    "depth_3": Method(depth=3, schedule=Warmup(40)),
    # u and v stay positive
    "depths": Method(depth=2.25 + 0.125 * EACH, schedule=Arrays(gamma=0.3 * GAMMA[None])),
}


def start(method: Method) -> tuple[Tensor, Tensor]:
    """u and v of all runs, [R, d]."""
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, RUNS, PROBLEM.d, generator=generator, dtype=torch.float64)
    if method.is_deep:
        return 0.5 + 0.1 * first, 0.5 + 0.1 * second
    return 0.4 + 0.2 * first, 0.1 * second


def engine_of(
    method: Method,
    runs: Any = slice(None),
    *,
    problem: Any = PROBLEM,
    drawn: Any = False,
    moving: Any = False,
    **options: Any,
) -> Engine:
    u, v = (w[runs] for w in start(method))
    seeds = torch.arange(RUNS)[runs].tolist()

    def pair(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (u, v) if method.is_deep else (u + v, u - v)

    return Engine(
        problem, GAMMA[runs], BETA[runs], *pair(u, v),
        previous=pair(0.98 * u, 1.01 * v) if moving else None,
        batches=BatchStream(PROBLEM.n, 2, "with_replacement", seeds) if drawn else None,
        label_noise=LabelNoise(PROBLEM.n, 0.05, until=50, seeds=seeds) if drawn else None,
        options=EngineOptions(**{"backend": "numba", "tol": 0.0, **options}),
        method=method.of(runs) if method.runs == (RUNS,) else method,
    )  # fmt: skip


def number(value: Any, run: int) -> float:
    """The number of a run."""
    return float(value[run] if isinstance(value, Tensor) else value)


def written(method: Method, run: int, *, drawn: bool = False, moving: bool = False, **keys: Any):
    """The same run by `written_run`."""
    u, v = (w[run] for w in start(method))
    rates = method.schedule.rates(GAMMA, BETA, 1, STEPS)
    gamma, beta = ([float(x) for x in rate[:, run]] for rate in rates)

    batches = BatchStream(PROBLEM.n, 2, "with_replacement", [run])
    noise = LabelNoise(PROBLEM.n, 0.05, until=50, seeds=[run]).label_noise(0, STEPS)
    weights = batches.weights(0, STEPS)
    assert weights is not None
    assert noise is not None
    return written_run(
        PROBLEM.X, keys.pop("y", PROBLEM.y), u, v, gamma, beta,
        nesterov=method.name == "nesterov",
        omega=number(method.weight_decay, run),
        decoupled=method.decoupled,
        until=method.decay_until or 10**9,
        tau=number(method.dampening, run),
        kappa=1.0 if method.kappa is None else method.kappa,
        ratio=number(method.layer_ratio, run),
        depth=number(method.depth, run),
        before=(0.98 * u, 1.01 * v) if moving else None,
        weights=weights[:, 0] if drawn else None,
        noise=noise[:, 0] if drawn else None,
        **keys,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", METHODS)
def test_iterates_are_those_of_the_run_written_out(name: str, backend: str) -> None:
    """One block of lanes and a single run; batches, label noise and an initial speed."""
    method = METHODS[name]
    keys: Any = {"drawn": True, "moving": name != "nesterov_momentum"}
    engine = engine_of(method, backend=backend, **keys)
    engine.advance(STEPS)
    snapshot = engine.snapshot()
    for run in (0, 3, 8):
        expected = written(method, run, **keys)
        u, v = engine.variables(slice(run, run + 1))[0]
        # 160 steps that each round at 1e-16; measured below 1e-14
        for found, layer in ((u, expected.u), (v, expected.v)):
            torch.testing.assert_close(found[0], layer[-1], rtol=1e-12, atol=1e-13)
        if not method.is_deep:
            loss = PROBLEM.loss(snapshot.theta[run])
            torch.testing.assert_close(snapshot.loss[run], loss, rtol=1e-11, atol=1e-20)


@pytest.mark.parametrize("name", [name for name in METHODS if "depth" not in name])
def test_path_sums_by_their_definition_from_iterates_and_from_gradients(name: str) -> None:
    """S at the horizon, the identity of Delta, and a certificate at rounding."""
    method = METHODS[name]
    engine = engine_of(method, drawn=True, moving=True)
    engine.advance(STEPS)
    s = engine.snapshot()
    assert type(s.certificate(PROBLEM)) is Tensor
    for run in (0, 8):
        expected = written(method, run, drawn=True, moving=True)
        ratio = number(method.layer_ratio, run) ** 0.25
        ends = torch.cat([expected.u, expected.v], 1)
        ahead = None
        factor = torch.ones(STEPS + 2, dtype=torch.float64)
        beta = expected.beta
        if method.name == "nesterov":
            ahead = [signed(z, ratio) for z in expected.ahead]
        if method.decoupled:
            # heavy ball on w_k/c_k
            omega = number(method.weight_decay, run)
            eta = [gamma * omega for gamma in expected.gamma]
            keep = torch.tensor([1.0, 1.0, *(1 - e for e in eta)], dtype=torch.float64)
            factor = keep.cumprod(0)
            beta = [b / (1 - e) for b, e in zip(beta, eta, strict=True)]
        w = torch.stack([signed(end, ratio) for end in ends]) / factor[:, None, None]
        sums = torch.stack(
            [
                path_sums(w[:, i], beta, None if ahead is None else [z[i] for z in ahead])
                for i in range(2)
            ]
        )
        # p_k, below 13, times a ratio a_k that an error of 1e-15 in w changes by 1e-15/|w|
        ratios = (w[1:] / w[:-1]).abs()
        largest = float(torch.maximum(ratios, 1 / ratios).max())
        allowed = 13e-15 * largest / float(w.abs().min())
        torch.testing.assert_close(s.exponents[:, run], sums, rtol=1e-12, atol=allowed)
    torch.testing.assert_close(s.exponents, s.path_sums_from_gradients, rtol=0, atol=1e-11)
    torch.testing.assert_close(s.predicted_balancedness, s.balancedness, rtol=1e-11, atol=0)
    # z is of order 1, and the sums that make it are accurate to 1e-13
    assert s.certificate(PROBLEM).max() < 1e-12


def signed(layers: Tensor, ratio: float) -> Tensor:
    """w_+- of (u, v), one after the other in the last axis."""
    u, v = layers.chunk(2, -1)
    return torch.stack([ratio * u + v / ratio, ratio * u - v / ratio])


@pytest.mark.parametrize("name", ["depth_3", "depths"])
def test_the_identity_at_any_depth(name: str) -> None:
    """S from the iterates by its definition, and what the gradients say of it.

    (docs/theory.md#depth.)
    """
    method = METHODS[name]
    engine = engine_of(method, drawn=True, moving=True)
    engine.advance(STEPS)
    s = engine.snapshot()
    for run in (0, 8):
        expected = written(method, run, drawn=True, moving=True)
        depth = number(method.depth, run)
        for i, w in enumerate((expected.u, expected.v)):
            sums = power_sums(w, expected.beta, depth)
            torch.testing.assert_close(s.exponents[i, run], sums, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(s.exponents, s.path_sums_from_gradients, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(s.predicted_balancedness, s.balancedness, rtol=1e-11, atol=0)
    assert s.certificate(PROBLEM).max() < 1e-11
    torch.testing.assert_close(PROBLEM.loss(s.theta), s.loss, rtol=1e-11, atol=0)


def power_sums(w: Tensor, beta: list[float], depth: float) -> Tensor:
    """S of u^D - v^D by its definition: R(a, b) = (b - a) phi'(a) - (phi(b) - phi(a))."""
    m, p = depth - 2, weights_of(beta)

    def remainder(a: Tensor, b: Tensor) -> Tensor:
        return (b - a) * a ** (-m - 1) + (b**-m - a**-m) / m

    total = -p[0] * beta[0] * (w[1] - w[0]) * w[1] ** (-m - 1)
    for k in range(1, len(w) - 1):
        a, b = w[k], w[k + 1]
        total = total + p[k - 1] * remainder(a, b) + (p[k - 1] - 1) * remainder(b, a)
    return total


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("method", ["warmup", "nesterov", "depth_3"])
@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_losses_of_labels(loss: str, method: str, backend: str) -> None:
    """The run written out, its loss at w itself, and the certificate, which knows no loss."""
    problem = PROBLEM.with_loss(loss)
    engine = engine_of(METHODS[method], problem=problem, backend=backend)
    engine.advance(STEPS)
    s = engine.snapshot()
    for run in (0, 8):
        expected = written(METHODS[method], run, y=problem.y, loss=loss)
        u, v = engine.variables(slice(run, run + 1))[0]
        for found, layer in ((u, expected.u), (v, expected.v)):
            torch.testing.assert_close(found[0], layer[-1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(problem.loss(s.theta), s.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(s.exponents, s.path_sums_from_gradients, rtol=1e-11, atol=1e-11)
    assert s.certificate(problem).max() < 1e-11


def test_a_loss_of_labels_changes_no_bit_between_layouts() -> None:
    keys: Any = {"problem": PROBLEM.with_loss("logistic"), "drawn": False}
    whole = engine_of(METHODS["arrays"], **keys)
    whole.advance(60)
    engine = engine_of(METHODS["arrays"], slice(3, 4), **keys)
    engine.advance(23)
    engine.advance(37)
    assert_same_bits(engine, whole, slice(3, 4))


KINDS = ["arrays", "nesterov_decay", "decoupled", "depths"]


def assert_same_bits(engine: Engine, whole: Engine, runs: slice = slice(None)) -> None:
    saved = whole.state_dict()
    for name, found in engine.state_dict().items():
        second = name in ("w", "p", "path_sums", "summed_until", "recent_sums")
        expected = saved[name][:, runs] if second else saved[name][runs]
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("name", KINDS)
def test_blocks_tiles_threads_and_neighbours_change_no_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dln_momentum.engine.backends.SHARED_FROM", 0)  # short blocks, too
    whole = engine_of(METHODS[name], drawn=True)
    whole.advance(97)
    layouts: tuple[tuple[slice, dict[str, Any]], ...] = (
        (slice(0, 1), {}),
        (slice(2, 9), {}),
        (slice(None), {"tile_runs": 2}),
        (slice(None), {"num_workers": 2}),
    )
    for runs, options in layouts:
        engine = engine_of(METHODS[name], runs, drawn=True, **options)
        for steps in (1, 33, 63):
            engine.advance(steps)
        assert_same_bits(engine, whole, runs)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", KINDS)
def test_a_saved_state_goes_on_with_the_same_bits(name: str, backend: str) -> None:
    whole = engine_of(METHODS[name], moving=True, backend=backend)
    whole.advance(35)
    again = engine_of(METHODS[name], moving=True, backend=backend)
    again.load_state_dict(whole.state_dict())
    for engine in (whole, again):
        engine.advance(42)
    assert_same_bits(again, whole)


def test_runs_end_at_their_check_and_can_be_reopened() -> None:
    """Each run ends where it would alone; a lower tolerance lets it go on as if it had not."""
    method = METHODS["nesterov_momentum"]
    engine, lower = (engine_of(method, tol=tol) for tol in (1e-6, 1e-9))
    engine.run(2000)
    lower.run(2000)
    s = engine.snapshot()
    assert engine.status_labels == ["converged"] * RUNS
    assert len(s.steps.unique()) > 1
    assert bool((s.steps % 10 == 0).all())
    torch.testing.assert_close(PROBLEM.loss(s.theta), s.loss, rtol=1e-9, atol=0)
    again = engine_of(method, tol=1e-9)
    again.load_state_dict(engine.state_dict())
    again.reopen()
    again.run(2000)
    assert_same_bits(again, lower)


def test_each_run_may_have_a_problem_of_its_own() -> None:
    problems = [PROBLEM, sparse(5, 9, 2, seed=4)]
    index = torch.arange(RUNS) % 2
    method = METHODS["kappa"]
    both = engine_of(method, problem=Problems(problems, index))
    both.advance(70)
    s = both.snapshot()
    alone = engine_of(method, problem=problems[1])
    alone.advance(70)
    odd = (index == 1).nonzero().squeeze(-1)
    torch.testing.assert_close(
        s.exponents[:, odd], alone.snapshot().exponents[:, odd], rtol=1e-12, atol=1e-12
    )
    found = both.measure(lambda s, problem: {"kkt": s.certificate(problem)})
    assert found["kkt"].max() < 1e-12
    part = select(s, odd)
    assert torch.equal(part.theta, s.theta[odd])
    assert isinstance(part, FamilySnapshot)
    assert torch.equal(torch.as_tensor(part.kappa), KAPPA)


def faults_seen(engine: Engine) -> float:
    """The larger of the KKT residual and the error of Delta, over all runs."""
    s = engine.snapshot()
    identity = (s.predicted_balancedness / s.balancedness - 1).abs().amax()
    return float(torch.maximum(s.certificate(PROBLEM).amax(), identity))


def step_with(change: str) -> Any:
    """A step of the torch kernel that moves otherwise than its rates say."""
    right = FamilySteps._heavy_ball

    def wrong(self: FamilySteps, pulls: Tensor, shrink: Tensor | None) -> tuple[Tensor, Tensor]:
        own = self._beta
        if change == "beta of the step after":
            self._beta = self._next_beta
        if change == "decay once too often" and int(self._step) == 50:
            pulls = pulls - self._decay
        found = right(self, pulls, shrink)
        self._beta = own
        return found

    return wrong


@pytest.mark.parametrize("change", ["none", "beta of the step after", "decay once too often"])
def test_the_certificate_catches_a_step_that_is_not_the_methods(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At rounding without a fault, and far above it with one."""
    monkeypatch.setattr(FamilySteps, "_heavy_ball", step_with(change))
    method = METHODS["decay" if "decay" in change else "arrays"]
    engine = engine_of(method, slice(1, RUNS), backend="torch")
    engine.advance(80)
    if change == "none":
        assert faults_seen(engine) < 1e-11
    else:
        assert faults_seen(engine) > 1e-6


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", ["arrays", "nesterov"])
def test_the_certificate_catches_a_step_left_out_and_weights_written_to(
    name: str, backend: str
) -> None:
    engine = engine_of(METHODS[name], backend=backend)
    engine.advance(40)
    saved = engine.state_dict()
    engine.advance(1)
    for key in ("path_sums", "recent_sums"):
        getattr(engine.state, key).copy_(saved[key])
    engine.advance(20)
    assert faults_seen(engine) > 1e-6
    engine = engine_of(METHODS[name], backend=backend)
    engine.advance(40)
    engine.state.w[0, :, 3] *= 1 + 1e-6
    engine.advance(20)
    assert faults_seen(engine) > 1e-9


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(1e-4, 0.03), min_size=1, max_size=30),
    st.lists(st.floats(0, 0.95), min_size=1, max_size=30),
    st.booleans(),
)
def test_any_rates_at_all_are_certified(
    gamma: list[float], beta: list[float], nesterov: bool
) -> None:
    method = Method("nesterov" if nesterov else "heavy_ball", Arrays(gamma, beta))
    engine = engine_of(method, slice(0, 1), drawn=True)
    engine.advance(60)
    assert faults_seen(engine) < 1e-11


def test_refusals() -> None:
    wrong: tuple[tuple[Method, Any, str], ...] = (
        (Method("nesterov"), {"path_sums": "direct"}, "path_sums = 'direct' must be 'telescoped'"),
        (Method(kappa=[1.0, 2.0]), {}, "method.kappa has 2 entries, must have d = 9"),
        (Method(schedule=Warmup(EACH[:4] + 1)), {}, "method has numbers for runs [4]"),
        (Method(schedule=Acceleration(9, 5)), {}, "schedule.rho = 9 must be in"),
    )
    for method, options, line in wrong:
        with pytest.raises(InputError) as error:
            engine_of(method, **options)
        assert line in str(error.value)


def test_nesterovs_certificate_loses_no_more_than_heavy_balls() -> None:
    """A rounding of x_{k+1} enters S once, not with the weight p_k = 100: 1e-10 otherwise."""
    one = torch.ones(1, dtype=torch.float64)
    u = torch.full((1, PROBLEM.d), 0.1, dtype=torch.float64)
    engine = Engine(
        PROBLEM, 0.002 * one, 0.99 * one, 1.5 * u, 0.9 * u,
        options=EngineOptions(backend="numba", tol=0.0),
        method=Method("nesterov", weight_decay=1e-4, decay_until=50),
    )  # fmt: skip
    engine.advance(20_000)
    # 20,000 roundings of one sign would be 4e-12
    assert faults_seen(engine) < 5e-12
