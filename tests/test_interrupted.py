"""Jobs that are stopped, at whatever moment, go on to the bytes of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import xarray as xr

from dln_momentum.cli.signals import Interrupted, interruptible
from dln_momentum.cli.train import main
from tests.helpers import blank_figures, run_app

LONG = [
    "data.n=20", "data.d=30", "optimizer.gamma=1e-4", "trainer.max_steps=3e6", "trainer.tol=1e-30",
    "trainer.records=60", "trainer.checkpoint_every=100000", "trainer.block_size=5000",
    "sampling.batch_size=5", "sampling=with_replacement",
]  # fmt: skip
"""A run of some ten seconds with thirty checkpoints."""
TIMES = ("seconds", "commit")


def start(folder: Path, app: str, *words: str, **given: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"dln_momentum.cli.{app}", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "MPLBACKEND": "agg"}, **given,
    )  # fmt: skip


def status(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "status.json").read_text())


def assert_same(first: Path, second: Path) -> None:
    """Every byte of every variable, and every entry of the summary but those of time."""
    with (
        xr.open_dataset(first / "history.nc", engine="h5netcdf") as one,
        xr.open_dataset(second / "history.nc", engine="h5netcdf") as other,
    ):
        assert list(one.variables) == list(other.variables)
        for name in one.variables:
            a, b = np.asarray(one[name]), np.asarray(other[name])
            assert a.dtype == b.dtype, name
            assert a.tobytes() == b.tobytes(), name
    one, other = (
        {k: v for k, v in json.loads((run / "summary.json").read_text()).items() if k not in TIMES}
        for run in (first, second)
    )
    assert one == other


def test_a_run_goes_on_from_its_newest_readable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, stopped by a signal at the fourth checkpoint; the third is damaged."""
    words = ["debug=quick", "trainer.checkpoint_every=300", "trainer.block_size=100", "logger=none"]
    run_app(tmp_path / "alone", *words)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    save, calls = pl.Trainer.save_checkpoint, list[int]()

    def save_and_stop(trainer: pl.Trainer, *given: Any, **named: Any) -> None:
        save(trainer, *given, **named)
        calls.append(trainer.global_step)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["dln-train", *arguments])
        with blank_figures():
            try:
                main()
            except SystemExit as ending:
                return int(ending.code or 0)
            finally:
                for signum, handler in handlers.items():
                    signal.signal(signum, handler)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", save_and_stop)
        assert command(*words, f"hydra.run.dir={tmp_path}/run") == 143
    assert status(tmp_path / "run")["state"] == "interrupted"
    # the fourth was not moved into place
    assert calls == [300, 600, 900, 1200]
    folder = tmp_path / "run" / "checkpoints"
    assert {path.name for path in folder.glob("*.ckpt")} == {"step_600.ckpt", "step_900.ckpt"}
    damaged = folder / "step_900.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    starts: list[Any] = []
    fit = pl.Trainer.fit

    def noted(trainer: pl.Trainer, *given: Any, **named: Any) -> None:
        starts.append(named["ckpt_path"])
        fit(trainer, *given, **named)

    monkeypatch.setattr(pl.Trainer, "fit", noted)
    assert command(f"resume={tmp_path}/run") == 0
    assert [Path(start) for start in starts] == [folder / "step_600.ckpt"]
    assert_same(tmp_path / "alone", tmp_path / "run")


def test_a_signal_in_a_callback_whose_exceptions_are_ignored_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Held:
        pass

    def stop_loop() -> None:
        held = Held()
        callback = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del held
        assert callback() is None
        time.sleep(30)

    began = time.monotonic()
    with pytest.raises(Interrupted), interruptible():
        stop_loop()
    assert time.monotonic() - began < 10
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_stopped_at_random_moments_ends_as_one_left_alone(tmp_path: Path) -> None:
    random_moments = random.Random(12)
    done = start(tmp_path, "train", *LONG, "hydra.run.dir=alone").wait(timeout=300)
    assert done == 0
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    words, stopped = [*LONG, "hydra.run.dir=run"], 0
    for signum in random_moments.choices(list(codes), k=3) + list(codes):
        process = start(tmp_path, "train", *words)
        deadline = time.monotonic() + 120
        # importing takes longer than the rest: the moments that matter come once the run has begun
        while process.poll() is None and time.monotonic() < deadline:
            if (tmp_path / "run" / "status.json").exists() and status(tmp_path / "run")[
                "pid"
            ] == process.pid:
                break
            time.sleep(0.01)
        time.sleep(random_moments.uniform(0, 2))
        if process.poll() is not None:
            break
        process.send_signal(signum)
        _, said = process.communicate(timeout=120)
        assert "Traceback" not in said
        if status(tmp_path / "run")["state"] == "done":
            # the signal came after the last file was written, while the process ended
            break
        assert process.returncode == codes[signum], said
        if signum != signal.SIGKILL:
            assert said.splitlines()[-1].endswith(
                f"dln-train resume={tmp_path / 'run'} continues it"
            )
            assert status(tmp_path / "run")["state"] == "interrupted"
        stopped += 1
        words = ["resume=run", "trainer.progress=false"]
    last = start(tmp_path, "train", "resume=run")
    assert last.wait(timeout=300) == 0
    assert stopped >= 3
    assert status(tmp_path / "run")["state"] == "done"
    assert_same(tmp_path / "alone", tmp_path / "run")
