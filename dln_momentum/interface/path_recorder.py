"""The theorem for a run that something else trains: a recorder on the hooks of its optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import checked
from dln_momentum.interface.optimizer_steps import OptimizerSteps, Recorder, Step, double
from dln_momentum.interface.path_certificate import PathCertificate, certificate_of
from dln_momentum.interface.path_sums import PathSums
from dln_momentum.problem import Problem
from dln_momentum.theory.coordinate_rates import scaled_layers
from dln_momentum.theory.family import step_terms


class PathRecorder(Recorder):
    """Watches an optimizer train a diagonal linear network, and certifies the run.

    It works wherever the optimizer is stepped: a loop of one's own, Lightning, any trainer. It
    keeps sums alone, O(d) numbers, so that a run of any length can be watched
    (docs/theory.md#forward-form; not on the poster). Learning-rate schedulers, momentum, Nesterov,
    dampening and weight decay of `torch.optim.SGD` are followed step by step, and so is
    `HeavyBall`. The gradients may be of any batches, and of any loss of X theta.

    Args:
        optimizer: a torch.optim.SGD or HeavyBall, new or not: increments that it already holds are
            an initial speed.
        u, v: the parameters, of one shape; theta = u v, entry by entry. They may be in groups of
            different learning rates, in a constant ratio.
        problem: the data, if the part of each step outside the row space is to be checked as the
            run goes; `certify` checks the sum of all steps in any case.
        parametrisation: ``product``, or ``squares`` for theta = u^2 - v^2.

    Raises:
        InputError: for another optimizer, with the reason why its runs are not of the family, and
            for parameters that it does not train or that are not alike.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> u = torch.nn.Parameter(torch.full((2,), 0.5, dtype=torch.float64))
    >>> v = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    >>> optimizer = torch.optim.SGD([u, v], lr=0.02, momentum=0.9, weight_decay=1e-3)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 50, gamma=0.5)
    >>> recorder = PathRecorder(optimizer, u, v)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     problem.loss(u * v).backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> found = recorder.certify(problem)
    >>> found.is_valid, bool(found.kkt_residual < 1e-12)
    (True, True)
    """

    def __init__(
        self,
        optimizer: Any,
        u: Tensor,
        v: Tensor,
        problem: Problem | None = None,
        *,
        parametrisation: str = "product",
    ) -> None:
        raise_if_any(
            f"{key} is a {_kind(value)}; it must be a parameter, a tensor of floating point"
            for key, value in (("u", u), ("v", v))
            if not isinstance(value, Tensor) or not value.is_floating_point()
        )
        if problem is not None:
            checked(problem, None)
            if problem.runs or problem.d != u.numel():
                raise InputError(
                    f"problem has runs {[*problem.runs]} and d = {problem.d}; the network is one "
                    f"of d = {u.numel()}"
                )
        if u.shape != v.shape or u.ndim == 0 or u is v:
            raise InputError(
                f"u and v must be two parameters of one shape: {[*u.shape]} and {[*v.shape]}"
            )
        if parametrisation not in ("product", "squares"):
            raise InputError(f"parametrisation = {parametrisation!r} must be product or squares")
        self._squares = parametrisation == "squares"
        self._rows = None if problem is None else problem.row_space
        self._ulp = max(torch.finfo(u.dtype).eps, torch.finfo(v.dtype).eps)
        self._sums: PathSums | None = None
        self._before: Tensor | None = None
        self._ratio = 1.0
        self._steps = OptimizerSteps(optimizer, [u, v], self._start, self._step)

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return 0 if self._sums is None else self._sums.steps

    def certify(self, problem: Problem) -> PathCertificate:
        """The certificate of the run as it stands.

        Raises:
            InputError: if the run has left the family, with the step and the reason; before the
                first step; and for a problem of another d.
        """
        checked(problem, None)
        raise_if_any(self.faults)
        if self._sums is None:
            raise InputError("no step has been recorded: the recorder must be made before them")
        if problem.runs or problem.d != self._sums.w.shape[-1]:
            raise InputError(
                f"problem has runs {list(problem.runs)} and d = {problem.d}; the network is one "
                f"of d = {self._sums.w.shape[-1]}"
            )
        path = self._sums.summary().to(problem.X.device)
        return certificate_of(problem, path, kappa=torch.ones_like(problem.X[0]), along=False)

    def _start(self, values: list[Tensor], last: list[Tensor] | None, steps: list[Step]) -> None:
        """The first point, and the increment before it."""
        self._ratio = steps[1].gamma / steps[0].gamma if steps[0].gamma > 0 else 1.0
        w, beta = self._weights(*values), steps[0].beta
        increment = torch.zeros_like(w) if last is None else self._weights(*last)
        if steps[0].nesterov:
            # the parameters are the point ahead, x_1 + beta (x_1 - x_0)
            w = w - beta * increment
        self._before = w - increment
        zero = (w == 0).nonzero()
        if len(zero):
            self._steps.faults.append(
                f"w_{'+-'[int(zero[0, 0])]} is exactly 0 at the start, coordinate "
                f"{int(zero[0, 1])}: condition (C1) needs u^2 != v^2"
            )
        self._sums = PathSums(w, self._before, self._ulp)

    def _step(self, steps: list[Step], values: list[Tensor]) -> None:
        """Add one step."""
        sums = self._sums
        if sums is None or self._before is None or self._left(*steps):
            return
        one = steps[0]
        x = self._weights(*values)
        if one.nesterov:
            x = (x + one.beta * sums.w) / (1 + one.beta)
        if not bool(x.isfinite().all()) or bool((x == 0).any()):
            what = "0" if bool(x.isfinite().all()) else "not finite"
            self._steps.faults.append(f"step {self._steps.calls}: an entry of w_+- is {what}")
            return
        terms = step_terms(
            self._before, sums.w, x, one.beta, one.decay, nesterov=one.nesterov, ulp=self._ulp
        )
        outside = None
        if self._rows is not None:
            outside = self._rows.reject(terms.step.to(self._rows.rows.device)).to(x.device)
        self._before = sums.w
        sums.add(terms, x, one.beta, one.decay, nesterov=one.nesterov, outside=outside)

    def _left(self, first: Step, second: Step) -> bool:
        """Whether the two layers no longer step alike, which is noted."""
        found = []
        pairs = (("beta", first.beta, second.beta), ("nesterov", first.nesterov, second.nesterov))
        found += [
            f"{key} of u is {float(a):g} and of v {float(b):g}" for key, a, b in pairs if a != b
        ]
        if not _close(first.decay, second.decay):
            found.append(
                f"gamma times weight_decay of u is {first.decay:g} and of v {second.decay:g}: the "
                "layers decay unequally"
            )
        if not _close(second.gamma, self._ratio * first.gamma):
            found.append(
                f"gamma_v/gamma_u was {self._ratio:g} and is {second.gamma / first.gamma:g}"
                if first.gamma
                else "gamma of u is 0"
            )
        if self._squares and self._ratio != 1:
            found.append("theta = u^2 - v^2 with unequal learning rates of u and v")
        self._steps.faults += [f"step {self._steps.calls}: {text}" for text in found]
        return bool(found)

    def _weights(self, u: Tensor, v: Tensor) -> Tensor:
        """(w_+, w_-) of the theorem, [2, d], in double precision."""
        u, v = double(u).flatten(), double(v).flatten()
        if self._squares:
            return torch.stack([2 * u, 2 * v])
        u, v = scaled_layers(u, v, 1.0, self._ratio)
        return torch.stack([u + v, u - v])


def _kind(value: Any) -> str:
    """What something is, in a word; of a tensor its type of numbers."""
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _close(a: float, b: float) -> bool:
    """Whether two rates, each rounded a few times, are equal."""
    return abs(a - b) <= 1e-12 * max(abs(a), abs(b))
