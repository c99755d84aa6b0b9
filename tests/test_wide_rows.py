"""Large data: the row space from the Gram matrix, and no copies of X that nothing reads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import dln_momentum as dln
from dln_momentum import RowSpace, row_space, wide_rows
from dln_momentum.engine import scaled
from dln_momentum.wide_rows import factors_of, spectral_norm
from tests.helpers import make_engine

# X is conditioned up to 100, which multiplies the roundings of sums of 300 terms
ROUNDING = 1e-12


@pytest.fixture
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with data of 2^20 entries is done with any."""
    for module in (row_space, wide_rows, scaled):
        monkeypatch.setattr(module, "LARGE", 1)
    # several blocks of columns
    monkeypatch.setattr(wide_rows, "BLOCK", 500)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def centred(X: Tensor) -> Tensor:
    return X - X.mean(0)


MATRICES = {
    "gaussian": gaussian(20, 300),
    # a mean of 1 in every entry: the largest singular value is sqrt(n) times the others
    "uncentred": gaussian(20, 300) + 1,
    # rank n - 1, up to rounding
    "centred": centred(gaussian(20, 300)),
    "repeated rows": gaussian(10, 300).repeat(2, 1),
    "one direction": torch.outer(gaussian(5), gaussian(40)),
    # squares that leave the range of float64
    "huge": 1e150 * gaussian(20, 300),
    "small": 1e-150 * gaussian(20, 300),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_row_space_is_that_of_the_singular_values(
    name: str, request: pytest.FixtureRequest
) -> None:
    X, z = MATRICES[name], gaussian(4, MATRICES[name].shape[1], seed=1)
    by_svd = RowSpace.of(X)
    assert by_svd.mixing is None
    request.getfixturevalue("all_is_large")
    rows = RowSpace.of(X)
    assert rows.mixing is not None
    # products need no basis: it is not there
    y = X @ z[0]
    torch.testing.assert_close(rows.project(z), by_svd.project(z), rtol=0, atol=ROUNDING)
    assert rows.coordinates(rows.reject(z)).abs().max() < ROUNDING
    assert float(rows.range_residual(y)) < ROUNDING
    assert rows.rows is X
    assert "basis" not in vars(rows)
    assert (rows.rank, int(rows.ranks)) == (by_svd.rank, int(by_svd.ranks))
    identity = torch.eye(rows.rank, dtype=torch.float64)
    torch.testing.assert_close(rows.basis @ rows.basis.mT, identity, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(rows.coordinates(z[0]), rows.target(y), rtol=0, atol=ROUNDING * 10)
    torch.testing.assert_close(spectral_norm(X), torch.linalg.matrix_norm(X, 2))


def test_what_the_gram_matrix_cannot_decide_is_left_to_singular_values(
    all_is_large: None,
) -> None:
    left, right = (torch.linalg.qr(gaussian(size, 6, seed=size))[0] for size in (6, 50))
    for least, decided in ((1e-1, True), (1e-4, False), (1e-9, False), (1e-13, False), (0.0, True)):
        sigma = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, least], dtype=torch.float64)
        X = left @ torch.diag(sigma) @ right.mT
        assert (factors_of(X) is not None) == decided, least
        # 1e-13 is above the cut of 50 eps, so that it counts; rounding alone does not
        assert RowSpace.of(X).rank == (6 if least else 5), least
    assert factors_of(gaussian(7, 5)) is None


def test_a_problem_of_large_data_is_refused_for_the_same_reasons(all_is_large: None) -> None:
    X = gaussian(6, 40)
    dln.Problem(X, X @ gaussian(40, seed=1))
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = X.clone()
        broken[2, 3] = bad
        with pytest.raises(dln.InputError, match=r"X: 1 of 240 entries are not finite \(columns 3"):
            dln.Problem(broken, X[:, 0])
    with pytest.raises(dln.InputError, match=r"y is not in the range of X \(n = 6, rank 5\)"):
        dln.Problem(centred(X), torch.ones(6, dtype=torch.float64))


def test_data_that_are_nobody_elses_are_not_copied() -> None:
    problem = dln.sparse(4, 9, 2, seed=0)
    assert problem.to("cpu") is problem
    named = problem.replace(name="other")
    assert named.name == "other"
    assert named.X is problem.X
    assert named.X_test is problem.X_test
    # but what a caller holds is
    X = gaussian(3, 5)
    taken = dln.Problem(X, X @ gaussian(5, seed=1))
    assert taken.X.data_ptr() != X.data_ptr()
    array = X.numpy()
    assert dln.Problem(array, taken.y).X.data_ptr() != X.data_ptr()


@pytest.mark.parametrize("runs", [1, 16])
def test_an_engine_lays_large_data_out_once_and_gives_it_back(
    runs: int, all_is_large: None
) -> None:
    problem = dln.sparse(5, 40, 2, seed=0)
    engine = make_engine(problem, runs=runs, backend="numba")
    engine.advance(25)
    _ = engine.snapshot().path_sums
    (data,) = engine.scaled
    assert data.X is problem.X
    assert "A" not in vars(data)
    # two layouts for few runs, one for many; the first also pads d and n to whole registers
    assert list(data.layouts) == (["spans"] if runs == 1 else ["panels"])
    engine.stop()
    assert not data.layouts


def test_the_gradient_sum_of_large_data_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dln.sparse(5, 40, 2, seed=0)
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(scaled, "LARGE", least)
        engine = make_engine(problem, runs=3)
        engine.advance(25)
        found.append(engine.snapshot().gradient_sum)
    # the root of n divides one factor or the other of 5 products
    torch.testing.assert_close(*found, rtol=1e-13, atol=1e-15)


PEAK = """
import json, resource, sys
import torch, dln_momentum as dln
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def run(n, d):
    problem = dln.sparse(n, d, 3, seed=0, n_test=n)
    path = dln.train(problem, gamma=1e-3, beta=0.9, max_steps=20, records=2, trajectories=False)
    return path.summary
torch.set_num_threads(1)
run(20, 30)
before = peak()
n, d = 64, 2**18
summary = run(n, d)
print(json.dumps({"copies": (peak() - before) / (8 * n * d), "rank": 64}))
"""


@pytest.mark.slow
def test_a_run_on_large_data_holds_few_copies_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    copies = json.loads(done.stdout.splitlines()[-1])["copies"]
    # X, its test rows, and two layouts while it trains or V and a copy of a part while it is read
    # out; vectors of length d are 1/64 of X each, of which a run and its read-out hold some 50
    assert copies < 5.2
