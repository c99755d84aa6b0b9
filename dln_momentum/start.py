"""Initialisations of the network, u_0 and v_0, for any number of coordinates.

    w_+ = u + v,    w_- = u - v,    theta_0 = u_0 v_0,    Delta_0 = |u_0^2 - v_0^2| = |w_+ w_-|

A start takes its number of coordinates from the problem that it is used with. Parameters may be
numbers, or arrays with one entry per run. A start of depth D > 2 is one of the network
theta = u^D - v^D, whose layers are positive (docs/theory.md#depth).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dln_momentum.arrays import array_of, common_shape, is_integer, is_one_of
from dln_momentum.errors import InputError
from dln_momentum.layer_checks import (
    BALANCED_REMEDY,
    SMALLEST_BALANCEDNESS,
    check_layers,
    check_positive,
    checked_depth,
)
from dln_momentum.seeding import Purpose, is_seed, seeded_generator

PARAMETRISATIONS = ("product", "squares")
"""theta = u v, and theta = a^2 - b^2."""


class Start:
    """u_0 and v_0, given as numbers or arrays.

    Args:
        u, v: first and second layer, [*runs, d], or [*runs, 1] for one value in every coordinate;
            numbers, lists, arrays or tensors, cast to float64.
        name: the label in tables and figures.
        depth: D of theta = u^D - v^D, finite and > 2, a number or one for each run; 2, the default,
            is the network theta = u v.

    Attributes:
        alpha: the scales of `uniform`, `gaussian` and `power`, of the shape of the runs; None
            otherwise.
        depth: D, a number or an array of the shape of the runs.

    Raises:
        InputError: for entries that are not finite numbers, shapes that do not broadcast, or an
            entry with u^2 = v^2, which violates condition (C1) of the theory (Delta_0 nowhere 0);
            at depth D > 2, for an entry that is not positive, or for D out of range.

    >>> w_plus, w_minus = Start([0.1, 0.2], [0.0, 0.1]).weights(d=2)
    >>> [round(w, 12) for w in w_plus.tolist()]
    [0.1, 0.3]
    >>> [w.tolist() for w in Start([0.1], [0.2], depth=3).weights(d=1)]
    [[0.1], [0.2]]
    """

    alpha: NDArray[np.float64] | None = None
    depth: float | NDArray[np.float64]

    def __init__(
        self,
        u: ArrayLike,
        v: ArrayLike,
        name: str = "arrays",
        depth: ArrayLike = 2.0,
        key: str = "u and v",
    ) -> None:
        # one number is the same in every coordinate
        layers = {key: np.atleast_1d(array_of(key, w)) for key, w in (("u", u), ("v", v))}
        depths = checked_depth(depth)
        self.depth = float(depths) if depths.ndim == 0 else depths
        shapes = {key: w.shape for key, w in layers.items()}
        shape = common_shape(shapes | ({"depth": (*depths.shape, 1)} if depths.ndim else {}))
        self._u, self._v = (torch.from_numpy(w).expand(shape) for w in layers.values())
        if self.is_deep:
            check_positive(self._u, self._v)
        else:
            check_layers(self._u, self._v, key)
        self.name = name

    def __repr__(self) -> str:
        return f"Start({self.name})"

    @property
    def is_deep(self) -> bool:
        """Whether the network is theta = u^D - v^D with D > 2."""
        return bool(np.any(np.asarray(self.depth) > 2))

    @property
    def runs(self) -> tuple[int, ...]:
        """The run dimensions."""
        return tuple(self._u.shape[:-1])

    def layers(self, d: int) -> tuple[Tensor, Tensor]:
        """u_0 and v_0 for d coordinates, [*runs, d] each.

        Raises:
            InputError: for a start of another number of coordinates.
        """
        given = self._u.shape[-1]
        if not is_integer(d, 1):
            raise InputError(f"d = {d!r} must be an integer >= 1")
        if given not in (1, d):
            raise InputError(f"start has {given} coordinates, must have d = {d} or 1")
        return self._u.expand(*self.runs, d), self._v.expand(*self.runs, d)

    def weights(self, d: int) -> tuple[Tensor, Tensor]:
        """w_+ = u + v and w_- = u - v for d coordinates, [*runs, d] each.

        At depth D > 2 the theorem is about u and v themselves, which are returned.
        """
        u, v = self.layers(d)
        return (u, v) if self.is_deep else (u + v, u - v)


class _Gaussian(Start):
    """A start that is drawn once the number of coordinates is known."""

    def __init__(self, alpha: Tensor, seed: int, name: str) -> None:
        # a placeholder until the draw: only the shape of the runs is used
        super().__init__(alpha, 0 * alpha, name, key="alpha")
        self._scale, self._seed = alpha, seed
        self.alpha = alpha[..., 0].numpy()

    def layers(self, d: int) -> tuple[Tensor, Tensor]:
        super().layers(d)  # which checks d
        u, v = drawn(self._seed, (d,))
        return self._scale * u, self._scale * v


def drawn(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two layers of i.i.d. N(0, 1) entries, from the generator of a seed in [0, 2^64)."""
    rng = seeded_generator(Purpose.INITIALISATION, seed)
    u, v = torch.from_numpy(rng.standard_normal((2, *shape)))
    return u, v


