# ruff: noqa: E501
"""Hostile arguments of the public functions and classes, in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum
from dln_momentum.engine.problems import Problems
from dln_momentum.method import Method
from dln_momentum.problem import stack
from tests.hostile.frame import Case, refused, table

dln: Any = dln_momentum
"""Without its types, which the cases violate."""
NAN, INF = float("nan"), float("inf")
PROBLEM = dln.Problem([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]], [2.0, 1.0])
LABELS = dln.Problem([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]], [1.0, -1.0], loss="logistic")
THETA = [1.0, 2.0, 0.5]
NOT_NUMBERS = ("a", [], [[0.1], [1, 2]], 1j, {"a": 1}, object())
"""What no number and no array of numbers is."""
NOT_POSITIVE = (0, -1, NAN, INF)
NO_FLAGS = ("no", 1, NAN, [])


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """What libraries set up for themselves when they are first used is nobody's trace."""
    train()
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def each(
    name: str, call: Callable[[Any], object], values: Iterable[Any], key: str, allowed: str
) -> list[Case]:
    """A case for each value of one argument."""
    return [
        Case(f"{name}-{place}-{str(value)[:20]}", lambda value=value: call(value), key, allowed)
        for place, value in enumerate(values)
    ]


def train(**keys: Any) -> object:
    return dln.train(PROBLEM, **({"max_steps": 20} | keys))


def argument(function: Callable[..., object], key: str) -> Callable[[Any], object]:
    return lambda value: function(**{key: value})


PROBLEMS = [
    *each("X", lambda x: dln.Problem(x, [1.0]), ("x", None, *NOT_NUMBERS[2:]), "X = ", "number"),
    *each("y", lambda y: dln.Problem([[1.0, 2.0]], y), ("x", {}), "y = ", "number"),
    *each("noise", argument(lambda **k: PROBLEM.replace(**k), "noise"), (-1, "a", INF), "noise", ">="),
    *each("loss", argument(lambda **k: PROBLEM.replace(**k), "loss"), ("sqared", 3, [1]), "loss", "squared"),
    *each("notes", argument(lambda **k: PROBLEM.replace(**k), "notes"), (3, "ab", [1]), "notes", "texts"),
    *each("large", lambda x: dln.Problem([[x, x]], [1.0]), (1e200, 1e308, 1e-200, 1e-320), "X has", "1e-150"),
    *each("target", lambda x: dln.Problem([[1.0, 1.0]], [x]), (1e200, 1e-200), "y has", "1e-150"),
    Case("masked", lambda: dln.Problem(np.ma.masked_equal([[1.0, 2]], 2), [1]), "X", "none"),
    Case("complex", lambda: dln.Problem(torch.ones(1, 2) * 1j, [1.0]), "X", "number"),
    Case("meta", lambda: dln.Problem(torch.ones(1, 2, device="meta"), [1.0]), "X", "real numbers"),
    Case("one-axis", lambda: dln.Problem([1.0, 2.0], [1.0]), "X has shape (2,)", "[*runs, n, d]"),
    Case("no-row", lambda: dln.Problem(np.empty((0, 2)), []), "X has shape", "at least one"),
    Case("nan", lambda: dln.Problem([[NAN, 1.0]], [1.0]), "X", "finite"),
    Case("zeros", lambda: dln.Problem([[0.0, 0.0]], [1.0]), "X is zero", ""),
    Case("y-length", lambda: dln.Problem([[1.0, 1.0]], [0.0, 1.0]), "y has shape", "end in [1]"),
    Case("full-rank", lambda: dln.Problem(np.eye(2), [1.0, 1.0]), "X has rank d", "below d"),
    Case("outside", lambda: dln.Problem([[1, 1], [1, 1]], [1.0, 2.0]), "y is not", "range of X"),
    Case("labels", lambda: dln.Problem([[1.0, 1]], [2.0], loss="logistic"), "y:", "-1 nor +1"),
    Case("tests", lambda: PROBLEM.replace(X_test=[[1.0, 1, 1]]), "X_test", "together"),
    Case("star", lambda: PROBLEM.replace(theta_star=[1.0]), "theta_star", "end in [3]"),
    Case("device", lambda: PROBLEM.to("gpu"), "device = 'gpu'", "torch has"),
    Case("loss-at", lambda: PROBLEM.loss([1.0, 1.0]), "theta has shape [2]", "d = 3"),
    Case("loss-text", lambda: PROBLEM.loss("a"), "theta = 'a'", "number"),
    Case("stack", lambda: dln.problem.stack([PROBLEM, 3]), "int", "Problem"),
    Case("stack-nothing", lambda: stack([]), "no problem", "stack"),
    Case("several", lambda: Problems(PROBLEM, torch.tensor([0])), "each", "list"),
    Case("index-far", lambda: Problems([PROBLEM], torch.tensor([3])), "index", "[0, 1)"),
    Case("index-half", lambda: Problems([PROBLEM], torch.tensor([0.5])), "index", "whole"),
]  # fmt: skip

