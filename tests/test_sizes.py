"""Sizes that do not fit into memory are refused in words, before anything is allocated."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dln_momentum as dln
from dln_momentum import memory
from dln_momentum.cli.flow import flow
from dln_momentum.cli.train import train
from dln_momentum.cli.verify import verify
from dln_momentum.config import composed
from dln_momentum.engine.footprint import Footprint
from dln_momentum.method import Method
from dln_momentum.record_plan import RecordPlan
from dln_momentum.sweeps.assembly import build
from tests.helpers import default_problem, run_job

ROOM = 2**33
"""Bytes that the machine of these tests has left."""


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_by_system", lambda: ROOM)


@pytest.fixture
def frugal() -> Iterator[None]:
    """What is done in the test takes little time, and none of the memory that it asks for."""
    tracemalloc.start()
    started = time.process_time()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the values of an axis are lists: some 50 bytes for each of 2e5
    assert peak < 2**26
    assert time.process_time() - started < 2


def engine_of(runs: int, d: int) -> dln.Engine:
    rate = torch.full((1,), 0.01, dtype=torch.float64).expand(runs)
    w = torch.full((1, 1), 0.1, dtype=torch.float64).expand(runs, d)
    return dln.Engine(dln.sparse(2, d, 1, n_test=0), rate, rate, w, w)


MANY = np.linspace(0.01, 0.02, 10**5)

PYTHON: list[tuple[str, Callable[[], Any], str]] = [
    *((f"d = 1e{k}", lambda k=k: dln.sparse(d=10**k), f"d = {10**k} must be at most 8521")
      for k in (9, 12, 21)),
    ("n_test = 1e9", lambda: dln.sparse(n_test=10**9), "n_test = 1000000000 must be at most 357"),
    ("signs", lambda: dln.sparse(d=10**9, design="rademacher"), "must be at most 8521"),
    ("n and d", lambda: dln.sparse(10**6, 10**9, n_test=10**9), "d = 1000000000 is too large"),
    ("1e10 runs", lambda: dln.train(default_problem(), gamma=MANY[:, None], beta=MANY),
     r"gamma \[100000, 1\], beta \[100000\] is too large: 10000000000 runs of \(n, d\) ="),
    ("1e5 runs with trajectories",
     lambda: dln.train(default_problem(), gamma=MANY, beta=0.5, records=1000, trajectories=True),
     "records = [0-9]+ with trajectories = True is too large"),
    ("1e5 runs with many records",
     lambda: dln.train(default_problem(), gamma=MANY, beta=0.5, records=10**4),
     "records = [0-9]+ with 100000 runs is too large"),
    ("a grid of 1e8 points",
     lambda: dln.sweep(default_problem(), gamma=MANY[:10**4], beta=MANY[:10**4]),
     r"gamma \[10000\], beta \[10000\] is too large: 100000000 runs"),
    ("an engine of 1e6 runs", lambda: engine_of(10**6, 1000), r"gamma \[1000000\] is too large"),
]  # fmt: skip


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(("call", "said"), [c[1:] for c in PYTHON], ids=[c[0] for c in PYTHON])
def test_python_refuses_with_the_size(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(dln.InputError, match=said) as caught:
        call()
    assert "GiB of memory are available" in str(caught.value)
    assert len(caught.value.problems) == 1


COMMANDS = [
    ("train", "data.d=1000000000", "data.d = 1000000000 must be at most"),
    ("train", "data.n_test=1000000000", "data.n_test = 1000000000 must be at most"),
    ("train", "data.d=2000 data.n=2 data.n_test=0 trainer.records=10000",
     "trainer.records = 10000 is too large"),
    ("train", "data.d=200000 data.n=2 data.n_test=0 outputs=minimal",
     "data: d = 200000 is too large"),
    ("train", "trainer.records=10000000", r"trainer.records = 10000000 must be an integer in"),
    ("train", "trainer.max_steps=1000000000000000000", "trainer.max_steps = 10+ must be an"),
    ("flow", "data.d=1000000000000", "data.d = 1000000000000 must be at most"),
    ("verify", "data.d=1000000000000000000000", "data.d = 10+ must be at most"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("app", "words", "said"), COMMANDS, ids=[" ".join(c[:2]) for c in COMMANDS]
)
def test_commands_refuse_with_the_key(
    app: str, words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so little that even a problem which is drawn at once has a run that does not fit
    monkeypatch.setattr(memory, "_by_system", lambda: 2**26)
    work = {"train": train, "flow": flow, "verify": verify}[app]
    with pytest.raises(dln.InputError, match=said) as caught:
        run_job(app, work, tmp_path / "run", *words.split())
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "run").exists()


SWEEPS = [
    ("sweep.gamma=linspace:0.01:0.02:10000 sweep.beta=linspace:0.5:0.9:10000",
     r"sweep.memory_gb = 8 is less than the 57.6 GiB or more that the results of 100000000 grid"),
    ("sweep.gamma=linspace:0.01:0.02:10000 sweep.beta=linspace:0.5:0.9:1000 sweep.memory_gb=5",
     "sweep.memory_gb = 5 is less than the 6.66 GiB or more"),
    ("sweep.gamma=[0.01] sweep.beta=[0.5] data.d=1000000000", "data.d = 1000000000 must be at"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), SWEEPS)
def test_sweeps_refuse_before_their_points_are_made(words: str, said: str) -> None:
    with pytest.raises(dln.InputError, match=said):
        build(composed("sweep", words.split()))


def test_plans_of_any_length_are_found_as_they_go() -> None:
    started = time.process_time()
    plan = RecordPlan(2**53, 10**5, block_size=1)
    assert list(islice(plan.blocks(2**52), 2)) == [(2**52, 2**52 + 1), (2**52 + 1, 2**52 + 2)]
    assert len(RecordPlan(10**12, 200).recorded) <= 200
    # the records are sorted once
    assert time.process_time() - started < 2


def bytes_of(value: Any) -> int:
    """What the tensors of an object take in memory; an expanded row is one row."""
    found = (getattr(value, field.name) for field in fields(value))
    flat = (t for item in found for t in (item if isinstance(item, tuple) else (item,)))
    return sum(t.untyped_storage().nbytes() for t in flat if isinstance(t, Tensor))


@pytest.mark.parametrize(
    ("method", "path_sums"),
    [(Method(), kind) for kind in ("telescoped", "direct", "gradient_sum")]
    + [(Method("nesterov"), "telescoped"), (Method(weight_decay=0.1), "telescoped")],
)
def test_the_footprint_holds_what_an_engine_carries(method: Method, path_sums: str) -> None:
    """Of all kernels: the estimate is above what the tensors take, by a quarter at most."""
    R, (n, d) = 400, (20, 300)
    w = 0.1 + torch.arange(R * d, dtype=torch.float64).view(R, d) / (R * d)
    rate = torch.full((R,), 0.01, dtype=torch.float64)
    options = dln.EngineOptions(path_sums=path_sums)
    problem = dln.sparse(n, d, 3, n_test=0)
    engine = dln.Engine(problem, rate, rate, w, w, options=options, method=method)
    taken = bytes_of(engine.state) + 8 * 2 * R * d  # and the first iterates
    sizes = Footprint(R, n, d, data_sets=0, path_sums=path_sums, plain=method.is_plain)
    assert taken <= sizes.engine_gigabytes * 2**30 <= 1.25 * taken


def test_what_is_available_is_the_least_of_what_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    assert memory.available_bytes() <= ROOM
    for name, text in (
        ("max", "5000"),
        ("current", "3000"),
        ("stat", "anon 7\ninactive_file 400\nactive_file 100\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.available_bytes() == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert 2500 < memory.available_bytes() <= ROOM
