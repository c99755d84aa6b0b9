"""Momentum in the published settings of related work.

(docs/theory.md#discrete-bias and docs/theory.md#squares; poster, section 6, and the papers
named below.)

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
from experiments.common import described, listed, spreads, verdict_of
from experiments.figures import problem_size
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
    "start_error_at_equal_steps": "||theta_k - theta*|| / ||theta*|| after as many steps k",
    "start_error_at_equal_time": "the same at t = k eps of heavy ball's k steps",
    "start_flow_error": "||theta_inf - theta*|| / ||theta*|| of gradient flow from that start",
}


CAPTION = (
    "(a), (b) Error ||theta_inf - theta*||/||theta*|| of GD and of SGD of one row over the step, "
    "relative to 2/sharpness. (c) How unevenly ln(Delta_0/Delta_inf) is spread: 1 if it is gained "
    "on the support only, -1 off it only, 0 if alike. (d) Excess of ln(Delta_0/Delta_inf) by label "
    "noise and (e) the error with and without it, over eps. (f) Error of the limit from the biased "
    "start of theta = a^2 - b^2 over the size of the start; (g) the error after as many steps and "
    "(h) at equal time. Medians and quartiles over data sets."
)


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
    differ = _difference(results)
    effects = {
        "the q-sums at beta = 0": bool((results["q_sum_error"] <= config.identity_tol).all())
    }
    effects |= {
        name: all(share[name] >= config.majority for share in shares.values())
        for name in next(iter(shares.values()))
    }
    same = (differ <= config.same).cumprod("eps") > 0
    same_to = differ["eps"].where(same).max()
    effects["noise acting through eps alone"] = bool(np.isfinite(same_to))
    advantage = advantages(results, config)
    judged = advantage["limit"].sel(phi=config.lyu.judged_phi)
    for xi in (config.lyu.xi[0], config.lyu.xi[-1]):
        name = f"a lower limit error by heavy ball from a biased start of sum c^2 = {xi:g}"
        effects[name] = bool(judged.sel(xi=xi) >= config.majority)
    measured = {
        "q_sum_error": spreads(results["q_sum_error"]),
        "q_sum_to_path_sums": spreads(results["q_sum_to_path_sums"]),
        "largest_q_sum": spreads(results["largest_q_sum"]),
        "share_of_sets_with_the_effect": shares,
        "starts_where_heavy_ball_is_ahead_at_equal_steps_only": _at_equal_steps_only(
            advantage, config.majority
        ),
        "share_of_sets_with_lower_error_by_heavy_ball_than_gd": {
            f"compared at {name}": spreads(share) for name, share in advantage.items()
        },
        "largest_eps_to_which_noise_gains_depend_on_eps_alone": float(same_to),
        "largest_difference_of_noise_gains_at_equal_eps": spreads(differ),
        "noise_gain_over_prediction": spreads(
            results["noise_excess"] / _predicted(config, results)
        ),
        "error_at_smallest_step": spreads(_end(results["error"], -1)),
        "error_at_largest_step": spreads(_end(results["error"], 0)),
        "gain_on_at_largest_step": spreads(_end(results["gain_on"], 0)),
        "gain_off_at_largest_step": spreads(_end(results["gain_off"], 0)),
        "noise_error": spreads(results["noise_error"]),
        "error_of_the_limit_from_a_biased_start": spreads(
            results["start_error"].transpose("xi", "phi", "gamma", "rival", ...)
        ),
        "error_of_gradient_flows_limit_from_a_biased_start": spreads(results["start_flow_error"]),
        "error_from_a_biased_start_at_equal_steps": _drawn(results, config, "steps"),
        "error_from_a_biased_start_at_equal_time": _drawn(results, config, "time"),
    }
    notes = [
        "Smallest and largest step: of those at which a data set converged.",
        "Lyu et al.: theta = a^2 - b^2 from a_0 = phi c, b_0 = c/phi with sum c^2 given, which "
        "here is w_+ = 2 phi c, w_- = 2 c/phi, gamma = 2 eta and theta_0 = c^2 (phi^2 - phi^-2), "
        "far from 0 for phi = 0.03. Earlier versions of this page started from u_0 = phi c, v_0 = "
        "c/phi, whose theta_0 is c^2, and said that no lower error by heavy ball was seen: that "
        "was another start.",
        "Lower at equal steps, at equal time t = k eps and at the limit are three statements: in "
        f"as many steps heavy ball gets {1 / (1 - config.lyu.beta):.0f} times as far in t as "
        "gradient descent. Shares are over the data sets on which both converged. An error above 1 "
        "is farther from theta* than theta = 0 is.",
    ]
    return Outcome(
        verdict=verdict_of(sum(effects.values()), len(effects)),
        finding=_finding(config, effects, advantage),
        sizes=_sizes(config),
        measured=measured,
        results=results,
        figure=draw(results, _predicted(config, results), config),
        caption=CAPTION,
        notes=notes,
    )


def _finding(
    config: DictConfig, effects: dict[str, bool], advantage: dict[str, xr.DataArray]
) -> str:
    """What is seen of the effects that need no biased start, and who wins from one."""
    phi, ends = config.lyu.judged_phi, (config.lyu.xi[-1], config.lyu.xi[0])
    share = {xi: float(advantage["limit"].sel(phi=phi, xi=xi)) for xi in ends}
    others = [name for name in effects if "heavy ball" not in name]
    missed = [name for name in others if not effects[name]]
    return (
        f"{len(others) - len(missed)} of {len(others)} effects known without momentum are seen at "
        f"every beta (not: {listed(missed)}); from the start of Lyu et al., phi = {phi:g}, heavy "
        f"ball's limit has a lower error than GD's on {share[ends[0]]:.0%} of data sets at "
        f"sum c^2 = {ends[0]:g}, on {share[ends[1]]:.0%} at {ends[1]:g}."
    )


def advantages(results: xr.Dataset, config: DictConfig) -> dict[str, xr.DataArray]:
    """Share of data sets on which heavy ball has the lower error, by when the two are compared.

    Over the data sets on which both converged, at the step sizes at which a majority did; the
    least of these step sizes' shares.
    """
    limit = results["start_error"]
    both = limit.notnull().all("rival")
    usable = both.mean("data_seed") >= config.majority

    def share(error: xr.DataArray) -> xr.DataArray:
        lower = error.sel(rival="heavy ball", drop=True) < error.sel(rival="GD", drop=True)
        return lower.where(both).mean("data_seed").where(usable).min("gamma").fillna(0.0)

    return {
        "equal steps": share(results["start_error_at_equal_steps"]),
        "equal time": share(results["start_error_at_equal_time"]),
        "limit": share(limit),
    }


def _at_equal_steps_only(advantage: dict[str, xr.DataArray], majority: float) -> str:
    """The starts (sum c^2, phi) where heavy ball leads at some step, at no time and not at last."""
    ahead = {name: share >= majority for name, share in advantage.items()}
    elsewhere = ahead["equal time"].any("compared_step") | ahead["limit"]
    only = (ahead["equal steps"].any("compared_step") & ~elsewhere).transpose("xi", "phi")
    return listed(
        f"({float(cell['xi']):g}, {float(cell['phi']):g})"
        for row in only
        for cell in row
        if bool(cell)
    )


def _drawn(results: xr.Dataset, config: DictConfig, by: str) -> object:
    """Medians and quartiles at the largest xi and the judged phi, at each step size."""
    chosen = {"xi": config.lyu.xi[-1], "phi": config.lyu.judged_phi}
    errors = results[f"start_error_at_equal_{by}"].sel(chosen, drop=True)
    return spreads(errors.transpose("gamma", "compared_step", "rival", ...))


def _sizes(config: DictConfig) -> str:
    even, pesme = (problem_size(*part.setting) for part in (config.even, config.pesme))
    lyu = problem_size(*config.lyu.setting)
    return (
        f"{config.data_seeds} data sets of each: (n, d, s, α) = {even} in (a) to (c), {pesme} in "
        f"(d) and (e), (n, d, s) = {lyu} in (f) to (h)"
    )


def _shares(part: xr.Dataset) -> dict[str, float]:
    """Share of the data sets that show each effect at one beta; nan counts as not shown."""
    centred = part.sel(design="gaussian")
    rise = _end(centred["error"], 0) - _end(centred["error"], -1)
    uneven = abs(_end(unevenness(centred), 0))
    noisy, quiet = (part["noise_error"].isel(amplitude=i, drop=True) for i in (1, 0))
    effects = {
        "harm of large GD steps": rise.sel(algorithm="GD") > 0,
        "benefit of large SGD steps": rise.sel(algorithm="SGD") < 0,
        "more even gains by SGD": uneven.sel(algorithm="SGD") < uneven.sel(algorithm="GD"),
        "benefit of label noise": (noisy < quiet).all("eps"),
    }
    return {name: float(shown.mean()) for name, shown in effects.items()}


def _end(values: xr.DataArray, which: int) -> xr.DataArray:
    """The value at the largest (0) or smallest (-1) step at which a data set converged."""
    ordered = values.transpose("step", ...)[::-1]
    found = ordered.notnull()
    place = found.argmax("step") if which == 0 else found[::-1].argmax("step")
    return (ordered if which == 0 else ordered[::-1]).isel(step=place)


def _predicted(config: DictConfig, results: xr.Dataset) -> xr.DataArray:
    """(2 delta eps)^2 for every noisy step: the variance of the gradient's noise is (2 delta)^2."""
    return (2 * config.pesme.delta * results["eps"]) ** 2 * config.pesme.until


def _difference(results: xr.Dataset) -> xr.DataArray:
    """How far the median gain by noise at any beta is from that at beta = 0, relative, over eps."""
    gain = results["noise_excess"].median("data_seed")
    return abs(gain / gain.isel(beta=0) - 1).max("beta")


if __name__ == "__main__":
    main("published_settings", SECTION, CLAIM, study)
