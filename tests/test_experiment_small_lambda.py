"""The certificate of `experiments.small_lambda`: what is left of the energy bounds what is left of
the drift of u^2 - v^2."""

from __future__ import annotations

import pytest
import torch

from dln_momentum import momentum_flow, sparse
from experiments.flows import uniform_start
from experiments.small_lambda import certified


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.1, 0.3, 1.0, 3.0])
def test_no_sign_changes_after_a_certified_time(lam: float) -> None:
    problem = sparse(8, 12, 2, seed=1)
    w = uniform_start(problem, 0.1)
    path = momentum_flow(problem, w, w, lam, 1e4, tol=1e-16)
    q = path.w_plus * path.w_minus
    rate = path.dw_plus * path.w_minus + path.w_plus * path.dw_minus
    bound = lam * (rate.abs() + 2 * path.energy[:, None])
    for k in range(0, len(path.t), 10):
        # the flow is solved to 1e-9 and better
        assert bool(((q[k:] - q[k]).abs() <= bound[k] + 1e-8).all())
        if certified(path.at(slice(k + 1))):
            assert bool((q[k:].sign() == q[k].sign()).all())
    assert certified(path)
    assert not torch.isnan(q).any()
