"""Separating directions of labelled data, and those of largest margin in the l1 and the l2 norm.

    argmin ||theta||  subject to  y_i <x_i, theta> >= 1 for all i

is the direction of largest margin min_i y_i <x_i, theta> / ||theta|| (docs/theory.md#max-margin).
The minimiser under margins of at least m has the direction of the l1 one as m/Delta grows, with
logarithmic slowness, and, from theta~ = 0, that of a weighted l2 one as m/Delta vanishes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dln_momentum.errors import InputError


def is_separable(X: Tensor, y: Tensor) -> bool:
    """Whether some theta has y_i <x_i, theta> > 0 for every row, by a linear program.

    Args:
        X: [n, d].
        y: -1 or +1, [n].

    >>> X = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    >>> is_separable(X, torch.tensor([1.0, 1.0])), is_separable(X, torch.tensor([1.0, -1.0]))
    (True, False)
    """
    from scipy.optimize import linprog

    signed = _signed(X, y)
    n, d = signed.shape
    found = linprog(
        np.zeros(d), A_ub=-signed, b_ub=-np.ones(n), bounds=(None, None), method="highs"
    )
    return found.status == 0


def max_margin(X: Tensor, y: Tensor, norm: str) -> Tensor:
    """The theta of least l1 or l2 norm with y_i <x_i, theta> >= 1 for all i, [d].

    The l1 one is a vertex of a linear program, solved by HiGHS, and one of several where it is not
    unique. The l2 one is y X^T nu of nu >= 0: its dual ``min ||X^T diag(y) nu||^2/2 - sum nu`` is a
    least-squares problem with nu >= 0, solved by an active set.

    Args:
        X: [n, d].
        y: -1 or +1, [n].
        norm: ``l1`` or ``l2``.

    Raises:
        InputError: for data that are not separable, or another norm.

    >>> X, y = torch.tensor([[1.0, 2.0], [1.0, 0.5]]), torch.tensor([1.0, 1.0])
    >>> [round(x, 6) for x in max_margin(X, y, "l1").tolist()]
    [1.0, 0.0]
    >>> X, y = torch.tensor([[1.0, 2.0]]), torch.tensor([-1.0])
    >>> [[round(x, 6) for x in max_margin(X, y, norm).tolist()] for norm in ("l1", "l2")]
    [[0.0, -0.5], [-0.2, -0.4]]
    """
    if norm not in _SOLVERS:
        raise InputError(f"norm = {norm!r} must be one of {', '.join(_SOLVERS)}")
    theta = _SOLVERS[norm](_signed(X, y))
    if theta is None:
        raise InputError("the data are not separable: no theta has positive margins")
    return torch.from_numpy(theta)


def _least_l1(signed: np.ndarray) -> np.ndarray | None:
    from scipy.optimize import linprog

    n, d = signed.shape
    # theta = p - q with p, q >= 0
    found = linprog(
        np.ones(2 * d), A_ub=-np.hstack([signed, -signed]), b_ub=-np.ones(n), method="highs"
    )
    return None if found.x is None else found.x[:d] - found.x[d:]


def _least_l2(signed: np.ndarray) -> np.ndarray | None:
    from scipy.optimize import nnls

    n, d = signed.shape
    # Haskell and Hanson's reduction of least distance to least squares with nonnegative unknowns:
    # the residual of [signed^T; 1^T] nu = (0, 1) is a multiple of (theta, -1)
    system = np.vstack([signed.T, np.ones(n)])
    nu, _ = nnls(system, np.r_[np.zeros(d), 1.0], maxiter=max(1000, 30 * n))
    residual = system @ nu - np.r_[np.zeros(d), 1.0]
    if -residual[-1] < 1e-12:
        return None
    return -residual[:-1] / residual[-1]


_SOLVERS = {"l1": _least_l1, "l2": _least_l2}


def _signed(X: Tensor, y: Tensor) -> np.ndarray:
    """y_i x_i, [n, d]."""
    return (y[:, None] * X).double().cpu().numpy()
