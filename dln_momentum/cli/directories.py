"""Which directories a run has made: a refused one removes these, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Directories(Callback):
    """Remembers, before Hydra makes the directories of a run, which of them are missing.

    Hydra makes them before a config can be checked. A directory that was there before, empty or
    not, is the user's.
    """

    wanted: ClassVar[Path | None] = None
    """the directory of the run, or of all jobs of a multirun"""
    missing: ClassVar[list[Path]] = []
    """those that Hydra makes for it, the innermost first"""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note what the directory of one run lacks."""
        self._note(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note what the directory of all jobs lacks."""
        self._note(config.hydra.sweep.dir)

    def _note(self, directory: str) -> None:
        type(self).wanted = wanted = Path(directory).absolute()
        type(self).missing[:] = [p for p in (wanted, *wanted.parents) if not p.exists()]

    @classmethod
    def take_back(cls) -> None:
        """Remove what Hydra has made, where it is empty; directories of single jobs too."""
        jobs = [job for made in cls.missing[:1] for job in made.glob("*") if job.is_dir()]
        for directory in (*jobs, *cls.missing):
            if directory.is_dir() and {p.name for p in directory.iterdir()} <= {"multirun.yaml"}:
                (directory / "multirun.yaml").unlink(missing_ok=True)
                directory.rmdir()
