# ruff: noqa: E501
"""Nothing that compiled code indexes with reaches it unchecked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import dln_momentum as dln
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.method import Method
from dln_momentum.schedules import Constant
from tests.hostile.frame import Case, refused, table

PROBLEM = dln.Problem([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]], [2.0, 1.0])
W = torch.full((1, 3), 0.5, dtype=torch.float64)


def engine(**keys: Any) -> dln.Engine:
    given = {"problem": PROBLEM, "gamma": [0.05], "beta": [0.05], "w_plus": W, "w_minus": W}
    return dln.Engine(**(given | keys))  # type: ignore[arg-type]


def advanced(**keys: Any) -> dln.Engine:
    found = engine(**keys)
    found.advance(5)
    return found


def with_state(**tensors: Any) -> None:
    found = engine()
    for name, tensor in tensors.items():
        setattr(found.state, name, tensor)
    found.advance(5)


def loaded(**tensors: Any) -> None:
    engine().load_state_dict(engine().state_dict() | tensors)


class _Shifted(BatchStream):
    shift = 5

    def indices(self, start: int, stop: int, runs: Any = None) -> Tensor:
        return super().indices(start, stop, runs) + self.shift


class _Below(_Shifted):
    shift = -5


class _Short(BatchStream):
    def indices(self, start: int, stop: int, runs: Any = None) -> Tensor:
        return super().indices(start, stop, runs)[:1]


class _ShortNoise(LabelNoise):
    def label_noise(self, start: int, stop: int, runs: Any = None) -> Tensor:
        return torch.ones(stop - start, 1, 1, dtype=torch.float64)


class _Single(Constant):
    name = "single"

    @property
    def is_constant(self) -> bool:
        return False

    def rates(self, gamma: Tensor, beta: Tensor, first: int, steps: int) -> tuple[Tensor, Tensor]:
        return gamma[None], beta[None]


def stream(kind: type = BatchStream, n: int = 2, seeds: Any = 0) -> BatchStream:
    return kind(n, 1, "with_replacement", seeds)


@pytest.mark.parametrize(
    "case",
    table(
        ("n-9", lambda: advanced(batches=stream(n=9)), "batches.n = 9", "n = 2"),
        ("n-5e7", lambda: advanced(batches=stream(n=50_000_000)), "batches.n = 5", "n = 2"),
        ("n-1", lambda: advanced(batches=stream(n=1)), "batches.n = 1", "n = 2"),
        ("seeds", lambda: advanced(batches=stream(seeds=[1, 2, 3])), "batches.seeds has 3", "1 run"),
        ("noise-n", lambda: advanced(label_noise=LabelNoise(9, 0.1, 5, 0)), "label_noise.n = 9", "n = 2"),
        ("noise-seeds", lambda: advanced(label_noise=LabelNoise(2, 0.1, 5, [1, 2])), "label_noise.seeds", "1 run"),
        ("noise-as-batches", lambda: advanced(batches=LabelNoise(2, 0.1, 5, 0)), "batches", "BatchStream"),
        ("batches-int", lambda: advanced(batches=3), "batches is a int", "BatchStream"),
        ("rows-far", lambda: advanced(batches=stream(_Shifted)), "batches gave rows", "[0, 2)"),
        ("rows-below", lambda: advanced(batches=stream(_Below)), "batches gave rows", "[0, 2)"),
        ("rows-short", lambda: advanced(batches=stream(_Short)), "batches gave [1, 1, 1]", "[5, 1 or 1"),
        ("noise-short", lambda: advanced(label_noise=_ShortNoise(2, 0.1, 9, 0)), "label_noise gave", "2] float64"),
        ("schedule-short", lambda: advanced(method=Method(schedule=_Single())), "schedule gave", "float64"),
        ("method-runs", lambda: engine(method=Method(weight_decay=torch.ones(2))), "[2]", "one or for 1"),
        ("kappa", lambda: engine(method=Method(kappa=[1.0, 2.0])), "kappa has 2", "d = 3"),
        ("w-zero", lambda: engine(w_plus=0 * W), "w_plus = 0", "not 0"),
        ("w-nan", lambda: engine(w_plus=torch.nan * W), "w_plus = nan", "finite"),
        ("w-inf", lambda: engine(w_minus=torch.inf * W), "w_minus = inf", "finite"),
        ("w-shape", lambda: engine(w_plus=W[:, :2]), "w_plus is [1, 2]", "[1, 3]"),
        ("no-run", lambda: engine(gamma=torch.ones(0), beta=torch.ones(0)), "gamma is [0]", "one run"),
        ("gamma-tiny", lambda: engine(gamma=[1e-200]), "gamma", "1e-150"),
        ("previous", lambda: engine(previous=(W,)), "previous has 1", "(w_plus, w_minus)"),
        ("back", lambda: engine().advance(-1), "steps = -1", ">= 0"),
        ("half", lambda: engine().advance(1.5), "steps = 1.5", "integer"),  # type: ignore[arg-type]
        ("run-back", lambda: engine().run(-1), "max_steps = -1", ">= 0"),
        ("runs-far", lambda: engine().snapshot(torch.tensor([5])), "runs", "[0, 1)"),
        ("state-type", lambda: with_state(w=torch.ones(2, 1, 3)), "w = [2, 1, 3] torch.float32", "float64"),
        ("state-shape", lambda: with_state(w=torch.ones(2, 1, 2).double()), "w = [2, 1, 2]", "[2, 1, 3]"),
        ("state-steps", lambda: with_state(steps=torch.zeros(1)), "steps = [1] torch.float32", "int64"),
        ("load-type", lambda: loaded(w=torch.ones(2, 1, 3)), "w = [2, 1, 3] torch.float32", "float64"),
        ("load-shape", lambda: loaded(w=torch.ones(2, 9, 3).double()), "w = [2, 9, 3]", "[2, 1, 3]"),
        ("load-status", lambda: loaded(status=torch.tensor([99])), "status [99]", "must be in"),
        ("load-back", lambda: loaded(steps=torch.tensor([-5])), "least steps -5", ">= 0"),
    ),
)  # fmt: skip
def test_an_engine_refuses(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    advanced()  # which loads the compiled code
    advanced(method=Method(weight_decay=0.1))
    refused(case, tmp_path)


@pytest.mark.parametrize(
    "w", [W.float(), W.tolist(), W.numpy(), W.clone().requires_grad_(), W.expand(3, 3).mT[:1]]
)
def test_numbers_of_any_kind_give_the_same_run(w: Any) -> None:
    assert torch.equal(advanced(w_plus=w).state.w, advanced().state.w)


def test_a_sparse_matrix_with_indices_outside_is_refused(tmp_path: Path) -> None:
    """SciPy would write to where they point, and end the process."""
    parts = {"format": b"csc", "shape": [1, 2], "data": [1.0], "indices": [10**8]}
    np.savez(tmp_path / "s.npz", indptr=[0, 1, 1], **parts)  # type: ignore[arg-type]
    np.save(tmp_path / "y.npy", np.ones(1))
    with pytest.raises(dln.InputError, match="X is a sparse matrix that is not valid"):
        dln.load(tmp_path / "s.npz", target_path=tmp_path / "y.npy")
    bad = scipy.sparse.csc_matrix(np.ones((1, 2)))
    bad.indices[0] = 10**8
    with pytest.raises(dln.InputError, match="X is a sparse matrix that is not valid"):
        dln.Problem(bad, [1.0])
