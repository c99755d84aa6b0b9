"""``dln-verify``: judge every statement of the theory on one problem; exit code 1 if one fails."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dln_momentum.cli.command import command
from dln_momentum.cli.job import Job
from dln_momentum.cli.process import run_and_leave
from dln_momentum.errors import raise_if_any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dln_momentum.verification import Measurements, Setting, Statement


def verify(job: Job) -> dict[str, Any]:
    """Evaluate every statement of the theory, print them as a table and keep them as JSON.

    Returns:
        The contents of ``verify.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    from dln_momentum.outputs.provenance import data_hash, provenance
    from dln_momentum.verification import Measurements, statements

    setting = build_setting(job.config)
    job.begin()
    measurements = Measurements(setting)
    found = list(statements(measurements))
    result = {
        **_setting(job.config, measurements),
        "seconds": job.seconds,
        **_verdicts(found),
        "statements": [statement.as_dict() for statement in found],
        **provenance(data_hash(setting.problem)),
    }
    job.finish(result)
    print_statements(result, found, job.directory)
    return result


def build_setting(config: DictConfig) -> Setting:
    """Check a config and build the setting that it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included.
    """
    from dln_momentum.cli import sections
    from dln_momentum.cli.setup import build_parts, built
    from dln_momentum.config import Reader
    from dln_momentum.verification import Setting

    reader = Reader(config)
    keys = {"lam": "flow.lam", "max_steps": "max_steps", "tol": "tol"}
    given, options = reader.given(Setting, keys), sections.flow_options(reader)
    # without a pair the step is chosen to resolve the flow
    momentum = sections.momentum_of(reader) if config.optimizer or config.flow.lam is None else None
    steps, tol = (given.values or {}).get("max_steps"), (given.values or {}).get("tol", 1.0)
    if steps is not None and steps < 1:
        reader.errors.append(f"max_steps = {steps} must be >= 1 or null")
    if not 0 < tol < math.inf:
        reader.errors.append(f"tol = {tol:g} must be finite and > 0")
    parts = build_parts(reader, sections.seed_of(reader), momentum)
    setting = reader.build(
        Setting,
        given,
        problem=parts.problem,
        # the iterates of a deeper network are u and v themselves
        w_plus=(parts.net.u if parts.net.is_deep else parts.net.w_plus).detach(),
        w_minus=(parts.net.v if parts.net.is_deep else parts.net.w_minus).detach(),
        method=parts.method,
        momentum=momentum,
        batches=parts.batches,
        label_noise=parts.label_noise,
        options=built(options),
        velocity=parts.velocity,
    )
    raise_if_any(reader.errors)
    return built(setting)


def _setting(config: DictConfig, measurements: Measurements) -> dict[str, Any]:
    from dln_momentum.rates import named_rates
    from dln_momentum.theory.small_lambda import lambda_threshold

    setting, used = measurements.setting, measurements.momentum
    problem = setting.problem
    return {
        "kind": "verify",
        "data": problem.name,
        "n": problem.n,
        "d": problem.d,
        "rank": problem.row_space.rank,
        "alpha": config.model.get("alpha"),
        "seed": config.seed,
        "batch_size": config.sampling.batch_size or problem.n,
        **named_rates(used.gamma, used.beta),
        "flow_lam": measurements.lam,
        "small_lambda_threshold": float(lambda_threshold(problem, setting.w_plus, setting.w_minus)),
        "steps": measurements.snapshots[-1].step,
    }


def _verdicts(found: Sequence[Statement]) -> dict[str, Any]:
    from dln_momentum.verification import Verdict

    counts = Counter(statement.verdict for statement in found)
    return {
        "status": "violated" if counts[Verdict.VIOLATED] else "holds",
        "violated": [s.name for s in found if s.verdict is Verdict.VIOLATED],
        "verdicts": {verdict.value: counts[verdict] for verdict in Verdict},
    }


def print_statements(
    result: Mapping[str, Any], found: Sequence[Statement], directory: Path
) -> None:
    """Print the table of one setting, and where its files are."""
    from dln_momentum.outputs.terminal import wide_console
    from dln_momentum.verification.table import statement_table

    console = wide_console()
    title = (
        f"{result['data']}, batches of {result['batch_size']} of {result['n']} rows: "
        f"{result['seconds']:.1f} s\n"
        f"MGD: gamma = {result['gamma']:.4g}, beta = {result['beta']:.6g}, lambda = "
        f"{result['lam']:.4g}, eps = {result['eps']:.4g}; "
        f"MGF: lambda = {result['flow_lam']:.4g}"
    )
    console.print(statement_table(found, console.width, title))
    counts = result["verdicts"]
    console.print(
        f"{counts['holds']} statements hold, {counts['holds in part']} hold on the part of the run "
        f"that is named, {counts['hypotheses not met']} have hypotheses that are not met, "
        f"{counts['VIOLATED']} are VIOLATED",
        highlight=False,
    )
    console.print(f"results in {directory}", soft_wrap=True, highlight=False)


main = command("verify", verify, result="verify.json")

if __name__ == "__main__":
    run_and_leave(main)
