"""Momentum in the published settings of related work (section 6 and the papers named below).

    python -m experiments.published_settings

Even, Pesme, Gunasekar and Flammarion (NeurIPS 2023): large steps of GD and SGD. At beta = 0 the
path sums must be their sum, Delta_inf = Delta_0 exp(-sum_k q(gamma g_k)), q(x) = -ln|1 - x^2|.
Pesme, Pillaud-Vivien and Flammarion (NeurIPS 2021): label noise for a while. Through heavy ball,
noise of variance v in the gradient adds eps^2 v a step to ln(Delta_0/Delta_inf), so that eps, and
not lambda, should matter. Lyu, Wang, Wang and Zhu (AAAI 2025): heavy ball from a biased start.
Their seeds and signals are not known: the data sets are ours.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from omegaconf import DictConfig

from experiments.claim import Outcome, main
from experiments.common import described, spreads
from experiments.published_runs import biased_start, label_noise, large_steps, q_sums
from experiments.published_settings_figure import draw, unevenness

SECTION = "6"
CLAIM = (
    "The implicit bias of stochastic momentum gradient descent contains what is known without "
    "momentum: the q-sums of Even et al. at beta = 0, the harm of large steps to GD and their "
    "benefit to SGD, the benefit of label noise; and momentum mitigates the initialisation."
)
LONG_NAMES = {
    "error": "||theta_inf - theta*|| / ||theta*||; nan where not converged, as below",
    "gain_on": "mean of ln(Delta_0/Delta_inf) over the support of theta*",
    "gain_off": "mean of ln(Delta_0/Delta_inf) off the support of theta*",
    "relative_step": "gamma (GD) or eps (SGD) over 2/sharpness of the sparse solution",
    "q_sum_error": "largest |Delta_k / (Delta_0 exp(-sum q)) - 1| over steps and coordinates",
    "q_sum_to_path_sums": "largest |S_+ + S_- - sum q|",
    "noise_error": "||theta_inf - theta*|| / ||theta*|| with label noise of that amplitude",
    "noise_gain_off": "mean of ln(Delta_0/Delta_inf) off the support, with label noise",
    "noise_excess": "noise_gain_off less its value without label noise",
    "start_error": "||theta_inf - theta*|| / ||theta*|| from that start",
}


def study(config: DictConfig) -> Outcome:
    """Run the settings of the three papers and look for their effects at every beta."""
    noise = label_noise(config)
    noise["noise_excess"] = (
        noise["noise_gain_off"].diff("amplitude").squeeze("amplitude", drop=True)
    )
    parts = [large_steps(config), q_sums(config), noise, biased_start(config)]
    results = xr.merge(parts, compat="no_conflicts").assign_coords(
        data_seed=range(config.data_seeds)
    )
    return _judge(config, described(results, **LONG_NAMES))


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    shares = {f"beta={beta:g}": _shares(results.sel(beta=beta)) for beta in config.betas}
    mitigated, differ = _mitigation(results), _difference(results)
    effects = {
        "the q-sums at beta = 0": bool((results["q_sum_error"] <= config.identity_tol).all())
    }
    effects |= {
        name: all(share[name] >= config.majority for share in shares.values())
        for name in next(iter(shares.values()))
    }
    same = (differ <= config.same).cumprod("eps") > 0
    same_to = differ["eps"].where(same).max()
    effects[f"gains by label noise that depend on eps alone (to eps = {float(same_to):.2g})"] = (
        bool(np.isfinite(same_to))
    )
    *_, theirs = mitigated.values()
    effects["a lower error by heavy ball"] = theirs >= config.majority
    seen, missed = ([name for name, ok in effects.items() if ok is want] for want in (True, False))
    if not missed:
        verdict = "confirmed"
    else:
        verdict = f"confirmed where the claim is about {', '.join(seen)}" if seen else "not seen"
        verdict += f"; not seen: {', '.join(missed)}" if seen else ""
    measured = {
        "q_sum_error": spreads(results["q_sum_error"]),
        "q_sum_to_path_sums": spreads(results["q_sum_to_path_sums"]),
        "largest_q_sum": spreads(results["largest_q_sum"]),
        "share_of_sets_with_the_effect": shares,
        "share_of_sets_with_lower_error_by_heavy_ball_than_gd": mitigated,
        "largest_difference_of_noise_gains_at_equal_eps": spreads(differ),
        "noise_gain_over_prediction": spreads(
            results["noise_excess"] / _predicted(config, results)
        ),
        "error_at_smallest_step": spreads(_end(results["error"], -1)),
        "error_at_largest_step": spreads(_end(results["error"], 0)),
        "gain_on_at_largest_step": spreads(_end(results["gain_on"], 0)),
        "gain_off_at_largest_step": spreads(_end(results["gain_off"], 0)),
        "noise_error": spreads(results["noise_error"]),
        "start_error": spreads(results["start_error"]),
    }
    notes = [
        "Smallest and largest step: of those at which a data set converged.",
        f"Heavy ball of Lyu et al.: gamma = {config.lyu.gamma:g}, named by lambda.",
        f"The start phi = {config.lyu.phi:g} hardly differs from one with v_0 = 0 and the same "
        "Delta_0, since theta_0 is only phi^2 Delta_0.",
    ]
    figure = draw(results, _predicted(config, results))
    return Outcome(verdict, measured, results, figure, notes)


def _shares(part: xr.Dataset) -> dict[str, float]:
    """Share of the data sets that show each effect at one beta; nan counts as not shown."""
    centred = part.sel(design="gaussian")
    rise = _end(centred["error"], 0) - _end(centred["error"], -1)
    uneven = abs(_end(unevenness(centred), 0))
    noisy, quiet = (part["noise_error"].isel(amplitude=i, drop=True) for i in (1, 0))
    effects = {
        "harm to GD by large steps": rise.sel(algorithm="GD") > 0,
        "benefit to SGD of large steps": rise.sel(algorithm="SGD") < 0,
        "gains more even by SGD than by GD": uneven.sel(algorithm="SGD")
        < uneven.sel(algorithm="GD"),
        "benefit of label noise": (noisy < quiet).all("eps"),
    }
    return {name: float(shown.mean()) for name, shown in effects.items()}


def _end(values: xr.DataArray, which: int) -> xr.DataArray:
    """The value at the largest (0) or smallest (-1) step at which a data set converged."""
    ordered = values.transpose("step", ...)[::-1]
    found = ordered.notnull()
    place = found.argmax("step") if which == 0 else found[::-1].argmax("step")
    return (ordered if which == 0 else ordered[::-1]).isel(step=place)


def _mitigation(results: xr.Dataset) -> dict[str, float]:
    """Share of data sets and scales with a lower error than GD's, for every beta > 0."""
    errors = results["start_error"].sel(start="biased")
    _, descent, *heavy = errors.transpose("optimiser", ...)
    return {str(e["optimiser"].item()): float((e < descent).mean()) for e in heavy}


def _predicted(config: DictConfig, results: xr.Dataset) -> xr.DataArray:
    """(2 delta eps)^2 for every noisy step: the variance of the gradient's noise is (2 delta)^2."""
    return (2 * config.pesme.delta * results["eps"]) ** 2 * config.pesme.until


def _difference(results: xr.Dataset) -> xr.DataArray:
    """How far the median gain by noise at any beta is from that at beta = 0, relative, over eps."""
    gain = results["noise_excess"].median("data_seed")
    return abs(gain / gain.isel(beta=0) - 1).max("beta")


if __name__ == "__main__":
    main("published_settings", SECTION, CLAIM, study)
