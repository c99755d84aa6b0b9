"""The README and docs/ run as they are printed: every block of Python and every command line.

A command line that this file does not know fails `test_every_command_is_run_or_listed`: add its
program to `RUN`, or to `NOT_RUN` with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

RUN = {
    "dln-train": ["trainer.max_steps=300"],
    "dln-sweep": ["trainer.max_steps=50", "sweep.gamma=[0.01,0.02]", "sweep.beta=[0.5,0.9]"],
    "dln-flow": ["flow.time=1"],
    "dln-verify": [],
    "dln-collect": [],
    "dln-plot": [],
    "experiments": ["scale=tiny", "num_workers=1"],
}
"""Programs that are run, and the overrides that keep them short."""
NOT_RUN = {
    "eval": "changes a shell; tests/test_completion.py runs what it evaluates",
    "make": "makes an environment or runs this suite; its target must exist",
    "tensorboard": "serves pages until it is stopped; it must be installed",
}
"""Programs that are not run, and why."""
NOT_RUN_WITH = {
    "hydra/launcher=submitit_slurm": "needs a Slurm cluster; submitit_local is run instead",
    "hydra/launcher=ray": "its package needs another cloudpickle than the others",
}
"""Words with which a command of `RUN` is not run, and why."""


def blocks(*languages: str) -> list[tuple[str, str]]:
    """The fenced blocks in these languages, each with the name of its place."""
    fence = re.compile(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        (f"{page.relative_to(ROOT).as_posix()}-{place}", block)
        for page in PAGES
        for place, block in enumerate(fence.findall(page.read_text()))
    ]


def commands() -> list[list[str]]:
    """Every command line of the shell blocks as its words, without comments."""
    text = "\n".join(block for _, block in blocks("sh", "bash", "shell", "console"))
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def program(words: list[str]) -> str:
    """The key of a command in `RUN` or `NOT_RUN`."""
    if words[0] == "python" and words[1] == "-m":
        return words[2].partition(".")[0]
    return words[0]


def problem_with(words: list[str]) -> str | None:
    """Why a command is neither run nor a listed one that exists; None where it is."""
    name = program(words)
    if name == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if words[1] in targets else f"the Makefile has no target {words[1]}"
    if name == "tensorboard":
        installed = shutil.which(name, path=str(Path(sys.executable).parent))
        return None if installed else "tensorboard is not installed"
    return None if name in RUN or name == "eval" else f"{shlex.join(words)} is run by no test"


def in_a_folder_of_data(folder: Path, text: str) -> str:
    """Make the files that a page speaks of; returns the text with the name of a real run."""
    X = np.random.default_rng(0).standard_normal((4, 6))
    y = X @ np.array([1.0, -1.0, 0, 0, 0, 0])
    for name in ("data.npz", "problem.npz"):
        np.savez(folder / name, X=X, y=y)
    rows = ["a,b,c,d,e,f,y", *(",".join(map(str, row)) for row in np.column_stack([X, y]))]
    (folder / "data.csv").write_text("\n".join(rows))
    if "outputs" in text:
        # what a page resumes is a run of the same command
        command = text.split()[0]
        execute([command if "resume=" in text and command in RUN else "dln-train"], folder)
        (config,) = folder.rglob("config.yaml")
        run = config.parent.relative_to(folder / "outputs").as_posix()
        text = text.replace("outputs/...", f"outputs/{run}")
    return text


def shortened(words: list[str]) -> list[str]:
    """What keeps a command short, as far as the command leaves it open."""
    # a run that is continued in its own directory, or compared, takes no other values
    if any(w.startswith(("resume=", "compare=")) and not w.endswith(".ckpt") for w in words):
        return []
    has_rates = any(w.startswith(("sweep.lam=", "sweep.eps=")) for w in words)
    return [w for w in RUN[program(words)] if not (has_rates and w.startswith("sweep."))]


def execute(words: list[str], folder: Path) -> None:
    """Run a command and its overrides in a folder; it must end with 0."""
    name, rest = program(words), words[1:]
    if name in SCRIPTS:
        module, _, function = SCRIPTS[name].partition(":")
        rest = ["-c", f"from {module} import {function}; {function}()", *rest]
    done = subprocess.run(
        [sys.executable, *rest, *shortened(words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "block"), blocks("python"), ids=[place for place, _ in blocks("python")]
)
def test_the_python_of_a_page_runs(
    place: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(in_a_folder_of_data(tmp_path, block), place, "exec")
    exec(code, {"__name__": "__main__"})


def test_every_command_is_run_or_listed() -> None:
    found = commands()
    assert len(found) > 5
    assert [problem for words in found if (problem := problem_with(words))] == []
    # the check itself: an unknown program, module or target is a problem
    for line in ("dln-forget seed=1", "python -m antigravity", "make tea", "curl example.org"):
        assert problem_with(shlex.split(line)), line


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [w for w in commands() if program(w) in RUN and not set(w) & set(NOT_RUN_WITH)],
    ids=lambda words: shlex.join(words),
)
def test_the_commands_of_a_page_run(words: list[str], tmp_path: Path) -> None:
    line = in_a_folder_of_data(tmp_path, shlex.join(words))
    execute(shlex.split(line), tmp_path)
    assert list((tmp_path / "outputs").rglob("config.yaml"))


def test_the_readme_has_python_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:45])
    assert "import dln_momentum as dln" in first
    assert "make train" in first
