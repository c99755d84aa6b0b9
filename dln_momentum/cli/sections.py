"""What each section of a config describes, as an object; every problem goes to the reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from dln_momentum.cli.method_setup import loss_of
from dln_momentum.cli.outputs import check_outputs, outputs_of
from dln_momentum.cli.places import place_errors
from dln_momentum.config import Given, Reader, momentum
from dln_momentum.data import LOADERS, BatchStream, LabelNoise, read_archive
from dln_momentum.engine import EngineOptions
from dln_momentum.engine.parallel import physical_cores
from dln_momentum.errors import raise_if_any
from dln_momentum.flows import FlowOptions
from dln_momentum.flows.options import option_errors
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.record_plan import RecordPlan
from dln_momentum.seeding import is_seed
from dln_momentum.start import Start, biased, gaussian, power, uniform

T = TypeVar("T")


def arrays(
    u: list[float] | None = None, v: list[float] | None = None, path: str | None = None
) -> Start:
    """u_0 and v_0 as two lists, or as the arrays u and v of an ``.npz``.

    Raises:
        InputError: for anything but one of the two, or what `Start` refuses.
    """
    if (u is None or v is None) == (path is None) or (u is None) != (v is None):
        raise_if_any(["give either both of model.u and model.v, or model.path"])
    if path is None:
        assert u is not None
        assert v is not None
        return Start(u, v)
    found = read_archive(path, "model.path")
    raise_if_any(f"model.path = {path!r} lacks {key}" for key in ("u", "v") if key not in found)
    return Start(found["u"], found["v"])


STARTS: dict[str, Callable[..., Start]] = {
    "uniform": uniform,
    "biased": biased,
    "gaussian": gaussian,
    "power": power,
    "arrays": arrays,
}
"""What ``model.init`` may be."""


def seed_of(reader: Reader) -> int | None:
    """The seed of a run; the top keys of every config are read with it."""
    seed = reader.value("seed", int)
    reader.errors += place_errors(reader.value("name", Any), reader.value("paths.root", Any))
    if seed is not None and not is_seed(seed):
        reader.errors.append(f"seed = {seed} must be an integer in [0, 2^64)")
        return None
    return seed


def load_problem(reader: Reader, **given: Any) -> Problem | None:
    """The problem of sections ``data`` and ``loss``, with other arguments for the config's."""
    loader, loss = reader.choice("data.kind", LOADERS), loss_of(reader)
    if loader is None:
        reader.free("data")
        return None
    keys = reader.section("data", loader, "kind")
    problem = reader.build(loader, reader.given(loader, keys), "data", **given)
    if problem is None or loss in (None, problem.loss_name):
        return problem
    return reader.build(problem.with_loss, Given({"loss": "loss.name"}, {"loss": loss}), "data")


def start_of(reader: Reader, seed: int | None, **given: Any) -> Start | None:
    """The start of section ``model``, with other arguments in place of the config's."""
    maker = reader.choice("model.init", STARTS)
    if maker is None:
        reader.free("model")
        return None
    found = reader.given(maker, reader.section("model", maker, "init", "speed"))
    if maker is gaussian:
        if seed is None:
            return None
        given = {"seed": seed} | given
    return reader.build(maker, found, "model", **given)


def network(reader: Reader, start: Start, d: int) -> DiagonalLinearNet | None:
    """One network as it starts."""
    if start.runs:
        reader.errors.append(f"model: one start is needed, its keys give {list(start.runs)}")
        return None
    return reader.build(lambda: DiagonalLinearNet.from_start(start, d), Given({}, {}), "model")


def speed_of(reader: Reader) -> float | None:
    """The initial speed, w'(0) = -speed grad F(w_0)."""
    speed = reader.value("model.speed", float)
    if speed is not None and not math.isfinite(speed):
        reader.errors.append(f"model.speed = {speed:g} must be finite; 0 is rest")
    return speed


