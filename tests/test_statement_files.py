"""A statement of the theory is found by opening one file of theory/ and one of verification/."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dln_momentum
from dln_momentum import verification

PACKAGE = Path(dln_momentum.__file__).parent
THEORY = sorted(path.stem for path in (PACKAGE / "theory").glob("[!_]*.py"))
SHARED = {"agreement", "discretisation", "summaries", "setting", "measurements", "recorded",
          "written_update", "family_run", "own_method", "written_method", "scope", "statement",
          "statements", "table"}  # fmt: skip
"""Files of verification/ that belong to no single file of theory/, each named in its docstring."""


def table() -> dict[str, str]:
    """theory file -> its statements file, or none; from the docstring of the package."""
    assert verification.__doc__ is not None
    rows = re.findall(r"^    (\w+) {2,}(\w+): (.+)$", verification.__doc__, re.MULTILINE)
    assert all(text for *_, text in rows)
    return {theory: statements for theory, statements, _ in rows}


def imported(tree: ast.AST) -> set[str]:
    """Modules imported when the file is loaded: not those for type checkers alone."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.dump(tree.test):
        return set()
    found = {tree.module or ""} if isinstance(tree, ast.ImportFrom) else set()
    return found.union(*(imported(child) for child in ast.iter_child_nodes(tree)))


def test_every_theory_file_has_its_statements_or_a_reason() -> None:
    found = table()
    assert sorted(found) == THEORY
    files = {path.stem for path in (PACKAGE / "verification").glob("[!_]*.py")}
    named = {statements for statements in found.values() if statements != "none"}
    assert named | SHARED == files
    assert not named & SHARED
    for name in SHARED - {"table"}:
        assert f"`{name}`" in str(verification.__doc__), name
    # a file of statements evaluates the formulas that it is named after
    for theory, statements in found.items():
        if statements not in ("none", "reference"):
            modules = imported(
                ast.parse((PACKAGE / "verification" / f"{statements}.py").read_text())
            )
            used = f"dln_momentum.theory.{theory}" in modules or any(
                module.startswith(("dln_momentum.flows", "dln_momentum.outputs"))
                for module in modules
            )
            assert used, theory


@pytest.mark.parametrize("name", THEORY)
def test_the_theory_needs_no_solver(name: str) -> None:
    modules = imported(ast.parse((PACKAGE / "theory" / f"{name}.py").read_text()))
    ours = {module.split(".")[1] for module in modules if module.startswith("dln_momentum.")}
    assert ours <= {"theory", "problem", "arrays", "row_space", "rates", "errors"}
