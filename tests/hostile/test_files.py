# ruff: noqa: E501
"""Files of data that somebody hands over: refused with the file and the reason, or read right."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum
from tests.hostile.frame import Case, leaves_no_trace, refused

dln: Any = dln_momentum
X, Y = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]]), np.array([2.0, 1.0])


class Evil:
    """A pickle that makes a folder where it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def archive(**members: bytes) -> bytes:
    """Members as they are, whatever they declare."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def declared(shape: str, kind: str = "<f8", content: bytes = bytes(16)) -> bytes:
    """An array whose header declares a shape, above a few bytes."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def pt(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def sparse(**changes: Any) -> bytes:
    parts = {
        "format": b"csr",
        "shape": [2, 3],
        "data": [1.0, 2.0],
        "indices": [0, 1],
        "indptr": [0, 1, 2],
    }
    return npz(**(parts | changes))


GOOD = npz(X=X, y=Y)
MIDDLE = len(GOOD) // 2

REFUSED: list[tuple[str, str, bytes | str, dict[str, Any], str]] = [
    # id, name, content, arguments, what is said beside the name
    ("empty", "a.csv", "", {}, "it is empty"),
    ("blank", "a.csv", "\n\n \n", {}, ""),
    ("header-only", "a.csv", "a,b,y\n", {}, "no row below its header"),
    ("one-column", "a.csv", "y\n1\n2\n", {}, "no numeric column beside 'y'"),
    ("all-text", "a.csv", "a,y\nb,1\nc,2\n", {}, "no numeric column beside 'y'"),
    ("no-target", "a.csv", "a,b\n1,2\n", {}, "target = 'y' must be one of the columns: a, b"),
    ("target-twice", "a.csv", "y,b,y\n1,2,3\n", {}, "must be the name of one column"),
    ("no-header", "a.csv", "1,2\n3,4\n", {}, "the first row must hold the names"),
    ("nul-first", "a.csv", b"a,b,y\n1,\0,3\n", {}, "NUL bytes"),
    ("nul-late", "a.csv", b"a,b,y\n" + b"1,2,3\n" * 50 + b"1,\0,3\n", {}, "NUL bytes"),
    ("nul-in-text", "a.csv", b"a,b,y\n" + b"1,x,3\n" * 50 + b"1,x\0z,3\n", {}, "NUL bytes"),
    ("utf-16", "a.csv", "a,b,y\n1,2,3\n".encode("utf-16"), {}, "NUL bytes"),
    ("latin-1", "a.csv", "ä,y\n1,2\n".encode("latin-1"), {}, "line 1, byte 1"),
    ("latin-late", "a.csv", b"a,b,y\n" + b"1,x,3\n" * 50 + b"1,\xe4,3\n", {}, "line 52, byte 3"),
    ("binary", "a.csv", bytes(range(128, 256)) * 4, {}, ""),
    ("long-row", "a.csv", "a,b,y\n1,2,3\n1,2,3,4,5\n", {}, "line 3"),
    ("long-row-late", "a.csv", "a,b,y\n" + "1,2,3\n" * 50 + "1,2,3,4\n", {}, "line 52"),
    ("short-row", "a.csv", "a,b,y\n1,2,3\n1,2\n", {}, "finite"),
    ("missing", "a.csv", "a,b,y\n1,,3\n1,2,3\n", {}, "finite"),
    ("missing-y", "a.csv", "a,b,y\n1,1,\n1,2,3\n", {}, "finite"),
    ("na", "a.csv", "a,b,y\n1,NA,3\n1,2,3\n", {}, "finite"),
    ("inf", "a.csv", "a,b,y\n1,inf,3\n1,2,3\n", {}, "finite"),
    ("overflow", "a.csv", "a,b,y\n1,1e400,3\n", {}, ""),
    ("huge", "a.csv", "a,b,y\n1,1e200,3\n", {}, "1e+150"),
    ("quote-open", "a.csv", 'a,b,y\n1,"2,3\n4,5,6\n', {}, ""),
    ("text-target", "a.csv", "a,y\n1,b\n2,c\n3,d\n", {}, "2 classes"),
    ("text-cell", "a.csv", "a,b,y\n1,2,3\nx,2,3\n", {"rows": 5}, "rows = 5"),
    ("comma-and-comma", "a.csv", "a,b,y\n1,2,3\n", {"separator": ",", "decimal": ","}, "both"),
    ("wrong-separator", "a.csv", "a,b,y\n1,2,3\n", {"separator": ";"}, "a,b,y"),
    ("long-line", "a.csv", "a" * 10**6 + ",b,y\n1,2,3\n", {"target": "z"}, ""),
    ("long-name", "a.csv", "a" * 2000 + ",b,y\n1,2,3\n", {"target": "z"}, "aaa..."),
    ("many-columns", "a.csv", ",".join(f"c{i}" for i in range(10**4)) + "\n1\n", {"target": "z"}, ""),
    ("gz-cut", "a.csv.gz", gzip.compress(b"a,b,y\n1,2,3\n" * 99)[:40], {}, ""),
    ("gz-not", "a.csv.gz", "a,b,y\n1,2,3\n", {}, "gzip"),
    ("gz-flipped", "a.csv.gz", gzip.compress(b"a,b,y\n1,2,3\n", mtime=0)[:-5] + bytes(5), {}, ""),
    ("bz2-cut", "a.csv.bz2", bz2.compress(b"a,b,y\n1,2,3\n" * 99)[:40], {}, ""),
    ("npz-as-csv", "a.csv", GOOD, {}, "NUL bytes"),
    ("npz-empty", "a.npz", b"", {}, ""),
    ("npz-no-member", "a.npz", archive(), {}, "lacks X and y"),
    ("npz-cut", "a.npz", GOOD[:MIDDLE], {}, ""),
    ("npz-cut-end", "a.npz", GOOD[:-8], {}, ""),
    ("npz-head", "a.npz", GOOD[:4], {}, ""),
    ("npz-flipped", "a.npz", GOOD[:140] + b"\xff" + GOOD[141:], {}, ""),
    ("npz-behind-a-script", "a.npz", b"#!/bin/sh\n" + GOOD, {}, ""),
    ("npz-npy", "a.npz", npy(X), {}, "one array without a name"),
    ("npz-pickle", "a.npz", pickle.dumps(Evil()), {}, ""),
    ("npz-object", "a.npz", npz(X=X, y=np.array([Evil(), 1], dtype=object)), {}, "never loaded"),
    ("npz-lacks-y", "a.npz", npz(X=X, z=Y), {}, "lacks y"),
    ("npz-1d", "a.npz", npz(X=Y, y=Y), {}, "must have 2 dimensions"),
    ("npz-3d", "a.npz", npz(X=np.ones((1, 2, 3)), y=Y), {}, "must have 2 dimensions"),
    ("npz-no-rows", "a.npz", npz(X=np.ones((0, 3)), y=np.ones(0)), {}, ""),
    ("npz-lengths", "a.npz", npz(X=X, y=np.ones(3)), {}, "y has shape"),
    ("npz-complex", "a.npz", npz(X=X * 1j, y=Y), {}, "number"),
    ("npz-structured", "a.npz", npz(X=np.zeros((2, 3), dtype="f8,i4"), y=Y), {}, "number"),
    ("npz-dates", "a.npz", npz(X=np.zeros((2, 3), dtype="M8[s]"), y=Y), {}, "number"),
    ("npz-text", "a.npz", npz(X=X.astype(str), y=Y), {}, "number"),
    ("npz-bytes", "a.npz", npz(X=X.astype(bytes), y=Y), {}, "number"),
    ("npz-void", "a.npz", npz(X=np.zeros((2, 3), dtype="V8"), y=Y), {}, "number"),
    ("npz-nan", "a.npz", npz(X=X * np.nan, y=Y), {}, "finite"),
    ("npz-declares-8-TB", "a.npz", archive(X=declared("(1000000, 1000000)"), y=npy(Y)), {}, "GiB"),
    ("npz-declares-20-GB", "a.npz", archive(X=declared("(50000, 50000)"), y=npy(Y)), {}, ""),
    ("npz-declares-1e30", "a.npz", archive(X=declared("(10**15, 10**15)"), y=npy(Y)), {}, ""),
    ("npz-declares-1e36", "a.npz", archive(X=declared(f"({10**18}, {10**18})"), y=npy(Y)), {}, ""),
    ("npz-ignored-is-large", "a.npz", archive(X=npy(X), y=npy(Y), z=declared("(50000, 50000)")), {}, ""),
    ("npz-negative", "a.npz", archive(X=declared("(-1, 3)"), y=npy(Y)), {}, ""),
    ("npz-short", "a.npz", archive(X=declared("(2, 3)"), y=npy(Y)), {}, ""),
    ("npz-code", "a.npz", archive(X=declared("(__import__('os').mkdir('executed'), 3)"), y=npy(Y)), {}, ""),
    ("npz-object-descr", "a.npz", archive(X=declared("(2, 3)", "|O", pickle.dumps(Evil())), y=npy(Y)), {}, ""),
    ("sparse-outside", "a.npz", sparse(indices=[0, 10**8]), {"target_path": "y.npy"}, "not valid"),
    ("sparse-negative", "a.npz", sparse(indices=[0, -5]), {"target_path": "y.npy"}, ""),
    ("sparse-indptr", "a.npz", sparse(indptr=[0, 9, 2]), {"target_path": "y.npy"}, ""),
    ("sparse-short", "a.npz", sparse(indptr=[0, 1]), {"target_path": "y.npy"}, ""),
    ("sparse-format", "a.npz", sparse(format=b"xyz"), {"target_path": "y.npy"}, ""),
    ("sparse-large", "a.npz", sparse(shape=[2, 10**12]), {"target_path": "y.npy"}, "GiB"),
    ("sparse-shape", "a.npz", sparse(shape=[-2, 3]), {"target_path": "y.npy"}, ""),
    ("sparse-alone", "a.npz", sparse(), {}, "target_path must name the file"),
    ("npy-alone", "a.npy", npy(X), {}, "target_path must name the file"),
    ("npy-object", "a.npy", npy(np.array([Evil()], dtype=object)), {}, "never loaded"),
    ("npy-cut", "a.npy", npy(X)[:140], {}, ""),
    ("npy-head", "a.npy", npy(X)[:9], {}, ""),
    ("npy-declares-8-TB", "a.npy", declared("(1000000, 1000000)"), {}, "GiB"),
    ("npy-declares-20-GB", "a.npy", declared("(50000, 50000)"), {}, ""),
    ("npy-npz", "a.npy", GOOD, {}, ".npz"),
    ("npy-text", "a.npy", "1 2 3\n", {}, ""),
    ("npy-0d", "a.npy", npy(np.float64(3)), {"target_path": "y.npy"}, "must have 2 dimensions"),
    ("pt-evil", "a.pt", pt(Evil()), {}, ""),
    ("pt-evil-among", "a.pt", pt({"X": torch.ones(2, 3), "y": Evil()}), {}, ""),
    ("pt-pickle", "a.pt", pickle.dumps(Evil()), {}, ""),
    ("pt-text", "a.pt", "no archive", {}, ""),
    ("pt-cut", "a.pt", pt({"X": torch.ones(2, 3), "y": torch.ones(2)})[:300], {}, ""),
    ("pt-number", "a.pt", pt(3), {}, "must hold tensors"),
    ("pt-list", "a.pt", pt([1, 2]), {}, "must hold tensors"),
    ("pt-lacks", "a.pt", pt({"X": torch.ones(2, 3), "z": torch.ones(2)}), {}, "lacks y"),
    ("pt-complex", "a.pt", pt({"X": torch.ones(2, 3) * 1j, "y": torch.ones(2)}), {}, "number"),
    ("pt-meta", "a.pt", pt({"X": torch.ones(2, 3, device="meta"), "y": torch.ones(2)}), {}, ""),
    ("pt-sparse-large", "a.pt", pt({"X": torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (10**6, 10**6), check_invariants=True), "y": torch.ones(2)}), {}, "GiB"),
    ("pt-expanded", "a.pt", pt({"X": torch.ones(1).expand(10**6, 10**6), "y": torch.ones(2)}), {}, "GiB"),
    ("svm-empty", "a.svm", "", {}, ""),
    ("svm-text", "a.svm", "what is this\n", {}, ""),
    ("svm-far", "a.svm", "1 1:1\n-1 2000000000:1\n", {}, ""),
    ("svm-negative", "a.svm", "1 -5:1\n-1 2:1\n", {}, ""),
    ("svm-nan", "a.svm", "1 1:nan 2:1\n-1 2:1 3:1\n", {}, ""),
    ("suffix", "a.xlsx", "a,b,y\n1,2,3\n", {}, "must end in .csv"),
    ("no-suffix", "a", "a,b,y\n1,2,3\n", {}, "must end in .csv"),
    ("zip-suffix", "a.csv.zip", archive(), {}, "must end in .csv"),
    ("target-cut", "a.npy", npy(X), {"target_path": "cut.npy"}, "target_path"),
    ("target-missing", "a.npy", npy(X), {"target_path": "none.npy"}, "target_path"),
    ("target-csv", "a.npy", npy(X), {"target_path": "y.csv"}, "target_path"),
    ("parquet-text", "a.parquet", "a,b,y\n1,2,3\n", {}, ""),
    ("parquet-cut", "a.parquet", b"PAR1" + bytes(16) + b"PAR1", {}, ""),
]  # fmt: skip


