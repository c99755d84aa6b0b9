"""Commands in poor surroundings: no home, no cache, no locale, no compiler, nobody who reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dln_momentum.engine.parallel import for_each

QUICK = ["debug=quick", "logger=none", "outputs=minimal", "hydra.run.dir=run"]


def python(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A Python process with this environment beside what it needs to find the package."""
    kept = {"PATH", "PYTHONPATH", "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={key: os.environ[key] for key in kept & set(os.environ)} | environment,
        capture_output=True,
    )


@pytest.mark.slow
def test_without_home_cache_locale_or_an_encoding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = python(
        tmp_path,
        "-m",
        "dln_momentum.cli.train",
        *QUICK,
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING="ascii",
        # a place that cannot be made
        NUMBA_CACHE_DIR=f"{tmp_path}/file/numba",
        MPLCONFIGDIR=f"{tmp_path}/file/matplotlib",
    )
    assert found.returncode == 0, found.stderr
    assert b"Traceback" not in found.stderr
    assert b"KKT residual" in found.stdout
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "max_steps"


@pytest.mark.slow
def test_where_nobody_reads_the_table(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        process = subprocess.Popen(
            [sys.executable, "-m", "dln_momentum.cli.train", *QUICK],
            cwd=tmp_path,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
        )
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert said == ""
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


NO_COMPILER = """
import dln_momentum as dln
problem, start = dln.sparse(n=5, d=8, s=1, seed=0), dln.uniform(0.1)
run = dln.train(problem, start, gamma=0.02, beta=0.9)
print(run.status, float(run.certify().kkt_residual) < 1e-11)
print(dln.train(problem, start, method="nesterov", max_steps=50).steps)
try:
    dln.train(problem, start, backend="numba")
except dln.InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_numbas_compiler_torch_computes(tmp_path: Path) -> None:
    found = python(tmp_path, "-c", NO_COMPILER, NUMBA_DISABLE_JIT="1")
    assert found.returncode == 0, found.stderr.decode()
    first, second, refused = found.stdout.decode().strip().split("\n", 2)
    assert first == "converged True"
    assert second == "50"
    assert "NUMBA_DISABLE_JIT" in refused
    assert "auto or torch" in refused


def test_an_error_in_a_worker_is_raised() -> None:
    done, before = [], torch.get_num_threads()

    def work(tile: int) -> None:
        if tile == 2:
            raise MemoryError(f"tile {tile}")
        done.append(tile)

    with pytest.raises(MemoryError, match="tile 2"):
        for_each(work, range(8), workers=2)
    assert torch.get_num_threads() == before
