"""The certificate of a run of the family, from its sums along the path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dln_momentum.interface import notebook
from dln_momentum.interface.certificate import Certificate
from dln_momentum.interface.path_sums import PathSummary
from dln_momentum.problem import Problem
from dln_momentum.theory import coordinate_rates, minimizers

UNRESOLVED = 0.1
"""Above this tolerance the arithmetic of the run cannot decide."""
ANOTHER_STEP = (
    "the run is of the family, with other steps than gamma grad L: with another gamma, as 2 lr for "
    "a mean square without the 1/2 of L, or on mini-batches, full_batch=False"
)


@dataclass(frozen=True, repr=False)
class PathCertificate(Certificate):
    """What the theorem says of a run of the family, and by how much it is missed.

    Scalars are floats for the end of a run, [K] along it; vectors are [d] or [K, d]. The sums S_+-
    come from the iterates and beta alone, so that each of the errors can be large. Those of one
    step are relative to the largest step gamma_k g_k of the run.

    Attributes:
        steps: k, the steps taken.
        kkt_residual: relative norm of the part of (arcsinh(2 theta/Delta) - c)/2 outside the row
            space (weighted by 1/kappa): 0 exactly if theta is the minimiser over its level set.
        path_identity_error: largest relative error of Delta against |w_+ w_-| exp(-(S_+ + S_-)) of
            the start, with the factor of weight decay.
        asymmetry: largest error so far of one step of w_+ against that of w_-, which any gradient
            and no other beta or weight decay makes equal and opposite.
        outside: largest part of one step gamma_k g_k outside the row space so far; nan where the
            rows were not known during the run.
        update_error: largest error of one step against gamma_k grad L at its point so far; nan
            where gamma or the batches are not known.
        log_free_error: largest error so far of u^2 - v^2 against its log-free sum, over the largest
            Delta_0.
        distance_to_minimizer: of theta to argmin D over all interpolators; 0 once converged; nan
            for classification, which has no interpolator.
        balancedness: Delta = |w_+ w_-|, of the weighted layers where gamma_u != gamma_v.
        predicted_balancedness: Delta by the sums.
        log_init: c = arcsinh(2 theta~/Delta).
        minimizer: argmin D_{psi_Delta}(., theta~) over all interpolators.
        theta: the predictor.
        s_plus, s_minus: S_+-.
        sign_changes: of the entries of w_+- so far.
        tolerance: the largest path_identity_error that rounding explains.
        tolerances: what rounding explains of each error at the end, by its name; it prints beside
            the error.
        failures: which of the numbers are larger than rounding explains, empty if none is.
        undecided: which of them the rounding of the run could explain at any size.
    """

    asymmetry: Any
    outside: Any
    update_error: Any
    predicted_balancedness: NDArray[np.float64]
    theta: NDArray[np.float64]
    s_plus: NDArray[np.float64]
    s_minus: NDArray[np.float64]
    sign_changes: Any
    steps: Any
    tolerance: Any
    tolerances: Mapping[str, float]
    failures: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the theorem holds of this run, to the rounding of its arithmetic."""
        return not self.failures and not self.undecided

    @property
    def verdict(self) -> str:
        """In words: ``valid``, ``NOT VALID`` or ``not decided``, with the reasons."""
        if self.failures:
            return "NOT VALID: " + "; ".join(self.failures)
        return "not decided: " + "; ".join(self.undecided) if self.undecided else "valid"

    def __repr__(self) -> str:
        shown = [f"steps={self._end['steps']}"]
        for name, allowed in self.tolerances.items():
            if not np.isnan(self._end[name]):
                shown.append(f"{name}={self._end[name]:.1e} (rounding {allowed:.0e})")
        if not np.isnan(distance := self._end["distance_to_minimizer"]):
            shown.append(f"distance_to_minimizer={distance:.1e}")
        shown.append(f"sign_changes={self._end['sign_changes']}")
        return f"PathCertificate({self.verdict}; {', '.join(shown)})"

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{self._end[name]:.2e}", f"{allowed:.1e}")
            for name, allowed in self.tolerances.items()
            if not np.isnan(self._end[name])
        ]
        if not np.isnan(distance := self._end["distance_to_minimizer"]):
            rows.append(("distance_to_minimizer", f"{distance:.2e}", "0 once converged"))
        header = ("number", "measured", "rounding explains")
        return notebook.table(f"{self._end['steps']} steps: {self.verdict}", header, rows)

    @property
    def _end(self) -> dict[str, Any]:
        """The scalars at the last step."""
        names = (*self.tolerances, "steps", "distance_to_minimizer", "sign_changes")
        return {name: np.atleast_1d(getattr(self, name))[-1] for name in names}


