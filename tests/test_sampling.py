"""Mini-batches and label noise: their law, and that they are functions of (seed, step) alone."""

from __future__ import annotations

import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import BatchStream
from dln_momentum.data.sparse import sparse
from dln_momentum.data.streams import CHUNK
from dln_momentum.errors import InputError

STEPS = 2 * CHUNK + 100
REPLACEMENT = pytest.mark.parametrize("replacement", [True, False])
UNLIKELY = 1e-3
"""Level of the goodness-of-fit tests; their seeds are fixed, so they pass or fail for good."""


@REPLACEMENT
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_equals_the_same_part_of_the_whole(replacement: bool, data) -> None:
    seeds = [4, 0, 4, 2**64 - 1, 7]
    start = data.draw(st.integers(0, STEPS - 1))
    stop = data.draw(st.integers(start + 1, STEPS))
    runs = data.draw(
        st.one_of(
            st.none(),
            st.slices(len(seeds)).filter(lambda part: len(seeds[part]) > 0),
            st.lists(st.integers(0, 4), min_size=1).map(torch.tensor),
        )
    )
    cut = slice(None) if runs is None else runs
    numpy_cut = cut if isinstance(cut, slice) else cut.numpy()
    batches = BatchStream(6, 3, replacement, seeds)
    whole = BatchStream(6, 3, replacement, seeds).indices(0, STEPS).numpy()
    window = batches.indices(start, stop, runs).numpy()
    assert np.array_equal(window, whole[start:stop][:, numpy_cut])
    weights = batches.weights(start, stop, runs)
    assert weights is not None
    counts = (window[..., None] == np.arange(6)).sum(2)
    assert np.array_equal(weights.numpy(), counts * 2.0)


@REPLACEMENT
def test_every_row_is_drawn_equally_often(replacement: bool) -> None:
    indices = BatchStream(7, 2, replacement, range(20)).indices(0, CHUNK)
    assert chisquare(torch.bincount(indices.flatten())).pvalue > UNLIKELY


def test_pairs_with_replacement_are_independent() -> None:
    first, second = BatchStream(5, 2, True, range(20)).indices(0, CHUNK).unbind(-1)
    assert chisquare(torch.bincount((5 * first + second).flatten())).pvalue > UNLIKELY


def test_batches_without_replacement_are_uniform_subsets() -> None:
    first, second = BatchStream(5, 2, False, range(20)).indices(0, CHUNK).unbind(-1)
    assert bool((first != second).all())
    code = 5 * torch.minimum(first, second) + torch.maximum(first, second)
    counts = torch.bincount(code.flatten(), minlength=25)
    assert int(counts.sum()) == sum(int(counts[5 * i + j]) for i, j in combinations(range(5), 2))
    pairs = [int(counts[5 * i + j]) for i, j in combinations(range(5), 2)]
    assert chisquare(pairs).pvalue > UNLIKELY


def test_steps_seeds_and_chunks_are_independent() -> None:
    indices = BatchStream(4, 1, True, [0, 1, 2**32]).indices(0, 4 * CHUNK)[..., 0]
    in_step = 4 * indices[:-1] + indices[1:]
    across_seeds = 4 * indices[:, 0] + indices[:, 1]
    across_chunks = 4 * indices[:CHUNK] + indices[CHUNK : 2 * CHUNK]
    for codes in (in_step, across_seeds, across_chunks):
        assert chisquare(torch.bincount(codes.flatten(), minlength=16)).pvalue > UNLIKELY
    # generators that read 32 bits of a seed take 2^32 for 0
    assert not torch.equal(indices[:, 0], indices[:, 2])


@REPLACEMENT
def test_weighted_gradient_is_the_gradient_of_the_batch_loss(replacement: bool) -> None:
    problem = sparse(8, 12, 2, seed=0)
    theta = torch.linspace(-1, 1, 12, dtype=torch.float64)
    batches = BatchStream(8, 3, replacement, 5)
    weights = batches.weights(10, 20)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.full((10, 1), 8.0).double())
    closed = (weights * problem.residual(theta)) @ problem.X / problem.n
    for batch, gradient in zip(batches.indices(10, 20)[:, 0], closed[:, 0], strict=True):
        X, y = problem.X[batch], problem.y[batch]
        variable = theta.clone().requires_grad_()
        ((X @ variable - y).square().mean() / 2).backward()
        # sums of a dozen products of unit scale in another order
        torch.testing.assert_close(gradient, variable.grad, rtol=0, atol=1e-13)


def test_shared_and_repeated_seeds_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = BatchStream._draw
    monkeypatch.setattr(BatchStream, "_draw", lambda self, rng: drawn.append(1) or draw(self, rng))
    stream = BatchStream(9, 2, True, [3, 5] * 500)
    stream.indices(0, 50)
    stream.weights(50, 100)
    assert len(drawn) == 2
    shared = BatchStream(9, 2, True, [3] * 1000)
    assert shared.indices(0, 50).shape == (50, 1000, 2)
    assert shared.indices(0, 50).stride(1) == 0
    one = BatchStream(9, 2, True, 3)
    assert one.indices(0, 50, slice(10, 20)).shape == (50, 1, 2)
    assert torch.equal(one.indices(0, 50)[:, 0], stream.indices(0, 50)[:, 0])


