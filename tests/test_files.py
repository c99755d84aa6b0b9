"""Problems from files: each format gives the arrays that were written, or says what is wrong."""

from __future__ import annotations

import bz2
import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse as scipy_sparse
from sklearn.datasets import dump_svmlight_file

from dln_momentum import InputError, load
from tests.test_data import ROUNDING, interpolation_error, random_rows

ROWS = random_rows()
"""Six rows of nine numbers."""

# arrays


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


def test_npz_round_trip(tmp_path: Path) -> None:
    arrays = {key: value for key, value in vars(ROWS).items() if key != "notes"}
    # vectors may be columns
    written = arrays | {key: arrays[key][:, None] for key in ("y", "theta_star", "y_test")}
    problem = load(str(save(tmp_path / "p.npz", **written, extra=1)))
    for key, value in arrays.items():
        assert np.array_equal(getattr(problem, key).numpy(), value)
    assert problem.notes == ("keys ignored: extra",)
    centred = load(tmp_path / "p.npz", standardise=True)
    assert centred.row_space.rank == 5
    assert interpolation_error(centred) < ROUNDING


def save_npy(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "X.npy", ROWS.X)
    np.save(folder / "y.npy", ROWS.y[:, None])
    return folder / "X.npy", folder / "y.npy"


def save_sparse(folder: Path) -> tuple[Path, Path]:
    scipy_sparse.save_npz(folder / "X.npz", scipy_sparse.csr_matrix(ROWS.X))
    return folder / "X.npz", save(folder / "targets.npz", y=ROWS.y)


def save_pair(folder: Path) -> tuple[Path, None]:
    torch.save((torch.from_numpy(ROWS.X), torch.from_numpy(ROWS.y)), folder / "pair.pt")
    return folder / "pair.pt", None


def save_tensors(folder: Path) -> tuple[Path, None]:
    tensors = {"X": torch.from_numpy(ROWS.X).to_sparse(), "y": torch.from_numpy(ROWS.y)[:, None]}
    torch.save(tensors, folder / "named.pth")
    return folder / "named.pth", None


def save_tensor(folder: Path) -> tuple[Path, Path]:
    torch.save(torch.from_numpy(ROWS.X), folder / "X.pt")
    np.save(folder / "y.npy", ROWS.y)
    return folder / "X.pt", folder / "y.npy"


def save_libsvm(folder: Path) -> tuple[Path, None]:
    dump_svmlight_file(ROWS.X, ROWS.y, str(folder / "rows.svm"))
    (folder / "rows.svm.bz2").write_bytes(bz2.compress((folder / "rows.svm").read_bytes()))
    return folder / "rows.svm.bz2", None


@pytest.mark.parametrize(
    "write",
    [save_npy, save_sparse, save_pair, save_tensors, save_tensor, save_libsvm],
    ids=lambda write: write.__name__,
)
def test_every_format_of_arrays(
    write: Callable[[Path], tuple[Path, Path | None]], tmp_path: Path
) -> None:
    path, target_path = write(tmp_path)
    problem = load(path, target_path=target_path)
    # 16 digits of a number are 1e-16 of it; libsvm's text has them, the other formats are exact
    rounding = 1e-15 if "svm" in path.name else 0
    np.testing.assert_allclose(problem.X, ROWS.X, rtol=rounding, atol=0)
    np.testing.assert_allclose(problem.y, ROWS.y, rtol=rounding, atol=0)


def test_single_precision_columns_are_standardised_in_double(tmp_path: Path) -> None:
    X = (np.random.default_rng(0).standard_normal((6, 9)) + 1000).astype(np.float32)
    path = save(tmp_path / "p.npz", X=X, y=np.arange(6, dtype=np.int8))
    problem = load(path, standardise=True)
    np.testing.assert_allclose(problem.X.mean(0), 0, atol=1e-10)  # 1e3 times float64 rounding
    assert interpolation_error(problem) < ROUNDING


