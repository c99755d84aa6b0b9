"""Command lines in this process: what a command answers, without the work that it would begin.

A command that takes its input as allowed begins its job; here it ends there, as `BEGUN`. What is
refused is refused before.
"""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hostile.frame import leaves_no_trace, says

BEGUN = 99
"""The code of a command whose input is allowed."""
OF_HYDRA = ("train", "flow", "verify", "sweep")


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    """on standard error"""


Ask = Callable[..., Answer]


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ask]:
    """Run a command line in an empty directory; see `Answer`."""
    from dln_momentum.cli.job import Job

    def begin(job: Job) -> None:
        job.release()
        raise SystemExit(BEGUN)

    root, library = logging.getLogger(), logging.getLogger("dln_momentum")
    handlers, levels = list(root.handlers), (root.level, library.level)
    monkeypatch.setattr(Job, "begin", begin)
    monkeypatch.chdir(tmp_path)

    def run(app: str, *words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", [f"dln-{app}", *words])
        main = importlib.import_module(f"dln_momentum.cli.{app}").main
        code = 0
        try:
            main() if app in OF_HYDRA else main(list(words))
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        return Answer(code, capsys.readouterr().err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    library.setLevel(levels[1])


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what the commands import, so that the time of a case is its own."""
    folder, before, argv = tmp_path_factory.mktemp("warm"), Path.cwd(), sys.argv
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    os.chdir(folder)
    try:
        lines = [(app, "model.alpha=-1") for app in OF_HYDRA]
        for app, word in [*lines, ("flow", "compare=nowhere"), ("train", "+callbacks.a=1")]:
            sys.argv = [f"dln-{app}", word, f"hydra.run.dir={folder / app}"]
            with pytest.raises(SystemExit):
                importlib.import_module(f"dln_momentum.cli.{app}").main()
    finally:
        os.chdir(before)
        sys.argv = argv
        root.handlers[:] = handlers
        root.setLevel(level)


def check_refused(ask: Ask, line: str, fragments: list[str], folder: Path) -> None:
    """A line ends with code 2, one message that holds the fragments, and nothing left behind."""
    app, *words = shlex.split(line)
    with leaves_no_trace(folder):
        answer = ask(app, *words)
    assert answer.code == 2, answer
    # the jobs of a multirun have a line each
    starts = answer.said.startswith(("error: ", "usage: ")) or ": refused: " in answer.said
    assert starts, answer.said
    says(answer.said, fragments)
