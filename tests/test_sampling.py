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

from dln_momentum import InputError, sparse
from dln_momentum.data.label_noise import LabelNoise
from dln_momentum.data.sampling import SAMPLINGS, BatchStream
from dln_momentum.data.streams import CHUNK

STEPS = 2 * CHUNK + 100
WITH, WITHOUT, RESHUFFLE = SAMPLINGS
SAMPLING = pytest.mark.parametrize("sampling", SAMPLINGS)
UNLIKELY = 1e-3
"""Level of the goodness-of-fit tests; their seeds are fixed, so they pass or fail for good."""


@SAMPLING
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_equals_the_same_part_of_the_whole(sampling: str, data) -> None:
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
    # 3 does not divide 7, nor 7 the 3 CHUNK reads of a chunk: epochs begin anywhere in either
    batches = BatchStream(7, 3, sampling, seeds)
    whole = BatchStream(7, 3, sampling, seeds).indices(0, STEPS).numpy()
    window = batches.indices(start, stop, runs).numpy()
    assert np.array_equal(window, whole[start:stop][:, numpy_cut])
    weights = batches.weights(start, stop, runs)
    assert weights is not None
    counts = (window[..., None] == np.arange(7)).sum(2)
    # a row is drawn three times at most, and 7/3 + 7/3 + 7/3 is rounded as 3 (7/3) is
    assert np.array_equal(weights.numpy(), counts * (7 / 3))


@pytest.mark.parametrize("sampling", [WITH, WITHOUT])
def test_every_row_is_drawn_equally_often(sampling: str) -> None:
    indices = BatchStream(7, 2, sampling, range(20)).indices(0, CHUNK)
    assert chisquare(torch.bincount(indices.flatten())).pvalue > UNLIKELY


def test_pairs_with_replacement_are_independent() -> None:
    first, second = BatchStream(5, 2, WITH, range(20)).indices(0, CHUNK).unbind(-1)
    assert chisquare(torch.bincount((5 * first + second).flatten())).pvalue > UNLIKELY


