# ruff: noqa: E501
"""Random files, arguments and command lines: each is taken, or refused with one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dln_momentum
from tests.hostile.frame import LONGEST
from tests.hostile.lines import BEGUN, Ask, ask, warm
from tests.hostile.test_files import GOOD, Evil, X, Y, load, npy, npz, pt, sparse
from tests.hostile.test_values import keys_of_once

__all__ = ["ask", "warm"]

dln: Any = dln_momentum
QUICK, MANY = 15, 300
"""Examples of the quick and of the slow tests."""


def fuzzed(check: Callable[..., None], examples: int, **strategies: Any) -> Callable[..., None]:
    """A property with so many examples."""
    limits = settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    return limits(given(**strategies)(check))


SEEDS: dict[str, list[bytes]] = {
    "a.csv": [
        b"a,b,y\n1,2,3\n4,5.5,6\n", b"a;b;y\n1,5;2;3\n", b'"a","b",y\n"1",2,3\n', b",a,b,y\n0,1,2,3\n",
        b"a\tb\ty\n1\t2\t3\n", b"a b y\n1 2 3\n", b"\xef\xbb\xbfa,b,y\r\n1,NA,yes\r\n2,3,no\r\n",
    ],
    "a.npz": [GOOD, sparse(), npz(X=np.array([Evil()], dtype=object), y=Y), npz(X=X.astype(str), y=Y)],
    "a.npy": [npy(X), npy(np.array([Evil()], dtype=object))],
    "a.svm": [b"1 1:1 2:2\n-1 1:3 3:0.5 # a\n"],
    "a.pt": [pt({"X": torch.from_numpy(X), "y": torch.from_numpy(Y)}), pt(Evil())],
}  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name and the bytes of a file: random, or of a valid one with some changes."""
    name = draw(st.sampled_from(sorted(SEEDS)))
    if draw(st.integers(0, 5)) == 0:
        return name, draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(SEEDS[name])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = at + draw(st.integers(0, 6))
        kept = draw(st.sampled_from(["changed", "removed", "doubled", "cut", "inserted"]))
        new = draw(st.one_of(st.binary(max_size=6), st.sampled_from(PIECES)))
        content[at:end] = {
            "changed": new[: end - at], "removed": b"", "doubled": content[at:end] * 2,
            "inserted": new + content[at:end], "cut": b"",
        }[kept]  # fmt: skip
        if kept == "cut":
            del content[at:]
    return name, bytes(content)


