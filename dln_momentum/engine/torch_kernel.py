"""One block of steps in plain torch, in place, on any device.

With the scaling of `State`, one full step is two matrix products and five passes over [R, d]:

    theta' = w_+^2 - w_-^2          gamma theta
    res    = theta' A^T - gamma y'  gamma (X theta - y)/sqrt(n)
    G      = res A                  gamma g
    p_+-  -= +-G w_+-
    w_+-   = p_+- + beta w_+-
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine.tile import CHECK_EVERY, Tile
from dln_momentum.implicit_bias import path_sum_increment


def advance(tile: Tile, steps: int, weights: Tensor | None, noise: Tensor | None) -> None:
    """Advance every run of a tile by ``steps`` steps, in place.

    Args:
        tile: the runs.
        steps: how many steps.
        weights: batch weights [steps, R_t or 1, n], or None for the full batch.
        noise: label noise in the scale of ``tile.target``, [steps, R_t, n], or None.
    """
    beta = tile.beta[:, None]
    scaled_theta = torch.empty_like(tile.w[0])
    gradient = torch.empty_like(tile.w[0])
    residual = torch.empty_like(tile.residual_sum)
    checked_signs = tile.w.signbit()
    for k in range(steps):
        torch.mul(tile.w[0], tile.w[0], out=scaled_theta)
        scaled_theta.addcmul_(tile.w[1], tile.w[1], value=-1)
        _residual_into(residual, tile, scaled_theta)
        if (tile.step + k) % CHECK_EVERY == 0:
            _note_tolerance(tile, residual, tile.step + k)
            if not tile.audit:
                checked_signs = _count_signs(tile, checked_signs)
        if noise is not None:
            residual.sub_(noise[k])
        if weights is not None:
            residual.mul_(weights[k])
        tile.residual_sum.add_(residual)
        _gradient_into(gradient, tile, residual)
        tile.p[0].addcmul_(gradient, tile.w[0], value=-1)
        tile.p[1].addcmul_(gradient, tile.w[1])
        if tile.audit:
            _audited_update(tile, beta)
        else:
            torch.addcmul(tile.p, tile.w, beta, out=tile.w)
    tile.step += steps
    if not tile.audit:
        _count_signs(tile, checked_signs)


def _residual_into(residual: Tensor, tile: Tile, scaled_theta: Tensor) -> None:
    if tile.A.ndim == 2:
        torch.addmm(tile.target, scaled_theta, tile.A_T, beta=-1, out=residual)
    else:
        torch.bmm(scaled_theta.unsqueeze(1), tile.A_T, out=residual.unsqueeze(1))
        residual.sub_(tile.target)


def _gradient_into(gradient: Tensor, tile: Tile, residual: Tensor) -> None:
    if tile.A.ndim == 2:
        torch.mm(residual, tile.A, out=gradient)
    else:
        torch.bmm(residual.unsqueeze(1), tile.A, out=gradient.unsqueeze(1))


def _audited_update(tile: Tile, beta: Tensor) -> None:
    """The same update, with S_+- and the products of increments summed by their definitions."""
    assert tile.path_sums is not None
    assert tile.increment_products is not None
    w_next = torch.addcmul(tile.p, tile.w, beta)
    step = w_next - tile.w
    tile.path_sums.add_(path_sum_increment(tile.w, w_next, beta))
    tile.increment_products.addcmul_(step[0], step[1])
    tile.sign_changes.add_((w_next.signbit() != tile.w.signbit()).sum((0, 2)))
    tile.w.copy_(w_next)


def _note_tolerance(tile: Tile, residual: Tensor, step: int) -> None:
    arrived = (residual.square().sum(-1) <= tile.tol) & (tile.reached_tol < 0)
    tile.reached_tol.masked_fill_(arrived, step)


def _count_signs(tile: Tile, before: Tensor) -> Tensor:
    now = tile.w.signbit()
    tile.sign_changes.add_((now != before).sum((0, 2)))
    return now
