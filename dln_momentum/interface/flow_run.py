"""The result of `flow`: one flow or many as NumPy arrays, with its certificate and figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.arrays import short_repr
from dln_momentum.errors import InputError
from dln_momentum.extras import naming_extra
from dln_momentum.flows import FlowPath
from dln_momentum.flows.batched import Flows
from dln_momentum.interface import notebook
from dln_momentum.interface.certificate import spread_rows
from dln_momentum.interface.shaped import Shaped, shaped
from dln_momentum.outputs.flow_summary import FlowMeasures, measure
from dln_momentum.outputs.history import flow_history, labelled
from dln_momentum.outputs.quantities import describe
from dln_momentum.outputs.terminal import number
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import path_integrals
from dln_momentum.theory.curvature import sharpness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDED = (
    "theta", "balancedness", "i_plus", "i_minus", "w_plus", "w_minus", "train_loss", "energy",
)  # fmt: skip
"""The attributes of a flow that its dataset holds."""

RECORDS = 200
"""Log-spaced times at which a figure evaluates the theory."""


@dataclass(frozen=True)
class FlowCertificate:
    """How well the end of one flow satisfies the theory; I_+- is summed by its definition.

    Attributes:
        kkt_residual: relative norm of the part of (arcsinh(2 theta/Delta) - c)/2 outside the row
            space.
        path_identity_error: largest relative error of Delta against Delta_0 exp(-(I~_+ + I~_-)).
        energy_balance_error: |E_0 - E_t - int ||w'||^2| over E_0.
        path_integral_uncertainty: bound on the error of the summed I_+-.
        distance_to_minimizer: of theta to argmin D over all interpolators; 0 once converged.
        minimizer: that argmin, [d].
        tolerances: what the errors of the solver and of the sums explain of the first two, by name;
            a flow that has hardly moved has a KKT residual of rounding alone.
    """

    kkt_residual: float
    path_identity_error: float
    energy_balance_error: float
    path_integral_uncertainty: float
    distance_to_minimizer: float
    minimizer: NDArray[np.float64]
    tolerances: Mapping[str, float]

    __repr__ = short_repr

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Each number with what it is predicted to be, as text."""
        said = {
            **{name: f"0 +- {allowed:.1e}" for name, allowed in self.tolerances.items()},
            "energy_balance_error": "0",
            "distance_to_minimizer": "0 once converged",
        }
        return [(name, predicted, f"{getattr(self, name):.2e}") for name, predicted in said.items()]

    def _repr_html_(self) -> str:
        return notebook.table("Certificate", ("number", "predicted", "measured"), self.rows)