def uniform(alpha: ArrayLike = 0.1) -> Start:
    """u_0 = sqrt(2) alpha, v_0 = 0: theta_0 = 0 and Delta_0 = 2 alpha^2 in every coordinate.

    Args:
        alpha: initialisation scale, finite and > 0; a number or an array of them.

    Raises:
        InputError: for another alpha.

    >>> u, v = uniform(alpha=[0.1, 0.01]).layers(d=3)
    >>> [round(x, 12) for x in (u**2 - v**2)[:, 0].tolist()]
    [0.02, 0.0002]
    """
    scale = _positive("alpha", alpha)
    name = f"uniform, alpha = {_shown(alpha)}"
    start = Start(math.sqrt(2) * scale, 0 * scale, name, key=f"alpha = {_least(alpha)}")
    start.alpha = scale[..., 0].numpy()
    return start


def power(alpha: ArrayLike = 0.1, depth: ArrayLike = 3.0) -> Start:
    """u_0 = v_0 = alpha of the network theta = u^D - v^D, D > 2: theta_0 = 0.

    A_0 = alpha^(2-D), and the minimiser depends on alpha as on the balancedness
    4 A_0^(-2/(D-2)) = 4 alpha^2 (docs/theory.md#depth).

    Args:
        alpha: initialisation scale, finite and > 0; a number or an array of them.
        depth: D, real, finite and > 2; a number or an array of them.

    Raises:
        InputError: for other values.

    >>> start = power(alpha=0.1, depth=3)
    >>> start.depth, [w.tolist() for w in start.layers(d=2)]
    (3.0, [[0.1, 0.1], [0.1, 0.1]])
    """
    scale, depths = _positive("alpha", alpha), checked_depth(depth)
    if np.any(depths == 2):
        raise InputError("depth = 2 must be > 2; uniform and biased are starts of depth 2")
    shape = common_shape({"alpha": tuple(scale.shape[:-1]), "depth": depths.shape})
    scale = scale.expand(*shape, 1)
    # u^D and A_0 = u^(2-D) need all their digits, and the steps between them some room
    digits = np.abs(np.log10(scale[..., 0].numpy())) * depths
    if np.any(digits > -math.log10(SMALLEST_BALANCEDNESS)):
        raise InputError(
            f"alpha = {_shown(alpha)} with depth = {_shown(depth)}: alpha^depth must be between "
            f"{SMALLEST_BALANCEDNESS:g} and {1 / SMALLEST_BALANCEDNESS:g}, the range of float64"
        )
    name = f"power, depth = {_shown(depth)}, alpha = {_shown(alpha)}"
    start = Start(scale, scale, name, depth=np.broadcast_to(depths, shape) if shape else depths)
    start.alpha = scale[..., 0].numpy()
    return start