DATA = [
    *each("n", argument(dln.sparse, "n"), (0, -3, 2.0, "a", None, [3], 30), "n = ", "[1, d - 1]"),
    *each("d", argument(dln.sparse, "d"), (0, NAN, "a", 1.5), "d = ", "integer"),
    *each("s", argument(dln.sparse, "s"), (0, 31, "a"), "s = ", "[1, d]"),
    *each("n_test", argument(dln.sparse, "n_test"), (-1, 1.5), "n_test = ", "integer"),
    *each("design", argument(dln.sparse, "design"), ("gausian", ["a"], None), "design", "gaussian"),
    *each("mu", argument(dln.sparse, "mu"), (NAN, INF, 1e308, 1e200, "1"), "mu = ", "finite"),
    *each("rho", argument(dln.sparse, "rho"), (1.0, -1.5, NAN, "a"), "rho = ", "(-1, 1)"),
    *each("sign", argument(dln.sparse, "signal"), ("gausian", 3, None), "signal", "gaussian"),
    *each("signal", argument(dln.sparse, "signal"), ([1.0], [1, 0, 1], [1, "a", 1], [1e200] * 3),
          "signal = ", "nonzero"),
    *each("support", argument(dln.sparse, "support"), ("frist", [1], 3), "support", "random"),
    *each("unit", argument(dln.sparse, "unit_norm"), ("yes", 1, None), "unit_norm", "true"),
    *each("noise", argument(dln.sparse, "noise"), (-1, NAN, 1e308, "a"), "noise = ", "[0, 1e+150]"),
    *each("seed", argument(dln.sparse, "seed"), (-1, 0.5, 2**64, None, "a"), "seed = ", "2^64"),
    *each("diabetes", argument(dln.diabetes, "n"), (1, 65, "a", 2.0), "n = ", "[2, 64]"),
    *each("classes", argument(dln.digits, "classes"), ((0, 0), [[0], [1]], "01", 3, None, (0, 10)),
          "classes = ", "two different digits"),
]  # fmt: skip

