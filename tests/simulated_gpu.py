"""A CUDA device that is none: enough of one to run a GPU's code on a machine without.

Its tensors say that they are on ``cuda:0``. Their numbers lie in the CPU's memory and are computed
by the CPU's operations, so that a run gives the CPU's bits. What the device adds are a GPU's rules:
operations do not mix devices; while a graph is recorded nothing is computed, and nothing comes from
or goes to the host; a graph repeats its operations on the memory that they were recorded with. It
has no streams, for it never runs ahead of the host, and no rounding of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lightning.fabric.accelerators import cuda as lightning_cuda
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from dln_momentum.engine.gpu import kernel

aten = torch.ops.aten
TRANSFERS = {aten._to_copy.default, aten.copy_.default}
READ_BY_THE_HOST = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""They take indices from either device."""


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device; autograd takes it for one without memory."""

    memory: Tensor
    device = property(lambda _: torch.device("cuda:0"))  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_meta = property(lambda _: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, memory: Tensor) -> SimulatedTensor:
        """Take a tensor of the CPU to be one of the device's."""
        made: SimulatedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            memory.size(),
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device=torch.device("meta"),
        )
        made.memory = memory
        return made

    def __repr__(self, **_: Any) -> str:
        return f"on the simulated device: {self.memory!r}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a tensor that will be read on the CPU."""
        return self.memory.clone().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        """Every operation on such a tensor."""
        return _perform(function, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Operations that have no such tensor yet: those that make one."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _perform(function, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Calls that a build of torch without CUDA cannot take."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        on_device = len(args) > 0 and isinstance(args[0], SimulatedTensor)
        if function is torch.Tensor.tolist and on_device:
            return args[0].cpu().tolist()
        if function is torch.Tensor.new_tensor and on_device:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, "device": "cuda:0"} | kwargs)
        if function is not torch.device:
            args, kwargs = tree_map_only((str, torch.device), _with_an_index, (args, kwargs))
        return function(*args, **kwargs)


def _with_an_index(name: Any) -> Any:
    return torch.device("cuda:0") if str(name) == "cuda" else name


class Graph:
    """In place of ``torch.cuda.CUDAGraph``."""

    recording: Graph | None = None

    def __init__(self) -> None:
        self.operations: list[Callable[[], object]] = []
        self.replays = 0

    def replay(self) -> None:
        """Repeat what was recorded."""
        self.replays += 1
        for operation in self.operations:
            operation()


@contextmanager
def _record(graph: Graph, stream: Any = None) -> Iterator[None]:
    Graph.recording = graph
    try:
        yield
    finally:
        Graph.recording = None


def _perform(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    simulated = [t for t in tensors if isinstance(t, SimulatedTensor)]
    device = kwargs.get("device")
    onto_it = device is not None and device.type != "cpu"
    if not simulated and not onto_it:
        return function(*args, **kwargs)
    of_the_host = [t for t in tensors if not isinstance(t, SimulatedTensor)]
    if function not in TRANSFERS | INDEXED and any(t.ndim > 0 for t in of_the_host):
        raise RuntimeError(f"{function}: tensors are on two devices")
    to_the_host = function is aten._to_copy.default and device is not None and not onto_it
    crosses = function in TRANSFERS and (to_the_host or len(of_the_host) > 0)
    if Graph.recording is not None and (crosses or function in READ_BY_THE_HOST):
        raise RuntimeError(f"{function}: not while a graph is recorded")
    inner = tree_map_only(SimulatedTensor, lambda t: t.memory, (args, kwargs))
    inner = tree_map_only(torch.device, lambda _: torch.device("cpu"), inner)

    def operation() -> Any:
        return function(*inner[0], **inner[1])

    if Graph.recording is not None and function._schema.is_mutable:
        Graph.recording.operations.append(operation)
        return _written(function, args, kwargs)
    result = operation()
    if Graph.recording is not None and not _is_view(function):
        Graph.recording.operations.append(_into(result, operation))
    if to_the_host or (function is aten.copy_.default and args[0] is inner[0][0]):
        return result
    wrapped = tree_map_only(Tensor, SimulatedTensor, result)
    return return_and_correct_aliasing(function, args, kwargs, wrapped)


def _into(result: Any, operation: Callable[[], Any]) -> Callable[[], None]:
    """The same operation, into the memory that its result has in the graph."""
    places = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
    for place in places:
        # whoever reads it before the graph is repeated gets nothing
        place.fill_(torch.nan if place.is_floating_point() else 1)

    def again() -> None:
        for place, value in zip(places, tree_leaves(operation()), strict=True):
            place.copy_(value)

    return again


def _is_view(function: Any) -> bool:
    return any(returned.alias_info is not None for returned in function._schema.returns)


def _written(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The argument that an operation in place or with an ``out`` returns."""
    arguments = function._schema.arguments
    given = {a.name: value for a, value in zip(arguments, args, strict=False)} | kwargs
    (written,) = (given[a.name] for a in arguments if a.alias_info and a.alias_info.is_write)
    return written


class _Nothing:
    """A stream, and the context of a stream or a device."""

    def __init__(self, *_: Any) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...
    def wait_stream(self, other: Any) -> None:
        """There is nothing to wait for."""


@pytest.fixture
def simulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    """Make the device there, for this thread; gives the graphs that have been recorded."""
    graphs: list[Graph] = []

    def graph() -> Graph:
        graphs.append(Graph())
        return graphs[-1]

    replacements = {
        "CUDAGraph": graph,
        "graph": _record,
        "Stream": _Nothing,
        "stream": _Nothing,
        "device": _Nothing,
        "current_stream": _Nothing,
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda _: "simulated",
        "get_device_capability": lambda _: (9, 0),
    }
    for name, value in replacements.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(lightning_cuda, "num_cuda_devices", lambda: 1)
    # there is nothing that a compiled kernel could run on
    monkeypatch.setattr(kernel, "_compiler", lambda: None)
    # a tensor from a list is made on the CPU and sent, not made on a device that is not there
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    with _Calls(), _Operations():
        yield graphs
    torch._C._set_only_lift_cpu_tensors(before)
