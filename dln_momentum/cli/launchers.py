"""What a launcher's workers are told beside the config: one thread a job, a worker a core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

OWN = "hydra_plugins.dln_vectorized_launcher"
"""Our plugins, which compose the configs of like jobs once."""


def settle_sweeper(sweeper: DictConfig) -> None:
    """Put our own in the place of Hydra's sweeper, which composes every config to check it."""
    if str(sweeper._target_).endswith("BasicSweeper"):
        sweeper._target_ = f"{OWN}.sweeper.LikeJobsSweeper"


def settle_launcher(hydra: DictConfig) -> Iterator[str]:
    """Change what would be slow in the launcher's section, and yield words for the configs of jobs.

    Jobs in this process have the cores to themselves, one after the other or together.
    Of joblib's settings, ``n_jobs: -1`` counts hardware threads, and ``batch_size: auto`` gives the
    jobs that are left to few workers once it has seen quick ones, as those that are done already.
    """
    if str(hydra.launcher._target_).endswith("BasicLauncher"):
        own = {"_target_": f"{OWN}.launcher.VectorizedLauncher", "together": False}
        OmegaConf.update(hydra, "launcher", own, merge=False)
    launcher, target = hydra.launcher, str(hydra.launcher._target_)
    if target.startswith(OWN):
        return
    if "hydra_joblib_launcher" in target:
        import joblib

        if launcher.n_jobs == -1:
            launcher.n_jobs = joblib.cpu_count(only_physical_cores=True)
        if launcher.batch_size == "auto":
            launcher.batch_size = "1"
    ray: Any = launcher.get("ray") or {}
    threads = launcher.get("cpus_per_task") or (ray.get("remote") or {}).get("num_cpus") or 1
    # what the engine counts as cores; and what BLAS and OpenMP would start, in vain
    yield f"+hydra.job.env_set.LOKY_MAX_CPU_COUNT='{threads}'"
    for library in ("OMP", "OPENBLAS", "MKL"):
        yield f"+hydra.job.env_set.{library}_NUM_THREADS='1'"
