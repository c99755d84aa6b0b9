"""Hydra's own sweeper, which composes the configs of like jobs once to check them."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.dln_vectorized_launcher.launcher import VectorizedLauncher


class LikeJobsSweeper(BasicSweeper):
    """The product of all comma-separated values, as `BasicSweeper` makes it.

    Before any job runs, Hydra composes the config of each, a tenth of a second for each. Jobs with
    the same keys and groups compose alike: one of them is composed.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose a job of each kind."""
        from dln_momentum.cli.job_configs import JobConfigs

        assert self.hydra_context is not None
        assert self.config is not None
        configs = JobConfigs(self.hydra_context, self.config)
        for words in batch:
            configs.check(words)
        if isinstance(self.launcher, VectorizedLauncher):
            self.launcher.configs = configs
