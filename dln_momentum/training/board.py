"""The logger behind ``logger=tensorboard``: one event file a run, of its history."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from dln_momentum.outputs import dashboard, dashboard_sweep
from dln_momentum.outputs.history import History

if TYPE_CHECKING:
    import xarray as xr


class DashboardLogger(Logger):
    """Writes TensorBoard's pages from the history of a run, whole, once it has ended.

    Lightning's own ``TensorBoardLogger`` writes a second file for HPARAMS, an empty
    ``hparams.yaml``, and every scalar as an event of its own. A run that takes longer than
    ``every`` seconds has its curves so far in a file that `finish` replaces.

    Args:
        save_dir: the directory of the run; the path below TensorBoard's logdir names the run.
        every: seconds between additions to the curves of a run that is under way.
    """

    def __init__(self, save_dir: str | Path, every: float = 10.0) -> None:
        super().__init__()
        self._directory, self._every = Path(save_dir), every
        self._due = time.monotonic() + every
        self._written: int | None = None
        self._live: Path | None = None
        self._others: dict[int, dict[str, float]] = {}

    @property
    def name(self) -> str:
        """Empty: the directory is the run's name."""
        return ""

    @property
    def version(self) -> str:
        """Empty."""
        return ""

    @property
    def save_dir(self) -> str:
        """The directory of the run."""
        return str(self._directory)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the row of HPARAMS comes from the config and the summary."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep what other callbacks log, under their own names; monitors write to the history."""
        self._others.setdefault(step or 0, {}).update(metrics)

    def follow(self, history: History, step: int, eps: float) -> None:
        """Add the records before a step to the curves of the run, if it is time to.

        Args:
            history: of the run.
            step: the present step, at which other monitors may not have measured yet.
            eps: the time that a step takes.
        """
        if time.monotonic() < self._due:
            return
        new = dashboard.live_events(history, eps, self._written, step)
        if self._live is None:
            self._live = self._directory / f"{dashboard.LIVE}.{time.time_ns()}"
            self._live.write_bytes(dashboard.events.head())
        with self._live.open("ab") as file:
            file.write(new)
        self._written, self._due = step, time.monotonic() + self._every

    def finish(
        self,
        history: xr.Dataset | None,
        summary: Mapping[str, Any],
        config: str,
        figure: Path | None = None,
    ) -> None:
        """Write the dashboard of one run that has ended; see `dln_momentum.outputs.dashboard`."""
        dashboard.write(
            self._directory, history, summary, config, figure=figure, others=self._others
        )

    def finish_sweep(
        self, results: xr.Dataset, summary: Mapping[str, Any], config: str, root: Path
    ) -> Path | None:
        """Write the dashboard of a sweep, and say where the rows of its runs are."""
        return dashboard_sweep.write(self._directory, results, summary, config, root=root)
