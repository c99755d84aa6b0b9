"""A command ends its own process, as Python would have ended it."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from dln_momentum.cli import process

PROGRAM = """
import atexit, sys, threading, time
from dln_momentum.cli.process import run_and_leave
def later():
    time.sleep(0.05)
    sys.stdout.write("thread ")
def main():
    sys.stdout.write("main ")
    threading.Thread(target=later).start()
    atexit.register(lambda: sys.stdout.write("handler"))
    {ending}
class Kept:
    def __del__(self):
        print("taken apart")
kept = Kept()
run_and_leave(main)
"""


@pytest.mark.parametrize(
    ("ending", "code", "message"),
    [
        ("return", 0, ""),
        ("raise SystemExit(2)", 2, ""),
        ("raise SystemExit(None)", 0, ""),
        ("raise SystemExit('refused')", 1, "refused"),
        ("raise ValueError('a bug')", 1, "ValueError: a bug"),
    ],
)
def test_the_code_is_the_commands_and_nothing_is_cut_off(
    ending: str, code: int, message: str
) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending)], capture_output=True, text=True
    )
    assert found.returncode == code
    # its threads have ended and its handlers have run; what is left of the interpreter has not
    assert found.stdout == "main thread handler"
    assert message in found.stderr


def test_a_library_leaves_the_collector_alone() -> None:
    frozen = gc.get_freeze_count()
    process.settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


IMPORTS = """
from dln_momentum.cli import process
process._own()
process.import_lightning()
import sys
assert "torchmetrics" in sys.modules and "scipy.signal" not in sys.modules
assert "lightning.pytorch" in sys.modules and "torch._dynamo" not in sys.modules
import torch
from dln_momentum import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
net = DiagonalLinearNet.uniform(3, 0.1)
state = HeavyBall(net.parameters(), 0.01, 0.9).state_dict()
HeavyBall(net.parameters(), 0.01, 0.9).load_state_dict(state)
assert "torch._dynamo" not in sys.modules
# a default run, which has no use for SymPy: torch.broadcast_shapes imports it
import dln_momentum as dln
dln.train(dln.sparse(5, 8, 1), max_steps=20)
assert "sympy" not in sys.modules
import lightning.pytorch, scipy.signal
assert scipy.signal.firwin(3, 0.5).sum() > 0.99
# the compiler is there for whoever wants it
assert isinstance(torch.compile(net, backend="eager"), torch._dynamo.OptimizedModule)
assert torch._dynamo.is_compiling() is False
"""


@pytest.mark.slow
def test_what_lightning_imports_for_nothing_is_there_for_whoever_wants_it() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
