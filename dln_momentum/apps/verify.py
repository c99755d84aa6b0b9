"""One run of ``dln-verify``: from a config to a table of statements and their verdicts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from dln_momentum.cli.assembly import build_parts, flow_options
from dln_momentum.config import HeavyBallKeys, Verify, momentum, read
from dln_momentum.outputs.files import write_json
from dln_momentum.outputs.provenance import data_hash, provenance
from dln_momentum.outputs.report import wide_console
from dln_momentum.rates import Momentum
from dln_momentum.theory.small_lambda import lambda_threshold
from dln_momentum.verification import Measurements, Setting, Statement, Verdict, statements
from dln_momentum.verification.table import statement_table

WIDE = 120
"""Columns of a terminal from which on every number has a column of its own."""


def verify(config: DictConfig, directory: Path, text: str) -> dict[str, Any]:
    """Evaluate every statement of the theory, print them as a table and keep them as JSON.

    Args:
        config: the composed config.
        directory: the run's own; made if it is not there.
        text: the config as written to ``config.yaml``.

    Returns:
        The contents of ``verify.json``.

    Raises:
        InputError: before anything is written, listing all that is wrong.
    """
    keys, setting = build_setting(config)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(text)
    started = time.perf_counter()
    measurements = Measurements(setting)
    found = list(statements(measurements))
    result = {
        **_setting(keys, measurements),
        "seconds": time.perf_counter() - started,
        **_verdicts(found),
        "statements": [statement.as_dict() for statement in found],
        **provenance(data_hash(setting.problem)),
    }
    print_statements(result, found, directory)
    write_json(directory / "verify.json", result)
    return result


def build_setting(config: DictConfig) -> tuple[Verify, Setting]:
    """Check a config and build the setting that it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included.
    """
    errors: list[str] = []
    keys = read(config, errors, Verify)
    parts = build_parts(keys, errors)
    return keys, Setting(
        parts.problem,
        parts.net.w_plus.detach(),
        parts.net.w_minus.detach(),
        momentum=_momentum(keys),
        lam=keys.flow.lam,
        batches=parts.batches,
        label_noise=parts.label_noise,
        max_steps=keys.max_steps,
        tol=keys.tol,
        options=flow_options(keys.flow),
        velocity=parts.velocity,
    )


def _momentum(keys: Verify) -> Momentum | None:
    """The optimizer's; None where only the flow is given."""
    if keys.flow.lam is not None and keys.optimizer == HeavyBallKeys():
        return None
    return momentum(keys.optimizer)


def _setting(keys: Verify, measurements: Measurements) -> dict[str, Any]:
    setting, used = measurements.setting, measurements.momentum
    problem = setting.problem
    return {
        "kind": "verify",
        "data": problem.name,
        "n": problem.n,
        "d": problem.d,
        "rank": problem.row_space.rank,
        "alpha": getattr(keys.model, "alpha", None),
        "seed": keys.seed,
        "batch_size": keys.data.batch_size or problem.n,
        "gamma": used.gamma,
        "beta": used.beta,
        "lam": used.lam,
        "eps": used.eps,
        "lam_ks": used.lam_ks,
        "flow_lam": measurements.lam,
        "small_lambda_threshold": float(lambda_threshold(problem, setting.w_plus, setting.w_minus)),
        "steps": measurements.snapshots[-1].step,
    }


def _verdicts(found: Sequence[Statement]) -> dict[str, Any]:
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
    console = wide_console()
    title = (
        f"{result['data']}, batches of {result['batch_size']} of {result['n']} rows: "
        f"{result['seconds']:.1f} s\n"
        f"MGD: gamma = {result['gamma']:.4g}, beta = {result['beta']:.6g}, lambda = "
        f"{result['lam']:.4g}, eps = {result['eps']:.4g}; "
        f"MGF: lambda = {result['flow_lam']:.4g}"
    )
    console.print(statement_table(found, wide=console.width >= WIDE, title=title))
    _print_verdicts(console, result)
    console.print(f"results in {directory}", soft_wrap=True, highlight=False)


def _print_verdicts(console: Console, result: Mapping[str, Any]) -> None:
    counts = result["verdicts"]
    console.print(
        f"{counts['holds']} statements hold, {counts['holds in part']} hold on the part of the run "
        f"that is named, {counts['hypotheses not met']} have hypotheses that are not met, "
        f"{counts['VIOLATED']} are VIOLATED",
        highlight=False,
    )
