"""Separating directions of labelled data, and those of largest margin in the l1 and the l2 norm."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def is_separable(X: Tensor, y: Tensor) -> bool:
    """Whether some theta has y_i <x_i, theta> > 0 for every row, by a linear program.

    Args:
        X: [n, d].
        y: -1 or +1, [n].

    >>> import torch
    >>> X = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    >>> is_separable(X, torch.tensor([1.0, 1.0])), is_separable(X, torch.tensor([1.0, -1.0]))
    (True, False)
    """
    from scipy.optimize import linprog

    signed = (y[:, None] * X).double().cpu().numpy()
    n, d = signed.shape
    found = linprog(
        np.zeros(d), A_ub=-signed, b_ub=-np.ones(n), bounds=(None, None), method="highs"
    )
    return found.status == 0
