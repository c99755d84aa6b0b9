"""The core works without the packages of the extras, and says which extra has a missing one."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dln_momentum as dln
from dln_momentum.extras import EXTRAS, MissingExtraError, naming_extra

ROOT = Path(__file__).resolve().parent.parent
CORE = {"torch", "numpy", "scipy", "numba", "xarray"}
NAMES = {"sklearn": "scikit-learn", "yaml": "pyyaml", "hydra": "hydra-core", "PIL": "pillow"}

BLOCKED = """
import builtins, sys
from importlib.abc import MetaPathFinder

ABSENT, ALLOWED = {absent!r}, {allowed!r}

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def only_the_core(name, globals=None, locals=None, fromlist=(), level=0):
    # pandas is there, since xarray needs it; the package must not
    top, importer = name.partition(".")[0], (globals or {{}}).get("__name__", "")
    if level == 0 and importer.partition(".")[0] == "dln_momentum" and top not in ALLOWED:
        raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
    return imported(name, globals, locals, fromlist, level)

sys.meta_path.insert(0, Absent())
imported, builtins.__import__ = builtins.__import__, only_the_core
"""

CALLS = """
import numpy as np
import dln_momentum as dln

problem, start = dln.sparse(n=5, d=8, s=1, seed=0), dln.uniform(alpha=0.1)
run = dln.train(problem, start, gamma=0.02, beta=0.9)
assert run.status == "converged" and run.certify().kkt_residual < 1e-11
assert run.to_dataset().theta.sizes["coordinate"] == 8
runs = dln.train(problem, start, gamma=[0.01, 0.02], beta=0.9, batch_size=2, max_steps=99)
assert runs.theta.shape == (2, 8)
assert dln.flow(problem, start, lam=1.0).certify().kkt_residual < 1e-6
assert dln.flow(problem, start, lam=[0.5, 1.0]).theta.shape[-1] == 8
report = dln.verify(dln.Problem(X=[[1.0, 2.0]], y=[2.0]), dln.Start([0.5], [0.0]), lam=0.2)
assert not report.violated
assert len(str(report).splitlines()) == len(report) > 30, str(report)
ds = dln.sweep(problem, start, gamma=[0.01, 0.02], beta=0.9, max_steps=99)
assert ds.recovery_error.sizes["gamma"] == 2
np.savez("data.npz", X=problem.X, y=problem.y)
assert dln.load("data.npz").d == 8
for missing, call in {
    "[plot]": run.plot,
    "[data]": dln.digits,
    "[train]": lambda: dln.train(problem, start, max_steps=9, progress=True),
}.items():
    try:
        call()
    except dln.InputError as error:
        assert missing in str(error), error
    else:
        raise AssertionError(missing)
from dln_momentum.cli.process import verify
verify()
"""


@pytest.mark.slow
def test_the_core_alone_trains_sweeps_flows_and_verifies(tmp_path: Path) -> None:
    """In an interpreter that has, beside what the core's packages need, nothing to import."""
    absent = {module for modules in EXTRAS.values() for module in modules} - {"pandas"}
    allowed = {*sys.stdlib_module_names, *CORE, "llvmlite", "dln_momentum"}
    code = BLOCKED.format(absent=absent, allowed=allowed) + CALLS
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    # the last line is a command, which needs more than the core
    assert done.stderr.strip() == f"error: {MissingExtraError('hydra')}"
    assert done.returncode == 2


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(dln.InputError, match=r"sklearn is not installed: pip .*momentum\[data\]'"):
        dln.digits()
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), naming_extra():
        __import__("no_such_module")
    sent = pickle.loads(pickle.dumps(MissingExtraError("lightning")))
    assert sent.name == "lightning"
    assert isinstance(sent, ImportError)


def test_extras_install_what_they_are_named_for() -> None:
    """Every module that `EXTRAS` lists is a requirement of that extra, and the core has five."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {Requirement(line).name for line in project["dependencies"]} == CORE
    for extra, modules in EXTRAS.items():
        lines = project["optional-dependencies"][extra]
        declared = {Requirement(line).name for line in lines}
        wanted = {NAMES.get(module, module) for module in modules}
        # matplotlib brings pillow
        assert wanted - {"pillow"} <= declared, extra
    assert set(Requirement(project["optional-dependencies"]["all"][0]).extras) == set(EXTRAS)
