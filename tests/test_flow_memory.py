"""Paths whose steps do not all fit in memory: the sums over the steps that are left out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import dln_momentum as dln
from dln_momentum import FlowPath, gradient_flow, momentum_flow
from dln_momentum.flows import (
    FlowOptions,
    contour_integrals,
    kept_steps,
    quadrature_path_integrals,
    summed_path_integrals,
)
from dln_momentum.flows.trajectory import sign_changes_between
from dln_momentum.outputs.flow_summary import measure

PROBLEM = dln.sparse(n=5, d=8, s=2, seed=0)
W_0 = torch.full((8,), 0.2, dtype=torch.float64)
FEW = 100


def follow(lam: float, times: torch.Tensor | None = None, **keys: Any) -> FlowPath:
    options = FlowOptions(keep_steps=times is not None)
    return momentum_flow(
        PROBLEM, W_0, W_0, lam, math.inf if times is None else float(times[-1]), times=times,
        tol=1e-16 if times is None else None, options=options, **keys,
    )  # fmt: skip


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for about a hundred states."""
    monkeypatch.setattr(kept_steps, "MOST_BYTES", 0)
    monkeypatch.setattr(kept_steps, "FEWEST", FEW)


@pytest.mark.parametrize("lam", [0.1, 4.0])
def test_what_is_left_out_is_summed_before(lam: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = follow(lam)
    monkeypatch.setattr(kept_steps, "MOST_BYTES", 0)
    monkeypatch.setattr(kept_steps, "FEWEST", FEW)
    path = follow(lam)
    assert whole.sums is None
    assert len(whole.t) > 3 * FEW
    assert path.sums is not None
    assert FEW / 4 < len(path.t) <= FEW + 2
    # the same steps: every kept state is one of them, and both ends are kept
    places = torch.searchsorted(whole.t, path.t)
    assert torch.equal(whole.t[places], path.t)
    assert torch.equal(whole.w[:, places], path.w)
    assert float(path.t[0]) == 0
    assert torch.equal(path.t[-1], whole.t[-1])
    assert torch.equal(path.sign_changes, whole.sign_changes)
    counted = torch.cat([torch.zeros(1), sign_changes_between(whole).cumsum(0)])[places]
    assert torch.equal(counted[1:], sign_changes_between(path).cumsum(0).float())
    expected, found = (summed_path_integrals(PROBLEM, p) for p in (whole, path))
    # sums of the same terms in another order; of some hundred terms of the size of the sum
    scale = float(expected.integrals.abs().max())
    torch.testing.assert_close(
        found.integrals, expected.integrals[:, places], rtol=0, atol=1e-13 * scale
    )
    torch.testing.assert_close(found.uncertainty, expected.uncertainty[places])
    assert found.fraction == pytest.approx(expected.fraction, abs=1e-12)


@pytest.mark.usefixtures("few")
def test_the_certificate_of_a_thinned_path() -> None:
    """A step that is left out without its part of the sums is an error of the order of I_+-."""
    found = measure(PROBLEM, follow(0.1), records=30, tol=1e-16).end
    for name in ("kkt_residual", "path_integral_identity_error", "distance_to_minimizer"):
        # the solver's error of 1e-9 a step, some hundred of them, and what is left at tol = 1e-16
        assert found[name] < 1e-7, name


@pytest.mark.usefixtures("few")
def test_output_times_are_never_left_out() -> None:
    times = torch.linspace(1.0, 200.0, 40, dtype=torch.float64)
    path = follow(4.0, times)
    assert path.sums is not None
    assert torch.isin(times, path.t).all()


@pytest.mark.usefixtures("few")
def test_what_needs_every_step_says_so() -> None:
    path = follow(0.1)
    with pytest.raises(dln.InputError, match="every step"):
        contour_integrals(PROBLEM, path)
    with pytest.raises(dln.InputError, match="cutoff"):
        summed_path_integrals(PROBLEM, path, 0.03)


@pytest.mark.usefixtures("few")
def test_flows_of_other_kinds_are_thinned_too() -> None:
    changing = follow(1.0, torch.tensor([60.0], dtype=torch.float64), friction="3/t")
    regular = quadrature_path_integrals(PROBLEM, follow(0.05))
    assert changing.sums is not None
    assert bool(regular.isfinite().all())
    flow = gradient_flow(PROBLEM, W_0, W_0, math.inf, form="direct", tol=1e-20)
    assert flow.sums is not None
    assert flow.converged
