"""The implicit bias of stochastic momentum gradient descent.

(docs/theory.md#discrete-bias; poster, section 6.)

    python -m experiments.smgd_implicit_bias

Every batch size with replacement and without, and label noise that is switched off, at several
lambda and one eps. S_+- is summed from its definition at every step, so that Delta_k, the
certificate of the minimiser and the identity without logarithms are tested, not assumed. Then what
leaving out theta~_0 costs over initialisation scales, lambda and batch sizes, and how S_+- depends
on the batch size: in excess of the full batch it should go with the variance of the batch gradient,
which is (n - b)/(b (n - 1)) times the variance of one row's gradient without replacement and 1/b
times it with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import Momentum, Problem, Snapshot, Status, summarise
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from experiments.claim import Outcome, main
from experiments.common import (
    described,
    engine_over,
    engine_over_rules,
    sparse_problems,
    spreads,
    workers,
)
from experiments.figures import data_sets, problem_size
from experiments.flows import by_setting, of_settings
from experiments.mgf_implicit_bias import verdict_of_theorem
from experiments.negligible import cost_over_scales, reach, reach_in_words
from experiments.samplings import Sampling, samplings
from experiments.smgd_implicit_bias_figure import draw

SECTION = "6"
CLAIM = (
    "Stochastic momentum gradient descent converges to argmin D_{psi_{Delta_inf}}(theta, theta~_0) "
    "with Delta_inf = Delta_0 exp(-(S_+ + S_-)), for every batch size; experimentally theta~_0 is "
    "negligible."
)

CAPTION = (
    "Rows: sizes. Left: distance of theta_K to three minimisers and errors of the exact "
    "identities, over lambda and all samplings. Middle: mean of S_+ + S_- = ln(Delta_0/Delta_inf), "
    "over lambda. Right: its excess over the full batch against the variance of the batch "
    "gradient. Last row: what leaving out theta~_0 costs, relative, over lambda and the "
    "initialisation scale alpha (upper quartile), with the line where it is 1 %. Medians and "
    "quartiles over data sets."
)

NOTES = [
    "All runs have the same eps; lambda = eps is SGD without momentum.",
    "Through heavy ball, noise of variance v in the gradient adds (eps/2) int v dt to S_+-, to "
    "leading order and whatever lambda is; the excess over the full batch is set against v.",
    "Identities are over all runs that did not diverge, distances over those that converged.",
]

IDENTITIES = ("path_identity_error", "log_free_error", "kkt_residual")
"""Exact at every step of every run, converged or not."""


def study(config: DictConfig) -> Outcome:
    """Train under every sampling; check the identities; measure what theta~_0 and S_+- do."""
    results = by_setting(_setting, config)
    return _judge(config, _described(results.assign(excess=_excess(results))), _region(config))


def _region(config: DictConfig) -> xr.DataArray:
    """What leaving out theta~_0 costs over (alpha, lambda), for every batch size of the region."""
    region = config.region
    n, d, s = region.size
    problems = sparse_problems(n, d, s, config.data_seeds)

    def run_at(batch_size: int) -> xr.DataArray:
        def run(repeated: list[Problem], lam: Tensor, alpha: Tensor) -> Snapshot:
            gamma, beta = gamma_beta(lam=lam, eps=torch.full_like(lam, config.eps))
            seeds = list(range(len(problems))) * (len(repeated) // len(problems))
            engine = engine_over(
                repeated,
                gamma.numpy(),
                beta.numpy(),
                alpha.numpy(),
                batches=BatchStream(n, batch_size, "without_replacement", seeds),
                tol=region.tol,
                num_workers=workers(config),
            )
            return engine.run(region.max_steps)

        return cost_over_scales(problems, list(region.alphas), list(region.lams), run)

    costs = (run_at(size).rename(lam="region_lam", alpha="region_alpha") for size in region.batches)
    return xr.concat(costs, xr.DataArray(list(region.batches), dims="batch", name="batch"))


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(setting.n, setting.d, setting.s, config.data_seeds)
    kinds = list(samplings(setting.batch_sizes, config.label_noise))
    runs = [_train(problems, kind, setting, config) for kind in kinds]
    shape = (len(kinds), len(config.lams), len(problems))
    values = {key: torch.stack([run[key] for run in runs]).reshape(shape) for key in runs[0]}
    dims = ("sampling", "lam", "data_seed")
    return xr.Dataset(
        {key: (dims, value.numpy()) for key, value in values.items()}
        | {
            "batch_size": ("sampling", [kind.batch_size for kind in kinds]),
            "replacement": ("sampling", [kind.replacement for kind in kinds]),
            "label_noise": ("sampling", [kind.label_noise for kind in kinds]),
            "variance": ("sampling", [kind.variance(setting.n) for kind in kinds]),
            "name": ("sampling", [kind.name(setting.n) for kind in kinds]),
        },
        {
            "lam": list(config.lams),
            "data_seed": range(config.data_seeds),
        },
    )


def _train(
    problems: list[Problem], kind: Sampling, setting: Any, config: DictConfig
) -> dict[str, Tensor]:
    """One run for each lambda and data set, to convergence; its numbers, [runs] each."""
    rules = [Momentum.from_pair(lam=lam, eps=config.eps) for lam in config.lams]
    seeds = list(range(len(problems))) * len(rules)
    noise = LabelNoise(setting.n, kind.label_noise, config.noise_until, seeds)
    engine = engine_over_rules(
        problems,
        rules,
        setting.alpha,
        batches=BatchStream(setting.n, kind.batch_size, kind.sampling, seeds),
        label_noise=noise if kind.label_noise else None,
        path_sums="direct",
        tol=config.tol,
        num_workers=workers(config),
    )
    found = engine.run(config.max_steps)
    values = summarise(found, stack(problems * len(rules)))
    norm = torch.linalg.vector_norm(found.theta, dim=-1)
    return {key: values[key] for key in IDENTITIES} | {
        "to_minimizer": values["distance_to_minimizer"] / norm,
        "to_unperturbed": values["distance_to_unperturbed_minimizer"] / norm,
        "to_gradient_flow": values["distance_to_gradient_flow_minimizer"] / norm,
        "log10_perturbed_init": (values["log_perturbed_init_norm"] - norm.log()) / np.log(10),
        "mean_path_sum": found.path_sums.sum(0).mean(-1),
        "sign_changes": found.sign_changes,
        "status": found.status,
        "steps": found.steps,
    }


def _excess(results: xr.Dataset) -> xr.DataArray:
    """The mean of S_+ + S_- over coordinates in excess of that of the full batch."""
    full = (results["variance"] == 0) & (results["label_noise"] == 0)
    sums = results["mean_path_sum"]
    return sums - sums.where(full).max("sampling")


def _described(results: xr.Dataset) -> xr.Dataset:
    relative = "Euclidean distance of theta_K, over ||theta_K||, to "
    return described(
        results,
        path_identity_error="max_i |Delta_K / predicted - 1|, S_+- summed by definition",
        log_free_error="error of u^2 - v^2 by the identity without logarithms, over max Delta_0",
        kkt_residual="part of the mirror image outside span(x_1..x_n), relative",
        to_minimizer=relative + "argmin D_{psi_{Delta_K}}(., theta~_0)",
        to_unperturbed=relative + "argmin psi_{Delta_K}",
        to_gradient_flow=relative + "argmin psi_{Delta_0}",
        log10_perturbed_init="log10 of ||theta~_0|| over ||theta_K||",
        mean_path_sum="mean over coordinates of S_+ + S_- = ln(Delta_0/Delta_inf)",
        excess="mean_path_sum less that of the full batch",
        variance="variance of the batch gradient over that of one row's",
        status="0 running, 1 converged, 2 diverged, 3 out of steps",
    )


def _judge(config: DictConfig, results: xr.Dataset, region: xr.DataArray) -> Outcome:
    bounded, converged = results["status"] != Status.DIVERGED, results["status"] == Status.CONVERGED
    where = dict.fromkeys(IDENTITIES, bounded) | {"to_minimizer": converged}
    # a nan among the runs that count is a failure, and stays one
    identities = {
        key: float(results[key].where(runs, 0.0).max(skipna=False)) for key, runs in where.items()
    }
    exact = all(error < config.rounding for error in identities.values())
    cost = region.rename(region_lam="lam", region_alpha="alpha")
    reached = reach(cost, config.negligible)
    measured = {
        "runs": int(results["status"].size),
        "runs_converged": int(converged.sum()),
        "runs_diverged": int((~bounded).sum()),
        "runs_of_one_row_not_converged": int((~converged & (results["batch_size"] == 1)).sum()),
        "largest_errors_of_the_exact_statements": identities,
        "to_unperturbed": _by_name(results, "to_unperturbed"),
        "to_gradient_flow": _by_name(results, "to_gradient_flow"),
        "log10_perturbed_init": _by_name(results, "log10_perturbed_init"),
        "mean_path_sum": _by_name(results, "mean_path_sum"),
        "excess_of_batches_of_one_row": spreads(
            results["excess"].where(results["batch_size"] == 1).max("sampling")
        ),
        "slope_of_ln_excess_on_ln_variance": spreads(_slope(results)),
    }
    measured["largest_lambda_where_theta~_0_is_negligible"] = {
        f"batches of {batch}": {f"alpha={alpha:g}": float(reached.sel(batch=batch, alpha=alpha))
                                for alpha in reached["alpha"].values}
        for batch in reached["batch"].values
    }  # fmt: skip
    sizes = f"{data_sets(config.data_seeds, problem_size(*config.region.size))} in the last row"
    return Outcome(
        verdict=verdict_of_theorem(theorem=exact, reached=reached, lams=config.region.lams),
        finding=_finding(config, max(identities.values()), exact, reached),
        sizes=f"{of_settings(config)}; {sizes}",
        measured=measured,
        results=results.assign(cost_of_leaving_out_init=region),
        figure=draw(config, results, cost),
        caption=CAPTION,
        notes=NOTES,
    )


def _finding(config: DictConfig, largest: float, exact: bool, reached: xr.DataArray) -> str:
    return (
        f"The exact statements {'hold' if exact else 'fail'} to {largest:.0e}, relative, for every "
        "batch size, with replacement and without, and with label noise; leaving theta~_0 out "
        f"moves the limit by less than {config.negligible:.0%} (upper quartile over data sets), "
        f"for every batch size tried, up to {reach_in_words(reached.min('batch'))} (0: nowhere)."
    )


def _by_name(results: xr.Dataset, key: str) -> dict[str, Any]:
    return {
        str(setting): {
            str(one["name"].values): spreads(one[key])
            for one in (
                results.sel(setting=setting, sampling=i) for i in results["sampling"].values
            )
        }
        for setting in results["setting"].to_numpy()
    }


def _slope(results: xr.Dataset) -> xr.DataArray:
    """Fitted over the batch sizes without label noise; nan where an excess is not positive."""
    sampled = (results["variance"] > 0) & (results["label_noise"] == 0)
    positive = (results["excess"] > 0).where(sampled, other=True).all("sampling")
    x = xr.DataArray(np.log(results["variance"].where(sampled)))
    y = xr.DataArray(np.log(results["excess"].where(sampled & positive)))
    x, y = x - x.mean("sampling"), y - y.mean("sampling")
    return ((x * y).sum("sampling") / (x * x).sum("sampling")).where(positive)


if __name__ == "__main__":
    main("smgd_implicit_bias", SECTION, CLAIM, study)
