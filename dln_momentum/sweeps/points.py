"""What each point of a grid is made of, built once for every different setting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli import sections
from dln_momentum.cli.method_setup import method_of, misfits
from dln_momentum.cli.setup import built
from dln_momentum.config import Given, Reader
from dln_momentum.engine import EngineOptions
from dln_momentum.interface.methods import structure
from dln_momentum.method import Method
from dln_momentum.outputs.axis_keys import key_of
from dln_momentum.outputs.grid import Grid, have_a_run, layer_ratios_at, rates_at
from dln_momentum.problem import Problem
from dln_momentum.rates import LAYERS, RATES
from dln_momentum.record_plan import RecordPlan
from dln_momentum.start import Start
from dln_momentum.sweeps.different import different

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
        grid: the axes, by the names of `dln_momentum.outputs.axis_keys.AXES`.
    """

    config: DictConfig
    grid: Grid

    @cached_property
    def data(self) -> Part[Problem]:
        """The problems."""
        return self._part(["data", "loss"], sections.load_problem)

    @cached_property
    def start(self) -> Part[Start]:
        """The starts; of a random one also by the seed."""
        inits = [self.config.model.init, *self._values("model_init")]
        seed = ["seed"] if "gaussian" in inits else []

        def make(reader: Reader) -> Start | None:
            sections.speed_of(reader)
            return sections.start_of(reader, sections.seed_of(reader))

        return self._part(["model", *seed], make)

    @cached_property
    def advance(self) -> Part[Advance]:
        """Engine options and record plans."""

        def make(reader: Reader) -> Advance | None:
            made = (
                sections.device_of(reader),
                sections.engine_options(reader),
                sections.plan_of(reader),
            )
            if reader.config.trainer.gradient == "autograd":
                reader.errors.append(ONE_NETWORK)
            return None if reader.errors else Advance(made[0], built(made[1]), built(made[2]))

        return self._part(["trainer", "engine"], make)

    @cached_property
    def sampling(self) -> Part[DictConfig]:
        """The config of mini-batches and label noise, whose ranges depend on the problem."""
        return self._part(["sampling"], lambda reader: reader.config)

    @cached_property
    def method(self) -> Part[Method]:
        """The methods, without what the start and the rates add to them: see `method_at`."""
        return self._part(["schedule", "method"], method_of)

    def method_at(self, point: int) -> Method:
        """The method of a point, with its depth and its rates of the layers.

        Raises:
            InputError: for settings that do not go together.
        """
        return self.methods_at(np.array([point]))[0]

    def methods_at(self, points: np.ndarray) -> list[Method]:
        """The methods of points [R]; points of one setting share one object.

        Raises:
            InputError: for settings that do not go together.
        """
        method, start, ratios = self.method, self.start, self.layer_ratios[points]
        first, of_point = different(method.index[points], start.index[points], ratios)
        made = [
            replace(method.at(p), depth=start.at(p).depth, layer_ratio=float(self.layer_ratios[p]))
            for p in points[first].tolist()
        ]
        return [made[place] for place in of_point.tolist()]

    @cached_property
    def structure(self) -> np.ndarray:
        """A number for each `structure` of methods, which valid points must share, int64 [P]."""
        found, texts = np.zeros(self.grid.size, np.int64), dict[str, int]()
        valid = np.flatnonzero(self.valid)
        layered = self.layer_ratios != 1
        each = [x[valid] for x in (self.method.index, self.start.index, layered)]
        first, of_point = different(*each)
        kinds = [structure(self.method_at(int(valid[place]))) for place in first]
        numbers = np.array([texts.setdefault(kind, len(texts)) for kind in kinds], np.int64)
        found[valid] = numbers[of_point]
        return found

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
        return rates_at(self.grid, self._fixed_rates)

    @cached_property
    def layer_ratios(self) -> np.ndarray:
        """gamma_v/gamma_u at every point, [P]."""
        return layer_ratios_at(self.grid, self._fixed_rates)

    @property
    def _fixed_rates(self) -> dict[str, Any]:
        swept = [name for name in (*RATES, *LAYERS) if name in self.grid.names]
        fixed = {str(k): v for k, v in self.config.optimizer.items() if k not in swept}
        if set(swept) & set(LAYERS):
            return {key: fixed[key] for key in (*LAYERS, "beta") if key in fixed}
        # a saved config gives all four, of which gamma and beta ran
        fixed = fixed if len(fixed) < len(RATES) else {k: fixed[k] for k in ("gamma", "beta")}
        return fixed if len(swept) < 2 else {}

    @cached_property
    def with_momentum(self) -> np.ndarray:
        """Whether gamma and beta are those of a run, boolean [P]."""
        return have_a_run(*self.rates)

    @cached_property
    def allowed(self) -> np.ndarray:
        """Whether everything but gamma and beta is allowed, boolean [P]."""
        each = np.logical_and.reduce([part.allowed for part in self._parts])
        # what is right by itself may not fit: a start of d numbers, a batch of more than n rows
        points = np.flatnonzero(each)
        if not len(points):
            return each
        settings = [part.index[points] for part in self._parts]
        settings.append(self.layer_ratios[points] != 1)
        first, of_point = different(*settings)
        each[points] = np.array([not self._misfits(int(p)) for p in points[first]])[of_point]
        for point in np.flatnonzero(each & self.with_momentum & ~self._rates_fit(each)):
            each[point] = not self._rate_errors(int(point))
        return each

    @property
    def _parts(self) -> tuple[Part[Any], ...]:
        return self.data, self.start, self.advance, self.sampling, self.method

    def _rates_fit(self, sound: np.ndarray) -> np.ndarray:
        """Where the schedules surely fit gamma and beta: all points of a method at once, [P]."""
        found = np.zeros(self.grid.size, bool)
        gamma, beta = (torch.from_numpy(rate) for rate in self.rates)
        for number, method in enumerate(self.method.made):
            here = (self.method.index == number) & sound & self.with_momentum
            if method is not None:
                found[here] = not list(method.problems(gamma[here], beta[here]))
        return found

    def _rate_errors(self, point: int) -> list[str]:
        gamma, beta = (torch.from_numpy(rate[[point]]) for rate in self.rates)
        return list(self.method.at(point).problems(gamma, beta))

    @property
    def valid(self) -> np.ndarray:
        """Where there is a run, boolean [P]."""
        return self.allowed & self.with_momentum

    def errors_at(self, point: int) -> list[str]:
        """What is not allowed at a point."""
        found = [str(line) for part in self._parts for line in part.errors[part.index[point]]]
        return found or self._misfits(point) or self._rate_errors(point)

    def config_at(self, point: int) -> DictConfig:
        """The config of one point."""
        return self._with({name: self._value(name, point) for name in self.grid.names})

    def never_allowed(self) -> Iterator[str]:
        """Why a value of an axis is allowed at no point, one error for each such value."""
        for name in self.grid.names:
            settings, index = self.grid.combinations([name])
            allowed = np.bincount(index[self.allowed], minlength=len(settings))
            for number in np.flatnonzero(allowed == 0):
                yield from self.errors_at(int((index == number).argmax()))

    def _misfits(self, point: int) -> list[str]:
        problem, start = self.data.at(point), self.start.at(point)
        reader = Reader(self.sampling.at(point))
        sections.network(reader, start, problem.d)
        sections.streams(reader, problem.n, 0)
        reader.build(lambda: self.method_at(point), Given({}, {}), "method")
        options = self.advance.at(point).options
        reader.errors += misfits(self.method.at(point), problem, None, options)
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
        if not setting:
            return self.config  # a copy takes 5 ms
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