STARTS = [
    *(
        case
        for function, key in (
            (dln.uniform, "alpha"), (dln.gaussian, "alpha"), (dln.power, "alpha"),
            (dln.biased, "scale"), (dln.biased, "phi"),
        )
        for name, bad, allowed in (
            ("not", (*NOT_POSITIVE, [0.1, 0]), "finite and > 0"),
            ("no", NOT_NUMBERS[2:], "number"),
        )
        for case in each(f"{function.__name__}-{key}-{name}", argument(function, key), bad,
                         f"{key} = ", allowed)
    ),
    *each("alpha-large", dln.uniform, (1e200, 1e308), "alpha = 1e", "finite"),
    *each("alpha-small", dln.uniform, (1e-200, 1e-320), "alpha = ", ">= 1e-290"),
    *each("gaussian-large", dln.gaussian, (1e200,), "alpha", "finite"),
    *each("phi-large", argument(dln.biased, "phi"), (1e300, 1e-300), "phi = 1e", "finite"),
    *each("depth", argument(dln.power, "depth"), (2, 1, NAN, INF), "depth = ", "> 2"),
    *each("depth-text", argument(dln.power, "depth"), ("x", None), "depth = ", "number"),
    Case("depth-huge", lambda: dln.power(0.1, 1e9), "depth = 1e+09", "1e-290"),
    *each("squares", argument(dln.biased, "parametrisation"), ("sqares", ["squares"], 3),
          "parametrisation", "product, squares"),
    Case("phi-one", lambda: dln.biased(0.1, 1.0), "phi = 1", "(C1)"),
    Case("balanced", lambda: dln.Start([1.0], [-1.0]), "Delta_0", "> 0"),
    Case("start-text", lambda: dln.Start("a", [1.0]), "u = 'a'", "number"),
    Case("start-nan", lambda: dln.Start([NAN], [1.0]), "u and v", "finite"),
    Case("start-large", lambda: dln.Start([1e200], [0.0]), "u and v", "finite"),
    Case("start-shapes", lambda: dln.Start([1, 2, 3], [0, 0]), "u [3], v [2]", "broadcast"),
    Case("start-d", lambda: dln.Start([1.0, 2], [0.5, 1]).layers(3), "start has 2", "d = 3"),
    *each("layers", lambda d: dln.gaussian(0.1).layers(d), (0, -1, 1.5, "a"), "d = ", ">= 1"),
    *each("net-d", lambda d: dln.DiagonalLinearNet.uniform(d, 0.1), (0, -2, 1.5), "d = ", ">= 1"),
    *each("net-alpha", lambda a: dln.DiagonalLinearNet.gaussian(3, a, 0), (0, -1, NAN), "alpha", ">"),
    *each("net-runs", lambda r: dln.DiagonalLinearNet.uniform(3, 0.1, r), ((0,), (-1,), 3), "runs", "tuple"),
    *each("net-depth", lambda D: dln.DiagonalLinearNet([1.0], [0.5], D), (1.0, NAN), "depth", "> 2"),
    Case("net-x", lambda: dln.DiagonalLinearNet.uniform(3, 0.1)(torch.ones(2, 5)), "x has", "d = 3"),
]  # fmt: skip

RATES = [
    *each("gamma", argument(train, "gamma"), (*NOT_POSITIVE, [0.1, NAN]), "gamma = ", "finite and > 0"),
    *each("gamma-not", argument(train, "gamma"), ("a", 1j, [[0.1], [1, 2]], object()), "gamma = ", "number"),
    *each("gamma-tiny", argument(train, "gamma"), (1e-200, 5e-324), "gamma = ", "1e-150"),
    *each("beta", argument(train, "beta"), (-1, 1, 1 - 1e-17, NAN, INF, 1e308), "beta = ", "[0, 1)"),
    *each("lam", lambda x: train(lam=x, eps=0.1), (*NOT_POSITIVE, "a"), "lam = ", ""),
    *each("lam-out", lambda x: train(lam=x, eps=0.1), (0.01, 1e-200, 1e308), "beta = ", "[0, 1)"),
    *each("eps", lambda x: train(lam=1, eps=x), (*NOT_POSITIVE, "a"), "eps = ", ""),
    *each("underflow", lambda x: train(lam=x, beta=0.999), (1e-320, 1e-300), "gamma = ", "1e-150"),
    *each("layers", lambda x: train(gamma_u=x, gamma_v=0.1), NOT_POSITIVE, "gamma_u = ", "> 0"),
    Case("layers-apart", lambda: train(gamma_u=1e300, gamma_v=1e-300), "gamma_v/gamma_u", "> 0"),
    Case("overflow", lambda: train(gamma=1e300, beta=1 - 1e-10), "lam = inf", "finite"),
    Case("one", lambda: train(eps=0.1), "eps given", "pairs"),
    Case("three", lambda: train(lam=1, eps=0.1, gamma=0.1), "gamma, lam, eps given", "pairs"),
    Case("shapes", lambda: train(gamma=[0.1, 0.2], beta=[0.1, 0.2, 0.3]), "gamma [2]", "broadcast"),
    *each("pair-gamma", lambda x: dln.Momentum(x, 0.5), (*NOT_POSITIVE, "a", None, 1j), "gamma", "must"),
    *each("pair-small", lambda x: dln.Momentum(x, 0.5), (1e-200, 5e-324), "gamma", ">= 1e-150"),
    Case("pair-overflow", lambda: dln.Momentum(1e300, 1 - 1e-10), "lam = inf", "finite"),
    Case("pair-zero", lambda: dln.Momentum.from_pair(lam=1e-310, beta=1 - 1e-15), "lam = ", "1e-150"),
    *each("rho", dln.Momentum(0.1, 0.5).accelerated, (3, "a", NAN, 0), "rho = ", ""),
]  # fmt: skip

