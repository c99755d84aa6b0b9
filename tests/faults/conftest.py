"""What the faults are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.children import RUN, SWEEP, command


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a sweep, that nothing happened to; to be read only."""
    folder = tmp_path_factory.mktemp("alone")
    assert command(folder, "train", *RUN, "hydra.run.dir=run").code == 0
    assert command(folder, "sweep", *SWEEP, "hydra.run.dir=sweep").code == 0
    return folder
