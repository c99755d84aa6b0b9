"""dln-flow of many lambda: the numbers of single flows, in one file, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from omegaconf import OmegaConf

import dln_momentum as dln
from dln_momentum.cli import flows
from dln_momentum.cli.flow_sections import lam_of
from dln_momentum.config import Reader
from dln_momentum.interface import flow as interface
from dln_momentum.outputs.quantities import QUANTITIES
from tests.test_flow_app import SMALL, run_flow

PROBLEM = dln.sparse(5, 8, 1)


def results_of(directory: Path) -> xr.Dataset:
    return xr.load_dataset(directory / "results.nc", engine="h5netcdf")


def test_many_flows_are_the_single_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_flow(tmp_path, *SMALL, "flow.lam=[0,0.1,2]", "flow.tol=1e-16")
    results = results_of(tmp_path)
    left = {"config.yaml", "results.nc", "overview.png", "summary.json", "status.json"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert dict(results.sizes) == {"lam": 3, "coordinate": 8}
    assert results["lam"].to_numpy().tolist() == [0, 0.1, 2]
    assert summary["endings"] == {"converged": 3}
    named = {row.name for row in QUANTITIES.values() if "m" in row.found}
    assert set(map(str, results.variables)) | set(summary) == named
    assert (results["energy"] <= 1e-16).all()
    shown = capsys.readouterr().out
    assert "3 flows" in shown
    for lam in (0, 0.1, 2):
        one = dln.flow(PROBLEM, lam=lam, tol=1e-16)
        many = results.sel(lam=lam)
        # sqrt(2 n 1e-16) is the residual that the tolerance leaves in each
        np.testing.assert_allclose(many["theta"], one.theta[-1], rtol=0, atol=1e-7)
        np.testing.assert_allclose(many["balancedness"], one.balancedness[-1], rtol=0, atol=1e-7)
        assert many["sign_changes"] == one.sign_changes
        assert many["status"] == "converged"
    # gradient flow keeps Delta; its limit is the minimiser that the others are compared with
    assert float(results["balancedness_ratio"][0]) == pytest.approx(1, abs=1e-7)
    assert float(results["distance_to_gradient_flow_minimizer"][0]) < 1e-7
    assert json.loads((tmp_path / "summary.json").read_text())["axes"] == {"lam": 3}


def test_output_times_are_a_dimension(tmp_path: Path) -> None:
    run_flow(tmp_path, *SMALL, "flow.lam=geomspace:0.1:10:3", "flow.times=linspace:1:5:3")
    results = results_of(tmp_path)
    assert results["theta"].dims == ("time", "lam", "coordinate")
    assert results["time"].to_numpy().tolist() == [0, 1, 3, 5]
    expected = dln.flow(PROBLEM, lam=[0.1, 1, 10], times=[1, 3, 5])
    # lambda of a span is rounded, and so is what follows of it
    np.testing.assert_allclose(results["theta"], expected.theta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(results["i_plus"], expected.i_plus, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "lam"), [("1", 1.0), ("[1]", [1.0]), ("linspace:0:2:3", [0.0, 1.0, 2.0])]
)
def test_a_list_of_one_is_a_dimension(given: str, lam: float | list[float]) -> None:
    reader = Reader(
        OmegaConf.create({"flow": {"lam": yaml.safe_load(given), "lam_kind": "geometric"}})
    )
    assert lam_of(reader) == lam
    assert not reader.errors


@pytest.mark.slow
def test_finished_pieces_are_not_integrated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "PIECE", 1)
    words = (*SMALL, "flow.lam=[0.5,1,2]", "flow.time=1", "flow.tol=0")
    run_flow(tmp_path / "whole", *words)
    integrated, original = [], interface.flow_many

    def interrupted(problem, w, lam, **given):
        if len(integrated) == 2:
            raise KeyboardInterrupt
        integrated.append(float(lam[0]))
        return original(problem, w, lam, **given)

    monkeypatch.setattr(interface, "flow_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_flow(tmp_path / "cut", *words)
    integrated[:] = []
    run_flow(tmp_path / "cut", *words)
    assert integrated == [2.0]
    assert results_of(tmp_path / "cut")["time"].to_numpy().tolist() == [1, 1, 1]
    xr.testing.assert_identical(
        results_of(tmp_path / "cut").drop_attrs(), results_of(tmp_path / "whole").drop_attrs()
    )