TRAINING = [
    *each("max_steps", argument(train, "max_steps"), (0, -1, NAN, INF, "a", None, 1.5, [1]), "max_steps", "integer"),
    *each("records", argument(train, "records"), (1, -1, NAN, "a", None, 1.5), "records", "integer"),
    *each("tol", argument(train, "tol"), ("a", None, [], [1, 2], -1, NAN), "tol", ""),
    *each("margin", argument(train, "margin"), ("a", [], NAN, 4), "margin", ""),
    *each("gradient_tol", argument(train, "gradient_tol"), ("a", -1, 0, NAN, INF), "gradient_tol", ""),
    *each("bound", argument(train, "divergence_bound"), ("a", 1, -1, NAN), "divergence_bound", ""),
    *each("workers", argument(train, "num_workers"), (0, -1, 1.5, "a", []), "num_workers", "integer"),
    *each("seed", argument(train, "seed"), (-1, 1.5, "a", [], [0.5], None), "seed", "2^64"),
    *each("speed", argument(train, "speed"), ("a", NAN, INF, [1, 2], None), "speed", "number"),
    *each("batch_size", argument(train, "batch_size"), (0, 3, -1, "a", 1.5), "batch_size", "[1, 2]"),
    *each("noise", lambda x: train(label_noise=x, noise_until=5), ("a", [], -1, NAN, None), "label_noise", ""),
    *each("until", lambda x: train(label_noise=0.1, noise_until=x), ("a", -1, 1.5, None), "noise_until", "integer"),
    Case("until-0", lambda: train(label_noise=0.1), "noise_until = 0", ">= 1"),
    *each("sampling", argument(train, "sampling"), ("reshufle", 3, None, [1]), "sampling", "reshuffle"),
    *each("path_sums", argument(train, "path_sums"), ("both", 3, None), "path_sums", "telescoped"),
    *each("backend", argument(train, "backend"), ("fortran", 3, None), "backend", "numba"),
    *each("method", argument(train, "method"), ("nesterv", 3, None), "method", "heavy_ball"),
    *each("schedule", argument(train, "schedule"), ("cosine", 3, dln.schedules.Cosine), "schedule", "dln.schedules"),
    *each("decay", argument(train, "weight_decay"), ("a", -1, NAN, None), "weight_decay", ""),
    *each("dampening", argument(train, "dampening"), ("a", 1, -1, NAN, None), "dampening", ""),
    *each("decay_until", argument(train, "decay_until"), ("a", -1, 1.5, NAN), "decay_until", ""),
    *each("kappa", argument(train, "kappa"), ([1, 2], [1, 2, 0], [[1, 2, 3]], 1.0), "kappa", ""),
    *each("kappa-not", argument(train, "kappa"), ("a", 1j), "kappa", "number"),
    *(
        case
        for key in ("decoupled", "trajectories", "curvature", "progress")
        for case in each(key, argument(train, key), NO_FLAGS, f"{key} = ", "rue")
    ),
    *each("callbacks", argument(train, "callbacks"), (3, "ab", [1]), "callbacks", "function"),
    *each("problem", dln.train, (3, None, "x"), "problem", "Problem"),
    Case("no-problem", lambda: dln.train([]), "problem", "at least one"),
    Case("problem-shapes", lambda: dln.train([PROBLEM, dln.sparse(4, 6, 1)]), "(n, d)", "one shape"),
    *each("start", lambda s: dln.train(PROBLEM, s), ("x", dln.uniform, 3), "start", "Start"),
    Case("start-d", lambda: dln.train(PROBLEM, dln.Start([1.0, 2], [0.5, 1])), "start has 2", "d = 3"),
    Case("decay-large", lambda: train(weight_decay=1e3, decoupled=True), "weight_decay", "< 1"),
    Case("nesterov-decoupled", lambda: train(weight_decay=0.1, decoupled=True, method="nesterov"), "decoupled", "false"),
    Case("nesterov-direct", lambda: train(method="nesterov", path_sums="direct"), "path_sums", "telescoped"),
    Case("margin-squared", lambda: train(margin=1.0), "margin = 1", "null"),
]  # fmt: skip

