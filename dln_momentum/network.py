"""The two-layer diagonal linear network."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dln_momentum.arrays import is_integer, number_of, tensor_of
from dln_momentum.errors import InputError
from dln_momentum.layer_checks import check_layers, checked_depth
from dln_momentum.start import Start, biased, drawn, uniform


class DiagonalLinearNet(nn.Module):
    r"""The diagonal linear network ``x -> <u * v, x>``.

    (docs/theory.md#diagonal-network; poster, section 3.)

    ======================  =============================  ==========================
    symbol                  meaning                        here
    ======================  =============================  ==========================
    u, v                    the neurons, [*runs, d]        parameters ``u``, ``v``
    theta = u v             the predictor                  ``theta``
    w_+- = u +- v           the diagonalising coordinates  ``w_plus``, ``w_minus``
    Delta = abs(u^2 - v^2)  the balancedness               ``balancedness``
    ======================  =============================  ==========================

    Leading dimensions are independent networks: one network is ``runs = ()``.

    Args:
        u, v: first and second layer, [*runs, d]; arrays, lists or tensors, cast to float64.
        depth: D > 2 makes theta = u^D - v^D of positive u and v, as `start.power` begins; one
            number, or one for each run, [*runs].

    Raises:
        InputError: for unequal shapes, non-finite entries, or an entry with u^2 = v^2, which
            violates condition (C1) of the theory (Delta_0 nowhere zero); of a greater depth, an
            entry that is not positive.

    The balancedness is computed from u and v; the engine stores w_+- and keeps more digits of a
    small Delta.

    >>> net = DiagonalLinearNet.uniform(3, alpha=0.1)
    >>> net.theta.tolist(), [round(x, 12) for x in net.balancedness.tolist()]
    ([0.0, 0.0, 0.0], [0.02, 0.02, 0.02])
    >>> net(torch.ones(5, 3, dtype=torch.float64)).shape
    torch.Size([5])
    """

    def __init__(self, u: ArrayLike, v: ArrayLike, depth: ArrayLike = 2.0) -> None:
        super().__init__()
        u, v = tensor_of("u", u), tensor_of("v", v)
        if u.shape != v.shape or u.ndim == 0:
            raise InputError(
                f"u and v must share one shape [*runs, d]: {[*u.shape]} and {[*v.shape]}"
            )
        self.depth = torch.from_numpy(checked_depth(depth))
        self.is_deep = bool((self.depth != 2).any())
        if not self.is_deep:
            check_layers(u, v)
        elif not bool(((u > 0) & (v > 0) & u.isfinite() & v.isfinite()).all()):
            raise InputError("u and v must be finite and > 0 at a depth above 2")
        self.u = nn.Parameter(u)
        self.v = nn.Parameter(v)

    @classmethod
    def from_start(cls, start: Start, d: int, runs: tuple[int, ...] = ()) -> DiagonalLinearNet:
        """The network with d coordinates of a start; ``runs`` copies it along more dimensions.

        >>> from dln_momentum.start import gaussian
        >>> DiagonalLinearNet.from_start(gaussian([0.1, 0.2], seed=0), d=3)
        DiagonalLinearNet(runs=(2,), d=3)
        """
        if not isinstance(start, Start):
            raise InputError(f"start is a {type(start).__name__}; it must be a Start")
        if not (isinstance(runs, tuple) and all(is_integer(size, 1) for size in runs)):
            raise InputError(f"runs = {runs!r} must be a tuple of integers >= 1")
        u, v = start.layers(d)
        return cls(u.expand(*runs, *u.shape), v.expand(*runs, *v.shape), start.depth)

    @classmethod
    def uniform(cls, d: int, alpha: float, runs: tuple[int, ...] = ()) -> DiagonalLinearNet:
        """u_0 = sqrt(2) alpha, v_0 = 0: theta_0 = 0 and Delta_0 = 2 alpha^2 in every coordinate."""
        return cls.from_start(uniform(alpha), d, runs)

    @classmethod
    def biased(
        cls,
        d: int,
        scale: float,
        phi: float,
        runs: tuple[int, ...] = (),
        *,
        parametrisation: str = "product",
    ) -> DiagonalLinearNet:
        """Layers phi c and c/phi for c = scale, of theta = u v or of theta = a^2 - b^2.

        See `dln_momentum.start.biased`.

        >>> net = DiagonalLinearNet.biased(1, scale=0.5, phi=0.5, parametrisation="squares")
        >>> net.w_plus.item(), net.w_minus.item(), net.theta.item(), net.balancedness.item()
        (0.5, 2.0, -0.9375, 1.0)
        """
        return cls.from_start(biased(scale, phi, parametrisation), d, runs)

    @classmethod
    def gaussian(
        cls, d: int, alpha: float, seed: int, runs: tuple[int, ...] = ()
    ) -> DiagonalLinearNet:
        """u_0, v_0 i.i.d. N(0, alpha^2), from the generator of that seed in [0, 2^64)."""
        scale = number_of("alpha", alpha)
        if not (scale > 0 and math.isfinite(scale)):
            raise InputError(f"alpha = {scale:g} must be finite and > 0")
        if not is_integer(d, 1):
            raise InputError(f"d = {d!r} must be an integer >= 1")
        u, v = drawn(seed, (*runs, d))
        return cls(scale * u, scale * v)

    def forward(self, x: Tensor) -> Tensor:
        """Predict ``x theta``: [m, d] rows to [*runs, m] outputs."""
        x = x if isinstance(x, Tensor) else tensor_of("x", x).to(self.u.device)
        if x.ndim == 0 or x.shape[-1] != self.u.shape[-1]:
            raise InputError(f"x has shape {[*x.shape]}, must end in d = {self.u.shape[-1]}")
        return (x @ self.theta.unsqueeze(-1)).squeeze(-1)

    @property
    def theta(self) -> Tensor:
        """The predictor theta = u v, or u^D - v^D, [*runs, d]."""
        if self.is_deep:
            depth = self.depth.to(self.u.device)[..., None]
            return self.u**depth - self.v**depth
        return self.u * self.v

    @property
    def w_plus(self) -> Tensor:
        """w_+ = u + v, [*runs, d]."""
        return self.u + self.v

    @property
    def w_minus(self) -> Tensor:
        """w_- = u - v, [*runs, d]."""
        return self.u - self.v

    @property
    def balancedness(self) -> Tensor:
        """Delta = |u^2 - v^2| = |w_+ w_-|, [*runs, d]; the product form does not cancel."""
        return (self.w_plus * self.w_minus).abs()

    @property
    def scale(self) -> Tensor:
        """max(||u||_inf, ||v||_inf), [*runs]; at the start, the poster's initialisation scale.

        For `uniform` it is sqrt(2) alpha, the factor that makes Delta_0 = 2 alpha^2.
        """
        return torch.maximum(self.u.abs(), self.v.abs()).amax(-1)

    def extra_repr(self) -> str:
        """Shape in the printed module."""
        depth = f", depth={self.depth.tolist()}" if self.is_deep else ""
        return f"runs={tuple(self.u.shape[:-1])}, d={self.u.shape[-1]}{depth}"
