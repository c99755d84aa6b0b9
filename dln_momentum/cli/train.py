"""``dln-train``: train one network and leave its numbers, history, figure and dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dln_momentum.cli.job import Job, command
from dln_momentum.cli.process import run_and_leave

if TYPE_CHECKING:
    from pathlib import Path

    from dln_momentum.cli.setup import Setup
    from dln_momentum.training.module import HeavyBallModule

SETTINGS = ("gamma", "beta", "lam", "eps", "n", "d", "alpha", "seed", "batch_size")
RESULTS = ("train_loss", "recovery_error", "l1_norm", "balancedness_l1", "sign_changes")


def train(job: Job) -> dict[str, Any]:
    """Train one network and write everything about it into the directory of the job.

    Returns:
        The contents of ``summary.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    from dln_momentum.cli.fitting import fitted, log_results
    from dln_momentum.cli.setup import build
    from dln_momentum.outputs.report import print_report

    setup = build(job.config)
    module = setup.module()
    with fitted(job, module) as loggers:
        summary = _summary(job, setup, module)
        figure = _write_history(job, module, summary)
        settings = {name: summary[name] for name in SETTINGS}
        results = {f"result/{name}": float(summary[name]) for name in RESULTS}
        log_results(loggers, settings, results, summary["steps"], figure)
        job.finish(summary)
    print_report(summary, job.directory)
    return summary


def _summary(job: Job, setup: Setup, module: HeavyBallModule) -> dict[str, Any]:
    from dln_momentum.outputs.provenance import data_hash, provenance
    from dln_momentum.outputs.summary import end_of_one_run

    seconds = job.seconds
    snapshot = module.snapshot()
    assert snapshot is not None, "dln-train trains diagonal networks"
    config, problem = setup.config, setup.problem
    # max(|u|, |v|) = (|w_+| + |w_-|)/2
    scale = float(snapshot.w_start.abs().sum(0).max() / 2)
    return {
        "kind": "train",
        "status": module.status_labels[0],
        "seconds": seconds,
        "data": problem.name,
        "n": problem.n,
        "d": problem.d,
        "rank": problem.row_space.rank,
        "alpha": config.model.get("alpha", scale),
        "seed": config.seed,
        "batch_size": config.sampling.batch_size or problem.n,
        "path_sums": config.engine.path_sums,
        **end_of_one_run(snapshot, problem),
        **provenance(data_hash(problem)),
    }


def _write_history(job: Job, module: HeavyBallModule, summary: dict[str, Any]) -> Path | None:
    """Write what the monitors have recorded, if anything; the figure needs all of it."""
    from dln_momentum.outputs.files import write_dataset
    from dln_momentum.outputs.history import run_history, with_targets
    from dln_momentum.outputs.plotting import overview, save
    from dln_momentum.outputs.provenance import file_attributes
    from dln_momentum.outputs.summary import minimiser

    snapshot, problem, recorded = module.snapshot(), module.data.problem, module.history
    if not recorded.values:
        return None
    assert snapshot is not None
    target = problem.row_space.target(problem.y)
    limit = minimiser(problem, target, snapshot.balancedness, snapshot.log_init)
    history = run_history(recorded.columns(), recorded.steps, snapshot)
    history = with_targets(history, problem, limit[0].cpu())
    history.attrs = file_attributes(summary, job.text)
    write_dataset(job.directory / "history.nc", history)
    if not {"balancedness", "s_plus", "theta", "distance_to_limit"} <= set(history):
        return None
    figure = job.directory / "overview.png"
    save(overview(history, summary), figure)
    return figure


main = command("train", train)

if __name__ == "__main__":
    run_and_leave(main)
