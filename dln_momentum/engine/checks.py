"""What does not fit together in the arguments of an engine, one line each.

Compiled code indexes without looking: whatever it reads is checked here, or where it is drawn
(`dln_momentum.engine.random_inputs`) or loaded (`dln_momentum.engine.state`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dln_momentum.arrays import tensor_of
from dln_momentum.engine.options import EngineOptions
from dln_momentum.engine.problems import Problems, first_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.method import Method
from dln_momentum.problem import Problem
from dln_momentum.rates import SMALLEST_GAMMA

if TYPE_CHECKING:
    from dln_momentum.data.label_noise import LabelNoise


def check_kinds(**given: tuple[Any, type | tuple[type, ...], str]) -> None:
    """Raise `InputError` for arguments of another type: (value, allowed types, an example) each."""
    raise_if_any(
        f"{key} is a {type(value).__name__}; it must be {example}"
        for key, (value, kinds, example) in given.items()
        if not isinstance(value, kinds)
    )


def as_tensors(problem: Problem | Problems, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Numbers, lists, arrays and tensors as float64 tensors where the data are.

    What is a float64 tensor there already is not copied: thousands of rows may be one, repeated.

    Raises:
        InputError: for what is not numeric.
    """
    device, found, errors = first_of(problem).X.device, {}, []
    for key, value in given.items():
        ready = isinstance(value, Tensor) and value.dtype == torch.float64 and not value.is_meta
        try:
            own = value.detach() if ready and value.layout == torch.strided else None
            found[key] = (tensor_of(key, value) if own is None else own).to(device)
        except InputError as error:
            errors += error.problems
    raise_if_any(errors)
    return found


def faults(
    problem: Problem | Problems,
    rates: Mapping[str, Tensor],
    iterates: Mapping[str, Tensor],
    options: EngineOptions,
) -> Iterator[str]:
    """Shapes and ranges of the rates, gamma and beta, and of the iterates."""
    gamma, beta = rates.values()
    runs = (gamma.numel(),)
    for name, tensor in {**rates, **iterates}.items():
        shape = runs if name in rates else (*runs, first_of(problem).d)
        if tensor.shape != shape or 0 in shape:
            allowed = list(shape) if runs != (0,) else "of one run or more"
            yield f"{name} is {list(tensor.shape)}; must be {allowed}"
        elif name in iterates and options.path_sums != "gradient_sum":
            # the flows start engines anywhere, with this sum, and read off them what has failed
            yield from _entry_faults(name, tensor)
    if isinstance(problem, Problems):
        if problem.index.shape != runs:
            yield f"problem: index is {list(problem.index.shape)}, must be {list(runs)}"
    elif tuple(problem.runs) not in ((), runs):
        yield f"problem is a stack of {list(problem.runs)}; must be one, or one for each run"
    # the flows take what steps they need
    least = 0.0 if options.path_sums == "gradient_sum" else SMALLEST_GAMMA
    if not bool(((gamma > 0) & (gamma >= least) & gamma.isfinite()).all()):
        yield f"gamma must be finite and > 0{f', >= {least:g}' if least else ''}"
    # the leapfrog scheme has a beta below 0
    if not bool((beta.abs() < 1).all()):
        yield "beta must be in (-1, 1)"


def _entry_faults(name: str, w: Tensor) -> Iterator[str]:
    """S_+- divides by w_+-, which condition (C1) has nowhere 0 (docs/theory.md#problem)."""
    # in one pass each, without arrays as large as w; nan passes no comparison
    least, most = torch.aminmax(w)
    finite = bool((least > -torch.inf) & (most < torch.inf))
    if not finite or ("previous" not in name and int(torch.count_nonzero(w)) < w.numel()):
        bad = ~(w.isfinite() & (w != 0)) if "previous" not in name else ~w.isfinite()
        run, i = bad.nonzero()[0].tolist()
        allowed = "finite" if "previous" in name else "finite and not 0 (u^2 = v^2 there)"
        yield f"{name} = {float(w[run, i]):g} in run {run}, coordinate {i}; must be {allowed}"


def stream_faults(n: int, runs: int, streams: Mapping[str, Any]) -> Iterator[str]:
    """Streams of random inputs of another number of rows, or of seeds."""
    from dln_momentum.data.streams import SeededStream

    for key, stream in streams.items():
        if stream is None:
            continue
        if not isinstance(stream, SeededStream) or not hasattr(stream, _DRAWN_BY[key]):
            yield f"{key} is a {type(stream).__name__}; it must be a {_EXAMPLES[key]}, or null"
            continue
        if stream.n != n:
            yield f"{key}.n = {stream.n} must be n = {n}, the rows of the problem"
        seeds = len(stream.seeds) if isinstance(stream.seeds, Sequence) else 1
        if seeds not in (1, runs):
            yield f"{key}.seeds has {seeds} entries; must be one, or one for each of {runs} runs"


_DRAWN_BY = {"batches": "indices", "label_noise": "label_noise"}
_EXAMPLES = {
    "batches": "BatchStream(n, batch_size, sampling, seeds)",
    "label_noise": "LabelNoise(n, amplitude, until, seeds)",
}


def family_faults(
    problem: Problem | Problems,
    gamma: Tensor,
    beta: Tensor,
    method: Method,
    options: EngineOptions,
    label_noise: LabelNoise | None,
) -> Iterator[str]:
    """What a method or a loss needs beside them."""
    first = first_of(problem)
    yield from method.problems(gamma, beta)
    if not bool((beta >= 0).all()):
        yield "beta must be in [0, 1) for a method other than the poster's"
    if options.path_sums != "telescoped":
        yield (
            f"path_sums = {options.path_sums!r} must be 'telescoped' for a method or a loss other "
            "than the poster's"
        )
    if method.kappa is not None and len(method.kappa) != first.d:
        yield f"method.kappa has {len(method.kappa)} entries, must have d = {first.d}"
    if isinstance(problem, Problems) and len({each.loss_name for each in problem.each}) > 1:
        yield "problem: all problems must have the same loss"
    if first.loss_name != "squared" and label_noise is not None:
        yield f"label noise needs loss = 'squared', not {first.loss_name!r}: it changes targets"
