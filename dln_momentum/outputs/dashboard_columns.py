"""The table of TensorBoard's page HPARAMS: settings beside results, one row a run or flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dln_momentum.outputs import events
from dln_momentum.outputs.quantities import tag

SHOWN = ("alpha", "beta", "gamma", "lam", "status")
"""The settings that the table shows before anything is ticked; there is room for five."""

RESULTS = (
    "steps", "recovery_error", "train_loss", "kkt_residual", "distance_to_minimizer", "test_error",
    "l1_norm", "balancedness_l1", "sign_changes", "distance_to_gradient_flow_minimizer",
    "distance_to_unperturbed_minimizer", "path_sum_balancedness_error", "path_identity_error",
    "path_integral_balancedness_error", "path_integral_identity_error", "log_perturbed_init_norm",
    "min_balancedness_ratio", "seconds",
)  # fmt: skip
"""What stands beside them, the five that are shown at once first."""

SETTINGS: dict[str, type] = {
    **dict.fromkeys(("kind", "status", "data"), str),
    **dict.fromkeys(
        ("gamma", "beta", "lam", "eps", "alpha", "batch_size", "n", "d", "rank", "seed",
         "data_seed",
         "small_lambda_threshold"), float
    ),
}  # fmt: skip
"""Settings that a summary has, of one type each."""

KEYS: dict[str, type] = {
    **dict.fromkeys(
        ("data.s", "data.mu", "data.rho", "data.noise", "data.n_test", "data.rows",
         "model.phi", "model.scale", "model.speed", "sampling.label_noise",
         "sampling.noise_until", "trainer.max_steps", "trainer.tol", "flow.time", "flow.tol",
         "model.depth", "method.weight_decay", "method.decay_until", "method.dampening",
         "schedule.steps", "schedule.final", "schedule.every", "schedule.factor", "schedule.offset",
         "schedule.rho", "schedule.lam_start", "schedule.lam_end"),
        float,
    ),
    **dict.fromkeys(
        ("data.kind", "data.path", "data.design", "data.signal", "model.init", "sampling.kind",
         "engine.path_sums", "trainer.gradient", "flow.method", "loss.name", "schedule.name",
         "method.name"), str
    ),
}  # fmt: skip
"""Keys of configs that a study varies, named here so that any run's table has their columns."""

SECTIONS = (
    "data", "model", "loss", "optimizer", "schedule", "method", "sampling", "engine", "trainer",
    "flow",
)  # fmt: skip
UNREAD = (
    "optimizer.gamma", "optimizer.beta", "optimizer.lam", "optimizer.eps", "flow.lam", "data.n",
    "data.d", "model.alpha", "sampling.batch_size", "engine.num_workers", "engine.tile_runs",
    "trainer.progress", "trainer.block_size", "trainer.checkpoint_every", "trainer.records",
    "flow.records",
)  # fmt: skip
"""Keys that the summary has by a name of its own, and those that no number depends on."""

FAILED = ("failed", "interrupted")


def row(settings: Mapping[str, float | bool | str], name: str) -> list[events.Value]:
    """The row of a run or flow with these settings, under a name, and the columns of the table."""
    kinds = {name: _kind(value) for name, value in settings.items()} | SETTINGS | KEYS
    return events.hparams(
        name,
        settings,
        kinds,
        SHOWN,
        {tag(name): tag(name).split("/")[1] for name in RESULTS},
        "FAILURE" if settings["status"] in FAILED else "SUCCESS",
    )


def settings_of(
    summary: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, float | bool | str]:
    """Every setting by its column, from the summary and the sections of a config."""
    found = {
        f"{section}.{key}": value
        for section in SECTIONS
        for key, value in (config.get(section) or {}).items()
    }
    found = {key: value for key, value in found.items() if key not in UNREAD}
    found |= {"data_seed": found.pop("data.seed", None)}
    found |= {name: summary[name] for name in SETTINGS if name in summary}
    return {
        key: value if isinstance(value, int | float) else str(value)
        for key, value in found.items()
        if value is not None
    }


def _kind(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, int | float) else str
