"""The architecture, checked: layers import only downwards, and the public names exist."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import dln_momentum

PACKAGE = Path(dln_momentum.__file__).parent

LAYERS = {
    "mathematics": (
        "arrays", "errors", "extras", "seeding", "rates", "start", "record_plan", "network",
        "optimizer", "per_run", "schedule", "schedules", "method", "nearest", "memory", "pace",
        "problem", "problem_checks", "layer_checks", "row_space", "wide_rows", "theory",
        "data", "flows",
    ),
    "engine": ("engine", "flows.batched"),
    "outputs": ("outputs",),
    "verification": ("verification",),
    "interface": ("interface",),
    "training": ("training",),
    "command line": ("config", "cli", "sweeps"),
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


def layer_of(module: str) -> str:
    """The layer of a module of the package, by the longest name that has one."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next(LAYER_OF[name] for name in names if name in LAYER_OF)


def files(layer: str) -> list[Path]:
    every = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    modules = {".".join(("dln_momentum", *path.parts)): path for path in every}
    return [
        PACKAGE / path.with_suffix(".py")
        for module, path in modules.items()
        if path.parts[0] not in ("__init__", "conf") and layer_of(module) == layer
    ]


@pytest.mark.parametrize("layer", ORDER)
def test_layers_import_only_downwards(layer: str) -> None:
    above = set(ORDER[ORDER.index(layer) + 1 :])
    for file in files(layer):
        modules = {name for name in imports(file) if name.startswith("dln_momentum.")}
        assert not above & {layer_of(module) for module in modules}, file


@pytest.mark.parametrize("layer", ORDER[: ORDER.index("training")])
def test_nothing_below_training_knows_lightning_or_hydra(layer: str) -> None:
    for file in files(layer):
        tops = {name.split(".")[0] for name in imports(file)}
        assert not tops & {"lightning", "hydra", "omegaconf", "tensorboard"}, file


def test_every_module_has_a_layer() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__", "conf"} <= set(LAYER_OF)


def test_public_names_exist() -> None:
    for name in set(dln_momentum.__all__) - {"__version__"}:
        assert getattr(dln_momentum, name).__name__.rpartition(".")[2] == name
    assert dir(dln_momentum) == sorted(dln_momentum.__all__)
    assert dln_momentum.__version__.count(".") == 2


def test_what_is_public_is_imported_from_the_package() -> None:
    """Tests, experiments and benchmarks use the public interface where it has what they need."""
    root = PACKAGE.parent
    public = {name: getattr(dln_momentum, name) for name in dln_momentum.__all__}
    for folder in ("tests", "experiments", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                    "dln_momentum."
                ):
                    module = importlib.import_module(str(node.module))
                    for name in {alias.name for alias in node.names} & set(public):
                        assert getattr(module, name, None) is not public[name], (path, name)
