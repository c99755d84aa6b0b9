"""The update of the theory, written out in NumPy, independent of the engine.

    g_k = X^T (c_k * (X theta_k - y - xi_k))/|B|,
    w_{+-,k+1} = w_{+-,k} -+ gamma g_k w_{+-,k} + beta (w_{+-,k} - w_{+-,k-1}),

with c_k the counts of the rows in batch k and xi_k the label noise. No theorem depends on batches
and noise, since every g_k is in the row space: a fault there is found by a second program only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dln_momentum.rates import Momentum
from dln_momentum.verification.setting import Setting


@dataclass
class WrittenRun:
    """The first iterates of a setting, and what the theory sums over them.

    Attributes:
        w: w_{+-,k} for k = 0, 1, ... steps taken, [2, d] each.
        gradient_sum: sum of the g_k so far, [d] each.
        sums: S_+- by r(z) = z - 1 - ln|z|, [2, d] each.
        products: the sum of dw_+ dw_-, [d] each.
        boundary: beta/(1-beta) (1 - w_{k-1}/w_k), [2, d] each.
        loss: F(w_k).
        sign_changes: of all entries so far.
    """

    w: list[np.ndarray] = field(default_factory=list)
    gradient_sum: list[np.ndarray] = field(default_factory=list)
    sums: list[np.ndarray] = field(default_factory=list)
    products: list[np.ndarray] = field(default_factory=list)
    boundary: list[np.ndarray] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    sign_changes: list[int] = field(default_factory=list)


@np.errstate(all="ignore")  # a run that diverges overflows before it ends
def written_run(
    setting: Setting, momentum: Momentum, steps: int, displacement: np.ndarray | float = 0.0
) -> WrittenRun:
    """Take so many steps from w_0 (1 + displacement), or up to the first w that is not finite."""
    X, y = setting.problem.X.numpy(), setting.problem.y.numpy()
    n, beta = len(y), momentum.beta
    sign = np.array([[1.0], [-1.0]])
    w = setting.w.numpy() * (1 + displacement)
    before = w - momentum.eps * setting.dw.numpy()
    run = WrittenRun()
    zero = np.zeros_like(w)
    total, sums, products, changes = zero[0], zero, zero[0], 0
    for k in range(steps + 1):
        residual = X @ ((w[0] ** 2 - w[1] ** 2) / 4) - y
        run.w.append(w)
        run.gradient_sum.append(total)
        run.sums.append(sums)
        run.products.append(products)
        run.boundary.append(beta / (1 - beta) * (1 - before / w))
        run.loss.append(float(residual @ residual) / (2 * n))
        run.sign_changes.append(changes)
        gradient = X.T @ (row_weights(setting, k) * (residual - written_noise(setting, k)))
        after = w - momentum.gamma * sign * gradient * w + beta * (w - before)
        if k == steps or not np.isfinite(after).all():
            break
        ratio = after / w
        r = (ratio - 1) - np.log(np.abs(ratio))
        back = (1 / ratio - 1) - np.log(np.abs(1 / ratio))
        sums = sums + (r + beta * back) / (1 - beta)
        products = products + (after[0] - w[0]) * (after[1] - w[1])
        total, changes = total + gradient, changes + int((after * w < 0).sum())
        before, w = w, after
    return run


def first_zero(setting: Setting, momentum: Momentum, steps: int) -> int | None:
    """The first of so many steps at which an entry of w_+- is exactly zero, if there is one."""
    run = written_run(setting, momentum, steps)
    return next((k for k, w in enumerate(run.w) if (w == 0).any()), None)


def row_weights(setting: Setting, k: int) -> np.ndarray:
    """c_k/|B|, [n]: how often each row is in the batch of step k, over its size."""
    n = setting.problem.n
    if setting.batches is None or setting.batches.full_batch:
        return np.full(n, 1 / n)
    rows = setting.batches.indices(k, k + 1)[0, 0].numpy()
    return np.bincount(rows, minlength=n) / len(rows)


def written_noise(setting: Setting, k: int) -> np.ndarray | float:
    """xi_k, [n]: the amplitude with the signs that were drawn, up to the last noisy step."""
    noise = setting.label_noise
    if noise is None or k >= noise.until:
        return 0.0
    drawn = noise.label_noise(k, k + 1)
    return 0.0 if drawn is None else noise.amplitude * np.sign(drawn[0, 0].numpy())
