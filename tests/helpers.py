"""Small problems and runs that several test files share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, Problem, sparse
from dln_momentum.cli.job import Job, Work
from dln_momentum.cli.train import train
from dln_momentum.config import composed
from dln_momentum.engine.problems import Problems, first_of


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def default_problem(seed: int = 0) -> Problem:
    """The default problem of the package, (n, d, s) = (20, 30, 3)."""
    return sparse(20, 30, 3, seed=seed)


def make_engine(
    problem: Problem | Problems,
    gamma: float | Tensor = 0.01,
    beta: float | Tensor = 0.9,
    alpha: float = 0.1,
    runs: int = 1,
    net: DiagonalLinearNet | None = None,
    batches=None,
    **options,
) -> Engine:
    """An engine on uniformly initialised networks."""
    net = net or DiagonalLinearNet.uniform(first_of(problem).d, alpha, runs=(runs,))
    rates = [torch.as_tensor(x, dtype=torch.float64).expand(runs).clone() for x in (gamma, beta)]
    return Engine(
        problem,
        rates[0],
        rates[1],
        net.w_plus.detach(),
        net.w_minus.detach(),
        batches=batches,
        options=EngineOptions(**options),
    )


def run_to_end(engine: Engine, max_steps: int = 200_000) -> None:
    engine.run(max_steps)


@dataclass(frozen=True)
class FinishedRun:
    """One run of a command-line app, and what it left."""

    directory: Path
    summary: dict[str, Any]

    def history(self) -> xr.Dataset:
        with xr.open_dataset(self.directory / "history.nc", engine="h5netcdf") as dataset:
            return dataset.load()


def run_app(directory: Path, *overrides: str, drawn: bool = False) -> FinishedRun:
    """``dln-train OVERRIDES`` in this process, writing into ``directory``.

    Unless the figure is to be drawn, a blank one is saved: drawing takes longer than the run.
    """
    with nullcontext() if drawn else blank_figures():
        return FinishedRun(directory, run_job("train", train, directory, *overrides))


def run_job(app: str, work: Work, directory: Path, *overrides: str) -> dict[str, Any]:
    """A command with these overrides, in this process and in that directory."""
    result = "verify.json" if app == "verify" else "summary.json"
    return work(Job(composed(app, overrides), directory, app, result))


@contextmanager
def blank_figures() -> Iterator[None]:
    """Figures are composed, but what is saved of them is blank."""

    def save(figure: Figure, path: Path, **_: Any) -> None:
        path.write_bytes(_blank(path.suffix))

    with pytest.MonkeyPatch.context() as patch:
        _blank(".png")  # before saving itself is replaced
        _blank(".pdf")
        patch.setattr(Figure, "savefig", save)
        blank = Image.open(io.BytesIO(_blank(".png")))
        patch.setattr("dln_momentum.outputs.figure_files._picture", lambda _: blank)
        yield


@cache
def _blank(suffix: str) -> bytes:
    file = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(file, format=suffix.lstrip("."))
    return file.getvalue()
