"""The variance that `experiments.smgd_implicit_bias` sets S_+- against."""

from __future__ import annotations

import pytest

from dln_momentum.data import BatchStream
from experiments.samplings import Sampling

N, STEPS = 6, 40_000


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 6])
def test_the_variance_of_a_batch_mean_is_that_of_its_draws(
    batch_size: int, replacement: bool
) -> None:
    kind = Sampling(batch_size, replacement, 0.0)
    weights = BatchStream(N, batch_size, kind.sampling, 0).weights(0, STEPS)
    predicted = kind.variance(N)
    if weights is None:
        assert predicted == 0
        return
    # of sum_j w_j g_j / n for each g = e_i, whose row variance is (n - 1)/n^2; averaged over i
    measured = float((weights[:, 0] / N).var(0).mean()) / ((N - 1) / N**2)
    # N STEPS draws of variance of order 1 leave an error of 1 % at five standard deviations
    assert measured == pytest.approx(predicted, rel=0.03)
