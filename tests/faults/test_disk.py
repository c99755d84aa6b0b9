"""Full disks, directories that cannot be written, damaged files, two processes in one directory."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dln_momentum import InputError
from dln_momentum.outputs.hdf5 import is_whole
from dln_momentum.outputs.status import Lock
from dln_momentum.training.resuming import read_checkpoint
from tests.faults.children import (
    OF_A_SWEEP,
    RUN,
    SWEEP,
    TIMES,
    Fault,
    assert_nothing_partial,
    assert_same_files,
    command,
    leftovers,
    status,
)

pytestmark = pytest.mark.slow


def _largest_file(size: int) -> Fault:
    """No file of the process may be larger: what it writes beyond fails as on a full disk."""

    def limit() -> None:
        # Python 3.11 takes compiled files for written of which the disk took a part
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


# config.yaml has 1.5 kB, a checkpoint 38 kB, history.nc 50 kB, a piece 9 kB, results.nc 30 kB
@pytest.mark.parametrize("size", [500, 45_000])
def test_a_run_on_a_full_disk_says_so_and_goes_on(size: int, tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "run"
    ended = command(tmp_path, "train", *RUN, "hydra.run.dir=run", fault=_largest_file(size))
    assert ended.code == 1
    assert "file too large" in ended.err.lower()
    assert_nothing_partial(run)
    # nothing that takes room, and nobody is kept out
    assert leftovers(run) == []
    assert not (run / "summary.json").exists()
    if (run / "config.yaml").exists():
        assert status(run)["state"] == "failed"
        assert "file too large" in status(run)["message"].lower()
    words = ["resume=run"] if (run / "config.yaml").exists() else [*RUN, "hydra.run.dir=run"]
    again = command(tmp_path, "train", *words)
    assert again.code == 0, again.err
    assert_same_files(alone / "run", run, "history.nc", TIMES)


def test_a_sweep_on_a_full_disk_says_so_and_goes_on(tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "sweep"
    limit = _largest_file(max(path.stat().st_size for path in (alone / "sweep/pieces").iterdir()))
    ended = command(tmp_path, "sweep", *SWEEP, "hydra.run.dir=sweep", fault=limit)
    assert ended.code == 1
    assert status(run)["state"] == "failed"
    assert leftovers(run) == []
    again = command(tmp_path, "sweep", "resume=sweep")
    assert again.code == 0, again.err
    assert_same_files(alone / "sweep", run, "results.nc", OF_A_SWEEP)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_no_space_left(small_disk: Path) -> None:
    run = small_disk / "run"
    ended = command(small_disk.parent, "train", *RUN, f"hydra.run.dir={run}")
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert_nothing_partial(run)
    assert leftovers(run) == []


@pytest.mark.parametrize("app", ["train", "sweep", "flow", "verify"])
def test_a_read_only_file_system_is_refused_at_once(
    app: str, small_disk: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for word in (f"hydra.run.dir={small_disk}/run", f"paths.root={small_disk}"):
        ended = command(tmp_path, app, word)
        assert ended.code == 2
        assert f"hydra.run.dir = '{small_disk}/" in ended.err
        assert "Traceback" not in ended.err
        assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("app", ["train", "sweep", "collect"])
def test_a_place_below_a_file_is_refused(app: str, tmp_path: Path, alone: Path) -> None:
    (tmp_path / "file").write_text("mine")
    words = {"collect": [str(alone), "--out", f"{tmp_path}/file/out"]}
    ended = command(tmp_path, app, *words.get(app, [f"hydra.run.dir={tmp_path}/file/run"]))
    assert ended.code == 2, ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / "file").read_text() == "mine"


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lock = Lock(run)
    assert lock.acquire()
    ended = command(tmp_path, "train", *RUN, "hydra.run.dir=run")
    lock.release()
    assert ended.code == 2
    assert "is being written to by" in ended.err
    assert list(run.iterdir()) == []


def _values(held: Any) -> Any:
    """What a checkpoint holds, so that two can be compared to the last bit."""
    if isinstance(held, torch.Tensor):
        return held.dtype, tuple(held.shape), held.numpy().tobytes()
    if isinstance(held, dict):
        return {key: _values(value) for key, value in held.items()}
    if isinstance(held, list | tuple):
        return [_values(value) for value in held]
    return repr(held)


def test_no_flipped_bit_of_a_checkpoint_is_resumed_in_silence(tmp_path: Path, alone: Path) -> None:
    """A flip is refused, or lies where nothing is read, as in the padding between entries."""
    whole = (alone / "run" / "checkpoints" / "last.ckpt").read_bytes()
    kept, damaged = _values(read_checkpoint(alone / "run/checkpoints/last.ckpt")), tmp_path / "a"
    refused, places = 0, random.Random(0)
    for _ in range(200):
        content, place = bytearray(whole), places.randrange(len(whole))
        content[place] ^= 1 << places.randrange(3)
        damaged.write_bytes(content)
        try:
            found = _values(read_checkpoint(damaged))
        except InputError:
            refused += 1
        else:
            assert found == kept, place
    assert refused > 100


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, alone: Path) -> None:
    content = bytearray((alone / "run/checkpoints/last.ckpt").read_bytes())
    # the last byte of the first tensor that is larger than its header
    place = content.index(b"FB", content.index(b"data/0")) + 300
    content[place] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(content)
    ended = command(tmp_path, "train", *RUN, "resume=flipped.ckpt", "hydra.run.dir=run")
    assert ended.code == 2
    assert "flipped.ckpt" in ended.err
    assert ("is damaged" in ended.err) or ("no checkpoint" in ended.err)
    assert not (tmp_path / "run").exists()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "history.nc": lambda path: os.truncate(path, path.stat().st_size // 2),
    "summary.json": lambda path: os.truncate(path, 100),
    "status.json": lambda path: os.truncate(path, 10),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_finished_run_with_a_damaged_file_is_mended(
    name: str, tmp_path: Path, alone: Path
) -> None:
    run = tmp_path / "run"
    assert command(tmp_path, "train", *RUN, "hydra.run.dir=run").code == 0
    DAMAGE[name](run / name)
    again = command(tmp_path, "train", "resume=run")
    assert again.code == 0, again.err
    if name != "status.json":
        assert name in again.err + again.out
    assert status(run)["state"] == "done"
    assert_nothing_partial(run)
    assert_same_files(alone / "run", run, "history.nc", TIMES)


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(tmp_path, "train", *RUN, "hydra.run.dir=run").code == 0
    os.truncate(run / "config.yaml", 30)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    again = command(tmp_path, "train", "resume=run")
    assert again.code == 2
    assert "config" in again.err
    assert "Traceback" not in again.err
    assert {path: path.read_bytes() for path in before} == before


def test_damaged_results_are_named_by_a_collection(tmp_path: Path) -> None:
    """Cut at every twentieth of its length, or with a byte changed, it never ends in a crash."""
    run = tmp_path / "sweep"
    assert command(tmp_path, "sweep", *SWEEP, "hydra.run.dir=sweep").code == 0
    whole, places = (run / "results.nc").read_bytes(), random.Random(0)
    for part in range(0, 20, 9):
        (run / "results.nc").write_bytes(whole[: len(whole) * part // 20])
        assert not is_whole(run / "results.nc")
        ended = command(tmp_path, "collect", ".", "--out", f"out{part}", "--strict")
        assert ended.code == 1
        assert "Traceback" not in ended.err
        assert "results.nc cannot be read" in ended.out
    for place in range(3):
        content = bytearray(whole)
        content[places.randrange(len(whole) // 4)] ^= 255
        (run / "results.nc").write_bytes(content)
        ended = command(tmp_path, "collect", ".", "--out", f"flipped{place}")
        assert ended.code in (0, 1, 2)
        assert "Traceback" not in ended.err
    again = command(tmp_path, "sweep", "resume=sweep")
    assert again.code == 0, again.err
