"""The architecture, checked: layers import only downwards, and the public names exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dln_momentum

PACKAGE = Path(dln_momentum.__file__).parent

LAYERS = {
    "mathematics": (
        "errors", "seeding", "momentum", "start", "velocity", "schedule", "network", "optimizer",
        "problem", "row_space", "potentials", "minimizers", "interpolators", "implicit_bias",
        "reference", "data", "flow",
    ),
    "engine": ("engine", "summary", "flows", "flow_summary", "verification"),
    "outputs": ("results", "report", "statement_table", "plotting"),
    "interface": ("interface",),
    "training": ("training",),
    "command line": ("config", "assembly", "apps", "sweep", "cli"),
}  # fmt: skip
ORDER = list(LAYERS)
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(layer: str) -> list[Path]:
    paths = [PACKAGE / name for name in LAYERS[layer]]
    return [f for p in paths for f in (p.rglob("*.py") if p.is_dir() else [p.with_suffix(".py")])]


@pytest.mark.parametrize("layer", ORDER)
def test_layers_import_only_downwards(layer: str) -> None:
    above = set(ORDER[ORDER.index(layer) + 1 :])
    for file in files(layer):
        modules = {name.split(".")[1] for name in imports(file) if name.startswith("dln_momentum.")}
        assert not above & {LAYER_OF[module] for module in modules}, file


@pytest.mark.parametrize("layer", ["mathematics", "engine", "outputs", "interface"])
def test_nothing_below_training_knows_lightning_or_hydra(layer: str) -> None:
    for file in files(layer):
        tops = {name.split(".")[0] for name in imports(file)}
        assert not tops & {"lightning", "hydra", "omegaconf", "tensorboard"}, file


def test_every_module_has_a_layer() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__", "conf"} <= set(LAYER_OF)


def test_public_names_exist() -> None:
    for name in dln_momentum.__all__:
        assert getattr(dln_momentum, name).__name__ == name
