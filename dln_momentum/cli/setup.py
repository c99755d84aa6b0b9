"""From a config to the objects that a run is made of, every problem at once."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from omegaconf import DictConfig
from torch import Tensor

from dln_momentum.cli import sections
from dln_momentum.cli.method_setup import layer_ratio_of, method_of, misfits
from dln_momentum.config import Reader
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.engine import EngineOptions
from dln_momentum.engine.problems import Problems, first_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.method import Method
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.record_plan import RecordPlan
from dln_momentum.theory.initial_speed import gradient_velocity

if TYPE_CHECKING:
    from dln_momentum.training.module import HeavyBallModule

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What every command is about: data, a start, and the rows that the steps of a run read."""

    problem: Problem
    net: DiagonalLinearNet
    batches: BatchStream
    label_noise: LabelNoise | None
    velocity: tuple[Tensor, Tensor] | None
    """w_+-'(0), [d] each; None at rest"""
    method: Method
    """how the run is advanced"""


class Rates(NamedTuple):
    """gamma and beta of R runs, [R] each."""

    gamma: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Setup:
    """A checked config and what was built from it, for one run or for many."""

    config: DictConfig
    problems: Problem | Problems
    net: DiagonalLinearNet
    momentum: Momentum | Rates
    method: Method
    batches: BatchStream
    label_noise: LabelNoise | None
    options: EngineOptions
    plan: RecordPlan

    @property
    def problem(self) -> Problem:
        """The problem; of several the first."""
        return first_of(self.problems)

    def module(
        self, *, trajectories: bool = True, resume: str | Path | None = None
    ) -> HeavyBallModule:
        """The Lightning module of this setup, its data and plan included.

        Args:
            trajectories: whether the history keeps values per coordinate.
            resume: the checkpoint that it will be continued from, which is checked here.

        Raises:
            InputError: for what the module refuses, or a checkpoint of another run.
        """
        # flows do without Lightning, whose imports take longer than a flow
        from dln_momentum.training.datamodule import BlockDataModule
        from dln_momentum.training.module import HeavyBallModule
        from dln_momentum.training.resuming import check_same_run, read_checkpoint

        reader = Reader(self.config)
        keys = {"gradient": "trainer.gradient", "speed": "model.speed"}
        found = reader.given(HeavyBallModule, keys)
        # what the engine says of its options is about this key
        found = found._replace(keys={**found.keys, "path_sums": "engine.path_sums"})
        data = BlockDataModule(self.problems, self.plan, self.batches, self.label_noise)
        module = reader.build(
            HeavyBallModule, found, net=self.net, gamma=self.momentum.gamma,
            beta=self.momentum.beta, data=data, method=self.method, options=self.options,
            trajectories=trajectories,
        )  # fmt: skip
        raise_if_any(reader.errors)
        assert module is not None
        if resume is not None:
            # Lightning reads it too, but only once directories have been made
            saved = read_checkpoint(resume)
            try:
                check_same_run(saved, module.identity, self.plan.max_steps)
            except InputError as error:
                folder = Path(resume).parent.parent
                other = saved.get("identity") != module.identity
                if other and (folder / "config.yaml").is_file():
                    at = shlex.quote(str(folder))
                    hint = f"--config-dir {at} --config-name config takes the settings of"
                    error = InputError([*error.problems, f"{hint} the run of {resume}"])
                raise error from None
        return module


def build(config: DictConfig) -> Setup:
    """Check the config of one run and build what it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included.
    """
    reader = Reader(config)
    seed = sections.seed_of(reader)
    rates, device = sections.momentum_of(reader), sections.device_of(reader)
    options, plan = sections.engine_options(reader), sections.plan_of(reader)
    parts = build_parts(reader, seed, rates, options)
    return Setup(
        config,
        parts.problem.to(device),
        parts.net.to(device),
        built(rates),
        parts.method,
        parts.batches,
        parts.label_noise,
        built(options),
        built(plan),
    )


def built(value: T | None) -> T:
    """A value of a reader that has finished, which therefore is there."""
    assert value is not None
    return value


def build_parts(
    reader: Reader,
    seed: int | None,
    rates: Momentum | None = None,
    options: EngineOptions | None = None,
) -> Parts:
    """Build the data, one network, its method and the streams of a config; its last sections.

    Args:
        reader: of the config.
        seed: of the run.
        rates: gamma and beta, which not every schedule fits.
        options: of the engine, whose margin not every loss has.

    Raises:
        InputError: everything that the reader has found wrong with the config.
    """
    problem, start = sections.load_problem(reader), sections.start_of(reader, seed)
    speed = sections.speed_of(reader)
    drawn = sections.streams(reader, problem and problem.n, seed)
    depth = 2.0 if start is None else start.depth
    method = method_of(reader, depth=depth, layer_ratio=layer_ratio_of(reader))
    if method is not None:
        reader.errors += misfits(method, problem, rates, options)
    net = None
    if problem is not None and start is not None:
        net = sections.network(reader, start, problem.d)
    reader.finish()
    problem, net, drawn = built(problem), built(net), built(drawn)
    for note in problem.notes:
        logger.info("data: %s", note)
    tell_if_seed_is_unread(reader.config, *drawn)
    velocity = None
    if speed:
        pair = (net.u, net.v) if net.is_deep else (net.w_plus, net.w_minus)
        first, second = (w.detach() for w in pair)
        velocity = gradient_velocity(problem, first, second, speed, net.depth)
    return Parts(problem, net, *drawn, velocity, built(method))


def tell_if_seed_is_unread(
    config: DictConfig, batches: BatchStream, label_noise: LabelNoise | None
) -> None:
    """Log a line where a seed is given and nothing is random: other seeds give the same numbers."""
    if config.model.init == "gaussian" or label_noise is not None or not batches.full_batch:
        return
    swept = config.get("sweep", {}).get("seed") is not None
    if not (swept or config.seed):
        return
    logger.info(
        "%s is not read: full batch, no label noise, model=%s draws nothing",
        "sweep.seed" if swept else "seed",
        config.model.init,
    )
