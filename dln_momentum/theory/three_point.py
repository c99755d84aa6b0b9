"""The three-point (Bregman cosine) identity, the step of the proof that mirror flow converges."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.theory.entropy import bregman_divergence, mirror_map


def three_point_sides(
    a: Tensor, b: Tensor, c: Tensor, balancedness: Tensor
) -> tuple[Tensor, Tensor]:
    """Both sides of the three-point (Bregman cosine) identity, [*runs] each.

    (docs/theory.md#three-point; poster, section 5.)

        D(a, b) + D(b, c) - D(a, c) = <grad psi(c) - grad psi(b), a - b>

    for psi = psi_Delta, and equally for every Phi = psi - <linear, theta>: a linear term drops out
    of a divergence.

    Args:
        a, b, c: points, [*runs, d].
        balancedness: Delta, positive, broadcastable.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.5], [0.2, -1.0], [0.0, 2.0]], dtype=torch.float64)
    >>> left, right = three_point_sides(*points, balancedness=torch.ones(2, dtype=torch.float64))
    >>> round(float(left), 12) == round(float(right), 12)
    True
    """
    divergences = [bregman_divergence(*pair, balancedness) for pair in ((a, b), (b, c), (a, c))]
    turn = mirror_map(c, balancedness) - mirror_map(b, balancedness)
    return divergences[0] + divergences[1] - divergences[2], (turn * (a - b)).sum(-1)
