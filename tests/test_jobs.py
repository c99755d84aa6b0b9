"""The life of jobs: status, locks, resuming by directory, multiruns. The work is a stand-in."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import pytest
from omegaconf import OmegaConf

from dln_momentum import InputError
from dln_momentum.cli.command import command
from dln_momentum.cli.directories import Directories
from dln_momentum.cli.job import Job
from dln_momentum.cli.metric import metric_of
from dln_momentum.cli.multirun import job_name
from dln_momentum.cli.multirun_table import rows_of
from dln_momentum.cli.signals import Interrupted
from dln_momentum.config import CONF_DIR, config_hash
from dln_momentum.interface.collect import find
from dln_momentum.outputs.status import Lock, read_status, write_status

Answer = tuple[int, str, str]

TRAIN = """\
defaults: [paths: default, _self_, override hydra/job_logging: stdout, override hydra/help: train]
optimizer: {gamma: 0.01, beta: 0.9}
data: {n: 5}
trainer: {progress: null}
seed: 0
name: train
optimized_metric: null
"""
"""A config that takes Hydra a tenth of the time of the real one."""


def work(job: Job) -> dict[str, Any]:
    """What a command does, but for the numbers: beta >= 1 is refused, beta = 0.13 crashes."""
    beta = job.config.optimizer.beta
    if beta >= 1:
        raise InputError([f"optimizer.beta = {beta} must be in [0, 1)"])
    job.begin()
    with h5py.File(job.directory / "history.nc", "w") as file:
        file.attrs["beta"] = beta
    if beta == 0.13:
        raise RuntimeError("a bug [in brackets]")
    if beta == 0.17:
        os.kill(os.getpid(), signal.SIGINT if job.config.seed == 0 else signal.SIGTERM)
        time.sleep(60)
    status = "diverged" if beta == 0.2 else "converged"
    return job.finish({"status": status, "recovery_error": beta / 2, "steps": 5})


@pytest.fixture(scope="session")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    for group in ("paths", "hydra"):
        shutil.copytree(CONF_DIR / group, folder / group)
    (folder / "train.yaml").write_text(TRAIN)
    return folder


@pytest.fixture
def run(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """A command with that work in an empty directory: its code, stdout and stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dln_momentum.cli.command.one_thread", lambda: None)
    for module in ("command", "checking"):
        monkeypatch.setattr(f"dln_momentum.cli.{module}.CONF_DIR", conf)
    main = command("train", work)

    def answer(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["dln-train", *words])
        code = 0
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        said = capsys.readouterr()
        return code, str(said.out), str(said.err)

    yield answer
    root.handlers[:], root.level = handlers, level
    for signum, handler in signals.items():
        signal.signal(signum, handler)


def states(folder: Path) -> dict[str, str]:
    return {
        path.parent.name: read_status(path.parent)["state"] for path in folder.rglob("status.json")
    }


# ---- one job


def test_a_job_says_how_it_stands(run: Callable[..., Answer], tmp_path: Path) -> None:
    assert run("hydra.run.dir=here", "optimizer.beta=0.5")[0] == 0
    status = json.loads((tmp_path / "here" / "status.json").read_text())
    assert status["state"] == "done"
    assert status["status"] == "converged"
    assert status["command"] == "dln-train"
    assert status["overrides"] == ["optimizer.beta=0.5"]
    assert status["config_hash"] == config_hash(
        OmegaConf.create({"optimizer": {"gamma": 0.01, "beta": 0.5}, "data": {"n": 5}, "seed": 0,
                          "trainer": {}})
    )  # fmt: skip
    assert status["pid"] == os.getpid()
    assert status["started"] <= status["ended"]
    assert 0 <= status["seconds"] < 60
    assert not list((tmp_path / "here").glob(".*"))


