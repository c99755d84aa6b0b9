"""From the config of a sweep to pieces of runs that are trained together."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from dln_momentum.cli import sections
from dln_momentum.cli.method_setup import method_of
from dln_momentum.cli.setup import Rates, Setup, built, tell_if_seed_is_unread
from dln_momentum.config import Reader
from dln_momentum.engine.family import is_plain
from dln_momentum.engine.footprint import Footprint
from dln_momentum.engine.problems import Problems
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.methods import stacked
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.outputs.axis_keys import AXES, key_of
from dln_momentum.outputs.grid import Grid
from dln_momentum.rates import LAYERS, PAIRS, RATES
from dln_momentum.sweeps.axes import read_axes
from dln_momentum.sweeps.different import different
from dln_momentum.sweeps.points import ONE_NETWORK, Points

log = logging.getLogger("dln_momentum")

MAX_POINTS = 10**8

ALLOWED = (*PAIRS, (*LAYERS, "beta"))
"""The rates that determine a run."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Runs that one engine carries: what they do not share is a number or a vector of each run.

    Gamma, beta, the numbers of the schedule and of the method, the start, the seed and the data may
    differ between runs; the shape of the data, the kinds of schedule and method, the mini-batches
    and label noise, the engine's options and the record plan may not.
    """

    number: int
    points: np.ndarray
    """the points of the grid, int64 [R]"""


@dataclass(frozen=True, eq=False)
class Study:
    """The points of a grid and the pieces that they are trained in.

    The pieces depend on the config alone: neither on a shard nor on what is already done.
    """

    points: Points
    pieces: Sequence[Piece]

    @property
    def grid(self) -> Grid:
        """The axes."""
        return self.points.grid

    def setup(self, piece: Piece) -> Setup:
        """Everything that the runs of a piece are made of."""
        points, first = self.points, int(piece.points[0])
        config, how = points.config_at(first), points.advance.at(first)
        numbers, place = np.unique(points.data.index[piece.points], return_inverse=True)
        problems = [built(points.data.made[number]) for number in numbers]
        d, reader = problems[0].d, Reader(config)
        starts, which = np.unique(points.start.index[piece.points], return_inverse=True)
        layers = [built(points.start.made[number]).layers(d) for number in starts]
        u, v = (torch.stack(layer)[which] for layer in zip(*layers, strict=True))
        gamma, beta = (torch.from_numpy(rate[piece.points]) for rate in points.rates)
        method = stacked(points.methods_at(piece.points))
        seeds = [int(seed) for seed in points.seeds[piece.points]]
        drawn = sections.streams(reader, problems[0].n, seeds if len(set(seeds)) > 1 else seeds[0])
        raise_if_any(reader.errors)
        return Setup(
            config,
            Problems(problems, torch.from_numpy(place)).to(how.device),
            DiagonalLinearNet(u, v, method.depth).to(how.device),
            Rates(gamma.to(how.device), beta.to(how.device)),
            method,
            *built(drawn),
            how.options,
            how.plan,
        )


def build(config: DictConfig) -> Study:
    """Check the config of a sweep and build what it describes; nothing is written.

    Raises:
        InputError: listing every key that is not allowed, those of the data included; or a sweep
            that would not fit into ``sweep.memory_gb``.
    """
    errors: list[str] = []
    section = OmegaConf.to_container(config.sweep, resolve=True)
    assert isinstance(section, dict)
    grid = Grid(read_axes({str(key): value for key, value in section.items()}, errors))
    if not errors:
        errors += [*_absent(config, grid), *_lists(config, grid)]
    if grid.size > MAX_POINTS:
        errors.append(f"sweep: {grid.size} grid points, must be at most {MAX_POINTS}")
    elif not errors:
        errors += _results_errors(config, grid)
    if errors:
        _read(config, errors, grid)
    points = Points(config, grid)
    allowed = points.allowed
    first = int(np.flatnonzero(allowed)[0]) if allowed.any() else 0
    _read(points.config_at(first), list(points.never_allowed()), grid)
    if not allowed.any():
        # what no axis has brought in
        raise_if_any(points.errors_at(0))
    if not points.valid.any():
        raise_if_any([f"sweep: none of the {grid.size} grid points has beta in [0, 1)"])
    study = Study(points, list(pieces_of(points, config.sweep.piece_runs)))
    raise_if_any(_size_errors(config, study))
    _tell(study)
    return study


def pieces_of_shard(config: DictConfig, study: Study) -> list[Piece]:
    """The pieces that this process trains: every ``num_shards``-th, or all of them.

    Raises:
        InputError: for more shards than pieces, some of which would have nothing to do.
    """
    shards, pieces = config.sweep.num_shards, len(study.pieces)
    if shards > pieces:
        raise InputError(
            [f"sweep.num_shards = {shards} must be at most {pieces}, the number of pieces; a "
             f"sweep.piece_runs below {config.sweep.piece_runs} makes more"]
        )  # fmt: skip
    return list(study.pieces[config.sweep.shard :: shards])


def _read(config: DictConfig, errors: Sequence[str], grid: Grid) -> None:
    """Read every key of a config, so that everything wrong is listed at once.

    Args:
        config: of a point that is allowed, if there is one.
        errors: what is wrong with the axes.
        grid: the axes.
    """
    reader = Reader(config)
    seed = sections.seed_of(reader)
    problem, start = sections.load_problem(reader), sections.start_of(reader, seed)
    sections.streams(reader, problem and problem.n, seed)
    if problem is not None and start is not None:
        sections.network(reader, start, problem.d)
    for read in (sections.device_of, sections.engine_options, sections.plan_of, sections.speed_of):
        read(reader)
    reader.section("optimizer", sections.rates_given)
    _momentum(reader, [name for name in (*RATES, *LAYERS) if name in grid.names])
    method_of(reader)
    _own_keys(reader)
    if config.trainer.gradient == "autograd":
        reader.errors.append(ONE_NETWORK)
    reader.errors += [line for line in errors if line not in reader.errors]
    reader.finish()


def _own_keys(reader: Reader) -> None:
    """The keys of section ``sweep`` that are no axes."""
    for name in (*AXES, "axes", "zip"):
        reader.value(f"sweep.{name}", Any)
    reader.free("sweep.axes")
    reader.value("sweep.trajectories", bool)
    memory = reader.value("sweep.memory_gb", float)
    if memory is not None and not memory > 0:
        reader.errors.append(f"sweep.memory_gb = {memory:g} must be > 0")
    number, shard, runs = (
        reader.value(f"sweep.{name}", int) for name in ("num_shards", "shard", "piece_runs")
    )
    reader.errors += [
        f"sweep.{name} = {value} must be >= 1"
        for name, value in (("num_shards", number), ("piece_runs", runs))
        if value is not None and value < 1
    ]
    if number is not None and shard is not None and number >= 1 and not 0 <= shard < number:
        reader.errors.append(f"sweep.shard = {shard} must be in [0, {number - 1}], num_shards - 1")


def _absent(config: DictConfig, grid: Grid) -> Iterator[str]:
    """Axes over keys that the config does not have."""
    for name in grid.names:
        section, _, leaf = key_of(name).rpartition(".")
        if section != "optimizer" and section and leaf not in list(config.get(section, {})):
            given = f"sweep.{name}" if name in AXES else f"sweep.axes: {key_of(name)}"
            yield f"{given} is given, but this config has no {key_of(name)} to sweep"


def _lists(config: DictConfig, grid: Grid) -> Iterator[str]:
    """Keys of one value that are lists, where an axis was meant; a signal may be a list."""
    for name, key in AXES.items():
        value = OmegaConf.select(config, key)
        if OmegaConf.is_list(value) and name not in ("signal", *grid.names):
            shown = str(value).replace(" ", "")
            yield f"{key} = {shown} must be one value; sweep.{name}={shown} makes it an axis"


def _momentum(reader: Reader, swept: Sequence[str]) -> None:
    """Check that the rates that are swept and those of the optimizer make a pair."""
    given = reader.config.optimizer
    if frozenset(swept) in map(frozenset, ALLOWED):
        return
    fixed = {key: reader.value(f"optimizer.{key}", float) for key in given if key not in swept}
    if None in fixed.values():
        return
    of_layers = {*swept, *fixed} == {*LAYERS, "beta"}
    if not swept:
        sections.momentum_of(reader)
    elif not of_layers and (len(swept) > 1 or {*swept, *fixed} not in map(set, PAIRS)):
        named = [f"sweep.{name}" for name in swept]
        named += [f"optimizer.{name} = {value:g}" for name, value in fixed.items()]
        allowed = ", ".join(f"({', '.join(pair)})" for pair in PAIRS)
        reader.errors.append(
            f"{', '.join(named)} given: give exactly one of the pairs {allowed}, swept or fixed"
        )
    else:
        reader.errors += _out_of_range(fixed)


def _out_of_range(fixed: Mapping[str, float]) -> Iterator[str]:
    for name, value in fixed.items():
        allowed = "in [0, 1)" if name == "beta" else "finite and > 0"
        inside = 0 <= value < 1 if name == "beta" else 0 < value < math.inf
        if not inside:
            yield f"optimizer.{name} = {value:g} must be {allowed}"


def pieces_of(points: Points, runs: int) -> Iterator[Piece]:
    """The valid points by what runs of one engine share, those of one problem side by side.

    Pieces of one problem are alike in size and in how long their runs are.
    """
    valid = np.flatnonzero(points.valid)
    nothing = (-1,) * 4
    shapes = np.array([nothing if p is None else p.layout for p in points.data.made])
    data = points.data.index[valid]
    settings = [points.advance.index[valid], points.sampling.index[valid], points.speeds[valid]]
    shared = different(*settings, *shapes[data].T, points.structure[valid])
    number = 0
    for members in shared.members():
        members = members[np.argsort(data[members], kind="stable")]
        count = -(-len(members) // runs)
        if data[members[0]] == data[members[-1]]:
            # dealt out, since neighbours on the grid end at about the same step
            parts = [np.sort(members[first::count]) for first in range(count)]
        else:
            parts = [members[first : first + runs] for first in range(0, len(members), runs)]
        for part in parts:
            yield Piece(number, valid[part])
            number += 1


def _tell(study: Study) -> None:
    """Log the notes on the data, which points have no run, and a seed that nothing reads."""
    points = study.points
    for note in points.data.at(int(study.pieces[0].points[0])).notes:
        log.info("data: %s", note)
    refused = np.flatnonzero(~points.allowed)
    if len(refused):
        log.info(
            "%d of %d points are invalid: %s",
            *(len(refused), study.grid.size, points.errors_at(int(refused[0]))[0]),
        )
    setup = study.setup(study.pieces[0])
    tell_if_seed_is_unread(setup.config, setup.batches, setup.label_noise)


def _results_errors(config: DictConfig, grid: Grid) -> Iterator[str]:
    """What is wrong with a grid whose results alone would not fit, however small its runs are."""
    least, most = Footprint(0, n=1, d=1, points=grid.size), config.sweep.memory_gb
    # a wrong type is reported where the key is read
    if isinstance(most, int | float) and least.gigabytes > most:
        yield (
            f"sweep.memory_gb = {most:g} is less than the {least.gigabytes:.3g} GiB or more that "
            f"the results of {grid.size} grid points would take; raise it, or make the grid smaller"
        )


def footprint(config: DictConfig, study: Study, at_once: int = 1) -> Footprint:
    """The memory of a study; of its pieces, all taken for the largest, some are trained at once."""
    largest = max(study.pieces, key=lambda piece: len(piece.points))
    setup = study.setup(largest)
    problem, problems = setup.problem, setup.problems
    assert isinstance(problems, Problems)
    return Footprint(
        runs=at_once * len(largest.points),
        n=problem.n,
        d=problem.d,
        test_rows=0 if problem.X_test is None else problem.X_test.shape[-2],
        data_sets=at_once * (len(problems.each) + problems.copies),
        records=min(setup.plan.records, setup.plan.max_steps),
        points=study.grid.size,
        path_sums=config.engine.path_sums,
        trajectories=config.sweep.trajectories,
        plain=is_plain(setup.method, problem),
    )


def _size_errors(config: DictConfig, study: Study) -> Iterator[str]:
    needed = footprint(config, study)
    if needed.gigabytes > config.sweep.memory_gb:
        yield (
            f"sweep.memory_gb = {config.sweep.memory_gb:g} is less than the "
            f"{needed.gigabytes:.3g} GiB that {study.grid.size} runs of (n, d) = "
            f"{(needed.n, needed.d)} would take; raise it, make the grid smaller, or "
            f"sweep.piece_runs = {config.sweep.piece_runs}"
        )
    else:
        yield from needed.errors(f"sweep.memory_gb = {config.sweep.memory_gb:g}")
