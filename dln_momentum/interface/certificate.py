"""The certificate of the last iterate of one run or many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dln_momentum.arrays import short_repr
from dln_momentum.interface import notebook
from dln_momentum.outputs.terminal import number

PREDICTED = {
    "kkt_residual": "0",
    "path_identity_error": "0",
    "log_free_error": "0",
    "distance_to_minimizer": "0 once converged",
}
"""The scalars of a certificate and what the theory says of them; 0 is 0 to rounding."""


class Spread(NamedTuple):
    """A scalar over many runs: its median, the worst, and the run that has it."""

    median: float
    worst: float
    run: tuple[int, ...]
    undefined: int
    """runs in which it is nan, as in those that diverged"""

    @property
    def place(self) -> str:
        """The index of the worst run, as Python writes it."""
        return str(self.run[0]) if len(self.run) == 1 else str(self.run)


def spread_of(values: NDArray[np.float64]) -> Spread | None:
    """The spread of the values that are defined; None where none is.

    >>> found = spread_of(np.array([[1.0, np.nan], [3.0, 2.0]]))
    >>> found.median, found.worst, found.place, found.undefined
    (2.0, 3.0, '(1, 0)', 1)
    """
    known = ~np.isnan(values)
    if not known.any():
        return None
    place = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return Spread(
        float(np.median(values[known])),
        float(values[place]),
        tuple(int(axis) for axis in place),
        int((~known).sum()),
    )


def spread_rows(values: Mapping[str, NDArray[np.float64]]) -> list[tuple[str, str, str, str]]:
    """Name, median, worst and the run that has it, as text, of each that is defined anywhere.

    >>> spread_rows({"steps": np.array([10.0, 30.0, 20.0]), "margin": np.full(3, np.nan)})
    [('steps', '20', '30', '1')]
    """
    spreads = {name: spread_of(value) for name, value in values.items()}
    return [
        (name, number(found.median), number(found.worst), found.place)
        for name, found in spreads.items()
        if found is not None
    ]


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the theory says of the last iterate, and by how much it is missed; shape S each.

    theta_K minimises D_{psi_Delta}(., theta~) over its own level set exactly when the KKT residual
    is 0, converged or not. S_+- is summed from the iterates, so that a fault of the run shows. Of
    many runs it prints the median and the worst of each number, with the run that has it.

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

    def __repr__(self) -> str:
        shape = np.shape(self.kkt_residual)
        if shape == ():
            return short_repr(self)
        parts = [f"{np.size(self.kkt_residual)} runs {[*shape]}"]
        for name, found in self._spreads():
            if found is not None:
                at = f"median {found.median:.1e}, worst {found.worst:.1e} (run {found.place})"
                none = f", undefined in {found.undefined}" if found.undefined else ""
                parts.append(f"{name}: {at}{none}")
        return f"{type(self).__name__}({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        shape = np.shape(self.kkt_residual)
        if shape == ():
            rows = [(n, said, f"{getattr(self, n):.2e}") for n, said in PREDICTED.items()]
            return notebook.table("Certificate", ("number", "predicted", "measured"), rows)
        header = ("number", "predicted", "median", "worst", "of run", "undefined in")
        rows = [
            (name, PREDICTED[name], f"{found.median:.2e}", f"{found.worst:.2e}", found.place,
             str(found.undefined))
            for name, found in self._spreads()
            if found is not None
        ]  # fmt: skip
        title = f"Certificates of {np.size(self.kkt_residual)} runs, shape {[*shape]}"
        return notebook.table(title, header, rows)

    def _spreads(self) -> Iterator[tuple[str, Spread | None]]:
        for name in PREDICTED:
            yield name, spread_of(np.asarray(getattr(self, name)))
