"""The few formulas that experiments have of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dln_momentum import Momentum
from experiments.acceleration_rule import largest_stable_eps
from experiments.common import curve_distance


def test_distance_to_a_curve_that_is_known() -> None:
    """A half circle in the plane of three dimensions, as a fine polygon."""
    angle = np.linspace(0, np.pi, 2001)
    circle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    points = np.array([[0.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 1.0, 2.0], [-1.0, -3.0, 0.0]])
    for point, expected in zip(points, (1.0, 0.5, 2.0, 3.0), strict=True):
        # the polygon is 3e-7 inside the circle
        assert curve_distance(point[None], circle) == pytest.approx(expected, abs=1e-6)
    assert curve_distance(points, circle) == pytest.approx(3.0, abs=1e-6)
    assert curve_distance(circle[::7], circle) < 1e-7


@pytest.mark.parametrize("lam", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("curvature", [0.5, 3.0])
def test_the_stability_limit_is_where_a_quadratic_stops_converging(
    lam: float, curvature: float
) -> None:
    """The iteration matrix of heavy ball has spectral radius 1 there, less below, more above."""
    limit = float(largest_stable_eps(lam, np.array([curvature]))[0])

    def radius(eps: float) -> float:
        # beyond eps = lam the formulas go on with beta < 0, which `Momentum` refuses
        gamma, beta = eps**2 / lam, 1 - eps / lam
        matrix = torch.tensor(
            [[1 + beta - gamma * curvature, -beta], [1.0, 0.0]], dtype=torch.float64
        )
        return float(torch.linalg.eigvals(matrix).abs().max())

    assert radius(limit) == pytest.approx(1.0, abs=1e-12)
    assert radius(0.99 * limit) < 1 < radius(1.01 * limit)
    if limit <= lam:
        rule = Momentum.from_pair(lam=lam, eps=limit)
        assert rule.gamma * curvature == pytest.approx(2 * (1 + rule.beta), rel=1e-12)
