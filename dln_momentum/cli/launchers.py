"""What a launcher's workers are told beside the config: one thread a job, a worker a core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

IN_THIS_PROCESS = ("basic_launcher", "dln_vectorized_launcher")
"""Launchers whose jobs have the cores to themselves, one after the other or together."""


def settle_launcher(launcher: DictConfig) -> Iterator[str]:
    """Change what would be slow in a launcher's section, and yield words for the configs of jobs.

    Of joblib's settings, ``n_jobs: -1`` counts hardware threads, and ``batch_size: auto`` gives the
    jobs that are left to few workers once it has seen quick ones, as those that are done already.
    """
    target = str(launcher._target_)
    if any(name in target for name in IN_THIS_PROCESS):
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
