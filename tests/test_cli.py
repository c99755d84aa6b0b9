"""dln-train as its users type it."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dln_momentum.cli.train import main
from tests.helpers import blank_figures

QUICK = ["debug=quick"]


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """dln-train in this process, in an empty directory: importing torch takes longer than a run."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dln-train", *arguments])
        code = 0
        with blank_figures():
            try:
                main()
            except SystemExit as ending:
                code = int(ending.code or 0)
        written = capsys.readouterr()
        return Ended(code, str(written.out), str(written.err))

    yield run
    # Hydra has set up logging for the streams of this test
    root.handlers[:], root.level = handlers, level


def summaries(directory: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(directory.rglob("summary.json"))]


@pytest.mark.slow
def test_help_shows_groups_keys_and_examples_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['dln-train', '--help']\n"
        "from dln_momentum.cli.train import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("\ndln-train ") == 10
    for expected in (
        "data=sparse             diabetes, digits, file",
        "max_steps: 100000",
        "# step size > 0",
    ):
        assert expected in shown
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_its_files_and_a_table(tmp_path: Path) -> None:
    """As a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dln_momentum.cli.train", *QUICK, "sampling.batch_size=2", "seed=1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "prediction" in done.stdout
    assert "KKT residual" in done.stdout
    (summary,) = summaries(tmp_path)
    assert summary["batch_size"] == 2
    assert summary["seed"] == 1
    (directory,) = {path.parent for path in tmp_path.rglob("summary.json")}
    left = {path.name for path in directory.iterdir()}
    files = {"config.yaml", "status.json", "summary.json", "history.nc", "overview.png"}
    assert left == files | {"dashboard.tfevents", "checkpoints"}


def test_bad_input_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    done = command("optimizer.gamma=-1", "data.n=50")
    assert done.code == 2
    assert done.err.startswith("error: 2 problems:")
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("app", ["train", "sweep", "flow", "verify"])
def test_an_old_key_is_answered_with_its_new_name(
    app: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(f"dln_momentum.cli.{app}").main
    for word in ("data.replacement=false", "+data.replacement=false"):
        monkeypatch.setattr(sys, "argv", [f"dln-{app}", "data.n=5", word])
        with pytest.raises(SystemExit) as ending:
            command()
        assert ending.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith("error: data.replacement is now sampling.kind: with_replacement")


@pytest.mark.slow
def test_a_multirun_goes_on_after_a_failure(command: Command, tmp_path: Path) -> None:
    """More of this, with a stand-in for the work, is in test_jobs.py."""
    done = command("-m", *QUICK, "optimizer.beta=0.5,2", "hydra.sweep.dir=sweep")
    assert done.code == 1
    assert done.err == "beta_2: refused: optimizer.beta = 2 must be in [0, 1)\n"
    assert [s["beta"] for s in summaries(tmp_path)] == [0.5]
    assert "prediction" not in done.out  # a line a job, and the table at the end
    assert "1 done, 1 refused of 2 jobs; max_steps 1" in done.out


def test_no_run_writes_into_anothers_directory(command: Command, tmp_path: Path) -> None:
    assert command(*QUICK, "hydra.run.dir=here").code == 0
    before = (tmp_path / "here" / "summary.json").read_bytes()
    second = command(*QUICK, "seed=1", "hydra.run.dir=here")
    assert second.code == 2
    assert "already holds files of another run" in second.err
    assert (tmp_path / "here" / "summary.json").read_bytes() == before


def test_a_directory_that_cannot_be_written_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system's answer: permissions do not bind the superuser."""
    monkeypatch.setattr("dln_momentum.cli.job.os.access", lambda *_: False)
    done = command(*QUICK, "hydra.run.dir=here")
    assert done.code == 2
    assert "here' must be a writable directory" in done.err
    assert not list(tmp_path.iterdir())
