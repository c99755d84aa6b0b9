"""What a run leaves is a choice; what it finds is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.types import RunMode

from dln_momentum import InputError
from dln_momentum.cli.flow import flow
from dln_momentum.cli.outputs import outputs_of
from dln_momentum.cli.setup import build
from dln_momentum.config import composed
from tests.helpers import blank_figures, run_app, run_job

QUICK = ("data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=300", "trainer.records=12")


def left(directory: Path) -> set[str]:
    """The files of a run, but for the state of the job."""
    return {path.name for path in directory.rglob("*") if path.is_file()} - {"status.json"}


def test_a_minimal_run_finds_the_same_numbers(tmp_path: Path) -> None:
    full = run_app(tmp_path / "full", *QUICK)
    minimal = run_app(tmp_path / "minimal", *QUICK, "outputs=minimal")
    assert left(minimal.directory) == {"config.yaml", "summary.json"}
    assert left(full.directory) > {"history.nc", "overview.png", "last.ckpt"}
    # blocks of other lengths give the same bits; only the best along the path was not looked for
    path = {name for name in full.summary if name.startswith("best_")}
    assert all(minimal.summary[name] is None for name in path)
    same = full.summary.keys() - path - {"seconds"}
    assert {k: minimal.summary[k] for k in same} == {k: full.summary[k] for k in same}


def test_a_minimal_flow_finds_the_same_numbers(tmp_path: Path) -> None:
    quick = ("data.n=5", "data.d=8", "data.s=1", "flow.time=5", "flow.records=12")
    with blank_figures():
        full = run_job("flow", flow, tmp_path / "full", *quick)
        minimal = run_job("flow", flow, tmp_path / "minimal", *quick, "outputs=minimal")
    assert left(tmp_path / "minimal") == {"config.yaml", "summary.json"}
    assert left(tmp_path / "full") > {"history.nc", "overview.png"}
    assert minimal | {"seconds": 0} == full | {"seconds": 0}


@pytest.mark.parametrize(("mode", "drawn"), [(RunMode.RUN, True), (RunMode.MULTIRUN, False)])
def test_jobs_of_a_multirun_draw_nothing_unless_told_to(
    monkeypatch: pytest.MonkeyPatch, mode: RunMode, drawn: bool
) -> None:
    job = SimpleNamespace(initialized=lambda: True, get=lambda: SimpleNamespace(mode=mode))
    monkeypatch.setattr("dln_momentum.cli.outputs.HydraConfig", job)
    assert outputs_of(composed("train")).figure is drawn
    assert outputs_of(composed("train", ["outputs.figure=true"])).figure
    assert not outputs_of(composed("train", ["outputs.figure=false"])).figure


def test_a_figure_needs_what_it_draws() -> None:
    words = ["outputs.history=false", "outputs.figure=true", "outputs.dashboard=1"]
    with pytest.raises(InputError) as refused:
        build(composed("train", words))
    assert refused.value.problems == [
        "outputs.dashboard = 1 must be of type bool",
        "outputs.figure = True needs outputs.history = True, which it draws",
    ]
