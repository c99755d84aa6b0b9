"""What runs on a GPU, on a simulated one: which device everything is on, and what a graph repeats.

`test_kernels` has what needs a real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from tests.helpers import run_app
from tests.simulated_gpu import Graph, simulated_gpu
from tests.test_kernels import here_and_on_a_gpu
from tests.test_sweep import run_sweep

__all__ = ["simulated_gpu"]

TINY = ("data.n=5", "data.d=8", "data.s=1", "trainer.block_size=60", "trainer.records=2")


def test_the_device_keeps_to_a_gpus_rules(simulated_gpu: list[Graph]) -> None:
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.is_cuda
    assert (there + there).device == torch.device("cuda:0")
    with pytest.raises(RuntimeError, match="two devices"):
        there.add(here)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = 2 * there
        there.add_(doubled)
        for read in (there.sum().item, there.cpu, lambda: there.copy_(here)):
            with pytest.raises(RuntimeError, match="while a graph is recorded"):
                read()
    assert there.tolist() == [1, 1, 1]
    graph.replay()
    graph.replay()
    assert there.tolist() == [9, 9, 9]
    assert doubled.tolist() == [6, 6, 6]


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("path_sums", ["telescoped", "direct", "gradient_sum"])
def test_a_graph_of_the_steps_gives_the_bits_of_the_steps(
    simulated_gpu: list[Graph], path_sums: str, drawn: bool
) -> None:
    here, there = here_and_on_a_gpu(6, 120, path_sums=path_sums, drawn=drawn)
    # 3 steps to the next look at the loss, 11 tens of which the first is taken as it is, and 7
    assert [graph.replays for graph in simulated_gpu] == [10]
    for name, expected in here.state_dict().items():
        found = there.state_dict()[name]
        assert found.is_cuda, name
        assert torch.equal(found.cpu(), expected), name
    for name in ("path_sums_with_boundary", "predicted_balancedness", "log_init", "previous"):
        derived = (getattr(engine.snapshot(), name) for engine in (here, there))
        assert torch.equal(*(tensor.cpu() for tensor in derived)), name


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(
            ("sampling.batch_size=2", "sampling.label_noise=0.1", "sampling.noise_until=90"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("sampling.batch_size=2", "trainer.gradient=autograd"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_and_its_resumption_leave_what_a_cpu_leaves(
    simulated_gpu: list[Graph],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    keys: tuple[str, ...],
) -> None:
    monkeypatch.setattr("dln_momentum.outputs.plotting.overview", lambda *_: Figure(figsize=(1, 1)))
    keys = (*TINY, "engine.backend=torch", *keys)
    run_app(tmp_path / "half", "trainer.accelerator=gpu", "trainer.max_steps=60", *keys)
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    rest = (*keys, "trainer.max_steps=120", f"resume={last}")
    there = run_app(tmp_path / "there", "trainer.accelerator=gpu", *rest)
    here = run_app(tmp_path / "here", *rest)
    for run in (there, here):
        del run.summary["seconds"]
    assert str(there.summary) == str(here.summary)
    assert there.history().equals(here.history())
    # Lightning would advise a run on the CPU to take the GPU
    assert not [w for w in recwarn if "GPU" in str(w.message)]


@pytest.mark.slow
def test_a_sweep_leaves_what_a_cpu_leaves(
    simulated_gpu: list[Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dln_momentum.outputs.sweep_figure.overview", lambda *_: None)
    keys = ("sweep.gamma=[0.01,5]", "sweep.beta=[0.5,1.5]", "sweep.data_seed=[0,1]")
    keys += ("trainer.max_steps=120", "sampling.batch_size=2", "engine.backend=torch")
    there = run_sweep(tmp_path / "there", "trainer.accelerator=gpu", *keys)
    here = run_sweep(tmp_path / "here", *keys)
    assert {"invalid", "diverged", "max_steps"} <= set(there.status.values.flat)
    xr.testing.assert_equal(there, here)
