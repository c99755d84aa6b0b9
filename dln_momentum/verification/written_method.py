"""The update of any member of the family, written out in NumPy, independent of the engine.

The layers step as the optimizer has them (docs/theory.md#one-theorem): no change of variables, no
rescaling, no forward form. With b_k = w_k, or w_k + beta_k m_{k-1} of Nesterov's method,

    m_k     = beta_k m_{k-1} - s_k (kappa grad F_k(b_k) + omega_k b_k),
    w_{k+1} = (1 - eta_k) w_k + m_k,

for w = u with s_k = gamma_k/sqrt(ratio) and w = v with s_k = gamma_k sqrt(ratio). The certificates
of the family hold for any gamma_k and any batch: a fault there is found by a second program only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from dln_momentum.rates import Momentum
from dln_momentum.schedules import Schedule
from dln_momentum.verification.setting import Setting
from dln_momentum.verification.written_update import row_weights, written_noise


@dataclass
class WrittenMethod:
    """The first iterates of a setting by its own method.

    Attributes:
        layers: (u, v) at w_0, w_1, ..., [2, d] each; the first is before the start.
        ahead: b_1, b_2, ..., [2, d] each.
        beta, eta, decay: beta_k, eta_k and gamma_k omega_k of steps 1, 2, ...
        loss: F(w_1), F(w_2), ...
        gradients: gamma_k kappa g_k, [d] each.
    """

    layers: list[np.ndarray] = field(default_factory=list)
    ahead: list[np.ndarray] = field(default_factory=list)
    beta: list[float] = field(default_factory=list)
    eta: list[float] = field(default_factory=list)
    decay: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradients: list[np.ndarray] = field(default_factory=list)

    def weights(self, steps: int) -> list[float]:
        """p_1, ..., p_K of so many steps, backward, with the momentum of rescaled iterates."""
        p = [1.0]
        for k in range(steps - 1, 0, -1):
            p.append(1 + self.beta[k] / (1 - self.eta[k]) * p[-1])
        return p[::-1]


@np.errstate(all="ignore")
def written_method(
    setting: Setting, momentum: Momentum, steps: int, displacement: np.ndarray | float = 0.0
) -> WrittenMethod:
    """Take so many steps from w_1 (1 + displacement), or up to the first that is not finite."""
    method, X, y = setting.method, setting.problem.X.numpy(), setting.problem.y.numpy()
    omega, tau, ratio, depth = (
        _first(x) for x in (method.weight_decay, method.dampening, method.layer_ratio, method.depth)
    )
    kappa = 1.0 if method.kappa is None else method.kappa.numpy()
    w = setting.w.numpy() * (1 + displacement)
    before = w - momentum.eps * setting.dw.numpy()
    if not method.is_deep:
        w, before = (np.stack([a[0] + a[1], a[0] - a[1]]) / 2 for a in (w, before))
    run, m = WrittenMethod(layers=[before]), w - before
    layer = np.array([[ratio**-0.5], [ratio**0.5]])
    for k in range(1, steps + 2):
        run.layers.append(w)
        run.loss.append(_loss(setting.problem.loss_name, X @ _theta(w, depth), y))
        gamma, beta = written_rates(method.schedule, momentum.gamma, momentum.beta, k)
        decays = method.decay_until is None or k <= method.decay_until
        damped = 1.0 if k == 1 else 1 - tau
        coupled = omega if decays and not method.decoupled else 0.0
        eta = gamma * omega if decays and method.decoupled else 0.0
        b = w + beta * m if method.name == "nesterov" else w
        prediction = X @ _theta(b, depth)
        slope = _slope(setting.problem.loss_name, prediction, y + written_noise(setting, k - 1))
        g = kappa * (X.T @ (row_weights(setting, k - 1) * slope))
        pull = g * b[::-1] if depth == 2 else g * depth * b ** (depth - 1) * [[1.0], [-1.0]]
        m = beta * m - damped * gamma * layer * (pull + coupled * b)
        after = (1 - eta) * w + m
        if k > steps or not np.isfinite(after).all():
            break
        run.ahead.append(b)
        run.beta.append(beta)
        run.eta.append(eta)
        run.decay.append(damped * gamma * coupled)
        run.gradients.append(damped * gamma / (1 - eta) * g)
        w = after
    return run


def written_rates(schedule: Schedule, gamma: float, beta: float, k: int) -> tuple[float, float]:
    """gamma_k and beta_k of one run, from the definitions of the schedules.

    >>> from dln_momentum.schedules import Warmup
    >>> written_rates(Warmup(steps=4), 0.1, 0.9, k=2)
    (0.05, 0.9)
    """
    names = set(schedule.numbers) - {"gamma", "beta"}
    own = {key: _first(getattr(schedule, key)) for key in names}
    steps, t = own.get("steps", 1.0), float(k - 1)
    part = min(1.0, t / steps)
    eps = gamma / (1 - beta)
    match schedule.name:
        case "constant":
            return gamma, beta
        case "warmup":
            return gamma * min(1.0, k / steps), beta
        case "cosine":
            final = own["final"]
            return gamma * (final + (1 - final) * (1 + math.cos(math.pi * part)) / 2), beta
        case "step_decay":
            return gamma * own["factor"] ** math.floor(t / own["every"]), beta
        case "inverse_sqrt":
            return gamma / math.sqrt(1 + t / own["offset"]), beta
        case "nesterov_momentum":
            return gamma, t / (t + own["offset"])
        case "acceleration":
            rho = own["rho"] ** part
            return rho * rho * gamma, max(0.0, 1 - rho * (1 - beta))
        case "annealed_lambda":
            start = own["lam_start"]
            start = gamma / (1 - beta) ** 2 if start is None else start
            lam = start * (own["lam_end"] / start) ** part
            return eps * eps / lam, max(0.0, 1 - eps / lam)
        case "arrays":
            return _entry(schedule, "gamma", k, gamma), _entry(schedule, "beta", k, beta)
    raise ValueError(f"no written form of the schedule {schedule.name}")


def written_sums(run: WrittenMethod, steps: int, ratio: float, depth: float) -> np.ndarray:
    """S_+- after so many steps by its definition, with the weights p_k, [2, d]."""
    p, m = run.weights(steps), depth - 2
    keep = np.concatenate([[1.0, 1.0], np.cumprod(1 - np.array(run.eta[:steps]))])

    def variables(w: np.ndarray, k: int) -> np.ndarray:
        if depth != 2:
            return w
        a, b = ratio**0.25 * w[0], w[1] / ratio**0.25
        return np.stack([a + b, a - b]) / keep[k]

    def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """r(b/a), or R(a, b) of phi(w) = -w^(-m)/m."""
        if depth != 2:
            return (b - a) * a ** (-m - 1) + (b**-m - a**-m) / m
        return (b / a - 1) - np.log(np.abs(b / a))

    w = [variables(layers, k) for k, layers in enumerate(run.layers[: steps + 2])]
    first = (w[1] - w[0]) / w[1] if depth == 2 else (w[1] - w[0]) * w[1] ** (-m - 1)
    total = -p[0] * run.beta[0] / (1 - run.eta[0]) * first
    for k in range(1, steps + 1):
        b = w[k] if run.ahead[k - 1] is run.layers[k] else variables(run.ahead[k - 1], k)
        forward = remainder(b, w[k + 1]) + remainder(w[k], b)
        total = total + p[k - 1] * forward + (p[k - 1] - 1) * remainder(w[k + 1], w[k])
    return total


def _theta(layers: np.ndarray, depth: float) -> np.ndarray:
    return layers[0] * layers[1] if depth == 2 else layers[0] ** depth - layers[1] ** depth


def _slope(loss: str, prediction: np.ndarray, y: np.ndarray) -> np.ndarray:
    if loss == "squared":
        return prediction - y
    return (
        -y * np.exp(-y * prediction) / (1 + np.exp(-y * prediction) if loss == "logistic" else 1.0)
    )


def _loss(loss: str, prediction: np.ndarray, y: np.ndarray) -> float:
    if loss == "squared":
        return float(np.mean((prediction - y) ** 2) / 2)
    return float(np.mean(np.logaddexp(0, -y * prediction) if loss == "logistic"
                         else np.exp(-y * prediction)))  # fmt: skip


def _first(value: Any) -> Any:
    """The number of the one run of a setting."""
    return value.flatten()[0].item() if isinstance(value, Tensor) else value


def _entry(schedule: Schedule, key: str, k: int, constant: float) -> float:
    given = getattr(schedule, key)
    return constant if given is None else given[min(k, len(given)) - 1].flatten()[0].item()
