"""Studies of thousands of runs: killed and resumed, sharded and joined, on the command line."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

from dln_momentum import collect
from tests.test_sweep import assert_same_bytes

pytestmark = pytest.mark.slow

KEYS = [
    "data.d=8", "data.s=1", "data.n_test=5", "sweep.n=[3,5]", "sweep.lam=geomspace:0.1:10:5",
    "optimizer.eps=0.1", "sweep.batch_size=[null,2]", "sweep.data_seed=range:0:100",
    "sweep.piece_runs=250", "trainer.max_steps=3000", "trainer.records=20",
    "trainer.checkpoint_seconds=0.2", "callbacks=minimal", "logger=none",
]  # fmt: skip
"""2,000 runs in eight pieces."""


def start(*words: str) -> subprocess.Popen[str]:
    """A dln-sweep of its own process, on one core."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}
    command = [sys.executable, "-m", "dln_momentum.cli.sweep", *words]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def state(directory: Path, process: int | None = None) -> str:
    """What status.json says, if it was written by that process."""
    file = directory / "status.json"
    found = json.loads(file.read_text()) if file.exists() else {"state": "", "pid": None}
    return found["state"] if process in (None, found["pid"]) else ""


def results(directory: Path) -> xr.Dataset:
    return xr.load_dataset(directory / "results.nc", engine="h5netcdf")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    directory = tmp_path_factory.mktemp("alone") / "sweep"
    finish(start(*KEYS, f"hydra.run.dir={directory}"))
    return results(directory)


def test_a_sweep_that_is_killed_again_and_again_loses_nothing(
    tmp_path: Path, alone: xr.Dataset
) -> None:
    assert alone["status"].size == 2000
    directory, rng = tmp_path / "sweep", random.Random(0)
    words = [*KEYS, f"hydra.run.dir={directory}"]
    ends = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGTERM]
    codes, pieces = [], []
    for end in ends:
        process = start(*words)
        # the clock starts when the sweep does, not when Python does
        while process.poll() is None and state(directory, process.pid) != "running":
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 2.0))
        process.send_signal(end)
        said, _ = process.communicate(timeout=60)
        codes.append(process.returncode)
        pieces.append(len(list(directory.glob("pieces/*.npz"))))
        if end is not signal.SIGKILL and process.returncode:
            assert (
                said.splitlines()[-1] == f"interrupted; dln-sweep resume={directory} continues it"
            )
            assert state(directory) == "interrupted"
        words = [f"resume={directory}"]
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert codes == [expected[end] for end in ends]
    assert pieces == sorted(pieces)
    finish(start(f"resume={directory}"))
    assert_same_bytes(results(directory), alone)
    before = (directory / "results.nc").read_bytes()
    finish(start(f"resume={directory}"))
    assert (directory / "results.nc").read_bytes() == before


def test_two_shards_and_collect_make_the_sweep(tmp_path: Path, alone: xr.Dataset) -> None:
    shards = [
        start(*KEYS, "sweep.num_shards=2", f"sweep.shard={i}", f"hydra.run.dir={tmp_path / str(i)}")
        for i in range(2)
    ]
    for shard in shards:
        finish(shard)
    joined = collect(tmp_path)
    assert len(joined) == 2000
    command = [sys.executable, "-m", "dln_momentum.cli.collect", str(tmp_path)]
    subprocess.run([*command, f"--out={tmp_path / 'joined'}"], check=True)
    assert_same_bytes(results(tmp_path / "joined"), alone)
