"""The passes of the poster's method over the coordinates, as code that fills the registers.

A pass goes over rows of `LANES` entries: a coordinate of each run of a SIMD block, or neighbouring
coordinates of one run. beta and the counts of sign changes stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from dln_momentum.engine.cpu.registers import LANES, WIDTH
from dln_momentum.engine.cpu.vectors import INTEGER, Emitter, Vector

LARGEST_EXPONENT = 256
"""One division serves both signs where |w_k w_{k+1}| of both is within 2^+-256: the product of the
two is far from the ends of float64. Elsewhere each term takes two divisions of its own."""


ARRAYS = ("w", "p", "sums", "products", "gradient", "theta", "beta", "counts")
"""The arrays of a step, in the order in which it is given them."""


def _step(telescoped: bool) -> Callable[..., None]:
    """A step of w_+- and p_+-, the next theta', and the sign changes.

    Called as ``step(w, p, sums, products, gradient, theta, beta, sign_changes, plus, minus, at,
    size)`` with flat arrays. beta and sign_changes are read and written in the first `LANES`
    entries from ``at`` on, the others in ``size`` of them, from ``plus`` and ``minus`` on where
    there are both signs.

    Telescoped, it adds the products of the increments, and to the sums

        (w_{k+1} - w_k) (1/w_k - beta/w_{k+1})
            = (w_{k+1} - w_k) (w_{k+1} - beta w_k) / (w_k w_{k+1}),

    where w_{k+1} - beta w_k is p_{k+1}, and one division gives 1/b of both signs, b = w_k w_{k+1}:
    1/b_+ = b_-/(b_+ b_-).
    """

    @intrinsic
    def step(typing, w, p, sums, products, gradient, theta, beta, counts, plus, minus, at, size):  # type: ignore
        of_index = types.uintp
        arrays = (w, p, sums, products, gradient, theta, beta, counts)
        signature = types.void(*arrays, of_index, of_index, of_index, of_index)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emitter = Emitter(context, builder, WIDTH)
            found = zip(signature.args[:8], arguments[:8], strict=True)
            kinds: dict[str, Any] = dict(zip(ARRAYS, found, strict=True))
            plus, minus, at, size = arguments[8:]

            def pointer(name: str, offset: Any) -> Any:
                array_type, array = kinds[name]
                return emitter.entry(array_type, array, offset)

            both = {
                name: (pointer(name, plus), pointer(name, minus)) for name in ("w", "p", "sums")
            }
            one = {name: pointer(name, at) for name in ("gradient", "theta", "beta", "counts")}
            one["products"] = pointer("products", plus)
            _emit_step(emitter, both, one, size, telescoped)
            return context.get_dummy_value()

        return signature, emit

    return step


def _emit_step(
    emitter: Emitter, both: dict[str, Any], one: dict[str, Any], size: Any, telescoped: bool
) -> None:
    builder = emitter.builder
    starts = [emitter.number(start) for start in range(0, LANES, WIDTH)]
    betas = [emitter.load(one["beta"], start) for start in starts]
    counts = [emitter.variable(emitter.all_integers(0)) for _ in starts]
    lanes = emitter.number(LANES)
    with cgutils.for_range(builder, builder.udiv(size, lanes)) as loop:
        first = builder.mul(loop.index, lanes)
        for start, beta, count in zip(starts, betas, counts, strict=True):
            at = builder.add(first, start)
            pull = emitter.load(one["gradient"], at)
            # all loads come before the first store: where arrays lie a multiple of 4096 bytes
            # apart, processors take the load of one for a load of what is stored to another
            old = [emitter.load(w, at) for w in both["w"]]
            past = [emitter.load(p, at) for p in both["p"]]
            summed = [emitter.load(sums, at) for sums in both["sums"]] if telescoped else []
            products = [emitter.load(one["products"], at)] if telescoped else []
            p = [past[0] - pull * old[0], past[1] + pull * old[1]]
            new = [momentum + beta * w for momentum, w in zip(p, old, strict=True)]
            results = [(p[0], both["p"][0]), (p[1], both["p"][1])]
            results += [(new[0], both["w"][0]), (new[1], both["w"][1])]
            if telescoped:
                dw = [after - before for after, before in zip(new, old, strict=True)]
                results.append((products[0] + dw[0] * dw[1], one["products"]))
                totals, changes = _with_terms(emitter, old, new, p, dw, beta, summed, both, at)
                results += zip(totals, both["sums"], strict=True)
            else:
                changes = _sign_changes(emitter, old, new)
            results.append(((new[0] - new[1]) * (new[0] + new[1]), one["theta"]))
            builder.store(builder.add(builder.load(count), changes), count)
            for vector, place in results:
                emitter.store(vector, place, at)
    for start, count in zip(starts, counts, strict=True):
        place = builder.gep(one["counts"], [start])
        place = builder.bitcast(place, emitter.integers.as_pointer())
        total = builder.add(builder.load(place, align=8), builder.load(count))
        builder.store(total, place, align=8)


def _with_terms(
    emitter: Emitter, old: list[Vector], new: list[Vector], p: list[Vector], dw: list[Vector],
    beta: Vector, sums: list[Vector], both: dict[str, Any], at: Any,
) -> tuple[list[Vector], Any]:  # fmt: skip
    """One vector of the sums of both signs with its terms, and the sign changes of both.

    All but one multiply-add is done while the division goes on.
    """
    builder = emitter.builder
    b = [after * before for after, before in zip(new, old, strict=True)]
    inverse = emitter.splat(1.0) / (b[0] * b[1])
    found = [
        emitter.variable((sums[k] + dw[k] * p[k] * b[1 - k] * inverse).value) for k in range(2)
    ]
    # the sign of a product is exact
    signs = [builder.lshr(product.bits(), emitter.all_integers(63)) for product in b]
    changes = emitter.variable(builder.add(*signs))
    beyond = _beyond(emitter, b)
    with builder.if_then(_any(emitter, beyond), likely=False):
        # loaded again: what only this branch needs would not leave the other its registers
        old = [emitter.load(emitter.again(w), at) for w in both["w"]]
        sums = [emitter.load(emitter.again(place), at) for place in both["sums"]]
        # an entry has the same bits whether its neighbours need two divisions or not
        inside = builder.icmp_unsigned("==", beyond, emitter.all_integers(0))
        for k, place in enumerate(found):
            increment = new[k] - old[k]
            backward = beta.rounded_times(increment / new[k])
            apart = sums[k].rounded_plus((increment / old[k]).rounded_minus(backward))
            builder.store(builder.select(inside, builder.load(place), apart.value), place)
        builder.store(_sign_changes(emitter, old, new), changes)
    return [emitter.of(builder.load(place)) for place in found], builder.load(changes)


def _sign_changes(emitter: Emitter, old: list[Vector], new: list[Vector]) -> Any:
    """How many of the two signs' entries have changed their sign, in each lane."""
    changed = [
        emitter.builder.zext(
            emitter.builder.xor(after.is_negative(), before.is_negative()), emitter.integers
        )
        for after, before in zip(new, old, strict=True)
    ]
    return emitter.builder.add(*changed)


def _beyond(emitter: Emitter, factors: list[Vector]) -> Any:
    """Not 0 in the lanes where a factor is not within 2^+-`LARGEST_EXPONENT`.

    The exponents from 1023 - 256 to 1022 + 256 are, less the lowest, those of nine bits: the two
    bits above them are clear. 0, subnormal numbers, inf and nan are outside.
    """
    builder, lowest = emitter.builder, (1023 - LARGEST_EXPONENT) << 52
    above = [builder.sub(f.bits(), emitter.all_integers(lowest)) for f in factors]
    mask = emitter.all_integers(0b11 << 61)
    return builder.and_(builder.or_(*above), mask)


def _any(emitter: Emitter, integers: Any) -> Any:
    """Whether one of them is not 0."""
    function_type = ir.FunctionType(INTEGER, [emitter.integers])
    name = f"llvm.vector.reduce.or.v{emitter.width}i64"
    function = cgutils.get_or_insert_function(emitter.builder.module, function_type, name)
    found = emitter.builder.call(function, [integers])
    return emitter.builder.icmp_unsigned("!=", found, emitter.number(0))


bare_step, telescoped_step = _step(False), _step(True)