class FlowRun(Shaped):
    """One flow or many of `flow`, as NumPy arrays.

    One flow has times [T] and vectors [T, d]; many of shape S have times [T] + S and vectors
    [T] + S + [d]. Index 0 is t = 0, index -1 is the end of each flow.

    Attributes:
        problem: the data, flat over the flows.
        shape: S; () for one flow.
        path: the integrated path in torch, `FlowPath` or `Flows`, flat.

    Args:
        measured_to: the tolerance of a path with every step of the solver; None for other paths,
            which have no certificate.
    """

    def __init__(
        self,
        problem: Problem,
        path: FlowPath | Flows,
        shape: tuple[int, ...],
        measured_to: float | None,
    ) -> None:
        self.problem, self.path, self.shape = problem, path, shape
        self._measured_to = measured_to

    def __repr__(self) -> str:
        solvers = self.path.solvers if isinstance(self.path, FlowPath) else ()
        why = "".join(f"; {report.message}" for report in solvers if report.message)
        what = f"{self.problem.name!r}, shape={self.shape}, T={len(self.t)}"
        return f"FlowRun({what}: {self._endings}{why})"

    def _repr_html_(self) -> str:
        if self.shape == ():
            rows = [("F + lambda/2 ||w'||^2 at the end", "0", number(float(self.energy[-1])))]
            if self._measured_to is not None:
                rows += self.certify().rows
            return notebook.table(repr(self), ("quantity", "predicted", "measured"), rows)
        ends = {"t": self.t[-1], "train_loss": self.train_loss[-1], "energy": self.energy[-1]}
        header = ("at the end", "median", "largest", "of flow")
        return notebook.table(repr(self), header, spread_rows(ends))

    @property
    def lam(self) -> Any:
        """lambda, a number or an array of shape S; [T] where lambda or the friction changes."""
        lam = self.path.lam
        if isinstance(self.path, FlowPath) and isinstance(lam, Tensor):
            return lam[:, 0].numpy()
        return lam.numpy().reshape(self.shape) if isinstance(lam, Tensor) else lam

    @property
    def status(self) -> Any:
        """How each flow ended: ``converged``, ``time_reached`` or ``failed``."""
        if isinstance(self.path, FlowPath):
            return self.path.status.value
        return np.array([status.value for status in self.path.status]).reshape(self.shape)

    t = shaped("path.t", "Times.")
    theta = shaped("path.theta", "The predictor theta = u v.")
    u = shaped("path.u", "First layer.")
    v = shaped("path.v", "Second layer.")
    w_plus = shaped("path.w_plus", "w_+ = u + v.")
    w_minus = shaped("path.w_minus", "w_- = u - v.")
    balancedness = shaped("path.balancedness", "Delta = |u^2 - v^2|.")
    train_loss = shaped("path.loss", "L(theta) = 1/(2n) ||X theta - y||^2.")
    energy = shaped("path.energy", "E = F(w) + lambda/2 ||w'||^2.")

    @property
    def i_plus(self) -> NDArray[np.float64]:
        """The path integral I_+, from the regular form; 0 for gradient flow."""
        return self._shaped(path_integrals(self.path)[0])

    @property
    def i_minus(self) -> NDArray[np.float64]:
        """The path integral I_-, likewise."""
        return self._shaped(path_integrals(self.path)[1])

    @property
    def sign_changes(self) -> Any:
        """Sign changes of the entries of w_+ and w_-; a number or an array of shape S."""
        changes = self.path.sign_changes
        return changes.numpy().reshape(self.shape) if self.shape else int(changes.sum())

    @cached_property
    def sharpness(self) -> NDArray[np.float64]:
        """The largest eigenvalue of the Hessian of F at every time, [T] + S."""
        problem, w = self.problem, self.path.w
        if problem.runs:
            found = [sharpness(problem, w[:, place]) for place in range(w.shape[1])]
            return self._shaped(torch.stack(found))
        return self._shaped(sharpness(problem, w))

    def certify(self) -> FlowCertificate:
        """The certificate of the end of one flow.

        Raises:
            InputError: for more than one flow, or output times: I_+- is summed over every step.
        """
        end, allowed = self._measures.end, self._measures.allowed
        return FlowCertificate(
            kkt_residual=end["kkt_residual"],
            path_identity_error=end["path_integral_identity_error"],
            energy_balance_error=end["energy_balance_error"],
            path_integral_uncertainty=end["path_integral_uncertainty"],
            distance_to_minimizer=end["distance_to_minimizer"],
            minimizer=self._measures.minimizer.numpy(),
            tolerances={
                "kkt_residual": allowed["kkt_residual"],
                "path_identity_error": allowed["path_integral_identity_error"],
            },
        )

    def to_dataset(self) -> xr.Dataset:
        """theta, balancedness, i_plus, i_minus, w_plus, w_minus, train_loss, energy and status.

        The dimensions are time, those of the flows, and coordinate. The coordinates are lam and,
        of many flows, t, the times of each flow; time itself has values where all flows share them.
        """
        values = {name: torch.from_numpy(getattr(self, name)) for name in RECORDED}
        dims = self.dims
        of_flows = self.t.reshape(len(self.t), -1)
        shared = of_flows[:, 0]
        coords = {"time": shared} if (of_flows == shared[:, None]).all() else {}
        found = labelled(values, ("time", *dims, "coordinate"), coords)
        found = found.assign(status=(dims, self.status))
        changing = not dims and np.ndim(self.lam) == 1
        found = found.assign_coords(lam=("time" if changing else dims, self.lam))
        if dims:
            found = found.assign_coords(t=(("time", *dims), self.t))
        return describe(found)

    def plot(self) -> Figure:
        """Loss, Delta, I_+-, distances to minimisers, identities and theta of one flow on a page.

        Raises:
            InputError: for more than one flow, for output times, or without matplotlib.
        """
        with naming_extra():
            from dln_momentum.outputs.plotting import overview

        found = self._measures
        values = found.scalars | found.coordinates
        history = flow_history(values, found.times, self.problem, found.minimizer)
        names = {"lam": self._measures.end["lam"], "data": self.problem.name, "status": self.status}
        return overview(history, names)

    @cached_property
    def _measures(self) -> FlowMeasures:
        if not isinstance(self.path, FlowPath) or self._measured_to is None:
            raise InputError("certify and plot need every step of one flow: one lam, no times")
        return measure(self.problem, self.path, RECORDS, self._measured_to)

    def _shaped(self, value: Tensor) -> NDArray[np.float64]:
        array = value.detach().cpu().numpy()
        return array.reshape((len(array), *self.shape, *array.shape[2:])) if self.shape else array