PIECES = [
    b"\0", b",", b";", b'"', b"\n", b"\r", b"-", b"nan", b"inf", b"1e999", b"1e-320", b"\xff", b" ",
    b"(", b"|O", b"<c16", b"99999999", b"\xef\xbb\xbf", b"'", b":", b"#", b"NA", b"True",
]  # fmt: skip


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, and with little memory, so that no number in a file takes all of it."""
    from dln_momentum import arrays
    from dln_momentum.data import arrays as files_of_arrays

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arrays, "MOST_BYTES", 2**22)
    monkeypatch.setattr(files_of_arrays, "available_bytes", lambda: 2**24)
    np.save("y.npy", Y)


def check_file(limited: None, file: tuple[str, bytes]) -> None:
    """A file is read, to finite numbers, or refused by its name; nothing in it is executed."""
    name, content = file
    Path(name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            problem = load(name)
        except dln.InputError as error:
            told = str(error)
            assert name in told or told.startswith("target"), told
            assert len(told) <= LONGEST
        else:
            assert bool(problem.X.isfinite().all() & problem.y.isfinite().all())
    assert not Path("executed").exists()


test_random_files = fuzzed(check_file, QUICK, file=files())
test_many_random_files = pytest.mark.slow(fuzzed(check_file, MANY, file=files()))

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 0.1, 0.9, 1e-3, 1e-150, 1e-320, 1e150, 1e308, 2**70, np.float32(0.1)]),
    st.floats(), st.floats(0, 1), st.integers(-3, 30), st.booleans(), st.none(),
)  # fmt: skip
VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, max_size=3),
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=2), min_size=1, max_size=2),
    st.sampled_from(["a", "", {}, {"a": 1}, 1j, np.ones((2, 1)), torch.ones(3), torch.ones(0)]),
    st.lists(st.floats(0.001, 0.999), min_size=1, max_size=3).map(np.array),
)
GRADED = ("gamma", "beta", "lam", "eps", "weight_decay", "dampening", "kappa", "seed", "speed", "tol",
          "records", "batch_size", "sampling", "label_noise", "noise_until", "divergence_bound",
          "decay_until", "decoupled", "path_sums", "trajectories", "curvature", "num_workers",
          "margin", "gradient_tol", "method", "schedule", "backend", "start")  # fmt: skip
PROBLEM = dln.Problem([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]], [2.0, 1.0])
KNOWN = {status.label for status in dln.Status} - {"running"}


def check_train(keys: dict[str, Any]) -> None:
    """A run ends as one of the known statuses, or its arguments are refused, one by its name."""
    keys = {"max_steps": 20, "records": 3} | keys
    start = keys.pop("start", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            made = None if start is None else dln.uniform(start)
            run = dln.train(PROBLEM, made, **keys)
        except dln.InputError as error:
            told = str(error)
            assert any(name in told for name in (*keys, "alpha", "(gamma, beta)")), (keys, told)
            assert len(told) <= LONGEST
        else:
            assert set(np.ravel(run.status)) <= KNOWN
            assert np.shape(run.theta)[-1] == PROBLEM.d


ARGUMENTS = st.dictionaries(st.sampled_from(GRADED), VALUES, max_size=4)
test_random_arguments = fuzzed(check_train, QUICK, keys=ARGUMENTS)
test_many_random_arguments = pytest.mark.slow(fuzzed(check_train, MANY, keys=ARGUMENTS))


def check_engine(arguments: dict[str, Any]) -> None:
    """An engine of random arrays advances, or refuses them."""
    plain = torch.full((1, 3), 0.5, dtype=torch.float64)
    keys = {"gamma": [0.05], "beta": [0.5], "w_plus": plain, "w_minus": plain} | arguments
    steps = keys.pop("steps", 3)
    told = ""
    try:
        dln.Engine(PROBLEM, **keys).advance(steps)
    except dln.InputError as error:
        told = str(error)
    assert not told or any(name in told for name in (*keys, "steps")), (keys, told)


TENSORS = st.tuples(
    st.lists(st.integers(0, 4), max_size=3), st.floats(-1e3, 1e3) | st.sampled_from([np.nan, 1e200]),
    st.sampled_from([np.float64, np.float32, np.int64, np.complex128, object]),
).map(lambda given: _filled(*given))  # fmt: skip


def _filled(shape: list[int], value: float, kind: Any) -> np.ndarray:
    if kind is np.int64:
        value = 1 if np.isnan(value) or abs(value) > 1e9 else round(value)
    with np.errstate(over="ignore"):
        return np.full(shape, value).astype(kind)


ENGINES = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(TENSORS, VALUES) for key in ("gamma", "beta", "w_plus", "w_minus", "steps")
    },
)
test_random_engines = fuzzed(check_engine, QUICK, arguments=ENGINES)
test_many_random_engines = pytest.mark.slow(fuzzed(check_engine, MANY, arguments=ENGINES))

TEXTS = st.one_of(
    st.sampled_from(
        ["-1", "0", "1", "0.5", "1e-320", "1e308", "nan", "inf", "null", "true", "", "abc", "[]", "{}",
         "[1,2]", "{a: 1}", "[[1]]", "${seed}", "${nope}", "'a b'", "1_000", "0x10", "1e", "range(3)",
         "../x", "~", "*", "\\,", "sparse", "linspace:0:1:3", "geomspace:1:2", "1e400", "--", "a=b"]
    ),
    st.integers(-3, 40).map(str), st.floats().map(repr), st.text(max_size=4),
)  # fmt: skip


@st.composite
def words(draw: st.DrawFn) -> tuple[str, str]:
    """A key of the schemas, sometimes misspelt, and the word that gives it a value."""
    key = draw(st.sampled_from(keys_of_once("train")))
    # more of these is only larger
    value = draw(st.integers(-3, 40).map(str) if key in LARGE else TEXTS)
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(key)))
        key = key[:at] + draw(st.sampled_from("xe.=+~@[/ ")) + key[at + draw(st.integers(0, 1)) :]
    return key, draw(st.sampled_from(["", "", "", "+", "++"])) + f"{key}={value}"


LARGE = ("data.n", "data.d", "data.s", "data.n_test", "trainer.max_steps", "trainer.records")


def check_line(warm: None, ask: Ask, given: list[tuple[str, str]]) -> None:
    """A line begins a job, or one error names one of its keys."""
    answer = ask("train", "data.n=5", "data.d=8", "data.s=1", *(word for _, word in given))
    assert answer.code in (2, BEGUN), answer
    if answer.code == 2:
        assert "Traceback" not in answer.said
        named = {part for key, word in given for part in (key, key.strip("+~ "), word)}
        named |= {key.partition(".")[0] for key, _ in given}
        assert any(name in answer.said for name in named), (given, answer.said)


LINES = st.lists(words(), min_size=1, max_size=3)
test_random_lines = pytest.mark.slow(fuzzed(check_line, 15, given=LINES))