THEORY = [
    *(
        case
        for name, call in (
            ("entropy", lambda x: dln.hyperbolic_entropy(THETA, x)),
            ("mirror", lambda x: dln.mirror_map(THETA, x)),
            ("inverse", lambda x: dln.inverse_mirror_map(THETA, x)),
            ("divergence", lambda x: dln.bregman_divergence(THETA, THETA, x)),
            ("minimiser", lambda x: dln.bregman_minimizer(PROBLEM, x)),
            ("kkt", lambda x: dln.kkt_residual(PROBLEM, THETA, x)),
        )
        for case in [
            *each(name, call, (0, -1, NAN, INF, 1e308, 5e-324), "balancedness", "must be"),
            *each(f"{name}-not", call, NOT_NUMBERS[2:4], "balancedness", "number"),
        ]
    ),
    *each("theta", lambda x: dln.kkt_residual(PROBLEM, x, 0.1), (NAN, INF, "a"), "theta", ""),
    *each("tol", lambda x: dln.bregman_minimizer(PROBLEM, 0.1, tol=x), ("a", 0, -1, None), "tol", ""),
    *each("iterations", lambda x: dln.bregman_minimizer(PROBLEM, 0.1, max_iterations=x), (0, "a", 1.5, INF), "max_iterations", ">= 1"),
    *each("no-problem", lambda x: dln.bregman_minimizer(x, 0.1), (None, 3), "problem", "Problem"),
    *each("bp", dln.basis_pursuit, (None, 3), "problem", "Problem"),
    *each("weights", lambda x: dln.least_norm(PROBLEM, x), (0, -1, NAN, "a"), "weights", ""),
    *each("scale", lambda x: dln.power_minimizer(PROBLEM, x), (0, -1, NAN, "a"), "scale", ""),
    *each("norm", lambda x: dln.max_margin(LABELS, x), ("l3", 3, None), "norm", "l1, l2"),
    Case("margins", lambda: dln.margins(PROBLEM, THETA), "squared", ""),
    Case("limit-deep", lambda: dln.gradient_flow_limit(PROBLEM, dln.power(0.1, 3)), "depth = 3", "2"),
    *each("rows", dln.RowSpace.of, ("a", None, [1]), "X is a", "tensor"),
    *each("summary", lambda x: dln.summarise(x, PROBLEM), (None, 3), "snapshot", "Snapshot"),
]  # fmt: skip

LAYERS = tuple(np.full((3, 3), a) + 0.01 * np.arange(3)[:, None] for a in (0.5, 0.1))


def certify(**keys: Any) -> object:
    return dln.certify(PROBLEM, LAYERS, **({"beta": 0.5} | keys))


def recorder(u: Any, v: Any = None, problem: Any = None, **keys: Any) -> object:
    other = torch.nn.Parameter(torch.full((3,), 0.3, dtype=torch.float64))
    v = other if v is None else v
    return dln.PathRecorder(torch.optim.SGD([W, other], lr=0.1), u, v, problem, **keys)


W = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))

