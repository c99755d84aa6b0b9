"""What a call of `train` returns: the runs, what was recorded of them, and their certificate."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.engine.problems import (
    Measure,
    Problems,
    first_of,
    groups_of,
    measure,
    problem_of_run,
    select,
)
from dln_momentum.errors import InputError
from dln_momentum.extras import naming_extra
from dln_momentum.interface import notebook
from dln_momentum.interface.certificate import Certificate, spread_rows
from dln_momentum.interface.records import Records
from dln_momentum.interface.shaped import Shaped, shaped
from dln_momentum.method import Method
from dln_momentum.outputs.along_path import distances_along_path, has_path_distances, limit
from dln_momentum.outputs.changing_rates import method_settings
from dln_momentum.outputs.divergence import why_diverged
from dln_momentum.outputs.history import run_history, with_targets
from dln_momentum.outputs.minimisers import certificate, distance, kappa_of, potential
from dln_momentum.outputs.quantities import describe
from dln_momentum.outputs.report import run_rows
from dln_momentum.outputs.stability import stability
from dln_momentum.outputs.summary import (
    balancedness_errors,
    balancedness_scalars,
    curvature,
    log_free_error,
    recovery,
    summarise,
)
from dln_momentum.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DISTANCES = 4000
"""Records, steps times runs, up to which `Run.to_dataset` adds the distances by default."""


class Run(Shaped):
    """One run or many of `train`, as NumPy arrays: scalars have their shape S, vectors S + [d].

    Attributes:
        problem: the data, flat over the runs; of several problems the first.
        shape: S; () for one run.
        snapshot: the end of all runs, as the engine has it, flat.
        method: how they were advanced, flat.
    """

    def __init__(
        self,
        problem: Problem | Problems,
        snapshot: Snapshot,
        shape: tuple[int, ...],
        records: Records,
        method: Method,
        workers: int = 1,
    ) -> None:
        self.method, self._workers = method, workers
        self.problem, self._problems = first_of(problem), problem
        self.snapshot, self.shape, self._records = snapshot, shape, records

    def __repr__(self) -> str:
        why = f"; {self._why_diverged}" if self._why_diverged else ""
        what = f"{self.problem.name!r}, shape={self.shape}, d={self.problem.d}"
        after = f" after {self.steps} steps" if self.shape == () else ""
        return f"Run({what}: {self._endings}{after}{why})"

    def _repr_html_(self) -> str:
        if self.shape == ():
            sums = "telescoped" if self.snapshot.certifies else "gradient_sum"
            found = self.summary | {"status": self.status, "path_sums": sums}
            found |= method_settings(self.method, self.problem, found)
            rows = [*run_rows(found)]
            header = ("quantity", "predicted", "measured")
        else:
            header = ("quantity", "median", "worst", "of run")
            # what needs no solver: the minimisers of thousands of runs take seconds
            found = {"steps": self.snapshot.steps, **self.measure(_without_solver, None)}
            shaped = {name: self._shaped(value.double()) for name, value in found.items()}
            rows = spread_rows(shaped)
        return notebook.table(repr(self), header, rows)

    @cached_property
    def _why_diverged(self) -> str:
        """A line on the first run that diverged; empty where none has."""
        diverged = (self.snapshot.status == Status.DIVERGED).nonzero().flatten().tolist()
        if not diverged:
            return ""
        first = diverged[0]
        s = {"gamma": self.snapshot.gamma[first].item(), "n": self.problem.n}
        method = self.method.of(slice(first, first + 1))
        one = select(self.snapshot, slice(first, first + 1))
        history = self._records.history
        names = {"w_plus", "w_minus"} & set(history.values)
        columns = {name: history.column(name)[:, first : first + 1] for name in names}
        s |= stability(one, problem_of_run(self._problems, first), method, columns, history.steps)
        s |= method_settings(method, self.problem, s)
        if self.shape == ():
            return why_diverged(s)
        place = tuple(int(axis) for axis in np.unravel_index(first, self.shape))
        return f"run {place[0] if len(place) == 1 else place}: {why_diverged(s)}"

    @cached_property
    def status(self) -> Any:
        """How each run ended: ``converged``, ``diverged`` or ``max_steps``."""
        labels = np.array([Status(int(code)).label for code in self.snapshot.status])
        return str(labels[0]) if self.shape == () else labels.reshape(self.shape)

    steps = shaped("snapshot.steps", "Steps taken.")
    train_loss = shaped("snapshot.loss", "L(theta) = 1/(2n) ||X theta - y||^2.")
    theta = shaped("snapshot.theta", "The predictor theta = u v.")
    u = shaped("snapshot.u", "First layer.")
    v = shaped("snapshot.v", "Second layer.")
    w_plus = shaped("snapshot.w_plus", "w_+ = u + v.")
    w_minus = shaped("snapshot.w_minus", "w_- = u - v.")
    balancedness = shaped("snapshot.balancedness", "Delta = |u^2 - v^2|.")
    sign_changes = shaped("snapshot.sign_changes", "Sign changes of the entries of w_+ and w_-.")

    @property
    def s_plus(self) -> Any:
        """The path sum S_+."""
        return self._shaped(self.snapshot.path_sums[0])

    @property
    def s_minus(self) -> Any:
        """The path sum S_-."""
        return self._shaped(self.snapshot.path_sums[1])

    @cached_property
    def sharpness(self) -> Any:
        """The largest eigenvalue of the Hessian of F at the end; `train` records it on request."""
        return self._shaped(self.measure(curvature, None)["sharpness"])

    @property
    def sharpness_threshold(self) -> Any:
        """The sharpness above which the last step is unstable on a quadratic.

        2 (1 + beta)/gamma of heavy ball at constant rates.
        """
        return self._shaped(self.snapshot.threshold[:, 0])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every scalar of the theory at the end, by name; shape S each."""
        found = self.measure(summarise, None)
        return {name: self._shaped(value) for name, value in found.items()}

    def certify(self) -> Certificate:
        """The certificate of the last iterate of each run.

        Raises:
            InputError: for ``path_sums = gradient_sum``, which certifies nothing.
        """
        if not self.snapshot.certifies:
            raise InputError(
                "path_sums = 'gradient_sum' certifies nothing: train with telescoped or direct"
            )
        found = self.measure(_certificate, None)
        return Certificate(**{name: self._shaped(value) for name, value in found.items()})

    def to_dataset(self, distances: bool | None = None) -> xr.Dataset:
        """What was recorded, and how each run ended, over step, the run dimensions and coordinate.

        Args:
            distances: whether to add the distances of theta_k to the minimisers of its own
                potential, over its own level set (0 at every step) and over the interpolators, and
                to the minimiser at the end of the run. This solves two problems for each record of
                each run, about a millisecond. By default up to 4,000 records of all runs together.

        Raises:
            InputError: for distances without trajectories.
        """
        history, records = self._records.history, self._records
        columns = {name: history.column(name) for name in history.values}
        if distances is None:
            solves = len(history.steps) * len(self.snapshot.loss)
            distances = records.trajectories and solves <= MOST_DISTANCES
        if distances:
            if not records.trajectories:
                raise InputError("distances need trajectories: train(..., trajectories=True)")
            end = self.measure(limit, None)["minimizer"]
            columns |= distances_along_path(
                columns,
                end,
                groups_of(self._problems),
                certifies=has_path_distances(self.snapshot, self.problem),
                kappa=kappa_of(self.snapshot),
                workers=self._workers,
            )
        found = run_history(
            columns, history.steps, self.snapshot, self.method.schedule, self.shape, self.dims
        )
        return describe(
            found.assign(status=(self.dims, self.status), steps=(self.dims, self.steps))
        )

    def plot(self) -> Figure:
        """Loss, Delta, S_+-, distances to minimisers, identities and theta of one run on a page.

        Raises:
            InputError: for more than one run, without trajectories, or without matplotlib.
        """
        with naming_extra():
            from dln_momentum.outputs.plotting import overview

        if self.shape != () or not self._records.trajectories:
            raise InputError(
                "plot needs one run with trajectories; dln.plot(runs, x=NAME, y=NAME) draws many"
            )
        history = self.to_dataset(distances=True)
        minimum = self.certify().minimizer if self.snapshot.certifies else np.nan * self.theta
        history = with_targets(history, self.problem, minimum)
        return overview(history, self.summary | {"data": self.problem.name, "status": self.status})

    def measure(self, function: Measure, workers: int | None = 1) -> dict[str, Tensor]:
        """What a function of runs and their problem gives for all of them, flat.

        Args:
            function: takes a `Snapshot` of some runs and their `Problem`, and returns values
                [R, ...] by name.
            workers: threads that call it at once; None for as many as the runs were trained with.
        """
        read, runs = partial(select, self.snapshot), len(self.snapshot.loss)
        return measure(read, groups_of(self._problems), runs, function, workers or self._workers)

    def _shaped(self, value: Tensor) -> Any:
        array = value.detach().cpu().numpy()
        shaped = array.reshape((*self.shape, *array.shape[1:]))
        return shaped.item() if shaped.ndim == 0 else shaped


def _without_solver(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The loss, the errors of theta and the numbers that test the theorem at every step."""
    return {
        "train_loss": snapshot.loss,
        **recovery(snapshot.theta, problem),
        **balancedness_scalars(snapshot),
        **balancedness_errors(snapshot),
        "log_free_error": log_free_error(snapshot),
        **certificate(snapshot, problem),
    }


def _certificate(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The fields of `Certificate`."""
    delta, c = potential(snapshot)
    found = limit(snapshot, problem)["minimizer"]
    return {
        "kkt_residual": certificate(snapshot, problem)["kkt_residual"],
        "path_identity_error": balancedness_errors(snapshot)["path_identity_error"],
        "log_free_error": log_free_error(snapshot),
        "distance_to_minimizer": distance(snapshot.theta, found),
        "balancedness": delta,
        "log_init": c,
        "minimizer": found,
    }
