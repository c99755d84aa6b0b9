"""The names of the axes of a grid, and the key of the config that each of them varies."""

from __future__ import annotations

from dln_momentum.rates import LAYERS, RATES

AXES = {
    **{name: f"optimizer.{name}" for name in (*RATES, *LAYERS)},
    **{name: f"model.{name}" for name in ("alpha", "scale", "phi", "depth", "speed")},
    **{name: f"data.{name}" for name in ("n", "d", "s", "design", "mu", "rho", "signal", "path")},
    **{name: f"method.{name}" for name in ("weight_decay", "dampening")},
    "batch_size": "sampling.batch_size",
    "sampling": "sampling.kind",
    "label_noise": "sampling.label_noise",
    "noise_until": "sampling.noise_until",
    "max_steps": "trainer.max_steps",
    "tol": "trainer.tol",
    "seed": "seed",
    "data_seed": "data.seed",
}
"""The key that each axis with a name of its own varies; any other key is given in ``sweep.axes``.

The dimensions of the result have this order, other keys between ``tol`` and ``seed``.
"""


def key_of(name: str) -> str:
    """The key of the config that an axis varies.

    >>> key_of("n"), key_of("engine_tile_runs")
    ('data.n', 'engine.tile_runs')
    """
    section, _, leaf = name.partition("_")
    return AXES.get(name, f"{section}.{leaf}")


def name_of(key: str) -> str:
    """The name of the axis over a key.

    >>> name_of("data.seed"), name_of("engine.tile_runs")
    ('data_seed', 'engine_tile_runs')
    """
    names = {key: name for name, key in AXES.items()}
    return names.get(key, key.replace(".", "_"))
