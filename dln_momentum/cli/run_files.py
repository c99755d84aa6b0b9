"""What each trained run leaves in a directory of its own, for one run or for many at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import xarray as xr
from torch import Tensor

from dln_momentum.cli.job import Job
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.engine import Status
from dln_momentum.engine.problems import problem_of_run, select
from dln_momentum.outputs.along_path import limit
from dln_momentum.outputs.changing_rates import method_settings
from dln_momentum.outputs.divergence import NAMES
from dln_momentum.outputs.files import write_dataset
from dln_momentum.outputs.history import run_history, with_targets
from dln_momentum.outputs.provenance import data_hash, file_attributes, provenance
from dln_momentum.outputs.references import best_along_path, data_settings
from dln_momentum.outputs.stability import stability
from dln_momentum.outputs.summary import end_of_runs, numbers_of_run
from dln_momentum.problem import Problem
from dln_momentum.training.module import HeavyBallModule


class TrainedRuns:
    """The runs of a module as they ended, each with the summary and history of a run alone.

    What needs a solver is solved for all runs in one batch.
    """

    def __init__(self, module: HeavyBallModule) -> None:
        snapshot = module.snapshot()
        assert snapshot is not None, "dln-train trains diagonal networks"
        self._module, self._snapshot = module, snapshot

    def solve(self) -> None:
        """Compute what is computed for all runs together, before any file needs it."""
        for known in (self._ends, self._columns, self._minimizers):
            assert known is not None

    def summary(self, run: int, job: Job) -> dict[str, Any]:
        """The contents of ``summary.json`` of one run."""
        config, problem = job.values, self._problem(run)
        ends = numbers_of_run(self._ends, run)
        # max(|u|, |v|) = (|w_+| + |w_-|)/2
        scale = float(self._snapshot.w_start[:, run].abs().sum(0).max() / 2)
        return {
            "kind": "train",
            "status": self._module.status_labels[run],
            "seconds": job.seconds,
            "data": problem.name,
            "n": problem.n,
            "d": problem.d,
            "alpha": config["model"].get("alpha", scale),
            "seed": config["seed"],
            "batch_size": config["sampling"]["batch_size"] or problem.n,
            "path_sums": config["engine"]["path_sums"],
            **data_settings(config),
            "label_noise": config["sampling"]["label_noise"],
            **method_settings(self._module.method.of(slice(run, run + 1)), problem, ends),
            **ends,
            **self._stability(run),
            **self._best(run),
            **provenance(data_hash(problem)),
        }

    def history(self, run: int, summary: dict[str, Any], job: Job) -> xr.Dataset | None:
        """What the monitors have recorded of one run, if anything."""
        recorded, problem = self._module.history, self._problem(run)
        if not recorded.values:
            return None
        steps, end = recorded.steps, summary["steps"]
        # a run that ended before others was recorded again as it ended: alone, it is recorded there
        kept = [k for k, step in enumerate(steps) if step < end]
        kept += [k for k, step in enumerate(steps) if step >= end][:1]
        columns = {name: value[kept, run : run + 1] for name, value in self._columns.items()}
        one = select(self._snapshot, slice(run, run + 1))
        schedule = self._module.method.schedule.of(slice(run, run + 1))
        recorded_at = [min(steps[k], end) for k in kept]
        found = run_history(columns, recorded_at, one, schedule)
        found = with_targets(found, problem, self._minimizers[run])
        found.attrs = file_attributes(summary, job.text)
        return found

    def write(self, run: int, job: Job) -> tuple[dict[str, Any], xr.Dataset | None]:
        """Write the history of one run, and return its summary and it."""
        summary = self.summary(run, job)
        history = self.history(run, summary, job) if outputs_of(job.given).history else None
        if history is not None:
            write_dataset(job.directory / "history.nc", history)
        return summary, history

    def _best(self, run: int) -> dict[str, Any]:
        names = {"recovery_error", "test_error"} & set(self._columns)
        errors = {name: self._columns[name][:, run] for name in names}
        # records after the end of the run repeat its last values
        end = int(self._ends["steps"][run])
        return best_along_path(errors, [min(k, end) for k in self._module.history.steps], "step")

    def _stability(self, run: int) -> dict[str, Any]:
        """The largest stable step beside that of a run that diverged; None for any other."""
        if self._module.status_labels[run] != Status.DIVERGED.label:
            return dict.fromkeys(NAMES)
        one = slice(run, run + 1)
        method = self._module.method.of(one)
        columns = {name: value[:, one] for name, value in self._columns.items()}
        steps = self._module.history.steps
        return stability(select(self._snapshot, one), self._problem(run), method, columns, steps)

    @cached_property
    def _ends(self) -> dict[str, Tensor]:
        return self._module.measure(end_of_runs)

    @cached_property
    def _columns(self) -> dict[str, Tensor]:
        return self._module.history.columns()

    @cached_property
    def _minimizers(self) -> Tensor:
        return self._module.measure(limit)["minimizer"].cpu()

    def _problem(self, run: int) -> Problem:
        return problem_of_run(self._module.data.problems, run)
