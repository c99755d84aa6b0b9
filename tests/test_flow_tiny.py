"""Flows from a start of 1e-60: what is exact of Delta, and what the sums of I_+- resolve."""

from __future__ import annotations

import numpy as np
import torch

import dln_momentum as dln
from dln_momentum.flows import summed_path_integrals
from dln_momentum.flows.trajectory import trajectory_of_path

ALPHA, LAM = 1e-60, 1.0


def test_a_flow_from_a_tiny_start_is_exact_and_its_sums_say_what_they_resolve() -> None:
    problem = dln.sparse(n=5, d=8, s=2, seed=0)
    w = torch.full((8,), ALPHA, dtype=torch.float64)
    path = dln.momentum_flow(problem, w, w, LAM, 60.0)
    # as long as theta is 0 to rounding, grad L is a constant g and lambda w'' + w' +- g w = 0 is
    # linear: both entries are two exponentials, of complex rates where they oscillate
    linear = path.theta.abs().amax(-1) < 1e-30
    assert int(linear.sum()) > 100
    t = path.t[linear].numpy()[:, None]
    g = (-problem.X.T @ problem.y / problem.n).numpy().astype(complex)
    exact = []
    for signed in (g, -g):
        root = np.sqrt(1 - 4 * LAM * signed)
        fast, slow = (-1 - root) / (2 * LAM), (-1 + root) / (2 * LAM)
        shape = (fast * np.exp(slow * t) - slow * np.exp(fast * t)) / (fast - slow)
        exact.append(torch.from_numpy(ALPHA * shape.real))
    here = path.w[:, linear]
    # where an entry passes 0 its error is one of the size that it oscillates with
    size = torch.stack(exact).abs().cummax(1).values
    # a thousand local errors of 1e-13
    assert float(((here - torch.stack(exact)) / size).abs().max()) < 1e-10
    # I_+- by its definition has the error of a sixth-order rule in steps near a zero of w_+-, which
    # is in Delta as it is: some 1e-5 here, and never more than is written beside it
    summed = summed_path_integrals(problem, path)
    places = torch.arange(len(path.t))
    found = trajectory_of_path(path, summed, places, 1e-20, torch.stack([w, w]))
    error = (found.balancedness / found.predicted_balancedness).log().abs().amax(-1)
    inside = found.at > 0
    assert bool((error <= summed.uncertainty[: len(error)] + 1e-9)[inside].all())
    assert float(error.max()) < 1e-4
