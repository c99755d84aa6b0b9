"""Implicit bias with a step size for each coordinate, or for each layer.

Both are exact changes of variables into a run with one step size (docs/theory.md#coordinate-rates;
not on the poster).

Coordinate i steps by kappa_i gamma_k: w' = w/sqrt(kappa) is a run of step gamma_k on the data
X' = X diag(kappa), with theta = kappa theta' and Delta = kappa Delta'. In the first variables

    (arcsinh(2 theta/Delta) - c)/kappa   lies in   span(x_1..x_n),

so that the potential is weighted by 1/kappa: theta minimises sum_i D_i/kappa_i, D_i the terms of
D_{psi_Delta}(., theta~).

The layers step by gamma_u and gamma_v, in a constant ratio: u' = (gamma_v/gamma_u)^(1/4) u and
v' = (gamma_u/gamma_v)^(1/4) v are a run of step sqrt(gamma_u gamma_v), and theta = u' v'. Delta and
c of the theorem are those of w_+- = u' +- v'.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_layers(
    u: Tensor, v: Tensor, gamma_u: Tensor | float, gamma_v: Tensor | float
) -> tuple[Tensor, Tensor]:
    """u' and v', the layers of a run with one step size sqrt(gamma_u gamma_v).

    >>> one = torch.ones(1)
    >>> [x.item() for x in scaled_layers(one, one, 1.0, 16.0)]
    [2.0, 0.5]
    """
    scale = torch.as_tensor(gamma_v / gamma_u, dtype=u.dtype) ** 0.25
    return u * scale, v / scale


def scaled_rows(X: Tensor, kappa: Tensor) -> Tensor:
    """X' = X diag(kappa), the data of the run w/sqrt(kappa)."""
    return X * kappa
