"""Files and folders that commands are given: missing, empty, truncated, of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dln_momentum.cli.job import Job
from dln_momentum.config import composed
from dln_momentum.outputs.status import Lock
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
        ("plot bad.nc x=gamma y=steps", ["source = bad.nc: bad.nc cannot be read: "]),
        ("plot bad.nc", ["source = bad.nc: bad.nc cannot be read: "]),
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
        ("plot . x=gamma y=steps", ["source = .: there is no run, flow or sweep to draw"]),
        ("plot .", ["source = .: there is no run, flow or sweep to draw"]),
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


OWN = {
    "text": b"just some words\n",
    "list": b"- 1\n- 2\n",
    "scalar": b"5\n",
    "empty": b"",
    "another program's": b"learning_rate: 0.1\nepochs: 5\n",
    "nul": b"\0" * 64,
    "open": b"a: [1, 2\n",
    "python": b"!!python/object/apply:os.mkdir [made]\n",
}


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("content", OWN)
def test_a_config_of_another_kind_is_refused(content: str, ask: Ask, tmp_path: Path) -> None:
    """`--config-name` of a file that no command can run leaves nothing behind."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_bytes(OWN[content])
    check_refused(ask, "train --config-dir own --config-name mine", [], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_what_cannot_be_written_to_is_refused(ask: Ask, tmp_path: Path) -> None:
    """Places below a file, which not even the superuser can write to."""
    (tmp_path / "file").write_text("mine")
    for line, key in (
        ("train paths.root=file", "hydra.run.dir"),
        ("train hydra.run.dir=file/run", "hydra.run.dir"),
        ("sweep hydra.run.dir=file", "hydra.run.dir"),
        ("train -m seed=1,2 hydra.sweep.dir=file/jobs", "hydra."),
        ("collect . --out file", "--out"),
        ("collect . --out file/out", "--out"),
    ):
        check_refused(ask, line, [key, "file"], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("app", ["train", "sweep", "flow", "verify"])
def test_a_locked_directory_is_not_continued(app: str, ask: Ask, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = composed(app, ["name=a", "data.n=5", "data.d=8", "data.s=1"])
    run.mkdir()
    (run / "config.yaml").write_text(Job(config, run, app).text)
    lock = Lock(run)
    assert lock.acquire()
    check_refused(
        ask, f"{app} resume=run", [f"hydra.run.dir = '{run}' is being written to by"], tmp_path
    )
    lock.release()
