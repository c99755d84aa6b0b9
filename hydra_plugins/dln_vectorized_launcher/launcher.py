"""The jobs of a multirun in one process: in turn, or with ``hydra/launcher=vectorized`` together.

Hydra imports this file in every program of the environment, so it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class VectorizedLauncher(Launcher):
    """Hands the jobs of a multirun to `dln_momentum.sweeps.vectorized.launch`.

    Args:
        together: whether jobs that one engine can carry are trained together.
    """

    def __init__(self, together: bool = True) -> None:
        self._together = together
        self.configs: Any = None
        """the sweeper's `dln_momentum.cli.job_configs.JobConfigs`, if the sweeper is ours"""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do the jobs of these overrides, numbered from ``initial_job_idx``."""
        from dln_momentum.sweeps.vectorized import launch

        return launch(
            self._context, self._task, self._config, job_overrides, initial_job_idx,
            together=self._together, configs=self.configs,
        )  # fmt: skip
