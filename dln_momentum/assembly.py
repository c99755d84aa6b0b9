"""From a config to the objects that a run is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import joblib
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum.config import Arrays, Biased, Gaussian, Train, Uniform, momentum, read
from dln_momentum.data import BatchStream, LabelNoise, load
from dln_momentum.engine import EngineOptions
from dln_momentum.errors import InputError, refuse
from dln_momentum.momentum import Momentum
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """A checked config and what was built from it."""

    config: Train
    problem: Problem
    net: DiagonalLinearNet
    momentum: Momentum
    batches: BatchStream
    label_noise: LabelNoise | None
    options: EngineOptions


def build(config: DictConfig) -> Setup:
    """Check a config and build what it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included.
    """
    complaints: list[str] = []
    keys = read(config, complaints)
    if keys.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        complaints.append("trainer.accelerator = 'gpu' needs a CUDA device; this machine has none")
    sound = {key: not any(line.startswith(key) for line in complaints) for key in ("data", "model")}
    problem = streams = net = None
    if sound["data"]:
        problem = _attempt(lambda: load(**vars(keys.data)), complaints)
    if problem is not None:
        streams = _attempt(lambda: _streams(keys, problem.n), complaints)
        net = _attempt(lambda: _network(keys, problem.d), complaints) if sound["model"] else None
    refuse(complaints)
    assert problem is not None
    assert streams is not None
    assert net is not None
    device = "cuda" if keys.trainer.accelerator == "gpu" else "cpu"
    return Setup(
        keys,
        problem.to(device),
        net.to(device),
        momentum(keys.optimizer),
        *streams,
        engine_options(keys),
    )


def engine_options(keys: Train) -> EngineOptions:
    """The engine's options of a checked config."""
    engine, trainer = keys.engine, keys.trainer
    return EngineOptions(
        backend=engine.backend,
        path_sums=engine.path_sums,
        tol=trainer.tol,
        divergence_bound=trainer.divergence_bound,
        tile_runs=engine.tile_runs,
        num_workers=engine.num_workers or physical_cores(),
    )


def physical_cores() -> int:
    """Cores that do arithmetic of their own, as far as this process may use them."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, joblib.cpu_count(only_physical_cores=True)))


def _streams(keys: Train, n: int) -> tuple[BatchStream, LabelNoise | None]:
    data = keys.data
    batches = BatchStream(n, data.batch_size, data.replacement, keys.seed)
    noise = LabelNoise(n, data.label_noise, data.noise_until, keys.seed)
    return batches, noise if data.label_noise else None


def _network(keys: Train, d: int) -> DiagonalLinearNet:
    model = keys.model
    if isinstance(model, Uniform):
        return DiagonalLinearNet.uniform(d, model.alpha)
    if isinstance(model, Biased):
        return DiagonalLinearNet.biased(d, model.scale, model.phi)
    if isinstance(model, Gaussian):
        return DiagonalLinearNet.gaussian(d, model.alpha, keys.seed)
    return DiagonalLinearNet(*_arrays(model, d))


def _arrays(model: Arrays, d: int) -> tuple[Tensor, Tensor]:
    if model.path is None:
        found = {"u": model.u, "v": model.v}
    else:
        with np.load(model.path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in ("u", "v") if key in archive}
    arrays = {key: torch.as_tensor(value, dtype=torch.float64) for key, value in found.items()}
    refuse(
        f"model.{key} must be {d} numbers, as many as the data has columns; found {what}"
        for key in ("u", "v")
        if (what := list(arrays[key].shape) if key in arrays else "none") != [d]
    )
    return arrays["u"], arrays["v"]


def _attempt(make: Callable[[], T], complaints: list[str]) -> T | None:
    """The result, or None with what was wrong added to the complaints."""
    try:
        return make()
    except InputError as error:
        complaints.extend(error.problems)
        return None
