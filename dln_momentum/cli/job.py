"""What every app does around its work: check first, own a directory, keep a record of failure."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dln_momentum.config.renamed import renamed_problems
from dln_momentum.errors import InputError

log = logging.getLogger("dln_momentum")


def answers_renamed_keys(main: Callable[[], Any]) -> Callable[[], None]:
    """Name the new key to whoever gives an old one; Hydra knows only that there is no such key."""

    @wraps(main)
    def checked() -> None:
        keys = [word.partition("=")[0].lstrip("+~") for word in sys.argv[1:] if "=" in word]
        if found := list(renamed_problems(keys)):
            _refuse(InputError(found))
        main()

    return checked


def _refuse(error: InputError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None


def run_job(config: DictConfig, target: str, result: str = "summary.json") -> dict[str, Any]:
    """Run ``target`` on a checked config in a directory that nothing else writes to.

    A config that is refused leaves nothing behind. A directory that already holds a finished run
    of the very same config is left as it is, so that a multirun can be repeated after some of its
    jobs failed; one that holds anything else is refused. A job that crashes leaves its traceback
    in ``error.txt``, and in a multirun the other jobs go on.

    Args:
        config: the composed config.
        target: ``module:function``, imported only now; the function takes the config, the
            directory and the config's text, checks its input before it writes, and returns what
            it has written to ``result``, last of all.
        result: the JSON file whose ``status`` says that a run is finished.

    Returns:
        The contents of that file.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    text = OmegaConf.to_yaml(config, resolve=True)
    try:
        if _already_done(directory, text, result):
            log.info("%s already holds this run, finished; nothing to do", directory)
            return json.loads((directory / result).read_text())
        if directory.exists() and not os.access(directory, os.W_OK):
            raise InputError([f"hydra.run.dir = {str(directory)!r} must be a writable directory"])
        module, function = target.split(":")
        work = getattr(importlib.import_module(module), function)
        _one_thread()
        return work(config, directory, text)
    except InputError as error:
        _remove_if_empty(directory)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        _refuse(error)
    except Exception:
        # a full disk must not hide what went wrong first
        with contextlib.suppress(OSError):
            (directory / "error.txt").write_text(traceback.format_exc())
        raise


def _one_thread() -> None:
    """One thread for torch's own operations: the engine's workers are what uses the cores.

    On tensors of this size a second thread gains nothing, and on a busy machine waiting for it
    made a run of the default problem ten times slower.
    """
    import torch

    torch.set_num_threads(1)


def _already_done(directory: Path, text: str, result: str) -> bool:
    """Whether this very run is there, finished; anything else of a run there is refused."""
    config, summary = directory / "config.yaml", directory / result
    if not config.exists() and not summary.exists():
        return False
    same = config.exists() and config.read_text() == text
    if same and summary.exists() and "status" in json.loads(summary.read_text()):
        return True
    state, advice = "another run", "choose an empty directory"
    if same:
        state = "an unfinished run"
        saved = sorted(directory.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
        advice += f", and resume={saved[-1]} to go on from there" if saved else ""
    raise InputError([f"hydra.run.dir = {str(directory)!r} already holds {state}; {advice}"])


def _remove_if_empty(directory: Path) -> None:
    """Take back the directories that Hydra made before the config could be checked."""
    for folder in (directory, *list(directory.parents)[:3]):
        if not folder.is_dir() or any(folder.iterdir()) or folder == Path.cwd():
            return
        folder.rmdir()