def test_batches_without_replacement_are_uniform_subsets() -> None:
    first, second = BatchStream(5, 2, WITHOUT, range(20)).indices(0, CHUNK).unbind(-1)
    assert bool((first != second).all())
    code = 5 * torch.minimum(first, second) + torch.maximum(first, second)
    counts = torch.bincount(code.flatten(), minlength=25)
    assert int(counts.sum()) == sum(int(counts[5 * i + j]) for i, j in combinations(range(5), 2))
    pairs = [int(counts[5 * i + j]) for i, j in combinations(range(5), 2)]
    assert chisquare(pairs).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("n", "batch_size"), [(6, 3), (6, 4), (7, 3), (5, 1), (9, 8), (3 * CHUNK + 1, 1), (2, 1)]
)
def test_reshuffling_reads_each_row_once_an_epoch(n: int, batch_size: int) -> None:
    seeds = [0, 2**64 - 1]
    steps = max(2 * CHUNK + 100, 4 * n // batch_size)
    indices = BatchStream(n, batch_size, RESHUFFLE, seeds).indices(0, steps)
    reads = indices.transpose(0, 1).reshape(len(seeds), -1)
    epochs = reads.shape[1] // n
    by_epoch = reads[:, : epochs * n].view(len(seeds), epochs, n)
    assert torch.equal(by_epoch.sort().values, torch.arange(n).expand(len(seeds), epochs, n))
    if n % batch_size == 0:
        # no batch lies in two epochs, so its rows are distinct
        assert bool((indices.sort().values.diff() > 0).all())


def test_reshuffling_draws_uniform_independent_permutations() -> None:
    """Of 3 rows: 6 permutations, 36 pairs of successive epochs, and of the same epoch's seeds."""
    seeds, n = list(range(12)), 3
    reads = BatchStream(n, 2, RESHUFFLE, seeds).indices(0, 6 * CHUNK).transpose(0, 1)
    # 6 CHUNK steps of 2 reads are 4 CHUNK epochs, and the chunks of steps end within epochs
    permutations = reads.reshape(len(seeds), 4 * CHUNK, n)
    code = 3 * permutations[..., 0] + permutations[..., 1]
    code = torch.unique(code, return_inverse=True)[1]
    successive, across = 6 * code[:, :-1] + code[:, 1:], 6 * code[:-1] + code[1:]
    for codes, kinds in ((code, 6), (successive, 36), (across, 36)):
        counts = torch.bincount(codes.flatten(), minlength=kinds)
        assert len(counts) == kinds
        assert chisquare(counts).pvalue > UNLIKELY
    # the epochs that reach over the end of a chunk, which another generator draws
    over = torch.tensor([CHUNK * 2 * chunk // n for chunk in (1, 2, 4, 5)])
    assert chisquare(torch.bincount(code[:, over].flatten(), minlength=6)).pvalue > UNLIKELY


def test_steps_seeds_and_chunks_are_independent() -> None:
    indices = BatchStream(4, 1, WITH, [0, 1, 2**32]).indices(0, 4 * CHUNK)[..., 0]
    in_step = 4 * indices[:-1] + indices[1:]
    across_seeds = 4 * indices[:, 0] + indices[:, 1]
    across_chunks = 4 * indices[:CHUNK] + indices[CHUNK : 2 * CHUNK]
    for codes in (in_step, across_seeds, across_chunks):
        assert chisquare(torch.bincount(codes.flatten(), minlength=16)).pvalue > UNLIKELY
    # generators that read 32 bits of a seed take 2^32 for 0
    assert not torch.equal(indices[:, 0], indices[:, 2])


@SAMPLING
def test_weighted_gradient_is_the_gradient_of_the_batch_loss(sampling: str) -> None:
    problem = sparse(8, 12, 2, seed=0)
    theta = torch.linspace(-1, 1, 12, dtype=torch.float64)
    batches = BatchStream(8, 3, sampling, 5)
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
    monkeypatch.setattr(BatchStream, "_draw", lambda *args: drawn.append(1) or draw(*args))
    stream = BatchStream(9, 2, WITH, [3, 5] * 500)
    stream.indices(0, 50)
    stream.weights(50, 100)
    assert len(drawn) == 2
    shared = BatchStream(9, 2, WITH, [3] * 1000)
    assert shared.indices(0, 50).shape == (50, 1000, 2)
    assert shared.indices(0, 50).stride(1) == 0
    one = BatchStream(9, 2, WITH, 3)
    assert one.indices(0, 50, slice(10, 20)).shape == (50, 1, 2)
    assert torch.equal(one.indices(0, 50)[:, 0], stream.indices(0, 50)[:, 0])


def test_full_batch() -> None:
    full = [BatchStream(4, None, sampling, 0) for sampling in SAMPLINGS]
    full += [BatchStream(4, 4, sampling, 0) for sampling in (WITHOUT, RESHUFFLE)]
    for batches in full:
        assert batches.full_batch
        assert batches.weights(0, 10) is None
        assert batches.indices(7, 9).tolist() == [[[0, 1, 2, 3]]] * 2
    partial = [BatchStream(4, 3, sampling, 0) for sampling in SAMPLINGS]
    for batches in (*partial, BatchStream(4, 4, WITH, 0)):
        assert not batches.full_batch
        assert batches.weights(0, 10) is not None


def test_streams_survive_pickling_and_compare_by_value() -> None:
    stream = BatchStream(9, 2, WITH, [3, 5])
    expected = stream.indices(0, 5)
    copy = pickle.loads(pickle.dumps(stream))
    assert copy == stream
    assert hash(copy) == hash(stream)
    assert torch.equal(copy.indices(0, 5), expected)


def test_the_streams_are_these() -> None:
    # a change of these values changes every stochastic run ever recorded
    with_replacement = BatchStream(20, 5, WITH, 0).indices(1023, 1025)[:, 0]
    assert with_replacement.tolist() == [[1, 6, 4, 0, 11], [4, 3, 10, 3, 14]]
    without = BatchStream(20, 5, WITHOUT, 0).indices(1023, 1025)[:, 0]
    assert without.tolist() == [[3, 13, 14, 15, 19], [0, 1, 3, 4, 15]]
    reshuffled = BatchStream(20, 5, RESHUFFLE, 0).indices(1023, 1025)[:, 0]
    assert reshuffled.tolist() == [[13, 0, 18, 5, 3], [1, 4, 18, 5, 17]]
    noise = LabelNoise(5, 1.0, 2000, 0).label_noise(1023, 1025)
    assert noise is not None
    assert noise[:, 0].tolist() == [[-1, -1, -1, 1, -1], [1, -1, -1, 1, -1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None, WITH, 0), "n = 0"),
        ((5, 6, WITH, 0), r"batch_size = 6 must be in \[1, n\] = \[1, 5\]"),
        ((5, 0, WITHOUT, 0), "batch_size = 0"),
        ((5, 2, "epochs", 0), "sampling = 'epochs' must be one of"),
        ((5, 2, True, 0), "sampling = True"),
        ((5, 2, WITH, -1), "seeds = "),
        ((5, 2, WITH, [0, 2**64]), "seeds = "),
        ((5, 2, WITH, []), "at least one"),
    ],
    ids=str,
)
def test_batch_stream_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchStream(*arguments)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (4, 2)])
def test_empty_windows_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="must satisfy 0 <= start < stop"):
        BatchStream(5, 2, WITH, 0).indices(start, stop)


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
    rows = BatchStream(2, 1, WITH, 0).indices(0, 4 * CHUNK)[:, 0, 0]
    signs = LabelNoise(1, 1.0, 4 * CHUNK, 0).label_noise(0, 4 * CHUNK)
    assert signs is not None
    codes = 2 * rows + (signs[:, 0, 0] > 0)
    assert chisquare(torch.bincount(codes)).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, -1.0, 5, 0), "label_noise = -1"), ((3, 1.0, 2.5, 0), "noise_until = 2.5")],
    ids=str,
)
def test_label_noise_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelNoise(*arguments)
