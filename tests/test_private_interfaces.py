"""What is used of other packages beyond their public interfaces, by name.

Each of these packages has a ceiling in pyproject.toml. To raise one: install the new version, run
this file, then the tests that it names.
"""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def test_scipy_radau_takes_its_linear_algebra_from_attributes() -> None:
    """flows/newton.py replaces them; tests/test_flow_newton.py compares with SciPy's own run."""
    from scipy.integrate import Radau
    from scipy.sparse import csc_matrix

    solver = Radau(lambda t, y: -y, 0.0, np.ones(2), 1.0, jac=csc_matrix((2, 2)))
    for name in ("I", "J", "jac", "lu", "solve_lu"):
        assert hasattr(solver, name), name
    step = inspect.getsource(Radau._step_impl)  # pyright: ignore[reportAttributeAccessIssue]
    for kind in ("REAL", "COMPLEX"):
        assert f"self.lu(MU_{kind} / h * self.I - J)" in step
    for text in ("jac = self.jac", "J = jac(t_new, y_new, f_new)", "J = self.jac(t, y, f)"):
        assert text in step, text
    assert "self.solve_lu(LU_real, " in step


def test_numba_says_what_it_compiles_for_and_lends_its_builders() -> None:
    """engine/cpu/products.py writes LLVM code; tests/test_kernels.py compares it with torch."""
    from numba.core import cgutils, types
    from numba.core.registry import cpu_target

    context: Any = cpu_target.target_context
    triple, processor, features = context.codegen().magic_tuple()
    assert all(isinstance(text, str) for text in (triple, processor, features))
    assert list(inspect.signature(cgutils.alloca_once).parameters)[:2] == ["builder", "ty"]
    assert list(inspect.signature(cgutils.for_range).parameters)[:2] == ["builder", "count"]
    assert types.void(types.intp).args == (types.intp,)


def test_optimizers_keep_what_the_compiler_leaves_alone_where_a_command_puts_it() -> None:
    """cli/process.py presets it; tests/test_process.py compiles a network afterwards."""
    import torch
    from torch._compile import _disable_dynamo

    assert "__dynamo_disable" in inspect.getsource(_disable_dynamo)
    wrapped = [m for m in vars(torch.optim.Optimizer).values() if hasattr(m, "__wrapped__")]
    assert wrapped


def test_numba_compiles_without_counting_references() -> None:
    """engine/cpu/compiled.py asks for it; tests/test_kernels.py runs what it compiles."""
    import numba

    njit: Any = numba.njit

    def total(array):
        part, s = array[1:], 0.0
        for i in range(len(part)):
            s += part[i]
        return s

    for option, counted in (({}, True), ({"_nrt": False}, False)):
        function = njit(**option)(total)
        assert function(np.arange(4.0)) == 6.0
        (code,) = function.inspect_llvm().values()
        assert ("NRT_" in code) == counted


def test_torch_compiles_a_kernel_from_its_source() -> None:
    """engine/gpu/kernel.py; without it a GPU is left to torch's own operations."""
    import torch
    from torch.cuda import _utils

    compiler = getattr(torch.cuda, "compile_kernel", getattr(torch.cuda, "_compile_kernel", None))
    if compiler is None:
        pytest.skip("a torch without it")
    assert list(inspect.signature(compiler).parameters)[:2] == ["kernel_source", "kernel_name"]
    call = inspect.signature(_utils._CudaKernel.__call__).parameters
    assert list(call)[1:5] == ["grid", "block", "args", "shared_mem"]
    assert hasattr(_utils._CudaKernel, "set_shared_memory_config")


def test_lightning_counts_steps_where_the_module_adds_a_block() -> None:
    """training/module.py; tests/test_training.py compares global_step with the steps taken."""
    import lightning.pytorch as pl

    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loop = trainer.fit_loop.epoch_loop
    total = loop.manual_optimization.optim_step_progress.total
    assert (total.ready, total.completed) == (0, 0)
    counted = inspect.getsource(type(loop).global_step.fget)  # pyright: ignore
    assert "self.manual_optimization.optim_step_progress.total.completed" in counted


def test_hydra_composes_parses_and_finds_configs_as_the_command_line_asks() -> None:
    """config/location.py, cli/{words,command,job_configs}.py and the sweeper of hydra_plugins."""
    from hydra._internal.config_loader_impl import get_overrides_dirname
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra

    from dln_momentum.config import location

    words = inspect.signature(get_overrides_dirname).parameters
    assert {"overrides", "kv_sep", "item_sep", "exclude_keys"} <= set(words)
    check = inspect.signature(BasicSweeper.validate_batch_is_legal).parameters
    assert list(check) == ["self", "batch"]
    assert get_args_parser().parse_args(["-m", "a=1"]).multirun
    # cli/hydra_calls.py answers in its place: None is a config without hydra.mode, or none at all
    assert list(inspect.signature(Hydra.get_mode).parameters) == [
        "self",
        "config_name",
        "overrides",
    ]
    assert "return cfg.hydra.mode" in inspect.getsource(Hydra.get_mode)
    with location.initialised():
        loader: Any = GlobalHydra.instance().config_loader()
        loader.repository.initialize_sources(loader.get_search_path())
        assert "gamma_beta" in loader.get_group_options("optimizer")


def test_fonttools_has_a_list_of_tables_that_subsets_leave_out() -> None:
    """outputs/figure_files.py adds to it, and does without it; tests/test_plot.py reads a PDF."""
    from fontTools.subset import Options

    if not hasattr(Options, "_drop_tables_default"):
        pytest.skip("a fontTools that keeps it elsewhere")
    assert "GSUB" not in Options._drop_tables_default
    assert Options().drop_tables == Options._drop_tables_default


@pytest.mark.parametrize("name", ["scipy", "numba", "lightning", "hydra-core", "omegaconf"])
def test_packages_with_private_interfaces_have_a_ceiling(name: str) -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [r for group in groups for r in map(Requirement, group) if r.name == name]
    assert found
    for requirement in found:
        assert any(clause.operator == "<" for clause in requirement.specifier)
