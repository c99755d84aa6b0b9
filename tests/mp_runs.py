"""Straight-line runs of every method of the family in 50-digit arithmetic.

Arrays are NumPy arrays of mpmath numbers. Steps are counted from 1 as in docs/theory.md: step k
goes from w_k to w_{k+1}, and the arrays of a run hold w_0, w_1, ..., w_{K+1}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import torch
from mpmath import mp
from torch import Tensor

mp.dps = 50
STEPS = 24

Array = np.ndarray
TOLERANCE = mpmath.mpf("1e-38")
"""50 digits less those that products of some hundred steps and near zeros of w_+- may lose."""

log_abs: Callable[[Any], Any] = np.vectorize(lambda x: mpmath.log(abs(x)), otypes=[object])
exp: Callable[[Any], Any] = np.vectorize(mpmath.exp, otypes=[object])
asinh: Callable[[Any], Any] = np.vectorize(mpmath.asinh, otypes=[object])
sqrt: Callable[[Any], Any] = np.vectorize(mpmath.sqrt, otypes=[object])
_exact: Callable[[Any], Any] = np.vectorize(lambda x: mpmath.mpf(float(x)), otypes=[object])


def exact(values: Any) -> Array:
    """Doubles as mpmath numbers, without a rounding."""
    return np.asarray(_exact(np.asarray(values, dtype=float)))


def doubles(values: Any) -> Tensor:
    """mpmath numbers rounded to doubles, as a tensor."""
    return torch.from_numpy(np.asarray(values).astype(np.float64))


def r(z: Array) -> Array:
    """r(z) = (z - 1) - ln|z|, as it is written."""
    return (z - 1) - log_abs(z)


def largest(values: Any) -> Any:
    """The largest |entry|."""
    return max(abs(x) for x in np.asarray(values).flat)


def outside(X: Array, z: Array) -> Any:
    """The largest entry of z less its projection on the rows of X, over the largest of z."""
    gram = mpmath.matrix((X @ X.T).tolist())
    nu = mpmath.lu_solve(gram, mpmath.matrix((X @ z).tolist()))
    return largest(z - X.T @ np.array(list(nu), dtype=object)) / largest(z)


@dataclass
class Draw:
    """A random problem: rows, targets, a start with a speed, rates and batches of K steps."""

    X: Array
    y: Array
    u: Array
    """u_0 and u_1, [2, d]"""
    v: Array
    gamma: Array
    """[K]"""
    beta: Array
    """[K]"""
    rows: list[Array]
    """the rows in each batch"""

    def gradient(self, k: int, u: Array, v: Array) -> Array:
        """The gradient in theta of the loss of batch k at theta = u v."""
        X, y = self.X[self.rows[k]], self.y[self.rows[k]]
        return X.T @ (X @ (u * v) - y) / len(y)


def draw(
    seed: int,
    steps: int = STEPS,
    *,
    rest: bool = False,
    constant: bool = False,
) -> Draw:
    """Random mini-batches, rates that change each step, and an initial speed."""
    n, d = 2, 4
    rng = np.random.default_rng(seed)
    u, v = (rng.standard_normal((2, d)) * [[0.05], [1.0]] for _ in range(2))
    u[0], v[0] = u[1] + u[0] * (not rest), v[1] + v[0] * (not rest)
    X = rng.standard_normal((n, d))
    gamma = rng.uniform(0.1, 0.4, 1 if constant else steps)
    beta = rng.uniform(0.3, 0.95, 1 if constant else steps)
    return Draw(
        X=exact(X / np.linalg.norm(X, axis=1, keepdims=True)),
        y=exact(rng.standard_normal(n)),
        u=exact(u),
        v=exact(v),
        gamma=np.broadcast_to(exact(gamma), steps),
        beta=np.broadcast_to(exact(beta), steps),
        rows=[rng.choice(n, 1) for _ in range(steps)],
    )


@dataclass
class MpRun:
    """u and v at steps 0 to K+1, [K+2, d] each; g_k and the points they were taken at, [K, d]."""

    u: Array
    v: Array
    gradients: Array
    ahead_u: Array
    ahead_v: Array

    def w(self, scale: Array | Any = 1) -> Array:
        """(w_+, w_-) of the layers scale u and v/scale, [K+2, 2, d]."""
        u, v = self.u * scale, self.v / scale
        return np.stack([u + v, u - v], 1)


def run(
    case: Draw,
    *,
    nesterov: bool = False,
    decay: Array | None = None,
    shrink: Array | None = None,
    kappa: Array | Any = 1,
    ratio: Any = 1,
) -> MpRun:
    """Heavy ball or Nesterov on (u, v), one line a step.

    Args:
        case: the draw.
        nesterov: whether gradients are taken at the point ahead.
        decay: omega_k of coupled decay, added to the gradient as omega_k w.
        shrink: eta_k of decoupled decay; the increment that momentum keeps is m_k, without it.
        kappa: rates of the coordinates.
        ratio: rates of the layers, gamma_u = gamma/ratio and gamma_v = gamma ratio.
    """
    u, v = [case.u[0], case.u[1]], [case.v[0], case.v[1]]
    du, dv = u[1] - u[0], v[1] - v[0]
    gradients, ahead_u, ahead_v = [], [], []
    for k in range(len(case.gamma)):
        gamma, beta = case.gamma[k] * kappa, case.beta[k]
        omega, eta = 0 if decay is None else decay[k], 0 if shrink is None else shrink[k]
        at_u = u[-1] + beta * du if nesterov else u[-1]
        at_v = v[-1] + beta * dv if nesterov else v[-1]
        g = case.gradient(k, at_u, at_v)
        du = beta * du - gamma / ratio * (g * at_v + omega * at_u)
        dv = beta * dv - gamma * ratio * (g * at_u + omega * at_v)
        u.append((1 - eta) * u[-1] + du)
        v.append((1 - eta) * v[-1] + dv)
        gradients.append(g)
        ahead_u.append(at_u)
        ahead_v.append(at_v)
    return MpRun(*(np.array(x) for x in (u, v, gradients, ahead_u, ahead_v)))


def step_weights(beta: Array) -> list[Any]:
    """p_K = 1, p_k = 1 + beta_{k+1} p_{k+1}, backward from the horizon."""
    p = [mpmath.mpf(1)]
    for b in beta[:0:-1]:
        p.insert(0, 1 + b * p[0])
    return p


def path_sums(w: Array, beta: Array) -> Array:
    """S of 10.1 as it is written, [2, d], of w_0, ..., w_{K+1}, [K+2, 2, d]."""
    p, total = step_weights(beta), -p_1_beta_1(beta) * (1 - w[0] / w[1])
    for k in range(len(beta)):
        a = w[k + 2] / w[k + 1]
        total = total + p[k] * r(a) + (p[k] - 1) * r(1 / a)
    return total


def p_1_beta_1(beta: Array) -> Any:
    """The weight of the initial speed."""
    return step_weights(beta)[0] * beta[0]


def nesterov_sums(x: Array, z: Array, beta: Array) -> Array:
    """S of 10.2 as it is written; z_k is where gradient k is taken, [K, 2, d]."""
    p, total = step_weights(beta), -p_1_beta_1(beta) * (1 - x[0] / x[1])
    for k in range(len(beta)):
        now, after = x[k + 1], x[k + 2]
        total = total + p[k] * (r(after / z[k]) + r(z[k] / now)) + (p[k] - 1) * r(now / after)
    return total


def sign_changes(w: Array) -> int:
    """Sign changes along the first axis, of all entries."""
    return int(sum((a * b < 0).sum() for a, b in pairwise(w)))