def test_text_of_two_classes_in_an_archive(tmp_path: Path) -> None:
    y, y_test = np.array(["no", "yes"]), np.array([["yes"], ["yes"], ["no"]])
    path = save(tmp_path / "p.npz", X=np.eye(3)[:2], y=y, X_test=np.eye(3), y_test=y_test)
    problem = load(path)
    assert problem.y.tolist() == [-1.0, 1.0]
    assert problem.y_test is not None
    assert problem.y_test.tolist() == [1.0, 1.0, -1.0]
    assert problem.notes == ("y: 'no' is read as -1, 'yes' as +1",)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    X, y = np.ones((1, 2)), np.ones(1)
    for name in ("empty.npz", "empty.npy", "empty.pt", "empty.parquet"):
        (folder / name).write_bytes(b"")
    for name in ("junk.npz", "junk.pt", "junk.svm", "junk.csv.gz"):
        (folder / name).write_bytes(b"junk")
    np.save(folder / "bare", X)
    (folder / "bare.npy").rename(folder / "bare.npz")
    np.save(folder / "alone.npy", X)
    torch.save({"X": X}, folder / "numpy.pt")
    torch.save([1.0], folder / "list.pt")
    scipy_sparse.save_npz(folder / "huge.npz", scipy_sparse.csr_matrix((40_000, 40_000)))
    return {
        "missing": (folder / "none.npz", "path = .*none.npz' is not a file"),
        "folder": (folder, r"must end in \.csv, .*\.svm or \.libsvm"),
        "compressed": (folder / "p.npz.gz", r"p\.npz\.gz' must end in"),
        "keys": (save(folder / "k.npz", X=X, z=y), "lacks y; it holds X, z"),
        "no keys": (save(folder / "n.npz"), "lacks X and y; it holds nothing"),
        "empty": (folder / "empty.npz", "cannot be read"),
        "empty npy": (folder / "empty.npy", "cannot be read"),
        "empty pt": (folder / "empty.pt", "cannot be read"),
        "empty parquet": (folder / "empty.parquet", "cannot be read"),
        "junk": (folder / "junk.npz", "cannot be read"),
        "junk pt": (folder / "junk.pt", "cannot be read"),
        "junk svm": (folder / "junk.svm", "cannot be read"),
        "junk gz": (folder / "junk.csv.gz", "cannot be read"),
        "objects": (folder / "numpy.pt", "cannot be read"),
        "no tensors": (folder / "list.pt", "it must hold tensors X and y"),
        "bare array": (folder / "bare.npz", "one array without a name"),
        "X alone": (folder / "alone.npy", "target_path must name the file that holds y"),
        "huge": (folder / "huge.npz", r"40000 x 40000, would take 11.9 GiB"),
        "pickle": (
            save(folder / "o.npz", X=np.array([[{}, 1]]), y=y),
            "pickled objects among them",
        ),
        "text": (
            save(folder / "t.npz", X=np.array([["a", "b"]]), y=y),
            "X = ndarray of <U1 must",
        ),
        "three classes": (
            save(folder / "c.npz", X=np.eye(4)[:3], y=np.array(["a", "b", "c"])),
            "y must be numeric, or text of 2 classes; it has 'a', 'b', 'c'",
        ),
        "many": (save(folder / "m.npz", X=np.ones((2, 1, 2)), y=y), "X has shape .2, 1, 2., must"),
        "full rank": (
            save(folder / "l.npz", X=np.eye(3)[:, :2], y=np.arange(3)),
            "X has rank d = 2",
        ),
        "NaN": (save(folder / "nan.npz", X=X * np.nan, y=y), "X: 2 of 2 entries are not finite"),
    }


@pytest.mark.parametrize("standardise", [False, True])
def test_bad_archives_are_refused(tmp_path: Path, standardise: bool) -> None:
    for path, message in bad_files(tmp_path).values():
        with pytest.raises(InputError, match=message):
            load(path, standardise=standardise)


def test_a_file_of_targets_that_holds_none_is_refused(tmp_path: Path) -> None:
    X, _ = save_npy(tmp_path)
    for name, message in (
        ("no.npy", "target_path = .*no.npy' is not a file"),
        ("t.csv", "target_path = .*t.csv' must end in .npz, .npy, "),
        (save(tmp_path / "z.npz", z=ROWS.y).name, "target_path = .*z.npz' lacks y; it holds z"),
    ):
        with pytest.raises(InputError, match=message):
            load(X, target_path=tmp_path / name)


# tables

CSV = "name,a,flag,b,c,y\nu,1,True,2,0.1,1\nv,3,False,5,0.2,-1\n"


