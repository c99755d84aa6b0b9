"""A command in this process, with the CPU seconds of its parts: ``python -m benchmarks.phases``.

A part is an import, charged to the package that this one asked for (what that package imports is
its own), or a call of one of `CALLS`. Each second is counted once, for the innermost part. What a
command leaves to forks is done here instead, since seconds of other processes are not seen. The
last line is JSON, for `benchmarks.latency`.

    python -m benchmarks.phases train outputs=minimal
    python -m benchmarks.phases sweep sweep=gamma_beta
"""

from __future__ import annotations

import builtins
import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from dln_momentum.cli.process import run_and_leave

CALLS = {
    "hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration": "compose the config",
    "dln_momentum.cli.command:unusable": "check and save the config",
    "dln_momentum.cli.job:Job.text.func": "check and save the config",
    "dln_momentum.cli.setup:build": "build data, start, engine",
    "dln_momentum.cli.setup:build_parts": "build data, start, engine",
    "dln_momentum.cli.setup:Setup.module": "build data, start, engine",
    "numba.core.caching:Cache.load_overload": "load the kernels",
    "dln_momentum.engine.engine:Engine.advance": "engine",
    "lightning.pytorch.trainer.trainer:Trainer.__init__": "Lightning and monitors",
    "lightning.pytorch.trainer.trainer:Trainer.fit": "Lightning and monitors",
    "lightning.pytorch.trainer.trainer:Trainer.save_checkpoint": "checkpoints",
    "dln_momentum.outputs.dashboard:write": "dashboard",
    "dln_momentum.outputs.minimisers:bregman_minimizers": "minimisers",
    "dln_momentum.cli.flow:integrate": "integrate the flow",
    "dln_momentum.outputs.flow_summary:measure": "measure the flow",
    "dln_momentum.outputs.plotting:overview": "figure",
    "dln_momentum.outputs.figure_files:save": "figure",
    "dln_momentum.cli.run_files:TrainedRuns.history": "history.nc",
    "dln_momentum.cli.run_files:write_dataset": "history.nc",
    "dln_momentum.cli.run_files:provenance": "versions, commit, processor",
    "dln_momentum.outputs.history:flow_history": "history.nc",
    "dln_momentum.outputs.files:write_dataset": "history.nc",
    "dln_momentum.outputs.provenance:provenance": "versions, commit, processor",
    "dln_momentum.outputs.report:_print": "table on the terminal",
    "dln_momentum.outputs.terminal:print_tables": "table on the terminal",
    "dln_momentum.cli.fitting:monitors_of": "Lightning and monitors",
    "dln_momentum.training.callbacks.monitor:Monitor._record": "records",
    "dln_momentum.sweeps.assembly:build": "points of the grid",
    "dln_momentum.sweeps.assembly:Study.setup": "build data, start, engine",
    "dln_momentum.sweeps.points:load_problem": "build data, start, engine",
    "dln_momentum.sweeps.training:end_of_runs": "read-out, minimisers",
    "dln_momentum.sweeps.training:piece_dataset": "pieces",
    "dln_momentum.sweeps.piece_files:write_piece": "pieces",
    "dln_momentum.sweeps.piece_files:read_piece": "pieces",
    "dln_momentum.sweeps.dataset:dataset": "results put together",
    "dln_momentum.cli.sweep:_summary": "summary",
    "dln_momentum.outputs.sweep_figure:overview": "figure",
    "dln_momentum.outputs.dashboard_sweep:write": "dashboard",
    "dln_momentum.outputs.sweep_report:print_report": "table on the terminal",
}
"""``module:function`` and its part; a function bound by others is named where it is called."""


class Parts:
    """CPU seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack = ["interpreter, and the rest"]
        self._last = 0.0
        self._missing = dict(CALLS)
        self._import = builtins.__import__

    def start(self) -> None:
        """Count from now on; what the interpreter has taken so far is its own."""
        builtins.__import__ = self._charged_import
        self._switch()

    def stop(self) -> list[str]:
        """Count no more.

        Returns:
            The calls that there were no such functions for.
        """
        builtins.__import__ = self._import
        self._switch()
        return sorted(key for key in self._missing if key.partition(":")[0] in sys.modules)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge what follows to a part."""
        self._switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._stack[-1]] += now - self._last
        self._last = now

    def _charged_import(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        package = name.partition(".")[0]
        if level or package in ("dln_momentum", *sys.builtin_module_names):
            found = self._import(name, globals, locals, fromlist, level)
        else:
            # what a package imports goes without this function, which would take a tenth more
            builtins.__import__ = self._import
            try:
                with self.part(f"import {package}"):
                    found = self._import(name, globals, locals, fromlist, level)
            finally:
                builtins.__import__ = self._charged_import
        self._wrap()
        return found

    def _wrap(self) -> None:
        for key in [key for key in self._missing if key.partition(":")[0] in sys.modules]:
            module, _, path = key.partition(":")
            *owners, name = path.split(".")
            try:
                owner = functools.reduce(getattr, owners, sys.modules[module])
                function = getattr(owner, name)
            except AttributeError:  # it is being imported, or it is gone
                continue
            setattr(owner, name, self._timed(function, self._missing.pop(key)))
        forked: Any = sys.modules.get("dln_momentum.sweeps.forked")
        if hasattr(forked, "can_fork"):
            forked.can_fork = lambda: False

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


def main() -> None:
    """Run the command that the arguments name, then print the parts."""
    app, *overrides = sys.argv[1:]
    sys.argv = [f"dln-{app}", *overrides]
    parts = Parts()

    def measured() -> None:
        parts.start()
        try:
            import_module(f"dln_momentum.cli.{app}").main()
        finally:
            unknown = parts.stop()
            print(json.dumps({"seconds": parts.seconds, "unknown": unknown}))

    run_and_leave(measured)


if __name__ == "__main__":
    main()
