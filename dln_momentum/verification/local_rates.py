"""How fast the discrete run converges at its end, from the Hessian at its limit.

(docs/theory.md#local-rates; not on the poster.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.theory.local_rates import curvatures_at_minimum, predicted_contraction
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import full_batch
from dln_momentum.verification.statement import Hypothesis, Statement, equal

WINDOW = (1e-26, 1e-18)
"""Losses, relative to the first, between which the contraction is measured: the linear regime, far
from the rounding of the loss at 1e-31."""
FEWEST = 40
"""Steps in the window: a mode that oscillates has then passed its zeros many times."""
LONGEST = 300_000
"""Steps of a run that are taken a second time, and twice as many, in a second or less."""
SETTLED = 0.02
"""Relative difference of the rates of both halves of the window above which another mode is still
in the loss."""
TOLERANCE = 0.02
MOST_UNKNOWNS = 1000
"""Entries of (u, v) up to which the Hessian is written out: at d = 5000 it took 45 of 62 s, and 1.3
of 2.4 GiB, of all statements."""


def contraction(m: Measurements) -> Statement:
    """ln of the contraction of ||.|| a step: half the slope of ln loss, and that of the Hessian."""
    name = "MGD: contraction a step at the end = spectral radius of the Hessian's modes (ln)"
    full = full_batch(m)
    taken = m.snapshots[-1].step
    short = not m.run_diverged and taken <= LONGEST
    found = "it diverged" if m.run_diverged else f"{taken} steps"
    ended = Hypothesis(f"the run ended within {LONGEST} steps", short, found)
    if not (full.met and ended.met):
        return Statement(name, 6, (full, ended))
    steps, losses, w = m.last_losses
    inside = (losses >= WINDOW[0] * m.setting.loss) & (losses <= WINDOW[1] * m.setting.loss)
    count = int(steps[inside][-1] - steps[inside][0]) if int(inside.sum()) > 8 else 0
    reached = bool((losses <= WINDOW[0] * m.setting.loss).any())
    found = f"{count} steps with a loss of {WINDOW[0]:g} to {WINDOW[1]:g} of the first"
    enough = Hypothesis("the linear regime is long enough", reached and count >= FEWEST, found)
    if not enough.met:
        return Statement(name, 6, (full, ended, enough))
    k, logs = steps[inside], losses[inside].log() / 2
    rate = _slope(k, logs)
    half = len(k) // 2
    change = abs(_slope(k[:half], logs[:half]) / _slope(k[half:], logs[half:]) - 1)
    settled = Hypothesis(
        "the rate has settled", change <= SETTLED, f"its halves differ by {change:.1%}"
    )
    momentum = m.momentum
    predicted = math.log(predicted_contraction(m.problem, w, momentum.gamma, momentum.beta))
    return equal(
        name,
        6,
        (full, ended, enough, settled),
        predicted=predicted,
        measured=rate,
        error=abs(rate / predicted - 1),
        # what both halves still differ by, the second mode, is in the whole as well
        tolerance=TOLERANCE + 2 * change,
    )


def interpolating_hessian(m: Measurements) -> Statement:
    """The non-zero eigenvalues at the limit are those of the Hessian as written, in (u, v)."""
    name = "Hessian of F at theta_inf: non-zero eigenvalues of X diag(u^2 + v^2) X^T/n"
    path = m.momentum_path
    w, problem = path.w[:, -1], m.problem
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    half = torch.cat([problem.X * v, problem.X * u], 1)
    if half.shape[1] <= MOST_UNKNOWNS:
        written = torch.linalg.eigvalsh(half.T @ half / problem.n)
    else:  # of a matrix that would fill the memory, those that are not 0
        written = (torch.linalg.svdvals(half).square() / problem.n).flip(0)
    found = curvatures_at_minimum(problem, w)
    top = written[len(written) - len(found) :]
    converged = Hypothesis("the momentum flow converged", path.converged, path.status.value)
    return equal(
        name,
        6,
        [converged],
        predicted=top.sum(),
        measured=found.sum(),
        error=(top - found).abs().max() / top.max(),
        tolerance=1e-12 * problem.n,
    )


def _slope(k: Tensor, values: Tensor) -> float:
    x = k.double() - k.double().mean()
    return float((x * values).sum() / x.square().sum())