def table(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


def test_a_table_gives_its_numeric_columns(tmp_path: Path) -> None:
    path = table(tmp_path, CSV)
    problem = load(path, target="y")
    assert problem.X.tolist() == [[1.0, 1.0, 2.0, 0.1], [3.0, 0.0, 5.0, 0.2]]
    assert problem.y.tolist() == [1.0, -1.0]
    assert problem.notes == ("columns that are not numeric dropped: name",)
    assert load(path, "y", standardise=True).row_space.rank == 1


NUMBERS = ((1.5, 2.0, 3.25, 1.0), (4.0, 5.5, 6.0, 2.0))
"""Two rows of a, b, c and the target y."""


def written(separator: str, decimal: str = ".", end: str = "\n") -> str:
    rows = [separator.join(str(x).replace(".", decimal) for x in row) for row in NUMBERS]
    return end.join([separator.join("abcy"), *rows, ""])


@pytest.mark.parametrize(
    ("text", "options", "note"),
    [
        (written(","), {}, None),
        (written(";"), {}, None),
        (written("\t"), {}, None),
        (written("|"), {}, None),
        (written(" "), {}, None),
        (written(";", ",", "\r\n"), {}, "decimal commas read in: a, b, c, y"),
        (written("\t", ","), {"decimal": "comma"}, None),
        (written("#"), {"separator": "#"}, None),
        (written(";", ","), {"separator": "semicolon", "decimal": ","}, None),
        ("\ufeff" + written(","), {}, None),
        (written(", "), {}, None),
        ('"a";"b";"c";"y"\n1.5;2;3.25;1\n4;5.5;6;2\n', {}, None),
        (",a,b,c,y\n0,1.5,2,3.25,1\n1,4,5.5,6,2\n", {}, "as an index: Unnamed: 0"),
        ("Unnamed: 0,a,b,c,y\n0,1.5,2,3.25,1\n1,4,5.5,6,2\n", {}, "as an index: Unnamed: 0"),
        ('"a","b","c","y"\n"1",1.5,2,3.25,1\n"2",4,5.5,6,2\n', {}, "as an index: the first"),
        ("a,b,c,y\n1.5,2,3.25,1,\n4,5.5,6,2,\n", {}, None),
        ("a,b,c,y,\n1.5,2,3.25,1,\n4,5.5,6,2,\n", {}, "as an index: Unnamed: 4"),
    ],
    ids=range(17),
)
def test_tables_as_programs_write_them(
    tmp_path: Path, text: str, options: dict, note: str | None
) -> None:
    problem = load(table(tmp_path, text), target="y", **options)
    assert torch.column_stack([problem.X, problem.y]).tolist() == [list(row) for row in NUMBERS]
    assert [*problem.notes] == [] if note is None else problem.notes[0].endswith(note)


def test_columns_that_number_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((5, 6))
    frame = pd.DataFrame(numbers, columns=[*"abcdef"]).assign(y=rng.standard_normal(5))
    gaps = [1, 2, 5, 9, 12]
    for name, values, dropped in (
        ("id", gaps, True), ("Index", range(5), True), ("sample_id", range(1, 6), True),
        ("id", gaps[::-1], False), ("id", np.array(gaps) / 2, False), ("dose", gaps, False),
    ):  # fmt: skip
        frame.assign(**{name: values}).to_csv(tmp_path / "t.csv", index=False)
        problem = load(tmp_path / "t.csv", "y")
        assert problem.d == 7 - dropped
        said = f"columns that number the rows dropped: {name}; another name keeps them"
        assert [*problem.notes] == [said] * dropped
    frame.assign(year=range(1990, 1995)).to_csv(tmp_path / "t.csv", index=False)
    problem = load(tmp_path / "t.csv", "y")
    assert problem.d == 7
    assert [*problem.notes] == ["columns that rise by 1 from row to row are columns of X: year"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b,y\n1,2,3\n4,5,6\n7,8,9,10,11\n", "line 4 has 5 fields where those above have 3"),
        (b'a,b,y\n1,2,3\n"4,5,6\n7,8,9\n', "the double quote that opens in line 3 is not closed"),
        (b"a,b,y\n1,2,3\n4,\xff,6\n", r"line 3, byte 3 \(0xff\), is not text in UTF-8"),
    ],
    ids=["ragged", "quote", "latin"],
)
def test_what_cannot_be_read_is_named_by_its_line(
    tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(InputError, match=rf"path = '.*t.csv' cannot be read: {message}"):
        load(tmp_path / "t.csv", "y")


def test_tables_of_pandas_are_read_bit_by_bit(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS.X, columns=[*"abcdefghi"]).assign(y=ROWS.y)
    frame.to_csv(tmp_path / "t.tsv", sep="\t")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    frame.astype("Float64").to_parquet(tmp_path / "t.parquet")
    for name in ("t.tsv", "t.csv.gz", "t.parquet"):
        problem = load(tmp_path / name, "y")
        assert np.array_equal(problem.X, ROWS.X)
        assert np.array_equal(problem.y, ROWS.y)


def test_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'dln-momentum\[parquet\]'"):
        load(tmp_path / "t.parquet", "y")


@pytest.mark.parametrize("text", ["a,b,kind\n1,2,ham\n3,5,spam\n", "a;b;kind\n1;2;ham\n3;5;spam\n"])
def test_text_of_two_classes_is_signs(tmp_path: Path, text: str) -> None:
    problem = load(table(tmp_path, text.replace("5", "6")), "kind", rows=1)
    assert {*problem.y.tolist(), *problem.y_test.tolist()} == {-1.0, 1.0}  # pyright: ignore
    assert problem.notes[0] == "target = 'kind': 'ham' is read as -1, 'spam' as +1"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (CSV, None, "target must name the column of y, one of name, a, flag, b, c, y"),
        (CSV, "z", "target = 'z' must be one of the columns"),
        ("a,b,k\n1,2,u\n3,4,v\n5,6,w\n", "k", "target = 'k' must be numeric, or text of 2 classes"),
        ("a,b,k\n1,2,u\n3,4,\n5,6,w\n", "k", "target = 'k' is text, with 1 missing of 3"),
        ("y,town\n1,Ulm\n", "y", "has no numeric column beside 'y'"),
        ("", "y", "cannot be read: it is empty; its first line must hold the names"),
        (
            "a,b,y\n1,2,3\n1,,2\n4,NA,\n",
            "y",
            r"(?s)column 'b' is missing .* in 2 of 3 rows, first in row 2 .*'y' .* first in row 3 ",
        ),
        ("a,b,y\n", "y", "holds no row below its header"),
        ("a,b,t,y\n1,2,u,2\n2,3,v,3\n", "y", r"(?s)X has rank d = 2.*data.rows=1 .*dropped: t"),
        ("a,b,c,y\n1,2,3,4\n1,2,3,5\n", "y", "y is not in the range of X .*data.rows=1 "),
        ("1,2.5,3\n4,5,6\n", "y", "the first row must hold the names of the columns"),
        ("a#b#y\n1#2#3\n", "y", r"a#b#y \(separated by comma; `separator` names another\)"),
    ],
    ids=range(12),
)
def test_bad_tables_are_refused(
    tmp_path: Path, text: str, target: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(table(tmp_path, text), target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "path is missing"),
        ({"path": "p.npz", "target": "y"}, r"target = 'y' is for tables \(\.csv, .*not for \.npz"),
        ({"path": "p.pt", "separator": ";", "decimal": ","}, "2 problems"),
        ({"path": "t.csv", "target_path": "y.npy"}, "target_path = 'y.npy' is for files of arrays"),
        (
            {"path": "t.csv", "separator": "colon"},
            "separator = 'colon' must be one character, or c",
        ),
        ({"path": "t.csv", "separator": ",", "decimal": "comma"}, "separator and decimal are both"),
        ({"path": "t.parquet", "decimal": "comma"}, "decimal = 'comma' is for tables of text"),
    ],
    ids=range(7),
)
def test_arguments_that_do_not_fit_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    table(tmp_path, CSV)
    (tmp_path / "t.parquet").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load(**options)


