"""What the values of a config must be like, as far as no data is needed to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dln_momentum.config.schema import (
    App,
    Arrays,
    Biased,
    Data,
    EngineKeys,
    Flow,
    FlowKeys,
    Gaussian,
    HeavyBallKeys,
    Model,
    PathKeys,
    Sweep,
    SweepKeys,
    Train,
    TrainerKeys,
    Uniform,
    Verify,
)
from dln_momentum.rates import Momentum, momentum_problems

DEFAULT_GAMMA, DEFAULT_BETA = 0.01, 0.9
BACKENDS = ("auto", "torch", "numba")
PATH_SUMS = ("telescoped", "direct", "gradient_sum")
GRADIENTS = ("closed_form", "autograd")
ACCELERATORS = ("cpu", "gpu")
PARAMETRISATIONS = ("product", "squares")  # those of `start`, which would import torch
FLOW_METHODS = ("auto", "explicit", "implicit")


def given_momentum(keys: HeavyBallKeys) -> dict[str, float]:
    """The pair that the config gives, completed by the default of gamma or beta."""
    given = {key: value for key, value in vars(keys).items() if value is not None}
    if set(given) <= {"gamma", "beta"}:
        given = {"gamma": DEFAULT_GAMMA, "beta": DEFAULT_BETA} | given
    return given


def momentum(keys: HeavyBallKeys) -> Momentum:
    """The momentum parameters of a checked config."""
    return Momentum.from_pair(**given_momentum(keys))


def problems(config: App) -> list[str]:
    """Everything that is wrong with a config before any data is read, one line each."""
    found = [*_noise_problems(config.data), *_model_problems(config.model)]
    if not 0 <= config.seed < 2**64:
        found.append(f"seed = {config.seed} must be in [0, 2^64)")
    if isinstance(config, Train):
        found += _engine_problems(config.engine)
        found += _trainer_problems(config.trainer)
        found += _resume_problems(config.resume)
    if isinstance(config, Sweep):
        found += _sweep_problems(config.sweep, config.trainer)
    elif isinstance(config, Train | Verify):
        found += momentum_problems("optimizer.", **given_momentum(config.optimizer))
    if isinstance(config, Flow | Verify):
        found += _flow_problems(config.flow)
    if isinstance(config, Flow):
        found += _path_problems(config.flow, config.data)
    if isinstance(config, Verify):
        found += _verify_problems(config)
    return found


def out_of_range(section: str, keys: Any, rules: Iterable[tuple[str, bool, str]]) -> Iterator[str]:
    """A line for each rule (key, holds, what is allowed) that does not hold."""
    for key, holds, allowed in rules:
        if not holds:
            yield f"{section}.{key} = {getattr(keys, key)!r} must be {allowed}"


def _noise_problems(keys: Data | None) -> Iterator[str]:
    if keys is not None and keys.label_noise > 0 and keys.noise_until == 0:
        yield f"data.noise_until = 0 must be >= 1 for data.label_noise = {keys.label_noise:g}"


def _model_problems(keys: Any) -> Iterator[str]:
    if isinstance(keys, Model):
        finite = math.isfinite(keys.speed)
        yield from out_of_range("model", keys, [("speed", finite, "finite; 0 is rest")])
    if isinstance(keys, Uniform | Gaussian):
        yield from out_of_range("model", keys, [("alpha", keys.alpha > 0, "> 0")])
    if isinstance(keys, Biased):
        known = f"one of {', '.join(PARAMETRISATIONS)}"
        rules = [
            ("scale", keys.scale > 0, "> 0"),
            ("phi", keys.phi > 0, "> 0"),
            ("parametrisation", keys.parametrisation in PARAMETRISATIONS, known),
        ]
        if keys.parametrisation == "product":
            rules.append(("phi", keys.phi != 1, "not 1 (phi = 1 makes Delta_0 = 0)"))
        yield from out_of_range("model", keys, rules)
    if isinstance(keys, Arrays):
        lists = keys.u is not None and keys.v is not None
        if lists == (keys.path is not None) or (keys.u is None) != (keys.v is None):
            yield "model: give either both of model.u and model.v, or model.path"
        if keys.path is not None and not Path(keys.path).is_file():
            yield f"model.path = {keys.path!r} must be an existing .npz with arrays u and v"


def _engine_problems(keys: EngineKeys) -> Iterator[str]:
    return out_of_range(
        "engine",
        keys,
        [
            ("backend", keys.backend in BACKENDS, f"one of {', '.join(BACKENDS)}"),
            ("path_sums", keys.path_sums in PATH_SUMS, f"one of {', '.join(PATH_SUMS)}"),
            ("tile_runs", keys.tile_runs is None or keys.tile_runs >= 1, ">= 1 or null"),
            ("num_workers", keys.num_workers is None or keys.num_workers >= 1, ">= 1 or null"),
        ],
    )


def _trainer_problems(keys: TrainerKeys) -> Iterator[str]:
    return out_of_range(
        "trainer",
        keys,
        [
            ("max_steps", keys.max_steps >= 1, ">= 1"),
            ("tol", 0 <= keys.tol < float("inf"), "finite and >= 0"),
            ("divergence_bound", keys.divergence_bound > 1, "> 1"),
            ("block_size", keys.block_size >= 1, ">= 1"),
            ("records", keys.records >= 2, ">= 2"),
            ("gradient", keys.gradient in GRADIENTS, f"one of {', '.join(GRADIENTS)}"),
            ("accelerator", keys.accelerator in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}"),
            ("checkpoint_every", keys.checkpoint_every >= 0, ">= 0"),
        ],
    )


def _sweep_problems(keys: SweepKeys, trainer: TrainerKeys) -> Iterator[str]:
    yield from out_of_range("sweep", keys, [("memory_gb", keys.memory_gb > 0, "> 0")])
    if trainer.gradient == "autograd":
        yield "trainer.gradient = 'autograd' trains one network; a sweep needs closed_form"


def _flow_problems(keys: FlowKeys) -> Iterator[str]:
    return out_of_range(
        "flow",
        keys,
        [
            ("lam", keys.lam is None or 0 <= keys.lam < float("inf"), "finite and >= 0"),
            ("method", keys.method in FLOW_METHODS, f"one of {', '.join(FLOW_METHODS)}"),
            ("rtol", keys.rtol is None or 2.3e-14 <= keys.rtol < 1, "in [2.3e-14, 1) or null"),
            ("atol", keys.atol is None or 0 < keys.atol < float("inf"), "> 0 or null"),
            ("max_steps", keys.max_steps >= 1, ">= 1"),
        ],
    )


def _path_problems(keys: PathKeys, data: Data | None) -> Iterator[str]:
    yield from out_of_range(
        "flow",
        keys,
        [
            ("lam", keys.lam is not None, "given; 0 is gradient flow"),
            ("time", keys.time is None or keys.time > 0, "> 0, inf or null"),
            ("tol", 0 < keys.tol < float("inf"), "finite and > 0"),
            ("records", keys.records >= 2, ">= 2"),
        ],
    )
    if data is not None and (data.batch_size is not None or data.label_noise):
        yield "data.batch_size and data.label_noise: a flow follows the full loss; leave them out"


def _verify_problems(config: Verify) -> Iterator[str]:
    if config.flow.lam == 0:
        yield "flow.lam = 0 must be > 0: gradient flow is verified beside every momentum flow"
    if config.max_steps is not None and config.max_steps < 1:
        yield f"max_steps = {config.max_steps} must be >= 1 or null"
    if not 0 < config.tol < float("inf"):
        yield f"tol = {config.tol:g} must be finite and > 0"


def _resume_problems(resume: str | None) -> Iterator[str]:
    if resume is not None and not Path(resume).is_file():
        yield f"resume = {resume!r} must be an existing checkpoint"
