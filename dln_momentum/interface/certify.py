"""The theorem for anybody's run: certify the stored iterates of a diagonal linear network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dln_momentum.arrays import flag_of, integer_of, is_one_of, is_real, number_of, tensor_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import checked
from dln_momentum.interface.given_rates import GivenRates
from dln_momentum.interface.keywords import names_its_arguments
from dln_momentum.interface.path_certificate import (
    PathCertificate,
    certificate_of,
    scaled_problem,
)
from dln_momentum.interface.path_sums import PathSummary, PathSums
from dln_momentum.problem import Problem
from dln_momentum.theory import coordinate_rates, nesterov
from dln_momentum.theory.family import StepTerms, step_terms
from dln_momentum.theory.trajectory import theta_of
from dln_momentum.theory.weight_decay import rescaled

METHODS = ("heavy_ball", "nesterov")
PARAMETRISATIONS = ("product", "squares", "diagonal")


@names_its_arguments
def certify(
    problem: Problem,
    iterates: tuple[ArrayLike, ArrayLike],
    *,
    beta: ArrayLike,
    gamma: ArrayLike | None = None,
    method: str = "heavy_ball",
    stores_ahead: bool = False,
    previous: tuple[ArrayLike, ArrayLike] | None = None,
    weight_decay: ArrayLike = 0.0,
    decoupled: bool = False,
    dampening: float = 0.0,
    kappa: ArrayLike = 1.0,
    gamma_u: ArrayLike | None = None,
    gamma_v: ArrayLike | None = None,
    full_batch: bool = True,
    parametrisation: str = "product",
    every: int | None = None,
) -> PathCertificate:
    r"""The certificate of a run that anybody has made, from its iterates.

    The run is

    .. math:: w_{k+1} = w_k - \gamma_k (\nabla F_k(w_k) + \omega_k w_k) + \beta_k (w_k - w_{k-1})

    or Nesterov's method, on (u, v) with theta = u v, for k = 1..K, with any mini-batches or label
    noise (docs/theory.md#one-theorem and docs/certify.md; not on the poster). S_+- is summed from
    the iterates and beta_k alone. Then Delta and c follow, and that theta_{K+1} minimises
    D_{psi_Delta}(., theta~) over its own level set is measured as the KKT residual. See
    `PathCertificate` for what each number tests.

    Args:
        problem: the data.
        iterates: (u, v) at w_1, ..., w_{K+1}, [K+1, d] each: NumPy, lists or tensors. The type of
            floating-point tensors and arrays, or of a list of them, sets what rounding explains.
        beta: beta_k, a number or [K] (of `torch.optim.SGD` with a scheduler
            `dln_momentum.theory.schedules.torch_momentum`).
        gamma: gamma_k, a number or [K]. Without it nothing is said about step sizes: any gamma_k is
            in the family. With it, and the full batch, every step is checked against its gradient.
        method: ``heavy_ball`` or ``nesterov``.
        stores_ahead: the iterates of Nesterov's method are the points ahead z_1, ..., z_{K+1}, as
            torch.optim.SGD has them; otherwise they are the x_k, which the theorem is about.
        previous: (u_0, v_0), where the run does not start from rest.
        weight_decay: omega_k, a number or [K]; it needs gamma.
        decoupled: whether w_k is multiplied by 1 - gamma_k omega_k, outside the momentum (SGDW).
        dampening: of torch.optim.SGD: gradients count (1 - dampening) times from k = 2 on.
        kappa: coordinate i steps by kappa_i gamma_k, a number or [d].
        gamma_u, gamma_v: step sizes of the layers, in place of gamma, in a constant ratio.
        full_batch: whether the gradients are those of the whole loss; False for mini-batches and
            label noise, where gamma_k g_k may be anything in the row space.
        parametrisation: ``product``: theta = u v. ``squares``: the pair is (a, b) with theta =
            a^2 - b^2. ``diagonal``: the pair is (w_+, w_-) = (u + v, u - v).
        every: give the certificate at every so many steps (and the last) instead of at the end.

    Raises:
        InputError: for input that does not fit, or that leaves the family: it says which hypothesis
            fails.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> u, v = [torch.full((2,), 0.5, dtype=torch.float64)], [torch.zeros(2, dtype=torch.float64)]
    >>> du = dv = 0.0
    >>> for k in range(300):
    ...     g = problem.gradient(u[-1] * v[-1])
    ...     du, dv = 0.9 * du - 0.01 * g * v[-1], 0.9 * dv - 0.01 * g * u[-1]
    ...     u.append(u[-1] + du)
    ...     v.append(v[-1] + dv)
    >>> found = certify(problem, (torch.stack(u), torch.stack(v)), gamma=0.01, beta=0.9)
    >>> found.is_valid, bool(found.kkt_residual < 1e-12)
    (True, True)
    >>> certify(problem, (torch.stack(u), torch.stack(v)), gamma=0.01, beta=0.8).is_valid
    False
    """
    checked(problem, None)
    stores_ahead = flag_of("stores_ahead", stores_ahead)
    decoupled, full_batch = flag_of("decoupled", decoupled), flag_of("full_batch", full_batch)
    every = None if every is None else integer_of("every", every, 1)
    dampening = number_of("dampening", dampening)
    raise_if_any(_option_problems(method, stores_ahead, decoupled, parametrisation))
    if problem.runs:
        raise InputError(f"problem has runs {list(problem.runs)}; it must be one problem")
    first, second, ulp = _pair("iterates", iterates, problem)
    steps = len(first) - 1
    rates = GivenRates(steps, beta, gamma, gamma_u, gamma_v, weight_decay, dampening)
    scale = tensor_of("kappa", kappa)
    errors = [*rates.problems(decoupled, parametrisation, stores_ahead)]
    if scale.shape not in ((), (problem.d,)) or not bool((scale > 0).all()):
        errors.append(f"kappa of shape {[*scale.shape]} must be a number or [{problem.d}], > 0")
    raise_if_any(errors)
    scale = scale.expand(problem.d)

    def weights(first: Tensor, second: Tensor) -> Tensor:
        """(w_+, w_-) of the theorem, [..., 2, d]."""
        if parametrisation == "product":
            a, b = coordinate_rates.scaled_layers(first, second, *rates.layers)
            first, second = a + b, a - b
        elif parametrisation == "squares":
            first, second = 2 * first, 2 * second
        return torch.stack([first, second], -2) / scale.sqrt()

    w = weights(first, second)
    before = w[0] if previous is None else weights(*_start(previous, problem))
    beta_k = rates.beta
    if stores_ahead:
        w = nesterov.from_ahead(w, torch.cat([beta_k, beta_k[-1:]])[:, None, None])
    raise_if_any(_zeros(w))
    shrink = rates.gamma * rates.decay if decoupled else torch.zeros_like(beta_k)
    decay = torch.zeros_like(beta_k) if decoupled else rates.decay_step
    w, beta_k = rescaled(w, shrink), beta_k / (1 - shrink)
    decay = decay[:, None] * scale
    is_nesterov = method == "nesterov"
    earlier = torch.cat([before[None], w[:-2]])
    terms = step_terms(
        earlier, w[:-1], w[1:], beta_k[:, None, None], decay, nesterov=is_nesterov, ulp=ulp
    )
    scaled = scaled_problem(problem, scale)
    outside = scaled.row_space.reject(terms.step)
    update_error = None
    if rates.known and full_batch:
        # the gradient is taken at the iterates as they are
        product = torch.cat([torch.ones(1).to(shrink), (1 - shrink).cumprod(0)])[:-1]
        theta = theta_of((terms.base[:, 0], terms.base[:, 1])) * product[:, None].square()
        step = rates.gradient_step * (2 if parametrisation == "squares" else 1) / (1 - shrink)
        update_error = terms.step - step[:, None] * scaled.gradient(theta)
    sums, rows = PathSums(w[0], before, ulp), []
    for k in range(steps):
        sums.add(
            StepTerms(*(term[k] for term in terms)),
            w[k + 1],
            beta_k[k],
            decay[k],
            shrink=shrink[k],
            nesterov=is_nesterov,
            outside=outside[k],
            update_error=None if update_error is None else update_error[k],
        )
        if k + 1 == steps or (every and (k + 1) % every == 0):
            rows.append(sums.summary())
    path = PathSummary.joined(rows)
    return certificate_of(problem, path, kappa=scale, along=every is not None)


def _option_problems(
    method: str, stores_ahead: bool, decoupled: bool, parametrisation: str
) -> Iterator[str]:
    if not is_one_of(method, METHODS):
        yield (
            f"method = {method!r} must be one of {', '.join(METHODS)}: rates that depend on the "
            "data in each coordinate (Adam, RMSprop, sign descent) leave span(x_1..x_n)"
        )
    if not is_one_of(parametrisation, PARAMETRISATIONS):
        yield f"parametrisation = {parametrisation!r} must be one of {', '.join(PARAMETRISATIONS)}"
    if stores_ahead and method != "nesterov":
        yield "stores_ahead is of method = nesterov alone"
    if decoupled and method == "nesterov":
        yield "decoupled weight decay with method = nesterov is not in the family"


def _pair(
    key: str, given: tuple[ArrayLike, ArrayLike], problem: Problem
) -> tuple[Tensor, Tensor, float]:
    """Two arrays [K+1, d] in double precision, and the rounding of the type they came in."""
    _check_pair(key, given)
    first, second = (tensor_of(key, value) for value in given)
    shapes = [*first.shape], [*second.shape]
    if shapes[0] != shapes[1] or first.ndim != 2 or first.shape[1] != problem.d or len(first) < 2:
        raise InputError(
            f"{key} have shapes {shapes[0]} and {shapes[1]}; both must be [K+1, {problem.d}], "
            "K >= 1"
        )
    if not bool((first.isfinite() & second.isfinite()).all()):
        bad = int((~(first.isfinite() & second.isfinite())).any(-1).nonzero()[0])
        raise InputError(f"{key} are not finite at index {bad}: certify the steps before it")
    return first, second, max(_ulp(value) for value in given)


def _check_pair(key: str, given: Any) -> None:
    """Raise `InputError` for what is not a pair."""
    if not isinstance(given, list | tuple) or len(given) != 2:
        what = f"{len(given)} of them" if isinstance(given, list | tuple) else type(given).__name__
        raise InputError(f"{key} must be a pair of arrays (u, v), given {what}")


def _start(previous: tuple[ArrayLike, ArrayLike], problem: Problem) -> tuple[Tensor, Tensor]:
    _check_pair("previous", previous)
    u, v = (tensor_of("previous", value) for value in previous)
    if u.shape != (problem.d,) or v.shape != (problem.d,):
        raise InputError(
            f"previous has shapes {[*u.shape]} and {[*v.shape]}; both must be [{problem.d}]"
        )
    return u, v


def _ulp(value: Any) -> float:
    """The rounding of the floating-point type of an array, or the coarsest of a list of arrays.

    Of double precision otherwise.
    """
    if isinstance(value, list | tuple) and len(value) and not is_real(value[0]):
        return max(map(_ulp, value))
    name = str(getattr(value, "dtype", "float64")).removeprefix("torch.")
    dtype = getattr(torch, name, torch.float64)
    found = dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float64
    return torch.finfo(found).eps


def _zeros(w: Tensor) -> Iterator[str]:
    zero = (w == 0).nonzero()
    if len(zero):
        k, sign, i = zero[0].tolist()
        yield (
            f"w_{'+-'[sign]} is exactly 0 at index {k}, coordinate {i}: the path sums are defined "
            "where no w_+- is 0 (u^2 = v^2 there; condition C1 for the start)"
        )
