"""Files and folders that commands are given: missing, empty, truncated, of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.lines import Ask, ask, check_refused, warm

__all__ = ["ask", "warm"]

CONTENT = {
    "empty": b"",
    "nul": b"\0" * 64,
    "text": b"not what it says\n",
    "cut": b"\x89HDF\r\n\x1a\n",
    "list": b"- 1\n- 2\n",
    "scalar": b"5\n",
    "tabs": b"a:\n\tb: 1\n",
    "python": b"!!python/object/apply:os.mkdir [made]\n",
    "latin": b"name: \xff\xfe\n",
    "open": b"a: [1, 2\n",
}


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        ("train data=file data.path=bad.npz", ["data.path"]),
        ("train data=file data.path=bad.csv", ["data."]),
        ("train model=arrays model.path=bad.npz", ["model.path"]),
        ("train resume=bad.ckpt", ["resume"]),
        ("flow compare=bad", ["compare = 'bad'"]),
        ("train resume=bad", ["resume = 'bad'"]),
        ("train --config-dir own data=mine", []),
        ("plot bad.nc x=gamma y=steps", []),
        ("plot bad.csv x=gamma y=steps", []),
    ],
)
def test_a_source_of_another_kind_is_refused(
    line: str, fragments: list[str], content: str, ask: Ask, tmp_path: Path
) -> None:
    data = CONTENT[content]
    for name in ("bad.npz", "bad.csv", "bad.ckpt", "bad.nc"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "bad").mkdir()
    for name in ("config.yaml", "summary.json", "history.nc"):
        (tmp_path / "bad" / name).write_bytes(data)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_bytes(data)
    (tmp_path / "own" / "mine.yaml").write_bytes(data)
    check_refused(ask, line, fragments, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        ("plot nowhere x=gamma y=steps", ["nowhere"]),
        ("plot x=gamma", ["give a folder"]),
        ("plot . w=gamma", ["unknown key w"]),
        ("plot . x=", ["x=: give x once"]),
        ("plot . x=gamma x=beta", ["give x once"]),
        ("plot . out=a.gif", ["out = a.gif must end in .png or .pdf"]),
        ("plot . out=no/such/a.png", ["there is no folder no/such"]),
        ("plot . x=gamma y=steps", []),
        ("collect nowhere", ["nowhere"]),
        ("collect . --format xml", ["--format xml must be one of csv"]),
        ("collect . --quantiles a", ["--quantiles"]),
        ("collect . --quantiles 2 --over seed", ["quantile = 2.0 must be in [0, 1]"]),
        ("collect . --columns nope", ["--columns nope"]),
        ("collect . --over nope", ["nope"]),
        ("collect . --out /dev/null", ["--out = '/dev/null' must be a directory"]),
    ],
)
def test_a_bad_line_of_plot_or_collect_is_refused(
    line: str, fragments: list[str], ask: Ask, tmp_path: Path
) -> None:
    check_refused(ask, line, fragments, tmp_path)
