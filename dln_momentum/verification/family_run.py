"""Runs of the other members of the family on a setting's problem, written out step by step.

    w_{k+1} = (1 - eta_k) w_k + m_k,
    m_k     = beta_k m_{k-1} - gamma_k kappa (grad F_k(b_k) + omega_k b_k),

with b_k = w_k of heavy ball and b_k = w_k + beta_k m_{k-1} of Nesterov's method; u steps by
gamma_k/ratio and v by gamma_k ratio. Batches, label noise, start and speed are the setting's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.flows.trajectory import times_in_range
from dln_momentum.row_space import RowSpace
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, kkt_residual, log_init
from dln_momentum.theory.family import step_terms
from dln_momentum.theory.schedules import weighted_sums
from dln_momentum.theory.trajectory import balancedness_of, theta_of
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP
from dln_momentum.verification.statement import UNRESOLVED, Hypothesis, Statement, Times, equal
from dln_momentum.verification.written_update import row_weights, written_noise

STEPS, WORK = 200, 3e7
"""Steps of such a run, and n d times the steps at most."""
TIMES = 8


@dataclass(frozen=True)
class Rates:
    """gamma_k, beta_k and what else changes from step to step, K numbers each."""

    gamma: list[float]
    beta: list[float]
    omega: list[float]
    eta: list[float]

    @classmethod
    def of(cls, m: Measurements, omega: Sequence[float] = (), eta: Sequence[float] = ()) -> Rates:
        """Of the setting's gamma and beta: gamma_k falls as 1/sqrt(k), beta_k rises, one restart.

        The momentum is that of (k-1)/(k+2), at most the setting's, and 0 at half the steps.
        """
        steps, rule = step_count(m), m.momentum
        beta = [min(rule.beta, (k - 1) / (k + 2)) for k in range(1, steps + 1)]
        beta[steps // 2] = 0.0
        return cls(
            gamma=[rule.gamma / math.sqrt(1 + k / 50) for k in range(steps)],
            beta=beta,
            omega=list(omega) or [0.0] * steps,
            eta=list(eta) or [0.0] * steps,
        )


@dataclass(frozen=True)
class FamilyRun:
    """What such a run went through, up to the first step that float64 does not hold.

    Attributes:
        before, start: u and v at w_0 and w_1, [2, d] each.
        layers: u and v at w_1, w_2, ..., [2, K+1, d].
        rates: of its steps, [K] each.
        part: why it ends before its last step, if it does.
    """

    before: Tensor
    layers: Tensor
    gamma: Tensor
    beta: Tensor
    omega: Tensor
    eta: Tensor
    part: str


def step_count(m: Measurements) -> int:
    """Steps of a run: fewer of large data."""
    size = m.problem.n * m.problem.d
    return max(20, min(STEPS, int(WORK / size)))


def family_run(
    m: Measurements,
    rates: Rates,
    *,
    nesterov: bool = False,
    kappa: Tensor | float = 1.0,
    ratio: float = 1.0,
) -> FamilyRun:
    """Take the steps."""
    setting, problem = m.setting, m.problem
    X, y = problem.X, problem.y
    w, dw = setting.w, m.momentum.eps * setting.dw
    now = torch.stack([w[0] + w[1], w[0] - w[1]]) / 2
    last = torch.stack([dw[0] + dw[1], dw[0] - dw[1]]) / 2
    first, layers = now - last, [now]
    steps = torch.tensor([[1 / ratio], [ratio]], dtype=torch.float64) * kappa
    for k, (gamma, beta) in enumerate(zip(rates.gamma, rates.beta, strict=True)):
        at = now + beta * last if nesterov else now
        noise = torch.as_tensor(written_noise(setting, k))
        residual = torch.from_numpy(row_weights(setting, k)) * (X @ (at[0] * at[1]) - y - noise)
        gradient = (X.T @ residual) * at.flip(0) + rates.omega[k] * at
        last = beta * last - gamma * steps * gradient
        now = (1 - rates.eta[k]) * now + last
        layers.append(now)
    found = torch.stack(layers, 1)
    kept = times_in_range(diagonal(found))
    part = (
        "" if kept == len(layers) else f"for k < {kept}: w_+- or Delta then leaves float64's range"
    )
    gamma_k, beta_k, omega_k, eta_k = (
        torch.tensor(x[: max(kept - 1, 0)], dtype=torch.float64)
        for x in (rates.gamma, rates.beta, rates.omega, rates.eta)
    )
    return FamilyRun(first, found[:, :kept], gamma_k, beta_k, omega_k, eta_k, part)


def diagonal(layers: Tensor) -> Tensor:
    """(w_+, w_-) of the layers (u, v), [2, ..., d]."""
    return torch.stack([layers[0] + layers[1], layers[0] - layers[1]])


def theorem(
    name: str,
    run: FamilyRun,
    rows: RowSpace,
    w: Tensor,
    w_before: Tensor,
    sums: Tensor,
    beta: Tensor,
    log_factor: Tensor | None = None,
    decay: Tensor | float = 0.0,
    *,
    nesterov: bool = False,
) -> list[Statement]:
    """That Delta and c follow from S_+-, and that theta is the minimiser, at every horizon.

    Args:
        name: of the member.
        run: what is judged.
        rows: span(x_1..x_n), or what it is in the variables of w.
        w: (w_+, w_-) of the theorem at w_1, w_2, ..., [2, K+1, d].
        w_before: at w_0, [2, d].
        sums: S_+- after steps 1..K, [K, 2, d].
        beta: beta_k of the theorem, [K].
        log_factor: logarithm of the factor of weight decay in Delta, [K, ...].
        decay: gamma_k omega_k, [K, ...] (for the rounding alone).
        nesterov: whether it is Nesterov's method.
    """
    part, kept = run.part, max(times_in_range(w) - 1, 0)
    if kept < len(sums):
        # weighted or rescaled, w_+- may leave the range before u + v and u - v do
        part = f"for k <= {kept}: w_+- or Delta of the theorem then leaves float64's range"
        w, sums, beta = w[:, : kept + 1], sums[:kept], beta[:kept]
        decay = decay[:kept] if isinstance(decay, Tensor) else decay
    moved = Hypothesis(
        "the run has finite steps that float64 resolves", len(sums) > 0, part or f"{len(sums)}"
    )
    if len(sums) == 0:
        return [equal(f"{name}: Delta from S_+-", 6, [moved], tolerance=0.0)]
    path = w.movedim(1, 0)
    earlier = torch.cat([w_before[None], path[:-2]])
    terms = step_terms(earlier, path[:-1], path[1:], beta[:, None, None], decay, nesterov=nesterov)
    spread = weighted_sums(terms.weighted_rounding, beta) + terms.rounding.cumsum(0)
    spread = (spread + 8 * ULP * sums.abs()).sum(1)
    at = (
        torch.logspace(0, math.log10(len(sums)), TIMES, dtype=torch.float64).round().long().unique()
    )
    end, spread = at - 1, spread[at - 1] + 8 * ULP
    s_plus, s_minus = sums[end, 0], sums[end, 1]
    delta = asymptotic_balancedness(balancedness_of(w[:, 0]), s_plus, s_minus)
    if log_factor is not None:
        delta = delta * torch.exp(log_factor[end])
    measured = balancedness_of(w[:, at])
    c = log_init(w[0, 0], w[1, 0], s_plus, s_minus)
    theta = theta_of(w[:, at])
    z = torch.asinh(2 * theta / measured) - c
    # where Delta leaves float64 a fault shows in its logarithm, and the residual is not defined
    residual = torch.full((len(at),), torch.nan, dtype=w.dtype)
    usable = ((delta > 0) & delta.isfinite()).all(-1)
    if bool(usable.any()):
        residual[usable] = kkt_residual(rows, theta[usable], delta[usable], c[usable])
    norm = torch.linalg.vector_norm(spread, dim=-1) / torch.linalg.vector_norm(z, dim=-1)
    norm[spread.amax(-1) > UNRESOLVED] = torch.inf
    times = Times("k", at.double(), part)
    return [
        equal(
            f"{name}: Delta_(k+1) = |w_(+,1) w_(-,1)| exp(-(S_+ + S_-))"
            + (" times the decay's factor" if log_factor is not None else ""),
            6,
            [moved],
            predicted=delta[-1].sum(),
            measured=measured[-1].sum(),
            # of the ratio: logarithms of a Delta of 1e-60 have themselves a rounding of 3e-14
            error=(delta / measured).log().abs().amax(-1),
            tolerance=spread.amax(-1),
            times=times,
        ),
        equal(
            f"{name}: theta_(k+1) is the minimiser on its level set (KKT residual)",
            6,
            [moved],
            predicted=0.0,
            measured=residual.max(),
            error=residual,
            # theta near the start: z is the rounding of its terms
            tolerance=norm + 64 * ULP,
            times=times,
        ),
    ]