RUNS = [
    *each("beta", argument(certify, "beta"), (1, -1, NAN, INF), "beta = ", "[0, 1)"),
    *each("beta-not", argument(certify, "beta"), ("a", None, [1, 2, 3], 1j), "beta", "number"),
    *each("gamma", argument(certify, "gamma"), NOT_POSITIVE, "gamma = ", "> 0"),
    *each("dampening", argument(certify, "dampening"), ("a", None, 1, NAN), "dampening", ""),
    *each("every", argument(certify, "every"), (0, "a", 1.5, NAN), "every", ">= 1"),
    *each("kappa", argument(certify, "kappa"), (0, -1, [1, 2]), "kappa", "> 0"),
    *each("previous", argument(certify, "previous"), ([], 3, [1, 2, 3], "ab"), "previous", "pair"),
    *(
        case
        for key in ("decoupled", "full_batch", "stores_ahead")
        for case in each(key, argument(certify, key), NO_FLAGS, f"{key} = ", "True or False")
    ),
    *each("method", argument(certify, "method"), ("adam", 3, None), "method", "heavy_ball"),
    *each("iterates", lambda x: dln.certify(PROBLEM, x, beta=0.5), (None, 3, (1,), "abc"), "iterates", "pair"),
    *each("problem", lambda x: dln.certify(x, LAYERS, beta=0.5), (3, None, [PROBLEM]), "problem", "Problem"),
    *each("u", recorder, ("a", [1.0], torch.ones(3, dtype=torch.int64)), "u is a", "floating"),
    Case("u-v", lambda: recorder(W, W), "u and v", "two parameters"),
    Case("recorder-problem", lambda: recorder(W, problem=3), "problem", "Problem"),
    Case("recorder-d", lambda: recorder(W, problem=dln.sparse(3, 9, 1)), "d = 9", "d = 3"),
    Case("recorder-form", lambda: recorder(W, parametrisation="x"), "parametrisation", "squares"),
    Case("adam", lambda: dln.PathRecorder(torch.optim.Adam([W]), W, W), "u and v", "two parameters"),
    *each("ball-gamma", lambda x: dln.HeavyBall([W], x), (*NOT_POSITIVE, "a", [0.1]), "gamma = ", "> 0"),
    *each("ball-beta", lambda x: dln.HeavyBall([W], 0.1, x), (1, -1, NAN, "a"), "beta = ", "[0, 1)"),
    *each("ball-params", lambda x: dln.HeavyBall(x, 0.1), (3, [], "ab", [1]), "params", ""),
    *each("ball-previous", lambda x: dln.HeavyBall([W], 0.1, previous=x), (3, "ab", [1]), "previous", "tensor"),
    Case("ball-none", lambda: dln.HeavyBall([W]), "gamma is missing", "gamma="),
    Case("ball-both", lambda: dln.HeavyBall([W], 0.1, lr=0.1), "gamma and lr", "give one"),
    Case("ball-key", lambda: dln.HeavyBall([{"params": [W], "weight_decay": 1}], 0.1), "weight_decay", "valid keys"),
    *each("ball-torch", dln.HeavyBall.from_torch, (3, None), "sgd", "torch.optim.SGD"),
]  # fmt: skip


def sweep(*given: Any, **keys: Any) -> object:
    return dln.sweep(*(given or (PROBLEM,)), **({"max_steps": 20} | keys))


def flow(**keys: Any) -> object:
    return dln.flow(PROBLEM, **({"time": 0.5} | keys))


