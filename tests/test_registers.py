"""The code that is emitted for other processors: full registers, and none of its sums in memory."""

from __future__ import annotations

import re
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from llvmlite import ir

from dln_momentum import InputError
from dln_momentum.engine.cpu import registers
from dln_momentum.engine.cpu.compiled import OPTIONS
from dln_momentum.engine.cpu.products import block_product, rows_in_registers
from dln_momentum.engine.cpu.registers import WIDTH, RegisterBlock, block_by_rule, parsed
from dln_momentum.engine.cpu.vectors import DOUBLE, INTEGER, Emitter

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


def assembly(triple: str, processor: str, width: int, block: RegisterBlock) -> str:
    """A product of ``block.rows`` rows for another processor, as llvm compiles it there."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = triple
    numbers = DOUBLE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [numbers, numbers, INTEGER, INTEGER, numbers, INTEGER])
    function = ir.Function(module, kind, "product")
    builder = ir.IRBuilder(function.append_basic_block())
    emitter = Emitter(None, builder, width)
    rows_in_registers(emitter, *function.args, block=block, accumulate=True)
    builder.ret_void()
    parsed_module = llvm.parse_assembly(str(module))
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed_module, passes)
    return machine.emit_assembly(parsed_module)


def inner_loop(text: str) -> list[str]:
    """The loop with the most multiply-adds: from its label to the jump back to it."""
    lines = text.splitlines()
    label = {line.split(":")[0]: at for at, line in enumerate(lines) if line.startswith(".L")}
    loops = []
    for at, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.\w+|cbn?z\s+\w+,)\s+(\.L\w+)", line)
        if jump and label.get(jump[1], at) < at:
            loops.append(lines[label[jump[1]] + 1 : at + 1])
    return max(loops, key=lambda loop: sum("fm" in line for line in loop))


@pytest.mark.parametrize(
    ("triple", "processor", "width", "shape", "register"),
    [
        (X86, "sapphirerapids", 8, "2x12", "zmm"),
        (X86, "icelake-server", 8, "2x12", "zmm"),
        (X86, "znver4", 8, "2x12", "zmm"),
        (X86, "znver3", 4, "2x6", "ymm"),
        (ARM, "neoverse-n1", 2, "2x12", "v"),
    ],
)
def test_sums_stay_in_full_registers(
    triple: str, processor: str, width: int, shape: str, register: str
) -> None:
    block = parsed(shape)
    loop = inner_loop(assembly(triple, processor, width, block))
    multiply_adds = [line for line in loop if "fmadd" in line or "fmla" in line]
    # the compiler may unroll the loop
    assert len(multiply_adds) % (block.vectors * block.rows) == 0
    assert multiply_adds
    assert all(register in line for line in multiply_adds)
    # nothing of the loop goes through the stack
    assert not any("rsp" in line or "[sp" in line for line in loop)


def in_two_parts(add: Any, height: int, length: int, lanes: int) -> Any:
    """The product of all k, cut as panels cut it."""

    @numba.njit(**OPTIONS)
    def product(out, A, B):
        add(out, 0, height, A, 0, length, 1, B, 0, 4)
        add(out, 0, height, A, 4, length, 1, B, 4 * lanes, length - 4)

    return product


@pytest.mark.slow
def test_every_register_block_gives_the_same_bits() -> None:
    """Each entry is one chain over ascending k, however many rows and registers go together."""
    rng = np.random.default_rng(0)
    height, length, columns = 29, 11, 12 * WIDTH
    A, B = rng.standard_normal((height, length)), rng.standard_normal((length, columns))
    before, found = rng.standard_normal((height, columns)), []
    for shape in ("1x1", "1x12", "2x6", "2x12", "3x4", "4x6"):
        block = parsed(shape)
        add, lanes = block_product(True, block), block.vectors * WIDTH

        product = in_two_parts(add, height, length, lanes)

        out = np.empty_like(before)
        for start in range(0, columns, lanes):
            part = slice(start, start + lanes)
            sums = before[:, part].ravel()
            product(sums, A.ravel(), B[:, part].ravel())
            out[:, part] = sums.reshape(height, lanes)
        found.append(out)
    # 12 terms of order one, added up in another order
    np.testing.assert_allclose(found[0], before + A @ B, rtol=0, atol=1e-13)
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_the_register_block_follows_the_processor_and_fits_it() -> None:
    for features, available in (("+avx,+avx2", 16), ("+avx,+avx512f", 32), ("+neon", 32)):
        assert block_by_rule(features).registers <= available
    assert registers.BLOCK.vectors * WIDTH == registers.LANES


@pytest.mark.parametrize("text", ["", "2", "0x6", "2x17", "5x1", "-1x6", "2x6x1", "ax6"])
def test_a_register_block_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match="DLN_MOMENTUM_REGISTERS"):
        parsed(text)
