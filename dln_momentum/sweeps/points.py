"""What each point of a grid is made of, built once for every different setting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli.setup import (
    Reader,
    built,
    device_of,
    engine_options,
    load_problem,
    network,
    plan_of,
    seed_of,
    speed_of,
    start_of,
    streams,
)
from dln_momentum.engine import EngineOptions
from dln_momentum.outputs.grid import Grid, have_a_run, rates_at
from dln_momentum.outputs.quantities import RATES
from dln_momentum.problem import Problem
from dln_momentum.record_plan import RecordPlan
from dln_momentum.start import Start
from dln_momentum.sweeps.axes import key_of

ONE_NETWORK = "trainer.gradient = 'autograd' trains one network; a sweep needs closed_form"
"""Why a point that is trained by autograd is not allowed."""

T = TypeVar("T")


class Advance(NamedTuple):
    """How the runs of a piece are advanced and recorded."""

    device: str
    options: EngineOptions
    plan: RecordPlan


@dataclass(frozen=True, eq=False)
class Part(Generic[T]):
    """What one part of the config makes at each point of a grid."""

    settings: Sequence[Mapping[str, Any]]
    """the different settings of the part, by axis"""
    index: np.ndarray
    """which of them each point has, int64 [P]"""
    made: Sequence[T | None]
    """what each setting makes; None where it is refused"""
    errors: Sequence[Sequence[str]]
    """why it is refused"""

    def at(self, point: int) -> T:
        """What the part makes at a valid point."""
        return built(self.made[self.index[point]])

    @property
    def allowed(self) -> np.ndarray:
        """Whether the setting is allowed, boolean [P]."""
        return np.array([value is not None for value in self.made])[self.index]


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a grid under one config, each part of it built once for each setting.

    Args:
        config: of a sweep, or of one job of a multirun.
        grid: the axes, by the names of `dln_momentum.sweeps.axes.AXES`.
    """

    config: DictConfig
    grid: Grid

    @cached_property
    def data(self) -> Part[Problem]:
        """The problems."""
        return self._part(["data"], load_problem)

    @cached_property
    def start(self) -> Part[Start]:
        """The starts; of a random one also by the seed."""
        inits = [self.config.model.init, *self._values("model_init")]
        seed = ["seed"] if "gaussian" in inits else []

        def make(reader: Reader) -> Start | None:
            speed_of(reader)
            return start_of(reader, seed_of(reader))

        return self._part(["model", *seed], make)

    @cached_property
    def advance(self) -> Part[Advance]:
        """Engine options and record plans."""

        def make(reader: Reader) -> Advance | None:
            made = device_of(reader), engine_options(reader), plan_of(reader)
            if reader.config.trainer.gradient == "autograd":
                reader.errors.append(ONE_NETWORK)
            return None if reader.errors else Advance(made[0], built(made[1]), built(made[2]))

        return self._part(["trainer", "engine"], make)

    @cached_property
    def sampling(self) -> Part[DictConfig]:
        """The config of mini-batches and label noise, whose ranges depend on the problem."""
        return self._part(["sampling"], lambda reader: reader.config)

    @cached_property
    def seeds(self) -> np.ndarray:
        """The seed of every point, [P]."""
        if "seed" in self.grid.names:
            return self.grid.at_points("seed")
        return np.full(self.grid.size, self.config.seed, dtype=object)

    @cached_property
    def speeds(self) -> np.ndarray:
        """The initial speed of every point, [P]."""
        if "speed" in self.grid.names:
            return self.grid.at_points("speed")
        return np.full(self.grid.size, self.config.model.speed)

    @cached_property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """gamma and beta at every point, [P] each; beta may lie outside [0, 1)."""
        swept = [name for name in RATES if name in self.grid.names]
        fixed = {k: v for k, v in self.config.optimizer.items() if k not in swept}
        # a saved config gives all four, of which gamma and beta ran
        fixed = fixed if len(fixed) < len(RATES) else {k: fixed[k] for k in ("gamma", "beta")}
        return rates_at(self.grid, fixed if len(swept) < 2 else {})

    @cached_property
    def with_momentum(self) -> np.ndarray:
        """Whether gamma and beta are those of a run, boolean [P]."""
        return have_a_run(*self.rates)

    @cached_property
    def allowed(self) -> np.ndarray:
        """Whether everything but gamma and beta is allowed, boolean [P]."""
        parts = (self.data, self.start, self.advance, self.sampling)
        each = np.logical_and.reduce([part.allowed for part in parts])
        # what is right by itself may not fit: a start of d numbers, a batch of more than n rows
        points = np.flatnonzero(each)
        if not len(points):
            return each
        settings = [part.index[points] for part in (self.data, self.start, self.sampling)]
        _, first, of_point = np.unique(settings, axis=1, return_index=True, return_inverse=True)
        each[points] = np.array([not self._misfits(int(p)) for p in points[first]], bool)[
            of_point.reshape(-1)
        ]
        return each

    @property
    def valid(self) -> np.ndarray:
        """Where there is a run, boolean [P]."""
        return self.allowed & self.with_momentum

    def errors_at(self, point: int) -> list[str]:
        """What is not allowed at a point."""
        parts = (self.data, self.start, self.advance, self.sampling)
        found = [str(line) for part in parts for line in part.errors[part.index[point]]]
        return found or self._misfits(point)

    def config_at(self, point: int) -> DictConfig:
        """The config of one point."""
        return self._with({name: self._value(name, point) for name in self.grid.names})

    def never_allowed(self) -> Iterator[str]:
        """Why a value of an axis is allowed at no point, one error for each such value."""
        for name in self.grid.names:
            settings, index = self.grid.combinations([name])
            refused = ~self.allowed
            for number in range(len(settings)):
                here = index == number
                if refused[here].all():
                    yield from self.errors_at(int(np.flatnonzero(here)[0]))

    def _misfits(self, point: int) -> list[str]:
        problem, start = self.data.at(point), self.start.at(point)
        reader = Reader(self.sampling.at(point))
        network(reader, start, problem.d)
        streams(reader, problem.n, 0)
        return reader.errors

    def _part(self, sections: Collection[str], make: Callable[[Reader], T | None]) -> Part[T]:
        names = [n for n in self.grid.names if key_of(n).partition(".")[0] in sections]
        settings, index = self.grid.combinations(names)
        made, errors = [], []
        for setting in settings:
            reader = Reader(self._with(setting))
            value = make(reader)
            made.append(None if reader.errors else value)
            errors.append(reader.errors)
        return Part(settings, index, made, errors)

    def _with(self, setting: Mapping[str, Any]) -> DictConfig:
        config = self.config.copy()
        for name, value in setting.items():
            # a saved config lacks the rates that are swept
            OmegaConf.update(config, key_of(name), value, merge=False, force_add=True)
        return config

    def _value(self, name: str, point: int) -> Any:
        settings, index = self.grid.combinations([name])
        return settings[index[point]][name]

    def _values(self, name: str) -> list[Any]:
        if name not in self.grid.names:
            return []
        return [setting[name] for setting in self.grid.combinations([name])[0]]