MANY = [
    *each("problem", sweep, (3, None, "x"), "problem", "Problem"),
    *each("gamma", argument(sweep, "gamma"), (["a"], [[0.1, 0.2]], {"a": 1}, {0.1}), "gamma", ""),
    *each("range", argument(sweep, "gamma"), ([-1.0], [NAN], [0.0]), "gamma = ", "> 0"),
    *each("zip", lambda x: sweep(gamma=[0.1, 0.2], zip=x), (3, ["gama"], 1.5), "zip", ""),
    Case("empty", lambda: sweep(gamma=[]), "gamma", "one"),
    Case("twice", lambda: sweep(gamma=[0.1, 0.1]), "gamma", "once"),
    Case("zip-lengths", lambda: sweep(gamma=[0.1, 0.2], beta=[0.1], zip=["gamma", "beta"]), "zip", "as many"),
    Case("unknown", lambda: sweep(gama=[0.1]), "unknown key gama", "dln.train"),
    Case("maker", lambda: sweep(lambda n: dln.sparse(n, 9, 1)), "'n'", "arguments"),
    Case("schedule", lambda: sweep(schedule=dln.schedules.Cosine), "steps", "arguments"),
    Case("data_seed", lambda: sweep(data_seed=[1]), "data_seed", "function of the seed"),
    *each("seed", argument(sweep, "seed"), ([0.5], ["a"]), "seed", "integers"),
    *each("lam", argument(flow, "lam"), (-1, NAN, INF), "lam = ", ">= 0"),
    *each("lam-not", argument(flow, "lam"), ("a", None, 1j), "lam = ", "number"),
    *each("friction", argument(flow, "friction"), ("3/x", "a", -1, 0, NAN, []), "friction", "> 0"),
    Case("subnormal-friction", lambda: dln.flow(PROBLEM, friction=5e-324, time=3.0), "friction = 5e-324", ">= 1e-150"),
    *each("undamped", lambda f: dln.flow(PROBLEM, friction=f), (1e-100, 1e-10), "friction = ", "allowed is"),
    *each("time", argument(flow, "time"), ("a", [1, 2], None), "time", "number"),
    *each("time-range", argument(flow, "time"), (0, -1, NAN), "time", "> 0"),
    *each("times", lambda x: dln.flow(PROBLEM, times=x), ([2, 1], [1, NAN], [[1, 2]], [0]), "times", "increasing"),
    *each("speed", argument(flow, "speed"), ("a", [1, 2], None), "speed", "number"),
    *each("tol", argument(flow, "tol"), ("a", [1, 2]), "tol", "number"),
    *each("flow-problem", dln.flow, (3, None, "x"), "problem", "Problem"),
    Case("flow-loss", lambda: dln.flow(LABELS), "loss", "squared"),
    Case("flow-deep", lambda: dln.flow(PROBLEM, dln.power(0.1, 3)), "depth", "2"),
    *each("verify", dln.verify, (3, None), "problem", "Problem"),
    *each("verify-noise", lambda x: dln.verify(PROBLEM, label_noise=x), ("a", [], None), "label_noise", "number"),
    *each("verify-until", lambda x: dln.verify(PROBLEM, noise_until=x), ("a", -1, 1.5), "noise_until", "integer"),
    *each("collect", dln.collect, (3, None, [], b"x"), "directory", "path"),
    *each("nowhere", dln.collect, ("nowhere", "\0", "a" * 5000), "directory", "none"),
    *each("over", lambda x: dln.collect(".", over=x), (3, [1]), "over = ", "keys"),
    *each("quantiles", lambda x: dln.collect(".", over="seed", quantiles=x), ("a", 3, [None]), "quantiles = ", "[0, 1]"),
    *each("plot", dln.plot, (3, None), "kind=overview", "one run"),
    *each("plot-x", lambda x: dln.plot(".", x=x), (3, ["a"]), "x = ", "name of a column"),
    *each("name", Method, ("nesterv", 3, None, []), "method.name", "heavy_ball"),
    *each("layer_ratio", argument(Method, "layer_ratio"), (0, -1, NAN, None), "layer_ratio", ""),
    *each("cosine", argument(dln.schedules.Cosine, "steps"), (0, -1, NAN, INF, "a", None), "schedule.steps", ""),
    *each("make", dln.schedules.make_schedule, ("cosin", 3, ["cosine"]), "schedule = ", "cosine"),
]  # fmt: skip


@pytest.mark.parametrize("case", table(*PROBLEMS))
def test_problems(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(case, tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{name}-{case.id}")
        for name, cases in (
            ("data", DATA), ("start", STARTS), ("rates", RATES), ("train", TRAINING),
            ("theory", THEORY), ("run", RUNS), ("many", MANY),
        )
        for case in [each.values[0] for each in table(*cases)]
    ],
)  # fmt: skip
def test_functions(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(case, tmp_path)


@pytest.mark.parametrize(
    ("function", "keys"),
    [(dln.sparse, {"m": 3}), (PROBLEM.replace, {"XX": 1})],
)
def test_a_misspelt_keyword_is_a_type_error(function: Callable[..., object], keys: dict) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(keys))}'"):
        function(**keys)


def test_runs_that_diverged_have_no_value_beside_others_that_have_one() -> None:
    """One row of theta for each run; a residual of 0 would certify the infinite one."""
    for bad in (NAN, INF):
        found = dln.kkt_residual(PROBLEM, [[bad, *THETA[1:]], THETA], 0.1)
        assert np.isnan(found).tolist() == [True, False]
        # a batch of two is solved in another order than one
        alone = dln.kkt_residual(PROBLEM, THETA, 0.1)
        assert found[1] == pytest.approx(alone, rel=1e-12)
