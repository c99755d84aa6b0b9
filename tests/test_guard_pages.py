"""No kernel reads or writes beyond its arrays: numba's check of indices does not see all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mmap and mprotect"),
    # the kernels themselves are the subject, as they are compiled for users
    pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="needs numba's compiler"),
]


def guarded(side: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.guard_pages", side, *([fault] if fault else [])]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("side", ["behind", "before"])
def test_no_access_beyond_an_array(side: str) -> None:
    """Every method, shapes below a register and across panels, single runs and full groups."""
    done = guarded(side)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize(
    ("side", "fault"),
    # the third buffer that a kernel makes, and its last one, one entry short; a product that is
    # written a row too early
    [("behind", "2"), ("behind", "5"), ("before", "early")],
)
def test_an_access_beyond_an_array_ends_the_process(side: str, fault: str) -> None:
    done = guarded(side, fault)
    assert done.returncode == -signal.SIGSEGV, done.stdout + done.stderr