# rows


def wine(folder: Path, rows: int = 40) -> Path:
    """More rows than columns, separated by semicolons, as the wine quality data are."""
    X = np.random.default_rng(3).standard_normal((rows, 4))
    frame = pd.DataFrame(X, columns=["fixed acidity", "pH", "sugar", "alcohol"])
    path = folder / "wine.csv"
    frame.assign(quality=np.arange(rows)).to_csv(path, sep=";", index=False)
    return path


def test_drawn_rows_and_the_rest(tmp_path: Path) -> None:
    path = wine(tmp_path)
    with pytest.raises(InputError, match=r"rank d = 4 \(n = 40\).*data\.rows=3 draws them"):
        load(path, "quality")
    problem = load(path, "quality", rows=3, seed=5)
    assert problem.y_test is not None
    # y numbers the rows: each is in exactly one of the two sets
    assert sorted([*problem.y.tolist(), *problem.y_test.tolist()]) == list(range(40))
    assert problem.name == "wine.csv rows=3 seed=5"
    assert "3 of 40 rows drawn with seed 5" in problem.notes[0]
    assert torch.equal(load(path, "quality", rows=2, seed=5).X, problem.X[:2])
    assert not torch.equal(load(path, "quality", rows=3, seed=6).X, problem.X)
    # the statistics are those of the training rows
    standard = load(path, "quality", rows=3, seed=5, standardise=True)
    np.testing.assert_allclose(standard.X.mean(0), 0, atol=ROUNDING)
    assert standard.X_test is not None
    assert float(standard.X_test.mean(0).abs().min()) > 1e-3


def test_test_rows_of_the_file_stay_and_all_rows_leave_none(tmp_path: Path) -> None:
    path = save(tmp_path / "p.npz", **{k: v for k, v in vars(ROWS).items() if k != "notes"})
    problem = load(path, rows=4)
    assert problem.X_test is not None
    assert np.array_equal(problem.X_test, ROWS.X_test)  # pyright: ignore[reportArgumentType]
    assert "left out" in problem.notes[0]
    bare = save(tmp_path / "bare.npz", X=ROWS.X, y=ROWS.y)
    assert load(bare, rows=6).X_test is None
    for rows, seed, count in ((0, 0, 1), (7, 0, 1), (2.5, -1, 2)):
        with pytest.raises(InputError) as caught:
            load(bare, rows=rows, seed=seed)  # pyright: ignore[reportArgumentType]
        assert len(caught.value.problems) == count
