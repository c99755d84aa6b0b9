"""Which pieces of a sweep are trained at once, each by a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from omegaconf import DictConfig

from dln_momentum.sweeps.assembly import Piece, Study, footprint
from dln_momentum.sweeps.forked import can_fork

WORTH = 10**10
"""Entries of X times runs times steps, on the average of the pieces, from which they may have
processes of their own: some seconds of a core, a hundred times what a fork costs."""


class Round(NamedTuple):
    """Pieces that are trained by so many processes, each with so many threads."""

    pieces: Sequence[Piece]
    processes: int
    threads: int


def rounds(config: DictConfig, study: Study, pieces: Sequence[Piece]) -> Iterator[Round]:
    """Rounds with as many pieces for one process as for another, on as many cores as possible.

    What a piece takes beside its steps is done on one core, and its tiles wait for each other at
    the end of every block; pieces that are trained at once do both while others take their steps.
    Those that are left for the last round share the cores. They need the memory of so many pieces;
    where ``sweep.memory_gb`` does not allow it, on a GPU, or where nothing can be forked, there is
    one process.
    """
    if not pieces:
        return
    how = study.points.advance.at(int(pieces[0].points[0]))
    workers = how.options.num_workers
    most = min(workers, len(pieces)) if how.device == "cpu" and can_fork() else 1
    if sum(_work(study, piece) for piece in pieces) < WORTH * len(pieces):
        most = 1
    limit = config.sweep.memory_gb
    while most > 1:
        needed = footprint(config, study, at_once=most)
        if needed.gigabytes <= limit and not list(needed.errors("sweep")):
            break
        most -= 1
    # 9 pieces on 16 cores: 8 processes of 2 threads, and the last piece on all
    most = max(range(1, most + 1), key=lambda count: (workers // count * count, count))
    whole = len(pieces) - len(pieces) % most
    yield Round(pieces[:whole], most, workers // most)
    yield from rounds(config, study, pieces[whole:])


def _work(study: Study, piece: Piece) -> int:
    point = int(piece.points[0])
    problem = study.points.data.at(point)
    return problem.n * problem.d * len(piece.points) * study.points.advance.at(point).plan.max_steps