def test_a_crash_leaves_its_traceback_and_is_repeated(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("hydra.run.dir=here", "optimizer.beta=0.13")
    with pytest.raises(RuntimeError):
        run(*words)
    status = read_status(tmp_path / "here")
    assert (status["state"], status["message"]) == (
        "failed",
        "RuntimeError: a bug [in brackets]",
    )
    assert "in work" in (tmp_path / "here" / "error.txt").read_text()
    # once it is mended, the same line goes on in the same directory
    monkeypatch.setattr(Job, "begin", mended := Mock(side_effect=SystemExit))
    run(*words)
    assert mended.called


def test_resume_by_directory_needs_nothing_retyped(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    folder = tmp_path / "a run, it's = 1"
    code, _, said = run(f"hydra.run.dir='{str(folder).replace(chr(39), chr(92) + chr(39))}'",
                        "optimizer.beta=0.17", "data.n=7")  # fmt: skip
    assert code == 130
    assert said.startswith("interrupted; dln-train resume='") or "resume=" in said
    assert said.endswith(" continues it\n")
    assert read_status(folder)["state"] == "interrupted"
    # the run is stopped again: its config is the saved one
    code, _, said = run(f"resume={folder}", "trainer.progress=false")
    assert code == 130
    for words, expected in (
        (["seed=5"], "seed=5 cannot be given with resume="),
        (["-m"], "-m cannot be given with resume="),
    ):
        code, _, said = run(f"resume={folder}", *words)
        assert code == 2
        assert expected in said
    assert run("hydra.run.dir=done", "optimizer.beta=0.5")[0] == 0
    code, said, _ = run("resume=done")
    assert code == 0
    assert "already holds this run, finished; nothing to do" in said
    (tmp_path / "empty").mkdir()
    code, _, said = run("resume=empty")
    assert code == 2
    assert "holds neither config.yaml nor multirun.yaml" in said
    config = tmp_path / "done" / "config.yaml"
    config.write_text(config.read_text().replace("hydra/help: train", "hydra/help: flow"))
    code, _, said = run("resume=done")
    assert code == 2
    assert "its config is of dln-flow: dln-flow resume=done continues it" in said


def test_a_directory_has_one_writer(run: Callable[..., Answer], tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    write_status(
        here,
        {"pid": 12345, "host": "elsewhere", "state": "running", "command": "dln-train"},
    )
    lock = Lock(here)
    assert lock.acquire()
    code, _, said = run("hydra.run.dir=here", "optimizer.beta=0.5")
    assert code == 2
    assert "is being written to by process 12345 on elsewhere; wait for it" in said
    assert read_status(here)["state"] == "running"
    lock.release()
    # a killed job could not say so: its lock is free
    assert read_status(here)["state"] == "interrupted"
    (job,) = find(here).skipped
    assert job[1].startswith("interrupted, without summary.json")
    assert f"dln-train resume={here} continues it" in job[1]
    assert run("hydra.run.dir=here", "optimizer.beta=0.5")[0] == 0
    typed = read_status(here)["overrides"]
    write_status(here, read_status(here) | {"state": "running"})
    (here / "summary.json").unlink()
    assert run("resume=here")[0] == 0
    # what was typed at first stays on record
    assert read_status(here)["overrides"] == typed == ["optimizer.beta=0.5"]


def test_a_killed_writer_gives_its_lock_back(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dln_momentum.outputs.status import Lock\n"
        "print(Lock(Path(sys.argv[1])).acquire(), flush=True); time.sleep(60)"
    )
    # the lock must outlive the expression that took it
    code = code.replace(
        "print(Lock(Path(sys.argv[1])).acquire()", "k = Lock(Path(sys.argv[1])); print(k.acquire()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert Lock(tmp_path).held_by_any()
    process.kill()
    process.wait()
    assert not Lock(tmp_path).held_by_any()
    assert Lock(tmp_path).acquire()


# ---- signals


def test_sigterm_is_one_line_and_143(run: Callable[..., Answer], tmp_path: Path) -> None:
    code, _, said = run("hydra.run.dir=here", "optimizer.beta=0.17", "seed=1")
    assert (code, said.count("\n")) == (143, 1)
    assert said.startswith("interrupted; dln-train resume=")
    # the interpreter is on its way out: what arrives now is ignored
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert Interrupted.handled == 1


# ---- multiruns


@pytest.mark.slow
def test_a_multirun_is_repeated_where_it_failed(run: Callable[..., Answer], tmp_path: Path) -> None:
    words = ["-m", "hydra.sweep.dir=jobs", "data.n=7"]
    code, out, err = run(*words, "optimizer.beta=0.5,2,0.13,0.2")
    assert code == 1
    jobs = tmp_path / "jobs"
    assert states(jobs) == {
        "beta_0.5": "done", "beta_2": "refused", "beta_0.13": "failed", "beta_0.2": "done",
    }  # fmt: skip
    assert err == (
        "beta_2: refused: optimizer.beta = 2 must be in [0, 1)\n"
        "beta_0.13: failed: RuntimeError: a bug [in brackets]\n"
    )
    assert "Traceback" in (jobs / "beta_0.13" / "error.txt").read_text()
    # failures come first, with their errors
    assert out.index("a bug [in brackets]") < out.index("converged │")
    assert "2 done, 1 failed, 1 refused of 4 jobs; diverged 1, converged 1" in out
    times = {path: path.stat().st_mtime_ns for path in jobs.rglob("summary.json")}
    # the same again without 0.13 and with a value in front, twice, and one key more
    code, out, _ = run(*words, "optimizer.beta=0.7,0.5,0.2,2,0.70", "seed=0")
    assert code == 1
    assert "3 done (2 before), 1 refused of 4 jobs" in out
    assert out.count("done before") == 3  # 0.5, 0.2, and the second 0.7
    assert times.items() <= {p: p.stat().st_mtime_ns for p in jobs.rglob("summary.json")}.items()
    assert len(rows_of(jobs, Directories.multirun)) == 4
    # an axis of one value was fixed before, but the runs are the same
    assert run(*words, "optimizer.beta=0.5", "seed=0,1")[0] == 0
    assert states(jobs).keys() == {
        "beta_0.5", "beta_2", "beta_0.13", "beta_0.2", "beta_0.7", "seed_1",
    }  # fmt: skip


def test_a_multirun_that_is_interrupted_is_continued(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, said = run("-m", "hydra.sweep.dir=jobs", "optimizer.beta=0.5,0.17,0.9")
    assert code == 130
    assert said == f"interrupted; dln-train resume={tmp_path / 'jobs'} continues it\n"
    assert states(tmp_path / "jobs") == {"beta_0.5": "done", "beta_0.17": "interrupted"}
    monkeypatch.setattr("os.kill", lambda *_: None)
    monkeypatch.setattr("time.sleep", lambda *_: None)
    code, out, _ = run("resume=jobs")
    assert code == 0
    assert "3 done (1 before) of 3 jobs; converged 3" in out


def test_another_config_of_the_same_name_gets_its_own_directory(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    for n in (7, 8):
        assert run("-m", "hydra.sweep.dir=jobs", f"data.n={n}", "seed=0")[0] == 0
    first, second = sorted(path.name for path in (tmp_path / "jobs").iterdir() if path.is_dir())
    assert first == "run"
    assert second.startswith("run-")


def test_names_of_jobs_are_short_safe_and_differ() -> None:
    long = [f"data.path={'x' * 300}{end}" for end in "ab"]
    names = [job_name([word]) for word in long]
    assert len({*names}) == 2
    assert max(map(len, names)) <= 100
    for word in ("sweep.gamma=[0.1,0.2]", "data.path='a=b/c'", "model.u='${x}'"):
        assert not set(job_name([word])) & set("=,/'\"$[]{} ")
    assert job_name(["a.b=x/y"]) != job_name(["a.b=x_y"])


# ---- a metric for sweepers


def test_a_job_returns_what_a_sweeper_optimises(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[float | None] = []

    def noted(*arguments: Any) -> float | None:
        returned.append(metric_of(*arguments))
        return returned[-1]

    monkeypatch.setattr("dln_momentum.sweeps.vectorized.metric_of", noted)
    assert run("-m", "optimized_metric=recovery_error", "optimizer.beta=0.5,0.13")[0] == 1
    assert returned == [0.25, None]


def test_a_metric_that_is_none_is_answered_with_the_nearest(run: Callable[..., Answer]) -> None:
    code, _, said = run("optimized_metric=recovery_eror")
    assert code == 2
    assert "'recovery_eror' (did you mean recovery_error?) must be null or a number of" in said


# ---- what is not lost, and not mixed up


def test_a_finished_run_whose_file_of_data_has_changed_is_not_taken_for_done(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    words = ("hydra.run.dir=here", "optimizer.beta=0.5", "+data.path=a.csv")
    (tmp_path / "a.csv").write_text("1,2\n")
    assert run(*words)[0] == 0
    assert "nothing to do" in run(*words)[1]
    (tmp_path / "a.csv").write_text("1,3\n")
    code, _, said = run(*words)
    assert code == 2
    assert "a.csv has changed since" in said
    assert read_status(tmp_path / "here")["state"] == "done"


def test_a_job_that_is_refused_before_it_has_a_directory_is_in_the_table(tmp_path: Path) -> None:
    job = Job(OmegaConf.create({"seed": 0}), tmp_path / "jobs" / "a", "train", multirun="m")
    job.refuse(InputError(["seed"]))
    (row,) = rows_of(tmp_path / "jobs", "m")
    assert (row.name, row.status["state"], row.status["message"]) == ("a", "refused", "seed")


def test_a_rate_that_is_no_number_has_a_hash_and_so_a_directory() -> None:
    """It was an exception in the middle of a multirun, which then left this job out."""
    given = [OmegaConf.create({"optimizer": {"gamma": value, "beta": 0.5}}) for value in "ab"]
    assert len({config_hash(config) for config in given}) == 2


def test_a_multirun_that_ends_early_is_no_success(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dln_momentum.sweeps.vectorized.metric_of", Mock(side_effect=[0.0, ValueError("worker")])
    )
    code, said, error = run("-m", "optimizer.beta=0.5,0.6", "hydra.sweep.dir=jobs")
    assert "2 done of 2 jobs" in said
    assert "the multirun ended early" in error
    assert code == 1


def test_dictionaries_of_one_job_are_no_part_of_the_next(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    run("-m", "optimizer.beta=0.5", "seed={a:1},{b:2}", "hydra.sweep.dir=jobs")
    found = [OmegaConf.load(p).seed for p in sorted((tmp_path / "jobs").glob("*/config.yaml"))]
    assert found == [{"a": 1}, {"b": 2}]


def test_a_refusal_is_not_written_over_the_state_of_a_job_that_runs(tmp_path: Path) -> None:
    config = OmegaConf.create({"optimizer": {"gamma": 0.01, "beta": 0.5}})
    first, second = (Job(config, tmp_path, "train", multirun="m") for _ in range(2))
    assert first.found_before() is None
    first.begin()
    with pytest.raises(InputError, match="being written to") as refusal:
        second.found_before()
    second.refuse(refusal.value)
    assert read_status(tmp_path)["state"] == "running"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step_5.ckpt.part").touch()
    first.release()
    third = Job(config, tmp_path, "train")
    third.found_before()
    third.begin()
    assert not list((tmp_path / "checkpoints").iterdir())
    third.release()


def test_the_table_of_a_multirun_says_why_jobs_diverged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dln_momentum.cli.multirun_table import MOST_REASONS, Row, print_rows

    result = {
        "status": "diverged", "gamma": 0.5, "stable_gamma": 0.25, "initial_sharpness": 2.0,
        "limit_sharpness": 15.2, "unstable_step": 20, "method": "heavy_ball", "dampening": 0.0,
        "schedule": "constant", "weight_decay": 0.0,
    }  # fmt: skip
    rows = [Row(f"gamma_{i}", {"state": "done"}, result) for i in range(MOST_REASONS + 2)]
    rows.append(Row("early", {"state": "done"}, {"status": "diverged"}))
    print_rows(rows, tmp_path, datetime.now(UTC), None)
    out = capsys.readouterr().out
    assert out.count(" diverged: gamma = 0.5 > 0.25 = 2 (1 + beta)/15.2") == MOST_REASONS
    assert "and 2 more diverged" in out
