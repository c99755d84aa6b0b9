"""The theorem of each member of the family in 50-digit arithmetic, and the functions that state it.

Each identity is evaluated as it is written, on random problems with random mini-batches, rates that
change at every step, an initial speed and sign changes; then the function of the package, in double
precision, against the same sums.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from dln_momentum import RowSpace
from dln_momentum.theory import (
    balances,
    coordinate_rates,
    nesterov,
    schedules,
    weight_decay,
)
from dln_momentum.theory.discrete_bias import kkt_residual
from tests.mp_runs import (
    STEPS,
    TOLERANCE,
    Array,
    Draw,
    MpRun,
    asinh,
    doubles,
    draw,
    exact,
    exp,
    largest,
    log_abs,
    nesterov_sums,
    outside,
    p_1_beta_1,
    path_sums,
    run,
    sign_changes,
    sqrt,
    step_weights,
)

SEEDS = [1, 31]
LAYER_STEPS = 12
ROUNDING = 1e-11
"""24 steps of 1e-16, times weights of up to 20, and w_+- that come as near to zero as 1e-3."""


def check_theorem(
    case: Draw, w: Array, sums: Array, exponent: Array, factor: Any = 1, kappa: Any = 1
) -> None:
    """10.1 of w_0..w_{K+1}, [K+2, 2, d], for sums S and the sum of p_k gamma_k g_k."""
    sign = np.array([[1], [-1]])
    # the logarithms of |w_+-| shrink by half of what Delta shrinks by
    log_factor = log_abs(np.array([factor], dtype=object))[0] / 2
    found = log_abs(w[-1] / w[1])
    assert largest(found - (-sign * kappa * exponent - sums + log_factor)) < TOLERANCE
    theta, delta = (w[-1, 0] ** 2 - w[-1, 1] ** 2) / 4, abs(w[-1, 0] * w[-1, 1])
    predicted = abs(w[1, 0] * w[1, 1]) * exp(-(sums[0] + sums[1])) * factor
    assert largest(predicted / delta - 1) < TOLERANCE
    c = log_abs(w[1, 0] / w[1, 1]) - sums[0] + sums[1]
    assert outside(case.X, (asinh(2 * theta / predicted) - c) / kappa) < TOLERANCE


def close(found: torch.Tensor, reference: Array, tolerance: float = ROUNDING) -> None:
    size = 1 + float(doubles(reference).abs().max())
    assert float((found - doubles(reference)).abs().max()) <= tolerance * size


def exponent_of(case: Draw, path: MpRun) -> Array:
    p = np.array(step_weights(case.beta))
    return (p * case.gamma) @ path.gradients


def flipped(path: MpRun) -> int:
    return sign_changes(path.w()[1:])


def test_the_draws_have_sign_changes_and_a_speed() -> None:
    for seed in SEEDS:
        case = draw(seed)
        assert min(flipped(run(case)), flipped(run(case, nesterov=True))) >= 1
        assert largest(case.u[1] - case.u[0]) > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_schedules(seed: int) -> None:
    """(docs/theory.md#schedules, theory.md#changing-rates.)"""
    case = draw(seed)
    path = run(case)
    w, beta = path.w(), doubles(case.beta)
    sums, exponent = path_sums(w, case.beta), exponent_of(case, path)
    check_theorem(case, w, sums, exponent)
    found = schedules.path_sums(doubles(w[1:]), beta, doubles(w[0]))
    close(found[-1], sums)
    # at an earlier horizon the weights p_k are others
    close(found[10], path_sums(w[:13], case.beta[:11]))
    gamma_g = doubles(case.gamma[:, None] * path.gradients)
    close(schedules.weighted_sums(gamma_g, beta)[-1], exponent)


def test_schedules_from_rest_and_with_constant_beta() -> None:
    case = draw(14, rest=True, constant=True)
    path = run(case)
    w = path.w()
    check_theorem(case, w, path_sums(w, case.beta), exponent_of(case, path))
    close(schedules.path_sums(doubles(w[1:]), doubles(case.beta))[-1], path_sums(w, case.beta))


@pytest.mark.parametrize("seed", SEEDS)
def test_log_free_identity_of_schedules(seed: int) -> None:
    """q_{K+1} = q_1 + sum (2 p_k - 1) d_k + p_1 beta_1 m_0, and its recursion."""
    case = draw(seed)
    path = run(case)
    du, dv = np.diff(path.u, axis=0), np.diff(path.v, axis=0)
    q, d = path.u**2 - path.v**2, du**2 - dv**2
    p = step_weights(case.beta)
    total = sum((2 * p[k] - 1) * d[k + 1] for k in range(len(p)))
    carried = p_1_beta_1(case.beta) * (q[1] - q[0] + d[0])
    assert largest(q[-1] - q[1] - total - carried) < TOLERANCE
    layers = [[doubles(path.v[k]), doubles(path.u[k])] for k in range(len(q))]
    balance = balances.RunningBalance.of(balances.product_form, layers[1], layers[0])
    for after, beta in zip(layers[2:], doubles(case.beta), strict=True):
        balance.add(after, beta)
    close(balance.predicted, q[-1])
    close(balance.measured, q[-1])


def test_a_schedule_of_torch_sgd_is_beta_mu_lr_over_the_last_lr() -> None:
    """(docs/theory.md#torch-schedules.)"""
    rng = np.random.default_rng(0)
    lr, mu = rng.uniform(0.1, 1, 5), 0.5
    buffer, w, steps = 0.0, 1.0, [0.0]
    gradients = rng.standard_normal(5)
    for rate, g in zip(lr, gradients, strict=True):
        buffer = mu * buffer + g
        steps.append(-rate * buffer)
        w += steps[-1]
    beta = schedules.torch_momentum(torch.from_numpy(lr), torch.tensor(mu).double())
    for k in range(5):
        # one rounding of each of the three products
        assert abs(steps[k + 1] - (beta[k] * steps[k] - lr[k] * gradients[k])) < 1e-14


@pytest.mark.parametrize("seed", SEEDS)
def test_nesterov(seed: int) -> None:
    """(docs/theory.md#nesterov.)"""
    case = draw(seed)
    path = run(case, nesterov=True)
    x, z = path.w(), np.stack([path.ahead_u + path.ahead_v, path.ahead_u - path.ahead_v], 1)
    sums = nesterov_sums(x, z, case.beta)
    check_theorem(case, x, sums, exponent_of(case, path))
    beta = doubles(case.beta)
    close(nesterov.path_sums(doubles(x[1:]), beta, doubles(x[0]))[-1], sums)
    close(nesterov.ahead(doubles(x[1:-1]), beta, doubles(x[0])), z)
    # the sum of heavy ball is another one
    assert largest(path_sums(x, case.beta) - sums) > 1e-3


def test_what_torch_stores_of_nesterov_gives_the_iterates() -> None:
    case = draw(3, rest=True, constant=True)
    path = run(case, nesterov=True)
    x, z = doubles(path.w()[1:]), doubles(np.stack([path.ahead_u, path.ahead_v], 1))
    z = torch.stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]], 1)
    found = nesterov.from_ahead(z, doubles(case.beta))
    # each step halves the error of the last
    torch.testing.assert_close(found, x[:-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("with_nesterov", [False, True], ids=["heavy ball", "nesterov"])
def test_coupled_weight_decay(with_nesterov: bool) -> None:
    """Delta gains exp(-2 sum p_k gamma_k omega_k), and c does not change; it ends at step 15.

    (docs/theory.md#weight-decay.)
    """
    case = draw(9)
    omega = exact([0.05 * (k < 15) for k in range(STEPS)])
    path = run(case, decay=omega, nesterov=with_nesterov)
    w, p = path.w(), step_weights(case.beta)
    factor = mpmath.exp(-2 * sum(p[k] * case.gamma[k] * omega[k] for k in range(STEPS)))
    assert factor < 0.9
    z = np.stack([path.ahead_u + path.ahead_v, path.ahead_u - path.ahead_v], 1)
    sums = nesterov_sums(w, z, case.beta) if with_nesterov else path_sums(w, case.beta)
    check_theorem(case, w, sums, exponent_of(case, path), factor)
    step, beta = doubles(case.gamma * omega), doubles(case.beta)
    close(weight_decay.balancedness_factor(step, beta)[-1], np.array([factor]))


def test_decoupled_weight_decay() -> None:
    """(docs/theory.md#weight-decay.)"""
    case = draw(3)
    eta = exact([0.01 * (k < 15) + 0.001 * k for k in range(STEPS)])
    path = run(case, shrink=eta)
    w, product = path.w(), np.cumprod(np.concatenate([[mpmath.mpf(1)], 1 - eta]))
    scaled = np.concatenate([w[:1], w[1:] / product[:, None, None]])
    rates = Draw(case.X, case.y, case.u, case.v, case.gamma / (1 - eta), case.beta / (1 - eta), [])
    sums = path_sums(scaled, rates.beta)
    check_theorem(rates, scaled, sums, exponent_of(rates, path))
    # Delta of the iterates themselves is that of the rescaled ones times the square of the product
    predicted = abs(w[1, 0] * w[1, 1]) * exp(-(sums[0] + sums[1])) * product[-1] ** 2
    assert largest(predicted / abs(w[-1, 0] * w[-1, 1]) - 1) < TOLERANCE
    close(weight_decay.rescaled(doubles(w[1:]), doubles(eta)), scaled[1:])
    close(weight_decay.shrinkage(doubles(eta)), product)


def test_rates_of_coordinates() -> None:
    """(docs/theory.md#coordinate-rates.)"""
    case = draw(1)
    kappa = exact([0.3, 1.0, 2.0, 0.5])
    path = run(case, kappa=kappa)
    w, sums = path.w(), path_sums(path.w(), case.beta)
    check_theorem(case, w, sums, exponent_of(case, path), kappa=kappa)
    # without the weights 1/kappa it is not in the span
    theta, delta = (w[-1, 0] ** 2 - w[-1, 1] ** 2) / 4, abs(w[-1, 0] * w[-1, 1])
    c = log_abs(w[1, 0] / w[1, 1]) - sums[0] + sums[1]
    assert outside(case.X, asinh(2 * theta / delta) - c) > 1e-3
    rows = RowSpace.of(coordinate_rates.scaled_rows(doubles(case.X), doubles(kappa)))
    found = kkt_residual(rows, doubles(theta), doubles(delta), doubles(c))
    assert float(found) < ROUNDING
    # and the run of w/sqrt(kappa) on X diag(kappa) has the same gradients in its variables
    scaled = Draw(case.X * kappa, case.y, case.u / sqrt(kappa), case.v / sqrt(kappa),
                  case.gamma, case.beta, case.rows)  # fmt: skip
    assert largest(run(scaled).u * sqrt(kappa) - path.u) < TOLERANCE


def test_rates_of_layers() -> None:
    """(docs/theory.md#coordinate-rates.)"""
    case, ratio = draw(9), mpmath.mpf(3)
    path = run(case, ratio=ratio)
    w = path.w(sqrt(np.array([ratio]))[0])
    check_theorem(case, w, path_sums(w, case.beta), exponent_of(case, path))
    found = coordinate_rates.scaled_layers(
        doubles(path.u),
        doubles(path.v),
        doubles(case.gamma / ratio)[0],
        doubles(case.gamma * ratio)[0],
    )
    close(torch.stack([found[0] + found[1], found[0] - found[1]], 1), w)


def layer_run(
    seed: int, kind: str, with_nesterov: bool, omega: float
) -> tuple[list[list[Array]], list[list[Array]], Draw]:
    """Weights at steps 0..K+1, and the points of the gradients, of a small network on batches."""
    case = draw(seed, steps=LAYER_STEPS)
    rng = np.random.default_rng(100 + seed)
    shapes = {
        "product": [(4,), (4,), (4,)],
        "relu": [(3, 4), (2, 3), (3,), (2,)],
        "linear": [(3, 4), (2, 3), (3,), (2, 2)],
    }[kind]
    now = [exact(0.5 * rng.standard_normal(shape)) for shape in shapes]
    increments = [exact(0.02 * rng.standard_normal(shape)) for shape in shapes]
    y = exact(rng.standard_normal((2, 2)))
    weights = [[a - b for a, b in zip(now, increments, strict=True)], now]
    points = []
    for k in range(LAYER_STEPS):
        gamma, beta = case.gamma[k] / 4, case.beta[k]
        at = [a + beta * b for a, b in zip(now, increments, strict=True)] if with_nesterov else now
        gradients = gradient_of(kind, at, case.X[case.rows[k]], y[case.rows[k]])
        increments = [
            beta * b - gamma * (g + omega * a)
            for a, b, g in zip(at, increments, gradients, strict=True)
        ]
        now = [a + b for a, b in zip(now, increments, strict=True)]
        weights.append(now)
        points.append(at)
    return weights, points, case


def gradient_of(kind: str, w: list[Array], X: Array, y: Array) -> list[Array]:
    """Gradients of the mean squared error, by hand."""
    m = len(y)
    if kind == "product":
        g = X.T @ (X @ (w[0] * w[1] * w[2]) - y[:, 0]) / m
        return [g * w[1] * w[2], g * w[0] * w[2], g * w[0] * w[1]]
    hidden = X @ w[0].T + w[2]
    if kind == "relu":
        active = (hidden > 0).astype(int)
        error = (hidden * active @ w[1].T + w[3] - y) / m
        back = error @ w[1] * active
        return [back.T @ X, error.T @ (hidden * active), back.sum(0), error.sum(0)]
    error = (hidden @ w[1].T @ w[3].T - y) / m
    middle = error @ w[3]
    back = middle @ w[1]
    return [back.T @ X, middle.T @ hidden, back.sum(0), error.T @ (hidden @ w[1].T)]


FORMS = {
    "product": (balances.product_form, (0, 2)),
    "relu": (balances.neuron_form, (0, 1, 2)),
    "linear": (balances.linear_form, (0, 1, 2)),
}
MP_FORMS = {
    "product": lambda x, y: x[1] * y[1] - x[0] * y[0],
    "relu": lambda x, y: (x[1] * y[1]).sum(0) - (x[0] * y[0]).sum(1) - x[2] * y[2],
    "linear": lambda x, y: (lambda q: (q + q.T) / 2)(
        x[1].T @ y[1] - x[0] @ y[0].T - np.outer(x[2], y[2])
    ),
}


@pytest.mark.parametrize(
    ("kind", "with_nesterov", "omega"),
    [("product", False, 0.0), ("relu", False, 0.1), ("linear", False, 0.1), ("linear", True, 0.1)],
)
def test_balances(kind: str, with_nesterov: bool, omega: float) -> None:
    """The recursion of 10.11 as it is written, of unequal layers, ReLU neurons, linear layers.

    (docs/theory.md#balances.)
    """
    weights, points, case = layer_run(1, kind, with_nesterov, omega)
    form, chosen = FORMS[kind]
    mp_form = MP_FORMS[kind]
    w, at = ([[x[i] for i in chosen] for x in rows] for rows in (weights, points))
    d = [[a - b for a, b in zip(w[k + 1], w[k], strict=True)] for k in range(len(w) - 1)]
    q = mp_form(w[1], w[1])
    carried, product = 2 * mp_form(w[1], d[0]), mp_form(d[0], d[0])
    for k in range(LAYER_STEPS):
        gamma, beta = case.gamma[k] / 4, case.beta[k]
        now = mp_form(d[k + 1], d[k + 1])
        if with_nesterov:
            short = [a - b for a, b in zip(w[k + 2], at[k], strict=True)]
            after = q + beta * carried + beta**2 * product
            after = (1 - 2 * gamma * omega) * after + mp_form(short, short)
            carried = after - q + now
        else:
            carried = beta * carried + 2 * now - 2 * gamma * omega * q
            after = q + carried - now
        q, product = after, now
    measured = mp_form(w[-1], w[-1])
    assert largest(measured - mp_form(w[1], w[1])) > 0.01
    assert largest(q - measured) < TOLERANCE
    tensors = [[doubles(x) for x in rows] for rows in w]
    ahead = [[doubles(x) for x in rows] for rows in at]
    balance = balances.RunningBalance.of(form, tensors[1], tensors[0])
    for k in range(LAYER_STEPS):
        gamma, beta = float(case.gamma[k] / 4), float(case.beta[k])
        balance.add(tensors[k + 2], beta, gamma * omega, ahead[k] if with_nesterov else None)
    close(balance.predicted, measured)
    # what is not the other layers' balance: the bias left out
    if kind != "product":
        other = balances.RunningBalance.of(form, tensors[1][:2], tensors[0][:2])
        for k in range(LAYER_STEPS):
            gamma, beta = float(case.gamma[k] / 4), float(case.beta[k])
            other.add(tensors[k + 2][:2], beta, gamma * omega,
                      ahead[k][:2] if with_nesterov else None)  # fmt: skip
        assert float((other.predicted - other.measured).abs().max()) > 1e-4
