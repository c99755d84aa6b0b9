"""From a config to the objects that a run is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum.config import (
    App,
    Arrays,
    Biased,
    FlowKeys,
    Gaussian,
    Model,
    Sweep,
    Train,
    Uniform,
    momentum,
    read,
)
from dln_momentum.data import SAMPLING_KEYS, BatchStream, LabelNoise, load, read_archive
from dln_momentum.engine import EngineOptions
from dln_momentum.engine.parallel import physical_cores
from dln_momentum.engine.problems import Problems, first_of
from dln_momentum.errors import InputError, in_section, raise_if_any
from dln_momentum.flows import FlowOptions
from dln_momentum.flows.options import Method
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.theory.initial_speed import gradient_velocity

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Rates(NamedTuple):
    """gamma and beta of R runs, [R] each."""

    gamma: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Setup:
    """A checked config and what was built from it, for one run or for many."""

    config: Train
    problems: Problem | Problems
    net: DiagonalLinearNet
    momentum: Momentum | Rates
    batches: BatchStream
    label_noise: LabelNoise | None
    options: EngineOptions
    data_name: str
    """what tables and figures call the data"""

    @property
    def problem(self) -> Problem:
        """The problem; of several the first."""
        return first_of(self.problems)


def build(config: DictConfig) -> Setup:
    """Check a config and build what it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included.
    """
    errors: list[str] = []
    keys = read(config, errors)
    device = device_of(keys, errors)
    parts = build_parts(keys, errors)
    return Setup(
        keys,
        parts.problem.to(device),
        parts.net.to(device),
        momentum(keys.optimizer),
        parts.batches,
        parts.label_noise,
        engine_options(keys),
        parts.problem.name,
    )


class Parts(NamedTuple):
    """What every app is about: data, a network as it starts, and the rows that its steps see."""

    problem: Problem
    net: DiagonalLinearNet
    batches: BatchStream
    label_noise: LabelNoise | None
    velocity: tuple[Tensor, Tensor] | None
    """w_+-'(0), [d] each; None at rest"""


def build_parts(keys: App, errors: list[str]) -> Parts:
    """Build the data and one network of a config.

    Args:
        keys: the config.
        errors: what is known to be wrong with it; sections they are about are not built.

    Raises:
        InputError: if there are errors, those of the data and of the network included.
    """
    problem = drawn = net = None
    if is_valid("data", errors):
        problem = try_build(lambda: load(**vars(keys.data)), errors)
    if problem is not None and is_valid("seed", errors):
        drawn = try_build(lambda: streams(keys, problem.n, keys.seed), errors)
    if problem is not None and is_valid("model", errors) and is_valid("seed", errors):
        net = try_build(lambda: network(keys.model, problem.d, keys.seed), errors)
    raise_if_any(errors)
    assert problem is not None
    assert drawn is not None
    assert net is not None
    for note in problem.notes:
        logger.info("data: %s", note)
    tell_if_seed_is_unread(keys, *drawn)
    velocity, speed = None, keys.model.speed
    if speed:
        velocity = gradient_velocity(problem, net.w_plus.detach(), net.w_minus.detach(), speed)
    return Parts(problem, net, *drawn, velocity)


def device_of(keys: Train, errors: list[str]) -> str:
    """The torch device that a config asks for."""
    if keys.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        errors.append("trainer.accelerator = 'gpu' needs a CUDA device; this machine has none")
    return "cuda" if keys.trainer.accelerator == "gpu" else "cpu"


def is_valid(section: str, errors: list[str]) -> bool:
    """Whether no complaint is about this section of the config."""
    return not any(line.startswith(section) for line in errors)


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


def flow_options(keys: FlowKeys) -> FlowOptions:
    """How a flow is integrated, of a checked config."""
    return FlowOptions(cast(Method, keys.method), keys.rtol, keys.atol, keys.max_steps)


def streams(keys: App, n: int, seeds: int | Sequence[int]) -> tuple[BatchStream, LabelNoise | None]:
    """The mini-batches and the label noise, if any, for one seed or for one a run."""
    data = keys.data
    with in_section("data", SAMPLING_KEYS):
        batches = BatchStream(n, data.batch_size, data.sampling, seeds)
        noise = LabelNoise(n, data.label_noise, data.noise_until, seeds)
    return batches, noise if data.label_noise else None


def tell_if_seed_is_unread(keys: App, batches: BatchStream, label_noise: LabelNoise | None) -> None:
    """Log a line where nothing in a run is random, so that other seeds give the same numbers."""
    if isinstance(keys.model, Gaussian) or label_noise is not None or not batches.full_batch:
        return
    swept = isinstance(keys, Sweep) and keys.sweep.seed is not None
    logger.info(
        "%s is not read: full batch, no label noise, model=%s draws nothing",
        "sweep.seed" if swept else "seed",
        keys.model.init,
    )


def network(model: Model, d: int, seed: int) -> DiagonalLinearNet:
    """One network as it starts; the seed matters to a random start alone."""
    if isinstance(model, Uniform):
        return DiagonalLinearNet.uniform(d, model.alpha)
    if isinstance(model, Biased):
        return DiagonalLinearNet.biased(
            d, model.scale, model.phi, parametrisation=model.parametrisation
        )
    if isinstance(model, Gaussian):
        return DiagonalLinearNet.gaussian(d, model.alpha, seed)
    assert isinstance(model, Arrays)
    return DiagonalLinearNet(*_arrays(model, d))


def _arrays(model: Arrays, d: int) -> tuple[Tensor, Tensor]:
    if model.path is None:
        found = {"u": model.u, "v": model.v}
    else:
        found = read_archive(model.path, "model.path")
    arrays = {key: np.asarray(found[key]) for key in ("u", "v") if key in found}
    numbers = {key: array for key, array in arrays.items() if array.dtype.kind in "biuf"}
    raise_if_any(
        f"model.{key} must be {d} numbers, as many as the data has columns; found {what}"
        for key in ("u", "v")
        if (what := list(numbers[key].shape) if key in numbers else "none") != [d]
    )
    u, v = (torch.as_tensor(numbers[key], dtype=torch.float64) for key in ("u", "v"))
    return u, v


def try_build(make: Callable[[], T], errors: list[str]) -> T | None:
    """The result, or None with what was wrong added to the errors."""
    try:
        return make()
    except InputError as error:
        errors.extend(error.problems)
        return None