def biased(
    scale: ArrayLike = 0.1, phi: ArrayLike = 0.03, parametrisation: str = "product"
) -> Start:
    """Layers phi c and c/phi with c = scale, of theta = u v or of theta = a^2 - b^2.

    ``product``: u_0 = phi c, v_0 = c/phi, so that theta_0 = c^2, Delta_0 = c^2 |phi^2 - phi^-2|.

    ``squares``: the network theta = a^2 - b^2 of Lyu, Wang, Wang and Zhu (AAAI 2025) from
    a_0 = phi c, b_0 = c/phi. With w_+ = 2a, w_- = 2b it is this one (docs/theory.md#squares), with
    theta_0 = c^2 (phi^2 - phi^-2) and Delta_0 = 4 c^2; their step size eta and momentum mu are
    gamma = 2 eta and beta = mu here. The four-vector model theta = u_+ v_+ - u_- v_- from
    u_+ = v_+ = a_0, u_- = v_- = b_0, the balanced shape of Azulay et al. (ICML 2021), keeps
    u_+ = v_+ and u_- = v_-, and is this network at its own step size (docs/theory.md#squares).

    Args:
        scale: c, finite and > 0; a number or an array.
        phi: the bias, finite and > 0, and not 1 in a product; a number or an array.
        parametrisation: ``product`` or ``squares``.

    Raises:
        InputError: for other values; phi = 1 makes Delta_0 = 0 in a product.

    >>> u, v = biased(scale=0.1, phi=0.5).layers(d=1)
    >>> u.item(), v.item()
    (0.05, 0.2)
    """
    c, bias = _positive("scale", scale), _positive("phi", phi)
    common_shape({"scale": tuple(c.shape[:-1]), "phi": tuple(bias.shape[:-1])})
    if not is_one_of(parametrisation, PARAMETRISATIONS):
        known = ", ".join(PARAMETRISATIONS)
        raise InputError(f"parametrisation = {parametrisation!r} must be one of {known}")
    first, second = bias * c, c / bias
    name = f"biased, c = {_shown(scale)}, phi = {_shown(phi)}"
    given = f"scale = {_least(scale)}, phi = {_shown(phi)}"
    if parametrisation == "squares":
        return Start(first + second, first - second, f"{name}, squares", key=given)
    if bool((bias == 1).any()):
        raise InputError(
            f"phi = 1 makes u = v and Delta_0 = 0, against condition (C1); {BALANCED_REMEDY}"
        )
    return Start(first, second, name, key=given)


def gaussian(alpha: ArrayLike = 0.1, seed: int = 0) -> Start:
    """u_0, v_0 i.i.d. N(0, alpha^2), drawn by a seed.

    Args:
        alpha: standard deviation, finite and > 0; a number, or an array, which scales one draw.
        seed: an integer in [0, 2^64).

    Raises:
        InputError: for other values.

    >>> u, v = gaussian(alpha=0.1, seed=3).layers(d=2)
    >>> u.shape
    torch.Size([2])
    """
    if not is_seed(seed):
        raise InputError(f"seed = {seed!r} must be an integer in [0, 2^64)")
    scale = _positive("alpha", alpha)
    return _Gaussian(scale, int(seed), f"gaussian, alpha = {_shown(alpha)}, seed = {seed}")


def _positive(key: str, value: ArrayLike) -> Tensor:
    """A parameter of shape S as [*S, 1], to broadcast over the coordinates."""
    array = array_of(key, value)
    wrong = array[~((array > 0) & np.isfinite(array))]
    if wrong.size:
        raise InputError(f"{key} = {wrong.flat[0]:g} must be finite and > 0")
    return torch.from_numpy(array[..., None])


def _least(value: ArrayLike) -> str:
    """The smallest of the values, which is refused first."""
    return f"{array_of('', value).min():g}"


def _shown(value: ArrayLike) -> str:
    array = array_of("", value)
    return f"{array:g}" if array.ndim == 0 else f"{array.size} values"
