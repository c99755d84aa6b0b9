"""The vector registers that the kernels are compiled for, and how a product fills them."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from numba.core.registry import cpu_target

from dln_momentum.errors import InputError

VARIABLE = "DLN_MOMENTUM_REGISTERS"
"""Environment variable that names another register block, as ``vectors x rows``: ``3x8``."""

CACHE = "DLN_MOMENTUM_CACHE"
"""Environment variable that names the folder where a measurement is kept."""


class RegisterBlock(NamedTuple):
    """The part of a product's result that stays in registers while k runs through the product.

    ``rows`` rows of ``vectors`` registers: a step of k loads ``vectors + rows`` times for
    ``vectors * rows`` multiply-adds, so a larger block loads less. It also needs one register for
    each of its entries, ``vectors`` for the row of B, and one for an entry of A.
    """

    vectors: int
    rows: int

    def __str__(self) -> str:
        return f"{self.vectors}x{self.rows}"

    @property
    def registers(self) -> int:
        """Vector registers that it needs.

        >>> RegisterBlock(2, 6).registers
        15
        """
        return self.vectors * self.rows + self.vectors + 1


def doubles_per_register(features: str) -> int:
    """Doubles in a vector register of a processor with these features, as LLVM lists them.

    >>> [doubles_per_register(f) for f in ("+sse4.2", "+avx,+avx2,-avx512f", "+avx,+avx512f", "")]
    [2, 4, 8, 2]
    """
    found = features.split(",")
    if "+avx512f" in found:
        return 8
    return 4 if "+avx" in found else 2


def registers_of(features: str) -> int:
    """Vector registers of a processor with these features: 32 with AVX-512 and on ARM.

    >>> [registers_of(f) for f in ("+avx,+avx2", "+avx,+avx512f", "+neon,+fp-armv8")]
    [16, 32, 32]
    """
    found = features.split(",")
    return 32 if "+avx512f" in found or "+neon" in found else 16


def block_by_rule(features: str) -> RegisterBlock:
    """The register block for a processor with these features, without a measurement.

    Two registers by 6 rows fill 15 of 16 registers, by 12 rows 27 of 32.

    >>> str(block_by_rule("+avx,+avx2")), str(block_by_rule("+avx,+avx512f"))
    ('2x6', '2x12')
    """
    return RegisterBlock(2, 12 if registers_of(features) == 32 else 6)


def parsed(text: str) -> RegisterBlock:
    """The register block that a text names.

    Raises:
        InputError: if it names none.

    >>> parsed("3x8")
    RegisterBlock(vectors=3, rows=8)
    """
    parts = text.strip().split("x")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        block = RegisterBlock(*map(int, parts))
        if 1 <= block.vectors <= 4 and 1 <= block.rows <= 16:
            return block
    raise InputError(
        [f"{VARIABLE} = {text!r} must be 1 to 4 registers by 1 to 16 rows, such as 2x6"]
    )


def compiled_for() -> str:
    """The features that numba compiles for: this processor's, or those of NUMBA_CPU_FEATURES.

    They are part of the key under which numba keeps compiled code, so code of one width is never
    taken for another's.
    """
    return _target()[1]


def _target() -> tuple[str, str]:
    """The name that LLVM has for the processor, and its features."""
    context: Any = cpu_target.target_context
    _, processor, features = context.codegen().magic_tuple()
    return processor, features


def kept_at() -> Path:
    """Where a measured block of this processor, its features and this version is kept.

    Raises:
        RuntimeError: if the user has no home directory.
    """
    named, others = os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME")
    base = Path(others) if others else Path.home() / ".cache"
    processor, features = _target()
    try:
        package = version("dln-momentum")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        package = ""
    key = blake2b("\n".join((processor, features, package)).encode(), digest_size=8).hexdigest()
    folder = Path(named) if named else base / "dln-momentum"
    return folder / f"registers-{processor}-{key}.json"


class Choice(NamedTuple):
    """A register block, and why it is in use."""

    block: RegisterBlock
    why: str

    def __str__(self) -> str:
        return f"{self.block} {self.why}"


def chosen() -> Choice:
    """The block that `VARIABLE` names, or that was measured and kept, or that the rule gives.

    Raises:
        InputError: if `VARIABLE` names no block.
    """
    if named := os.environ.get(VARIABLE):
        return Choice(parsed(named), f"by {VARIABLE}")
    try:
        return Choice(parsed(json.loads(kept_at().read_bytes())["block"]), "as measured")
    # no home, no file, not to be read, not of this form
    except (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, InputError):
        return Choice(block_by_rule(compiled_for()), "by rule")


WIDTH = doubles_per_register(compiled_for())
"""Doubles in a vector register that the kernels may use."""

CHOICE = chosen()
"""The register block of this process, and why; see `dln_momentum.engine.tune`."""

BLOCK = CHOICE.block
"""The register block of the products of this process."""

LANES = BLOCK.vectors * WIDTH
"""Runs in a SIMD block."""