def load(name: str, **arguments: Any) -> Any:
    """With the column y of a table, unless another is asked for."""
    is_table = any(part in name.lower() for part in (".csv", ".parquet", ".tsv", ".txt"))
    return dln.load(name, **({"target": "y"} if is_table else {}) | arguments)


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import the readers, so that the time and the descriptors of a case are its own."""
    folder = tmp_path_factory.mktemp("warm")
    np.save(folder / "y.npy", Y)
    for name, content in (
        ("a.csv", b"a,b,y\n1,2,3\n"), ("a.npz", GOOD), ("a.svm", b"1 1:1 2:1\n-1 3:1\n"),
        ("a.pt", pt({"X": torch.ones(1, 2), "y": torch.ones(1)})), ("s.npz", sparse()),
    ):  # fmt: skip
        (folder / name).write_bytes(content)
        load(str(folder / name), **({"target_path": folder / "y.npy"} if name == "s.npz" else {}))


@pytest.mark.parametrize(
    ("name", "content", "arguments", "reason"),
    [pytest.param(*case[1:], id=case[0]) for case in REFUSED],
)
def test_a_file_is_refused(
    name: str, content: bytes | str, arguments: dict[str, Any], reason: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    np.save("y.npy", Y)
    Path("cut.npy").write_bytes(npy(Y)[:130])
    given = next(iter(arguments)) if arguments and not name.startswith("a.np") else name
    given = "target_path" if arguments.get("target_path", "y.npy") != "y.npy" else given
    says = "target" if reason in OF_TARGET else given
    refused(Case("", lambda: load(name, **arguments), says, reason), tmp_path)


LOADED: list[tuple[str, str, bytes | str, dict[str, Any], Any, Any]] = [
    # id, name, content, arguments, X, y
    ("plain", "a.csv", "a,b,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("equals", "b=1,c=[2].csv", "a,b,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("space", " a b .csv", "a,b,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("unicode", "dé数据.csv", "ä,数,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("emoji-target", "a.csv", "a,b,🎯\n1,2,3\n", {"target": "🎯"}, [[1, 2]], [3]),
    ("upper", "A.CSV", "a,b,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("bom", "a.csv", "\ufeffa,b,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("bom-target", "a.csv", "\ufeffy,b,a\n3,2,1\n", {}, [[2, 1]], [3]),
    ("crlf", "a.csv", "a,b,y\r\n1,2,3\r\n", {}, [[1, 2]], [3]),
    ("cr", "a.csv", "a,b,y\r1,2,3\r", {}, [[1, 2]], [3]),
    ("no-end", "a.csv", "a,b,y\n1,2,3", {}, [[1, 2]], [3]),
    ("blank-lines", "a.csv", "\na,b,y\n\n1,2,3\n\n", {}, [[1, 2]], [3]),
    ("spaces", "a.csv", "a, b, y\n1, 2, 3\n", {}, [[1, 2]], [3]),
    ("quotes", "a.csv", '"a","b","y"\n"1","2","3"\n', {}, [[1, 2]], [3]),
    ("quoted-mark", "a.csv", '"a,1",b,y\n1,2,3\n', {}, [[1, 2]], [3]),
    ("semicolon", "a.csv", "a;b;y\n1;2;3\n", {}, [[1, 2]], [3]),
    ("tab", "a.tsv", "a\tb\ty\n1\t2\t3\n", {}, [[1, 2]], [3]),
    ("bar", "a.txt", "a|b|y\n1|2|3\n", {}, [[1, 2]], [3]),
    ("white", "a.txt", "a   b  y\n1 2    3\n", {}, [[1, 2]], [3]),
    ("decimal-commas", "a.csv", "a;b;y\n1,5;2;3,25\n", {}, [[1.5, 2]], [3.25]),
    ("exponents", "a.csv", "a,b,y\n1e-2,2E3,.3\n", {}, [[0.01, 2000]], [0.3]),
    ("every-digit", "a.csv", "a,b,y\n0.1234567890123456789,2,3\n", {}, [[0.12345678901234568, 2]], [3]),
    ("index", "a.csv", ",a,b,y\n0,1,2,3\n", {}, [[1, 2]], [3]),
    ("index-of-r", "a.csv", "a,b,y\n7,1,2,3\n", {}, [[1, 2]], [3]),
    ("end-mark", "a.csv", "a,b,y\n1,2,3,\n", {}, [[1, 2]], [3]),
    ("twice", "a.csv", "a,a,y\n1,2,3\n", {}, [[1, 2]], [3]),
    ("text", "a.csv", "a,b,town,y\n1,2,Ulm,3\n", {}, [[1, 2]], [3]),
    ("truths", "a.csv", "a,b,c,y\nTrue,2,4,3\nFalse,1,1,2\n", {}, [[1, 2, 4], [0, 1, 1]], [3, 2]),
    ("classes", "a.csv", "a,b,c,y\n1,2,4,no\n0,1,1,yes\n", {}, [[1, 2, 4], [0, 1, 1]], [-1, 1]),
    ("gz", "a.csv.gz", gzip.compress(b"a,b,y\n1,2,3\n"), {}, [[1, 2]], [3]),
    ("bz2", "a.csv.bz2", bz2.compress(b"a,b,y\n1,2,3\n"), {}, [[1, 2]], [3]),
    ("npz", "a.npz", GOOD, {}, X, Y),
    ("npz-fortran", "a.npz", npz(X=np.asfortranarray(X), y=Y), {}, X, Y),
    ("npz-big-endian", "a.npz", npz(X=X.astype(">f4"), y=Y.astype(">i2")), {}, X, Y),
    ("npz-half", "a.npz", npz(X=X.astype(np.float16), y=Y.astype(np.uint8)), {}, X, Y),
    ("npz-column", "a.npz", npz(X=X, y=Y[:, None]), {}, X, Y),
    ("npz-flags", "a.npz", npz(X=X > 0.7, y=Y), {}, X > 0.7, Y),
    ("npz-masked", "a.npz", npz(X=np.ma.masked_array(X, X > 9), y=Y), {}, X, Y),
    ("npz-more", "a.npz", npz(X=X, y=Y, __import__=Y), {}, X, Y),
    ("sparse", "a.npz", sparse(), {"target_path": "y.npy"}, [[1, 0, 0], [0, 2, 0]], Y),
    ("npy", "a.npy", npy(X), {"target_path": "y.npy"}, X, Y),
    ("pt", "a.pt", pt((torch.from_numpy(X), torch.from_numpy(Y))), {}, X, Y),
    ("pt-grad", "a.pt", pt({"X": torch.from_numpy(X).requires_grad_(), "y": torch.from_numpy(Y)}), {}, X, Y),
    ("pt-bfloat", "a.pt", pt({"X": torch.from_numpy(X).bfloat16(), "y": torch.from_numpy(Y)}), {}, X, Y),
    ("svm", "a.svm", "3 1:1 2:2 # a comment\n", {}, [[1, 2]], [3]),
]  # fmt: skip
OF_TARGET = ("target = 'y' must be one of the columns: a, b", "must be the name of one column",
             "the first row must hold the names", "2 classes")  # fmt: skip
"""What is said of the column that is y."""


@pytest.mark.parametrize(
    ("name", "content", "arguments", "rows", "targets"),
    [pytest.param(*case[1:], id=case[0]) for case in LOADED],
)
def test_a_file_is_read_right(
    name: str, content: bytes | str, arguments: dict[str, Any], rows: Any, targets: Any,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    np.save("y.npy", Y)
    with leaves_no_trace(tmp_path):
        problem = load(name, **arguments)
    # the numbers are written with all their digits
    assert np.array_equal(problem.X, np.array(rows, dtype=float))
    assert np.array_equal(problem.y, np.array(targets, dtype=float))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _private(path: Path) -> None:
    path.write_bytes(GOOD)
    path.chmod(0)


PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "pipe": _fifo,
    "loop": _loop,
    "unreadable": _private,
    "dangling": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.npy", "a.pt", "a.svm", "a.csv.gz"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_readable_file_is_refused(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    PLACES[place](Path(name))
    if place == "unreadable" and os.access(name, os.R_OK):
        pytest.skip("root reads every file")
    allowed = "cannot be read" if place == "unreadable" else "is not a file"
    refused(Case("", lambda: load(name), f"path = '{name}'", allowed), tmp_path)
