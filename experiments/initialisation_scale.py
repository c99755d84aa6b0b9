"""Small and large initialisation: from the least l1 norm to the least l2 norm.

(docs/theory.md#potentials; poster, section 3.)

    python -m experiments.initialisation_scale

The minimiser of psi_{Delta_0}, Delta_0 = 2 alpha^2, is computed for alpha over ten decades and
compared with basis pursuit and with the least-norm interpolator; gradient descent and MGF(lambda)
are run from u_0 = sqrt(2) alpha, v_0 = 0 and compared with it. Near alpha = 0 the distance to basis
pursuit goes like alpha to the power 2 (1 - m), where m is the least of max_i |(X^T nu)_i| over the
coordinates i off the support, among all nu with X^T nu = sign(theta) on it: a linear program. The
exponent can be small on an unlucky data set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum import Problem
from dln_momentum.problem import stack
from dln_momentum.theory.interpolators import basis_pursuit, least_norm
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments.claim import Outcome, main
from experiments.common import described, listed, sparse_problems, spreads, verdict_of, workers
from experiments.figures import data_sets, problem_size
from experiments.initialisation_scale_figure import draw
from experiments.limits import follow_flows, limits

SECTION = "3"
CLAIM = (
    "As the initialisation scale alpha tends to 0, psi_{Delta_0} becomes proportional to the l1 "
    "norm and sparse interpolators are recovered; as it grows, psi_{Delta_0} becomes the squared "
    "l2 norm."
)
CAPTION = (
    "Left: relative distance of argmin psi_{Delta_0} (lines) and of the runs' limits (marks) to "
    "the interpolators of least l1 and l2 norm, over alpha. Middle: distance of the runs' limits "
    "to argmin psi_{Delta_0}. Right: exponent with which the distance to l1 falls in alpha, "
    "against the one that a dual certificate predicts. A row for each size; medians and quartiles "
    "over data sets."
)
LONG_NAMES = {
    "minimiser_to_l1": "||argmin psi_{Delta_0} - basis pursuit|| / ||basis pursuit||",
    "minimiser_to_l2": "||argmin psi_{Delta_0} - least norm|| / ||least norm||",
    "flow_to_l1": "||theta_inf - basis pursuit|| / ||basis pursuit||",
    "flow_to_l2": "||theta_inf - least norm|| / ||least norm||",
    "flow_to_minimiser": "||theta_inf - argmin psi_{Delta_0}|| / ||argmin psi_{Delta_0}||",
    "last_iterate_to_limit": "||theta_K - theta_inf|| / ||theta_inf||, K at the loss tol",
    "sign_changes": "number of sign changes of the entries of w_+-",
    "basis_pursuit_error": "||basis pursuit - theta*|| / ||theta*||",
    "exponent": "d ln ||argmin psi_{Delta_0} - basis pursuit|| / d ln alpha, two smallest alpha",
    "predicted_exponent": "2 (1 - min over dual certificates of their maximum off the support)",
}


def study(config: DictConfig) -> Outcome:
    """Minimisers at every scale and flows at some of them, for every setting and data set."""
    parts = [_setting(setting, config) for setting in config.settings]
    names = ["({:g}, {:g}, {:g})".format(*setting) for setting in config.settings]
    results = xr.concat(parts, "setting").assign_coords(setting=names)
    return _judge(config, described(results, **LONG_NAMES))


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    n, d, s = setting
    problems = sparse_problems(n, d, s, config.data_seeds)
    problem = stack(problems)
    ends = {"l1": basis_pursuit(problem.X, problem.y), "l2": least_norm(problem.X, problem.y)}
    alphas = np.geomspace(config.alpha[0], config.alpha[1], config.scales_of_minimisers)
    delta = torch.from_numpy(2 * alphas**2)[:, None, None].expand(-1, len(problems), d)
    found = bregman_minimizer(problem.row_space, problem.row_space.target(problem.y), delta)
    at_scale = {f"minimiser_to_{k}": _distance(found.theta, end) for k, end in ends.items()}
    near = at_scale["minimiser_to_l1"][:2]
    per_set = {
        "basis_pursuit_error": _distance(ends["l1"], problem.theta_star),
        "exponent": near.log().diff(dim=0)[0] / np.log(alphas[1] / alphas[0]),
        "predicted_exponent": l1_exponent(problem, ends["l1"]),
    }
    flows = _flows(problems, alphas[:: config.every], config)
    theta = flows.pop("theta")
    flows |= {f"flow_to_{k}": _distance(theta, end) for k, end in ends.items()}
    flows["flow_to_minimiser"] = _distance(theta, found.theta[:: config.every])
    dims = {1: ("data_seed",), 2: ("alpha", "data_seed"), 3: ("lam", "run_alpha", "data_seed")}
    return xr.Dataset(
        {k: (dims[v.ndim], v.numpy()) for k, v in (at_scale | per_set | flows).items()},
        coords={"alpha": alphas, "run_alpha": alphas[:: config.every], "lam": list(config.lams)}
        | {"data_seed": range(len(problems))},
    )


def _flows(problems: list[Problem], alphas: np.ndarray, config: DictConfig) -> dict[str, Tensor]:
    """Runs at every lambda and scale on every problem, [lambda, alpha, data]."""
    shape = (len(config.lams), len(alphas), len(problems))
    grid = torch.meshgrid(
        torch.tensor(list(config.lams), dtype=torch.float64),
        torch.from_numpy(alphas),
        torch.zeros(len(problems), dtype=torch.float64),
        indexing="ij",
    )
    lam, alpha = (axis.flatten() for axis in grid[:2])
    repeated = problems * (shape[0] * shape[1])
    end = follow_flows(
        repeated,
        lam,
        alpha,
        resolution=config.resolution,
        max_steps=config.max_steps,
        tol=config.tol,
        num_workers=workers(config),
    )
    theta = limits(end, stack(repeated))
    return {
        "theta": theta.reshape(*shape, -1),
        "last_iterate_to_limit": _distance(end.theta, theta).reshape(shape),
        "sign_changes": end.sign_changes.double().reshape(shape),
    }


def l1_exponent(problem: Problem, l1: Tensor) -> Tensor:
    """2 (1 - m) of each data set, m = min_nu max_i |(V^T nu)_i| off the support, [R].

    For small Delta the dual minimises sum_i exp(ln(1/Delta) |(V^T nu)_i|) off the support, subject
    to V^T nu = sign(theta) on it, with arcsinh(2 theta/Delta) = ln(1/Delta) V^T nu to leading
    order; so theta_i off the support is of the order of Delta^(1 - m).
    """
    pairs = zip(problem.row_space.basis.numpy(), l1.numpy(), strict=True)
    exponents = [2 * (1 - _least_maximum(V, theta)) for V, theta in pairs]
    return torch.tensor(exponents, dtype=torch.float64)


def _least_maximum(V: np.ndarray, theta: np.ndarray) -> float:
    on = theta != 0
    sides = np.concatenate([V[:, ~on].T, -V[:, ~on].T])
    found = linprog(
        np.append(np.zeros(len(V)), 1.0),
        A_ub=np.column_stack([sides, -np.ones(len(sides))]),
        b_ub=np.zeros(len(sides)),
        A_eq=np.column_stack([V[:, on].T, np.zeros(on.sum())]),
        b_eq=np.sign(theta[on]),
        bounds=(None, None),
    )
    return float(found.x[-1]) if found.status == 0 else np.nan


def _distance(theta: Tensor, other: Tensor | None) -> Tensor:
    """||theta - other|| / ||other||."""
    assert other is not None
    norm = torch.linalg.vector_norm
    return norm(theta - other, dim=-1) / norm(other, dim=-1)


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    ends = {
        "l1": results["flow_to_l1"].isel(run_alpha=0),
        "l2": results["flow_to_l2"].isel(run_alpha=-1),
    }
    own = {
        "l1": results["minimiser_to_l1"].isel(alpha=0),
        "l2": results["minimiser_to_l2"].isel(alpha=-1),
    }
    # a run that has not converged says nothing, and some must have
    flows = {
        k: end.notnull().any("lam") & ~(end >= config.close).any("lam") for k, end in ends.items()
    }
    passed = (own["l1"] < config.close) & (own["l2"] < config.close) & flows["l1"] & flows["l2"]
    slow = results["exponent"].where(~passed).to_numpy()
    slow = np.sort(slow[np.isfinite(slow)])
    l1_up_to, l2_from = _ranges(results, config.close)
    measured = {
        "largest_alpha_within_close_of_l1": l1_up_to,
        "smallest_alpha_within_close_of_l2": l2_from,
        "minimiser_to_l1_at_smallest_alpha": spreads(own["l1"]),
        "minimiser_to_l2_at_largest_alpha": spreads(own["l2"]),
        "flow_to_l1_at_smallest_alpha": spreads(ends["l1"]),
        "flow_to_l2_at_largest_alpha": spreads(ends["l2"]),
        "exponent_of_the_l1_limit": spreads(results["exponent"]),
        "largest_error_of_the_predicted_exponent": float(
            np.abs(results["exponent"] - results["predicted_exponent"]).max()
        ),
        "basis_pursuit_to_theta_star": spreads(results["basis_pursuit_error"]),
        "largest_distance_of_last_iterate_to_limit": float(results["last_iterate_to_limit"].max()),
        "share_of_runs_converged": float(results["flow_to_l1"].notnull().mean()),
    }
    notes = [
        "theta_inf of a run is the minimiser for the Delta_inf and theta~_0 that it ended with.",
        "lambda = 0 is gradient descent; its Delta_inf is below Delta_0 because gamma is finite.",
    ]
    others = f"; {listed(slow.round(2))} on the others" if len(slow) else ""
    return Outcome(
        verdict=verdict_of(int(passed.sum()), passed.size),
        finding=(
            f"On {int(passed.sum())} of {passed.size} data sets the minimiser of psi_{{Delta_0}} "
            f"and the runs' limits are within {config.close:.0%} of the least l1 norm at alpha = "
            f"{config.alpha[0]:g} and of the least l2 norm at alpha = {config.alpha[1]:g}; the "
            "distance to l1 falls like a power of alpha whose median exponent is "
            f"{float(results['exponent'].median()):.2g}{others}."
        ),
        sizes=data_sets(config.data_seeds, *(problem_size(*size) for size in config.settings)),
        measured=measured,
        results=results,
        figure=draw(results, config.close),
        caption=CAPTION,
        notes=notes,
    )


def _ranges(results: xr.Dataset, close: float) -> tuple[dict[str, float], dict[str, float]]:
    """By setting: up to which alpha the median minimiser is close to l1, from which to l2."""
    to_l1, to_l2 = (results[f"minimiser_to_{k}"].median("data_seed") < close for k in ("l1", "l2"))
    names = results["setting"].to_numpy()
    alpha = results["alpha"]
    return (
        {str(k): float(alpha.where(to_l1.sel(setting=k)).max()) for k in names},
        {str(k): float(alpha.where(to_l2.sel(setting=k)).min()) for k in names},
    )


if __name__ == "__main__":
    main("initialisation_scale", SECTION, CLAIM, study)