def test_full_batch() -> None:
    for batches in (BatchStream(4, None, True, 0), BatchStream(4, 4, False, 0)):
        assert batches.full_batch
        assert batches.weights(0, 10) is None
        assert batches.indices(7, 9).tolist() == [[[0, 1, 2, 3]]] * 2
    assert not BatchStream(4, 4, True, 0).full_batch


def test_streams_survive_pickling_and_compare_by_value() -> None:
    stream = BatchStream(9, 2, True, [3, 5])
    expected = stream.indices(0, 5)
    copy = pickle.loads(pickle.dumps(stream))
    assert copy == stream
    assert hash(copy) == hash(stream)
    assert torch.equal(copy.indices(0, 5), expected)


def test_the_streams_are_these() -> None:
    # a change of these values changes every stochastic run ever recorded
    with_replacement = BatchStream(20, 5, True, 0).indices(1023, 1025)[:, 0]
    assert with_replacement.tolist() == [[1, 6, 4, 0, 11], [4, 3, 10, 3, 14]]
    without = BatchStream(20, 5, False, 0).indices(1023, 1025)[:, 0]
    assert without.tolist() == [[3, 13, 14, 15, 19], [0, 1, 3, 4, 15]]
    noise = LabelNoise(5, 1.0, 2000, 0).label_noise(1023, 1025)
    assert noise is not None
    assert noise[:, 0].tolist() == [[-1, -1, -1, 1, -1], [1, -1, -1, 1, -1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None, True, 0), "n = 0"),
        ((5, 6, True, 0), r"data.batch_size = 6 must be in \[1, n\] = \[1, 5\]"),
        ((5, 0, False, 0), "data.batch_size = 0"),
        ((5, 2, 1, 0), "data.replacement = 1"),
        ((5, 2, True, -1), "seeds = "),
        ((5, 2, True, [0, 2**64]), "seeds = "),
        ((5, 2, True, []), "at least one"),
    ],
    ids=str,
)
def test_batch_stream_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchStream(*arguments)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 2)])
def test_empty_windows_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="must satisfy 0 <= start < stop"):
        BatchStream(5, 2, True, 0).indices(start, stop)


# label noise


def test_label_noise_has_uniform_signs_of_one_size() -> None:
    noise = LabelNoise(6, 0.3, 10 * CHUNK, range(5)).label_noise(0, 2 * CHUNK)
    assert noise is not None
    assert noise.dtype == torch.float64
    assert sorted(noise.unique().tolist()) == [-0.3, 0.3]
    patterns = ((noise > 0).long() * 2 ** torch.arange(6)).sum(-1)  # 64 equally likely
    assert chisquare(torch.bincount(patterns.flatten())).pvalue > UNLIKELY


@settings(max_examples=25, deadline=None)
@given(until=st.integers(0, STEPS), cut=st.integers(1, STEPS - 1))
def test_label_noise_is_pure_and_stops(until: int, cut: int) -> None:
    noise = LabelNoise(3, 0.5, until, [1, 2, 1])
    forever = LabelNoise(3, 0.5, STEPS, [1, 2, 1]).label_noise(0, STEPS)
    assert forever is not None
    expected = torch.where(torch.arange(STEPS)[:, None, None] < until, forever, 0.0)
    parts = [noise.label_noise(*window) for window in ((0, cut), (cut, STEPS))]
    lengths = (cut, STEPS - cut)
    zeros = [torch.zeros(length, 3, 3, dtype=torch.float64) for length in lengths]
    found = [zero if part is None else part for part, zero in zip(parts, zeros, strict=True)]
    assert torch.equal(torch.cat(found), expected)
    assert (parts[0] is None) == (until == 0)
    assert torch.equal(forever[:, 0], forever[:, 2])
    part = LabelNoise(3, 0.5, STEPS, [1, 2, 1]).label_noise(cut, STEPS, torch.tensor([1]))
    assert part is not None
    assert torch.equal(part, forever[cut:, 1:2])


def test_no_amplitude_is_no_noise() -> None:
    assert LabelNoise(3, 0.0, 100, 0).label_noise(0, 10) is None


def test_noise_and_batches_of_one_seed_are_unrelated() -> None:
    rows = BatchStream(2, 1, True, 0).indices(0, 4 * CHUNK)[:, 0, 0]
    signs = LabelNoise(1, 1.0, 4 * CHUNK, 0).label_noise(0, 4 * CHUNK)
    assert signs is not None
    codes = 2 * rows + (signs[:, 0, 0] > 0)
    assert chisquare(torch.bincount(codes)).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, -1.0, 5, 0), "data.label_noise = -1"), ((3, 1.0, 2.5, 0), "data.noise_until = 2.5")],
    ids=str,
)
def test_label_noise_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelNoise(*arguments)