def certificate_of(
    problem: Problem, path: PathSummary, *, kappa: Tensor, along: bool
) -> PathCertificate:
    """The certificate of what was summed along a run.

    Args:
        problem: the data as they are, without run dimensions.
        path: the sums, in the variables w/sqrt(kappa).
        kappa: rates of the coordinates, [d].
        along: whether to give every step of the path, or its last alone.
    """
    scaled = scaled_problem(problem, kappa)
    valid = path.is_valid
    kkt = path.certificate(scaled)
    # Delta overflows before its logarithm, which is what the theorem predicts
    log_error = (path.predicted_balancedness.log() - path.balancedness.log()).abs().amax(-1)
    identity_error = torch.expm1(log_error)
    z = (torch.asinh(2 * path.theta / path.balancedness) - path.log_init) / 2
    spread = path.resolution.sum(0)
    identity_resolution = spread.amax(-1)
    kkt_resolution = _norm(spread) / 2 / _norm(z).clamp(min=torch.finfo(z.dtype).tiny)
    minimizer = _minimizer(scaled, path)
    distance = _norm(kappa * (path.theta - minimizer))
    log_free = path.log_free / path.balancedness_start.amax()
    checks = {
        "path_identity_error": (identity_error, identity_resolution),
        "kkt_residual": (kkt, kkt_resolution + path.step_resolution),
        "asymmetry": (path.asymmetry, path.step_resolution),
        "outside": (path.outside, path.step_resolution),
        "update_error": (path.update_error, path.step_resolution),
    }
    failures = [] if bool(valid.all()) else ["Delta is not in (0, inf), or c is not finite"]
    failures += [text for name, check in checks.items() if (text := _failure(name, *check))]
    if [line.partition(" ")[0] for line in failures] == ["update_error"]:
        failures = [f"{failures[0]} ({ANOTHER_STEP})"]
    undecided = [
        f"{name}: rounding explains up to {float(allowed[-1]):.1e}"
        for name, (_, allowed) in checks.items()
        if float(allowed[-1]) > UNRESOLVED
    ]

    def shaped(value: Tensor) -> Any:
        value = value.detach().cpu()
        return value.numpy() if along else value[-1].numpy()[()]

    return PathCertificate(
        kkt_residual=shaped(kkt),
        path_identity_error=shaped(identity_error),
        log_free_error=shaped(log_free),
        distance_to_minimizer=shaped(distance),
        balancedness=shaped(kappa * path.balancedness),
        log_init=shaped(path.log_init),
        minimizer=shaped(kappa * minimizer),
        asymmetry=shaped(path.asymmetry),
        outside=shaped(path.outside),
        update_error=shaped(path.update_error),
        predicted_balancedness=shaped(kappa * path.predicted_balancedness),
        theta=shaped(kappa * path.theta),
        s_plus=shaped(path.path_sums[0]),
        s_minus=shaped(path.path_sums[1]),
        sign_changes=shaped(path.sign_changes),
        steps=shaped(path.steps),
        tolerance=shaped(identity_resolution),
        tolerances={name: float(allowed[-1]) for name, (_, allowed) in checks.items()},
        failures=tuple(failures),
        undecided=tuple(undecided),
    )


def scaled_problem(problem: Problem, kappa: Tensor) -> Problem:
    """The data in the variables w/sqrt(kappa), of the same loss; kappa is [d]."""
    if bool((kappa == 1).all()):
        return problem
    return problem.replace(X=coordinate_rates.scaled_rows(problem.X, kappa))


def _minimizer(problem: Problem, path: PathSummary) -> Tensor:
    """The Bregman minimisers over all interpolators, nan where there is no potential.

    A run of classification has no interpolator to end at.
    """
    if problem.is_classification:
        return torch.full_like(path.theta, torch.nan)
    rows, valid = problem.row_space, path.is_valid[:, None]
    delta = torch.where(valid, path.predicted_balancedness, 1.0)
    found = minimizers.bregman_minimizer(
        rows, rows.target(problem.y), delta, torch.where(valid, path.log_init, 0.0), near=path.theta
    )
    return torch.where(valid & found.converged[:, None], found.theta, torch.nan)


def _failure(name: str, error: Tensor, tolerance: Tensor) -> str:
    """What is wrong with a number at the end of the path, if anything is."""
    found, allowed = float(error[-1]), float(tolerance[-1])
    if name in ("outside", "update_error") and found != found:
        return ""
    return "" if found <= allowed else f"{name} = {found:.1e}; rounding explains {allowed:.1e}"


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)
