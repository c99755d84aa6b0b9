"""The sequence of saddles that tiny starts visit, predicted: a jump process in ln-time.

(docs/theory.md#saddles.) From u_0 = sqrt(2) alpha, v_0 = 0 put tau = t/ln(1/alpha) and
a_+- = ln|w_+-|/ln(1/alpha), which start at -1. While theta rests at a saddle, its gradient g is
constant and w_+- grow like exp(rho(-+ g) t), so that

    d a_+-/d tau = rho(-+ g),        a_+- <= 0.

A coordinate may leave zero once its a_+ (upwards) or a_- (downwards) has reached 0; theta then
jumps to the minimiser of the loss over the coordinates that may, each with its sign. Gradient flow
has rho(h) = h; then a_+- = -1 +- s with s = -int g d tau, and this is the algorithm of Pesme and
Flammarion (NeurIPS 2023, arXiv 2304.00488). Momentum has the rate at which its linear recursion
grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]
Rate = Callable[[Array], Array]

_TIE = 1e-12
"""Times and gradients within this of each other, relative, count as equal."""


@dataclass(frozen=True)
class SaddleProcess:
    """P plateaus, each with the saddle at which theta rests on it.

    The last one ends at infinity: there the loss has no descent direction left.
    """

    start: Array
    """tau at which a plateau starts, [P]"""
    theta: Array
    """the saddle, [P, d]"""
    gradient: Array
    """the gradient of the loss there, [P, d]"""
    exponents: Array
    """(a_+, a_-) at the start of the plateau, [P, 2, d]"""
    slopes: Array
    """d a_+-/d tau on it, [P, 2, d]"""

    @property
    def weights(self) -> Array:
        """Weights (mu_+, mu_-) of the l1 norm that the last saddle minimises, [2, d].

        1 plus what momentum takes from the exponents, int (-+ g - rho(-+ g)) d tau; ones for
        gradient flow (docs/theory.md#weighted-l1). -int g d tau, a combination of rows, lies in
        [-mu_-, mu_+] and is at an end of it where theta is not 0: the norm's dual certificate.
        """
        until = np.diff(self.start)
        gradient = until @ self.gradient[:-1]
        return 1 + np.stack([-gradient, gradient]) - np.tensordot(until, self.slopes[:-1], 1)

    def at(self, tau: Array) -> tuple[Array, Array]:
        """theta [T, d] and (a_+, a_-) [T, 2, d] at these times."""
        k = np.searchsorted(self.start, tau, side="right") - 1
        passed = (tau - self.start[k])[:, None, None]
        return self.theta[k], np.minimum(self.exponents[k] + passed * self.slopes[k], 0.0)


def momentum_rate(gamma: float, beta: float) -> Rate:
    r"""The rate per unit of time k eps at which w_{k+1} = (1 + beta + gamma h) w_k - beta w_{k-1}
    grows.

    .. math:: \rho(h) = \frac{1}{\varepsilon} \ln \max |z|, \qquad
        z^2 - (1 + \beta + \gamma h) z + \beta = 0, \qquad \varepsilon = \frac{\gamma}{1-\beta}

    As eps -> 0 at fixed lambda it tends to Re(-1 + sqrt(1 + 4 lambda h))/(2 lambda).

    >>> [round(float(momentum_rate(1e-6, beta)(np.array(0.7))), 5) for beta in (0.0, 0.999)]
    [0.7, 0.47723]
    """
    eps = gamma / (1 - beta)

    def rate(h: Array) -> Array:
        middle = (1 + beta + gamma * h).astype(complex) / 2
        root = np.sqrt(middle**2 - beta)
        return np.log(np.maximum(abs(middle + root), abs(middle - root))) / eps

    return rate


def saddle_process(X: Array, y: Array, rate: Rate, most: int = 1000) -> SaddleProcess:
    """The process of one problem from theta = 0.

    Args:
        X, y: the data, [n, d] and [n].
        rate: of growth of w for a constant h = -+ g; increasing, and 0 at 0.
        most: plateaus at most.

    Raises:
        RuntimeError: if it has not ended by then.

    >>> found = saddle_process(np.diag([2.0, 1.0]), np.array([2.0, 1.0]), lambda h: h)
    >>> found.start.round(9).tolist(), found.theta.round(9).tolist()
    ([0.0, 0.5, 2.0], [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    """
    n, d = X.shape
    tau, exponents, theta = 0.0, np.full((2, d), -1.0), np.zeros(d)
    small = _TIE * np.abs(X.T @ y).max() / n
    plateaus = []
    for _ in range(most):
        g = X.T @ (X @ theta - y) / n
        g[np.abs(g) <= small] = 0.0
        # exactly 0 where g is: the rate of 0 is 0 to rounding only
        slopes = np.where(g == 0, 0.0, rate(np.stack([-g, g])))
        plateaus.append((tau, theta, g, exponents, slopes))
        rising = (slopes > 0) & (exponents < 0)
        if not rising.any():
            break
        wait = np.where(rising, -exponents / np.where(rising, slopes, 1.0), np.inf)
        step = wait.min()
        arrived = wait <= step * (1 + _TIE)
        exponents = np.where(arrived, 0.0, np.minimum(exponents + step * slopes, 0.0))
        tau += step
        theta = _constrained_minimiser(X, y, exponents == 0)
    else:
        raise RuntimeError(f"{most} saddles were not enough")
    return SaddleProcess(*(np.array(part) for part in zip(*plateaus, strict=True)))


def _constrained_minimiser(X: Array, y: Array, free: NDArray[np.bool_]) -> Array:
    """argmin L over theta_i >= 0 where free[0, i], <= 0 where free[1, i], and 0 elsewhere."""
    sign = free[0].astype(float) - free[1]
    on = sign != 0
    theta = np.zeros(X.shape[1])
    theta[on] = sign[on] * nnls(X[:, on] * sign[on], y)[0]
    return theta
