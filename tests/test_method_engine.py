"""The engine's general kernels against runs written out, S by its definition, and faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dln_momentum import Engine, EngineOptions, InputError, Problem, sparse
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.engine.problems import Problems, select
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
from tests.family_reference import path_sums, written_run

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
    "depths": Method(depth=2.5 + 0.25 * EACH),
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
    runs: slice = slice(None),
    *,
    problem: Problem | Problems = PROBLEM,
    drawn: bool = False,
    moving: bool = False,
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
        method=method.of(runs) if method.runs else method,
    )  # fmt: skip


def written(method: Method, run: int, *, drawn: bool = False, moving: bool = False, **keys: Any):
    """The same run by `written_run`."""
    u, v = (w[run] for w in start(method))
    rates = method.schedule.rates(GAMMA, BETA, 1, STEPS)
    gamma, beta = ([float(x) for x in rate[:, run]] for rate in rates)

    def number(value: Any) -> float:
        return float(value[run] if isinstance(value, Tensor) else value)

    batches = BatchStream(PROBLEM.n, 2, "with_replacement", [run])
    noise = LabelNoise(PROBLEM.n, 0.05, until=50, seeds=[run])
    weights = batches.weights(0, STEPS)
    assert weights is not None
    return written_run(
        PROBLEM.X, PROBLEM.y, u, v, gamma, beta,
        nesterov=method.name == "nesterov",
        omega=number(method.weight_decay),
        decoupled=method.decoupled,
        until=method.decay_until or 10**9,
        tau=number(method.dampening),
        kappa=1.0 if method.kappa is None else method.kappa,
        ratio=number(method.layer_ratio),
        depth=number(method.depth),
        before=(0.98 * u, 1.01 * v) if moving else None,
        weights=weights[:, 0] if drawn else None,
        noise=noise.label_noise(0, STEPS)[:, 0] if drawn else None,
        **keys,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", METHODS)
def test_iterates_are_those_of_the_run_written_out(name: str, backend: str) -> None:
    """One block of lanes and a single run; batches, label noise and an initial speed."""
    method = METHODS[name]
    keys = {"drawn": True, "moving": name != "nesterov_momentum"}
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
