"""One block of steps in plain torch, in place, on any device.

With the scaling of `State`, one full step is two matrix products and a few passes over [R, d]:

    theta' = w_+^2 - w_-^2          gamma theta
    res    = theta' A^T - gamma y'  gamma (X theta - y)/sqrt(n)
    G      = res A                  gamma g
    p_+-  -= +-G w_+-
    w_+-   = p_+- + beta w_+-
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.engine.draws import Piece
from dln_momentum.engine.scaled import CHECK_EVERY, ScaledProblem
from dln_momentum.engine.state import State
from dln_momentum.engine.tile import Tile
from dln_momentum.implicit_bias import path_sum_increment


def advance(scaled: ScaledProblem, state: State, runs: Tensor, piece: Piece) -> None:
    """Advance ``runs`` of the state by the steps of a piece, in place; see `backends.Kernel`."""
    tile = Tile.gather(scaled, state, runs)
    step = piece.start
    noise = None if piece.noise is None else piece.noise.to(tile.w.device)
    weights = _batch_weights(piece.batches, tile.residual_sum)
    theta, gradient = torch.empty_like(tile.w[0]), torch.empty_like(tile.w[0])
    residual = torch.empty_like(tile.residual_sum)
    noise_scale = scaled.noise_scale[runs, None]
    negative, before = tile.w.signbit(), tile.w.signbit()
    for k in range(piece.steps):
        _theta_into(theta, tile.w)
        tile.residual_into(residual, theta)
        if (step + k) % CHECK_EVERY == 0:
            _note_tolerance(tile, residual, step + k)
            _sum_flips(tile)
        if noise is not None:
            residual.addcmul_(noise[k], noise_scale, value=-1)
        if weights is not None:
            residual.mul_(weights[k])
        tile.residual_sum.add_(residual)
        tile.gradient_into(gradient, residual)
        tile.p[0].addcmul_(gradient, tile.w[0], value=-1)
        tile.p[1].addcmul_(gradient, tile.w[1])
        if tile.path_sums is None:
            torch.addcmul(tile.p, tile.w, tile.beta, out=tile.w)
        else:
            _audited_update(tile)
        negative, before = before, negative
        torch.signbit(tile.w, out=negative)
        tile.flips.add_(before.logical_xor_(negative).view(torch.uint8))
    _sum_flips(tile)
    _theta_into(theta, tile.w)
    tile.residual_into(residual, theta)
    state.loss[runs] = scaled.loss(residual.square().sum(-1), runs)
    tile.scatter(state, runs)


def _batch_weights(batches: Tensor | None, residual: Tensor) -> Tensor | None:
    """How often each row is in a batch, times n / |B|, [steps, R_t or 1, n]."""
    if batches is None:
        return None
    n, batches = residual.shape[-1], batches.to(residual.device)
    weights = residual.new_zeros(*batches.shape[:2], n)
    share = residual.new_tensor(n / batches.shape[-1])
    return weights.scatter_add_(-1, batches, share.expand(batches.shape))


def _theta_into(theta: Tensor, w: Tensor) -> None:
    torch.mul(w[0], w[0], out=theta)
    theta.addcmul_(w[1], w[1], value=-1)


def _audited_update(tile: Tile) -> None:
    """The same update, with S_+- and the products of increments summed by their definitions."""
    assert tile.path_sums is not None
    assert tile.increment_products is not None
    w_next = torch.addcmul(tile.p, tile.w, tile.beta)
    step = w_next - tile.w
    tile.path_sums.add_(path_sum_increment(tile.w, w_next, tile.beta))
    tile.increment_products.addcmul_(step[0], step[1])
    tile.w.copy_(w_next)


def _note_tolerance(tile: Tile, residual: Tensor, step: int) -> None:
    arrived = (residual.square().sum(-1) <= tile.tolerance) & (tile.reached_tol < 0)
    tile.reached_tol.masked_fill_(arrived, step)


def _sum_flips(tile: Tile) -> None:
    tile.sign_changes.add_(tile.flips.sum((0, 2), dtype=torch.int64))
    tile.flips.zero_()
