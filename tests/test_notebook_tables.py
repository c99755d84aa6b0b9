"""What a notebook shows of runs, flows, certificates and verdicts."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import dln_momentum as dln
from dln_momentum.verification import Statement

PROBLEM = dln.sparse(n=5, d=8, s=1, seed=0)
SHORT: dict[str, Any] = {"max_steps": 200, "records": 3}


def cells(shown: Any) -> list[list[str]]:
    """The rows of the table that a notebook draws; not well-formed HTML is an error."""
    tree = ElementTree.fromstring(shown._repr_html_().replace("<br>", "<br/>"))
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


@pytest.fixture(scope="module")
def runs() -> dln.Run:
    return dln.train(PROBLEM, gamma=[[0.01, 0.02, 5.0]], beta=[[0.5], [0.9]], **SHORT)


def test_one_run_is_the_table_of_its_report() -> None:
    run = dln.train(PROBLEM, gamma=0.01, **SHORT)
    found = {row[0]: row for row in cells(run)}
    assert found["quantity"] == ["quantity", "predicted", "measured"]
    assert found["training loss"][1:] == ["0", f"{run.train_loss:.4g}"]
    assert found["KKT residual of theta_K"][1] == "0"
    assert float(found["KKT residual of theta_K"][2]) < 1e-11


def test_every_kind_of_run_has_a_table() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4, 8))
    labels = dln.Problem(X, np.sign(X[:, 0]), loss="logistic")
    for run in (
        dln.train(PROBLEM, gamma=5.0, **SHORT),
        dln.train(PROBLEM, path_sums="gradient_sum", **SHORT),
        dln.train(PROBLEM, method="nesterov", weight_decay=0.1, **SHORT),
        dln.train(PROBLEM, dln.power(0.3, 3.0), **SHORT),
        dln.train(labels, **SHORT),
        dln.train(PROBLEM, dln.power(0.3, [2.5, 3.0]), **SHORT),
        dln.flow(PROBLEM, lam=0.0, time=3.0),
        dln.flow(PROBLEM, lam=1.0, times=[1.0, 2.0]),
        dln.flow(PROBLEM, lam=dln.Annealed(1.0, 2.0, 3.0), time=3.0),
    ):
        assert len({len(row) for row in cells(run)}) == 1
        assert len(cells(run)) > 1


def test_many_runs_show_the_worst_and_where_it_is(runs: dln.Run) -> None:
    found = {row[0]: row for row in cells(runs)}
    assert found["steps"][1:] == ["200", "200", "(0, 0)"]
    worst = np.unravel_index(int(np.nanargmax(runs.train_loss)), runs.shape)
    assert found["train_loss"][3] == str(tuple(map(int, worst)))
    certificate = runs.certify()
    row = {row[0]: row for row in cells(certificate)}["kkt_residual"]
    known = certificate.kkt_residual[~np.isnan(certificate.kkt_residual)]
    # two runs diverged, and have no residual
    assert row[-1] == "2"
    assert float(row[2]) == pytest.approx(np.median(known), rel=1e-2)
    assert float(row[3]) == pytest.approx(known.max(), rel=1e-2)
    assert "kkt_residual: median" in repr(certificate)
    assert "undefined in 2" in repr(certificate)


def test_flows_and_certificates_of_paths() -> None:
    path = dln.flow(PROBLEM, lam=1.0, time=3.0)
    assert [row[0] for row in cells(path)[1:]] == [
        "F + lambda/2 ||w'||^2 at the end", "kkt_residual", "path_identity_error",
        "energy_balance_error", "distance_to_minimizer",
    ]  # fmt: skip
    assert len(cells(path.certify())) == 5
    many = dln.flow(PROBLEM, lam=[0.5, 1.0], time=3.0)
    assert [row[0] for row in cells(many)[1:]] == ["t", "train_loss", "energy"]
    run = dln.train(PROBLEM, callbacks=(seen := []).append, **SHORT)
    u, v = (np.stack([getattr(s, name)[0].numpy() for s in seen]) for name in "uv")
    found = dln.certify(PROBLEM, (u[:2], v[:2]), beta=0.9, gamma=0.01)
    assert found.is_valid
    assert {row[0]: row for row in cells(found)}["path_identity_error"][
        2
    ] == f"{found.tolerance:.1e}"
    assert f"(rounding {found.tolerances['kkt_residual']:.0e})" in repr(found)
    assert run.status == "max_steps"


def test_verdicts_are_a_table_with_what_failed_first() -> None:
    holds = Statement("2 = 2", 1, predicted=2.0, measured=2.0, error=0.0, tolerance=0.0)
    fails = Statement("2 <= 1 & 3", 1, relation="<=", predicted=1.0, measured=2.0, error=1.0)
    report = dln.Report([holds] * 70 + [fails])
    shown = cells(report)
    assert shown[1] == ["1", "2 <= 1 & 3", "<= 1", "2", "1.0e+00", "-", "VIOLATED"]
    assert len(shown) == len(report) + 1
