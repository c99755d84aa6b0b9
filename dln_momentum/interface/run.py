"""What a call of `train` returns: the runs, what was recorded of them, and their certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.errors import InputError
from dln_momentum.outputs.history import History, run_history, with_targets
from dln_momentum.outputs.summary import (
    balancedness_errors,
    balancedness_scalars,
    certificate,
    coordinates,
    distance,
    log_free_error,
    minimiser,
    path_sum_scalars,
    potential,
    recovery,
    summarise,
)
from dln_momentum.problem import Problem


@dataclass
class Records:
    """The quantities of all runs at the recorded steps."""

    trajectories: bool
    """whether values per coordinate are kept"""
    history: History = field(default_factory=History)

    def add(self, snapshot: Snapshot, problem: Problem) -> None:
        """Record the runs as they stand."""
        values = {
            "train_loss": snapshot.loss,
            **recovery(snapshot.theta, problem),
            **balancedness_scalars(snapshot),
            **path_sum_scalars(snapshot),
            **certificate(snapshot, problem),
        }
        if self.trajectories:
            values |= coordinates(snapshot)
        self.history.record(snapshot.step, values)


@dataclass(frozen=True)
class Certificate:
    """What the theory says of the last iterate, and by how much it is missed; shape S each.

    theta_K minimises D_{psi_Delta}(., theta~) over its own level set exactly when the KKT residual
    is 0, converged or not. S_+- is summed from the iterates, so that a fault of the run shows.

    Attributes:
        kkt_residual: relative norm of the part of (arcsinh(2 theta/Delta) - c)/2 outside the row
            space.
        path_identity_error: largest relative error of Delta against Delta_0 exp(-(S~_+ + S~_-)).
        log_free_error: largest error of u^2 - v^2 against its log-free sum, over max Delta_0.
        distance_to_minimizer: of theta to argmin D over all interpolators; 0 once converged.
        balancedness, log_init, minimizer: Delta, c = arcsinh(2 theta~/Delta) and that argmin,
            S + [d].
    """

    kkt_residual: Any
    path_identity_error: Any
    log_free_error: Any
    distance_to_minimizer: Any
    balancedness: NDArray[np.float64]
    log_init: NDArray[np.float64]
    minimizer: NDArray[np.float64]


class Run:
    """One run or many of `train`, as NumPy arrays: scalars have their shape S, vectors S + [d].

    Attributes:
        problem: the data, flat over the runs.
        shape: S; () for one run.
        snapshot: the end of all runs, as the engine has it, flat.
    """

    def __init__(
        self, problem: Problem, snapshot: Snapshot, shape: tuple[int, ...], records: Records
    ) -> None:
        self.problem, self.snapshot, self.shape = problem, snapshot, shape
        self._records = records

    def __repr__(self) -> str:
        labels, counts = np.unique(np.atleast_1d(self.status), return_counts=True)
        endings = ", ".join(f"{n} {label}" for label, n in zip(labels, counts, strict=True))
        return f"Run({self.problem.name!r}, shape={self.shape}, d={self.problem.d}: {endings})"

    @cached_property
    def status(self) -> Any:
        """How each run ended: ``converged``, ``diverged`` or ``max_steps``."""
        labels = np.array([Status(int(code)).label for code in self.snapshot.status])
        return str(labels[0]) if self.shape == () else labels.reshape(self.shape)

    @property
    def steps(self) -> Any:
        """Steps taken."""
        return self._shaped(self.snapshot.steps)

    @property
    def train_loss(self) -> Any:
        """L(theta) = 1/(2n) ||X theta - y||^2."""
        return self._shaped(self.snapshot.loss)

    @property
    def theta(self) -> Any:
        """The predictor theta = u v."""
        return self._shaped(self.snapshot.theta)

    @property
    def u(self) -> Any:
        """First layer."""
        return self._shaped(self.snapshot.u)

    @property
    def v(self) -> Any:
        """Second layer."""
        return self._shaped(self.snapshot.v)

    @property
    def w_plus(self) -> Any:
        """w_+ = u + v."""
        return self._shaped(self.snapshot.w[0])

    @property
    def w_minus(self) -> Any:
        """w_- = u - v."""
        return self._shaped(self.snapshot.w[1])

    @property
    def balancedness(self) -> Any:
        """Delta = |u^2 - v^2|."""
        return self._shaped(self.snapshot.balancedness)

    @property
    def s_plus(self) -> Any:
        """The path sum S_+."""
        return self._shaped(self.snapshot.path_sums[0])

    @property
    def s_minus(self) -> Any:
        """The path sum S_-."""
        return self._shaped(self.snapshot.path_sums[1])

    @property
    def sign_changes(self) -> Any:
        """Sign changes of the entries of w_+ and w_-."""
        return self._shaped(self.snapshot.sign_changes)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every scalar of the theory at the end, by name; shape S each."""
        found = summarise(self.snapshot, self.problem)
        return {name: self._shaped(value) for name, value in found.items()}

    def certify(self) -> Certificate:
        """The certificate of the last iterate of each run.

        Raises:
            InputError: for ``path_sums = gradient_sum``, which certifies nothing.
        """
        if not self.snapshot.certifies:
            raise InputError(
                ["path_sums = 'gradient_sum' certifies nothing: train with telescoped or direct"]
            )
        delta, c = potential(self.snapshot)
        target = self.problem.row_space.target(self.problem.y)
        found = minimiser(self.problem, target, delta, c, self.snapshot.theta)
        kkt = certificate(self.snapshot, self.problem)["kkt_residual"]
        identity = balancedness_errors(self.snapshot)["path_identity_error"]
        return Certificate(
            kkt_residual=self._shaped(kkt),
            path_identity_error=self._shaped(identity),
            log_free_error=self._shaped(log_free_error(self.snapshot)),
            distance_to_minimizer=self._shaped(distance(self.snapshot.theta, found)),
            balancedness=self._shaped(delta),
            log_init=self._shaped(c),
            minimizer=self._shaped(found),
        )

    def to_dataset(self) -> xr.Dataset:
        """What was recorded, over the dimensions step, those of the runs, and coordinate.

        With trajectories, the distances of theta_k to the minimisers of its own potential are
        there too: over its own level set (0 at every step), over the interpolators, and to the
        minimiser at the end of the run.
        """
        history = self._records.history
        columns = {name: history.column(name) for name in history.values}
        if self._records.trajectories:
            columns |= self._distances(columns)
        return run_history(columns, history.steps, self.snapshot, self.shape, self.dims)

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the run dimensions in `to_dataset`."""
        if len(self.shape) == 1:
            return ("run",)
        return tuple(f"run_{axis}" for axis in range(len(self.shape)))

    def plot(self) -> Figure:
        """Loss, Delta, S_+-, distances to minimisers, identities and theta of one run on a page.

        Raises:
            InputError: for more than one run, or without trajectories.
        """
        from dln_momentum.outputs.plotting import overview

        if self.shape != () or not self._records.trajectories:
            raise InputError(["plot needs one run with trajectories; see to_dataset for many"])
        history = self.to_dataset()
        minimum = self.certify().minimizer if self.snapshot.certifies else np.nan * self.theta
        history = with_targets(history, self.problem, minimum)
        return overview(history, self.summary | {"data": self.problem.name, "status": self.status})

    def _distances(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """The minimisers of all records of all runs, as one batch."""
        theta, delta, c = (columns[name] for name in ("theta", "balancedness", "log_init"))
        T, R, d = theta.shape
        names = ("own_level_set_distance", "distance_to_minimizer", "distance_to_limit")
        if not self.snapshot.certifies:
            return dict.fromkeys(names, torch.full((T, R), torch.nan, dtype=theta.dtype))
        problem, rows = self.problem, self.problem.row_space
        if problem.runs:
            raise InputError(["distances along the path need data that all runs share"])
        flat = [value.reshape(-1, d) for value in (theta, delta, c)]
        target = rows.target(problem.y).expand(T * R, -1)
        own = rows.coordinates(flat[0].nan_to_num())
        limit = minimiser(problem, target[:R], *potential(self.snapshot), self.snapshot.theta)
        found = (
            distance(flat[0], minimiser(problem, own, flat[1], flat[2], flat[0])),
            distance(flat[0], minimiser(problem, target, flat[1], flat[2])),
            distance(flat[0], limit.expand(T, R, d).reshape(-1, d)),
        )
        return {name: value.reshape(T, R) for name, value in zip(names, found, strict=True)}

    def _shaped(self, value: Tensor) -> Any:
        array = value.detach().cpu().numpy()
        shaped = array.reshape((*self.shape, *array.shape[1:]))
        return shaped.item() if shaped.ndim == 0 else shaped
