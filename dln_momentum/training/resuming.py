"""Whether a checkpoint belongs to a run: one gamma, one start, one data set."""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine.problems import Problems, groups_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.method import Method
from dln_momentum.outputs.provenance import digest
from dln_momentum.problem import Problem

log = logging.getLogger(__name__)


def identity(
    problem: Problem | Problems,
    start: nn.Module,
    rates: Iterable[Any],
    batches: BatchStream,
    label_noise: LabelNoise | None,
    arithmetic: str,
    method: Method,
) -> dict[str, str]:
    """What determines every iterate of a run, as text by name; a checkpoint carries it.

    Args:
        problem: the data of the runs.
        start: the network before its first step.
        rates: gamma and beta, numbers or tensors.
        batches: the mini-batches; their seed matters unless every batch is full.
        label_noise: the label noise, if any.
        arithmetic: the kind of gradient and of path sums.
        method: how the run is advanced, its schedule and depth included.
    """
    groups = groups_of(problem)
    data = [t for g in groups for t in (g.problem.X, g.problem.y, g.runs)]
    loss = groups[0].problem.loss_name
    return {
        "data": digest(data, "" if loss == "squared" else loss),
        "initial weights": digest(start.state_dict().values()),
        "gamma and beta": digest(torch.as_tensor(rate, dtype=torch.float64) for rate in rates),
        "mini-batches": "full" if batches.full_batch else digest([], repr(batches)),
        "label noise": "none" if label_noise is None else digest([], repr(label_noise)),
        "gradient and path sums": arithmetic,
        "loss": groups[0].problem.loss_name,
        "method": _PLAIN if method.is_plain else json.dumps(method.identity(), sort_keys=True),
    }


_PLAIN = "heavy ball at constant rates"
_BEFORE = {"loss": "squared", "method": _PLAIN}
"""What a checkpoint means that was written before these could be anything else."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds.

    A checkpoint is a zip archive with a checksum of every entry (CRC-32), which torch writes and
    does not compare: a run resumed from flipped bits would end elsewhere in silence.

    Raises:
        InputError: for a file that is no checkpoint, or has changed since it was written.
    """
    name = f"resume = {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        found = torch.load(path, map_location="cpu", weights_only=True) if damaged is None else {}
    except Exception as error:
        # zipfile and torch raise whatever the bytes of another file happen to cause
        raise InputError(f"{name} is no checkpoint: it cannot be read") from error
    if damaged is not None:
        raise InputError(
            f"{name} is damaged: the checksum of {damaged} in it is not that of its bytes; must "
            "be a checkpoint as it was written"
        )
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step in a folder that can be read; None where there is none.

    The machine may have gone down while the last one was written.
    """
    saved = [path for path in folder.glob("*.ckpt") if path.is_file()]
    for path in sorted(saved, key=step_of_checkpoint, reverse=True):
        try:
            read_checkpoint(path)
        except InputError:
            log.warning("%s is damaged or cannot be read; an older checkpoint is tried", path)
        else:
            return path
    return None


def step_of_checkpoint(path: Path) -> float:
    """The step that a checkpoint was taken at, by its name: a clock may have been set back since.

    >>> [step_of_checkpoint(Path(name)) for name in ("step_300.ckpt", "last.ckpt", "mine.ckpt")]
    [300, inf, -1]
    """
    if path.stem == "last":
        return math.inf
    number = path.stem.removeprefix("step_")
    return int(number) if number.isdecimal() else -1


def check_same_run(checkpoint: Mapping[str, Any], own: Mapping[str, str], max_steps: int) -> None:
    """Raise for a checkpoint of another run, or of one that has taken more steps.

    Raises:
        InputError: naming everything that differs.

    >>> check_same_run({"identity": {"data": "a"}, "global_step": 5}, {"data": "b"}, 10)
    Traceback (most recent call last):
    dln_momentum.errors.InputError: resume: the checkpoint is of a run with other data
    """
    found = checkpoint.get("identity") if isinstance(checkpoint, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError("resume: the checkpoint is not one of dln-train or dln-sweep")
    step = checkpoint["global_step"]
    raise_if_any(
        [
            *(
                f"resume: the checkpoint is of a run with other {name}"
                for name, value in own.items()
                if found.get(name, _BEFORE.get(name)) != value
            ),
            *([f"trainer.max_steps = {max_steps} must be >= {step}, the step of the checkpoint"]
              * (step > max_steps)),
        ]
    )  # fmt: skip
