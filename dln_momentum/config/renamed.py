"""Keys and groups that earlier versions had, and what to write instead."""

from __future__ import annotations

RENAMED = {
    "data.batch_size": "sampling.batch_size",
    "data.sampling": "sampling.kind",
    "data.replacement": "sampling.kind: with_replacement (was true), without_replacement (was "
    "false: distinct rows within a batch, no epochs) or reshuffle (epochs)",
    "data.label_noise": "sampling.label_noise",
    "data.noise_until": "sampling.noise_until",
    "optimizer=heavy_ball": "optimizer=gamma_beta, lam_eps, lam_beta or lam_gamma",
    "output": "paths",
}
"""A sentence's end for each old key, group, or group=option."""


def renamed(key: str) -> str | None:
    """A line for a key that has another name now, None for any other.

    >>> renamed("data.batch_size"), renamed("data.n")
    ('data.batch_size is now sampling.batch_size', None)
    """
    return f"{key} is now {RENAMED[key]}" if key in RENAMED else None