def streams(
    reader: Reader, n: int | None, seeds: int | Sequence[int] | None
) -> tuple[BatchStream, LabelNoise | None] | None:
    """The mini-batches and the label noise, if any, for one seed or for one a run.

    A config without a section ``sampling`` is about the full loss.
    """
    if "sampling" not in reader.config:
        return None if n is None else (BatchStream(n, None, "with_replacement", 0), None)
    drawing = {"batch_size": "sampling.batch_size", "sampling": "sampling.kind"}
    noising = {"amplitude": "sampling.label_noise", "until": "sampling.noise_until"}
    drawn, noisy = reader.given(BatchStream, drawing), reader.given(LabelNoise, noising)
    if n is None or seeds is None:
        return None
    batches = reader.build(BatchStream, drawn, "sampling", n=n, seeds=seeds)
    noise = reader.build(LabelNoise, noisy, "sampling", n=n, seeds=seeds)
    if noise is None or batches is None:
        return None
    if noise.amplitude and not noise.until:
        reader.errors.append(
            f"sampling.noise_until = 0 must be >= 1 for sampling.label_noise = {noise.amplitude:g}"
        )
    return batches, noise if noise.amplitude else None


def momentum_of(reader: Reader) -> Momentum | None:
    """The momentum of section ``optimizer``."""
    keys = reader.section("optimizer", rates_given)
    found = reader.given(rates_given, keys)
    return reader.build(lambda **given: momentum(given), found, "optimizer")


def rates_given(
    *,
    gamma: float | None = None,
    beta: float | None = None,
    lam: float | None = None,
    eps: float | None = None,
    gamma_u: float | None = None,
    gamma_v: float | None = None,
) -> None:
    """The keys of section ``optimizer`` and their types."""


def engine_options(reader: Reader) -> EngineOptions | None:
    """The engine's options, from sections ``engine`` and ``trainer``."""
    of_trainer = ("tol", "margin", "gradient_tol", "divergence_bound")
    keys = {key: f"trainer.{key}" for key in of_trainer}
    keys |= {key: f"engine.{key}" for key in ("backend", "path_sums", "tile_runs")}
    found, workers = (
        reader.given(EngineOptions, keys),
        reader.value("engine.num_workers", int | None),
    )
    number = physical_cores() if workers is None else workers
    return reader.build(EngineOptions, found, "engine", num_workers=number)


def plan_of(reader: Reader) -> RecordPlan | None:
    """When a run is recorded and saved; the other keys of ``trainer`` are read with it."""
    from dln_momentum.training.module import HeavyBallModule

    keys = ("max_steps", "records", "block_size", "checkpoint_every")
    resume = reader.value("resume", str | None)
    if resume is not None and not (resume and Path(resume).exists()):
        reader.errors.append(
            f"resume = {resume!r} must be an existing checkpoint or directory of a job, or null"
        )
    seconds = reader.value("trainer.checkpoint_seconds", float)
    if seconds is not None and not 0 <= seconds < math.inf:
        reader.errors.append(
            f"trainer.checkpoint_seconds = {seconds:g} must be finite and >= 0; 0 for none"
        )
    reader.given(HeavyBallModule, {"gradient": "trainer.gradient"})
    reader.value("trainer.progress", bool | None)
    reader.free("callbacks", "logger")
    check_outputs(reader)
    found = reader.given(RecordPlan, {key: f"trainer.{key}" for key in keys})
    # where nothing is recorded, no block needs to end for it
    rare: dict[str, Any] = {} if outputs_of(reader.config).history else {"records": 2}
    return reader.build(RecordPlan, found, **rare)


def flow_options(reader: Reader) -> FlowOptions | None:
    """How a flow is integrated, from section ``flow``."""

    def checked(**given: Any) -> FlowOptions:
        options = FlowOptions(**given)
        raise_if_any(option_errors(options))
        return options

    keys = {key: f"flow.{key}" for key in ("method", "rtol", "atol", "max_steps")}
    return reader.build(checked, reader.given(FlowOptions, keys))


def device_of(reader: Reader) -> str:
    """The torch device that a config asks for."""
    devices = {"cpu": "cpu", "gpu": "cuda"}
    device = reader.choice("trainer.accelerator", devices)
    if device == "cuda" and not torch.cuda.is_available():
        reader.errors.append(
            "trainer.accelerator = 'gpu' needs a CUDA device; this machine has none"
        )
    return device or "cpu"
