"""Every experiment runs at tiny size from its config alone, twice to the same numbers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import experiments.__main__ as reproduction
from dln_momentum import InputError
from dln_momentum.config import CONF_DIR
from experiments import CLAIMS
from experiments.claim import VERDICTS, Outcome, configured, run
from experiments.claim_page import claim_page, tables
from experiments.figures import panels
from experiments.page import page
from tests.helpers import blank_figures

RECORD = {"commit": "0123456789", "date": "2026-01-31", "seconds": 1.5}


def run_tiny(name: str, directory: Path) -> dict:
    module = importlib.import_module(f"experiments.{name}")
    settings = configured(name, "scale=tiny", "num_workers=1")
    return run(settings, module.SECTION, module.CLAIM, module.study, directory)


def load(directory: Path) -> xr.Dataset:
    return xr.open_dataset(directory / "results.nc", engine="h5netcdf").load()


HEAVY = (
    "regimes", "small_lambda", "plane", "mgf_implicit_bias", "mirror_flow",
    "perturbed_initialisation", "smgd_implicit_bias", "published_settings", "sparser_region",
    "schedules_compared", "nesterov", "saddles", "progressive_sharpening", "ending_decay",
    "depth", "max_margin", "sparser_than_gradient_flow", "beyond_diagonal", "discretisation",
    "acceleration_rule",
)  # fmt: skip
"""Some seconds of a core each; the slow tests run them."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in CLAIMS],
)
def test_every_experiment_runs_and_repeats(name: str, tmp_path: Path) -> None:
    with blank_figures():  # drawing takes most of the time, and figures are not compared
        claim = run_tiny(name, tmp_path / "first")
        again = run_tiny(name, tmp_path / "second")
    assert claim["verdict"] in VERDICTS
    assert claim["name"] == name
    for file in ("figure.png", "figure.pdf", "results.nc", "config.yaml"):
        assert (tmp_path / "first" / file).stat().st_size > 0
    written = [(tmp_path / k / "claim.json").read_text() for k in ("first", "second")]
    assert written[0] == written[1]
    assert json.loads(written[0])["claim"] == again["claim"] == claim["claim"]
    assert load(tmp_path / "first").identical(load(tmp_path / "second"))
    published = json.loads(written[0]) | {"run": RECORD}
    assert f"#{name})" in page([published], CLAIMS)
    assert published["finding"] in page([published], CLAIMS)
    assert published["finding"] in claim_page(published, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_every_figure_can_be_drawn(name: str, tmp_path: Path) -> None:
    run_tiny(name, tmp_path)
    for file in ("figure.png", "figure.pdf"):
        assert (tmp_path / file).stat().st_size > 10_000


def test_an_experiment_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("{}")
    with pytest.raises(InputError, match="already holds an experiment"):
        run_tiny(CLAIMS[0], tmp_path)


def test_every_config_has_a_place_in_the_catalogue() -> None:
    written = {path.stem for path in (CONF_DIR / "study").glob("*.yaml")}
    assert written == set(CLAIMS)


@pytest.mark.slow
def test_the_command_line_takes_overrides_and_gives_the_numbers_of_the_config(
    tmp_path: Path,
) -> None:
    """In a process of its own; a key that is overridden is not changed by the scale."""
    overrides = ["scale=tiny", "num_workers=1", "data_seeds=3"]
    command = [sys.executable, "-m", "experiments.acceleration_rule", *overrides]
    subprocess.run([*command, f"hydra.run.dir={tmp_path / 'cli'}"], check=True)
    module = importlib.import_module("experiments.acceleration_rule")
    settings = configured("acceleration_rule", *overrides)
    run(settings, module.SECTION, module.CLAIM, module.study, tmp_path / "call")
    assert load(tmp_path / "cli").sizes["data_seed"] == 3
    assert load(tmp_path / "cli").identical(load(tmp_path / "call"))
    claims = [(tmp_path / k / "claim.json").read_text() for k in ("cli", "call")]
    assert claims[0] == claims[1]


def test_a_scale_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="scale = 'huge' must be one of full, fast, tiny"):
        configured("plane", "scale=huge")


@pytest.mark.slow
def test_one_failure_loses_no_other_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table and the page have a row for each experiment; the exit status says that one failed.

    `no_such` is no module, so that its process fails.
    """
    names = ("acceleration_rule", "no_such")
    monkeypatch.setattr(reproduction, "CLAIMS", names)
    monkeypatch.setattr(reproduction, "OUTPUTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["experiments", "--scale", "tiny", "--jobs", "1"])
    assert reproduction.main() == 1
    table = capsys.readouterr().out
    assert "failed to run" in table
    assert "no_such" in table
    assert "confirmed" in table
    text = (tmp_path / "reproduction.md").read_text()
    assert "| 1 | [acceleration_rule](#acceleration_rule) | " in text
    assert "| 2 | no_such | **failed to run** | - |" in text
    (figure,) = [line for line in text.splitlines() if line.startswith("![")]
    assert (tmp_path / figure.split("](")[1].rstrip(")")).exists()
    (log,) = tmp_path.glob("reproduction/*/no_such/log.txt")
    assert "No module named experiments.no_such" in log.read_text()
    (found,) = tmp_path.glob("reproduction/*/acceleration_rule/claim.json")
    record = json.loads(found.read_text())["run"]
    assert record["seconds"] > 0
    assert f"| {record['commit']} | {record['date']} |" in text


def claim_of(name: str, finding: str, **record: str) -> dict:
    """The contents of a claim.json, as far as pages read them."""
    texts = {key: f"The {key} of {name}." for key in ("claim", "caption")}
    fixed = {"section": "1", "sizes": "2 data sets", "command": f"python -m experiments.{name}"}
    return {
        "name": name,
        "verdict": "confirmed",
        "finding": finding,
        "measured": {"number": 0.5},
        "notes": ["A note."],
        "scale": "full",
        "settings": {"data_seeds": 2},
        "run": RECORD | record,
    } | texts | fixed  # fmt: skip


def make_run(folder: Path, *claims: dict) -> None:
    """A folder as a reproduction leaves it, with the files that are published."""
    for claim in claims:
        (folder / claim["name"]).mkdir(parents=True)
        for file in reproduction.PUBLISHED_FILES:
            (folder / claim["name"] / file).write_text(f"{file} of {claim['finding']}")
        (folder / claim["name"] / "claim.json").write_text(json.dumps(claim))


def test_publishing_one_claim_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of all claims has the new entry and the old ones, each with its own run."""
    published = tmp_path / "published"
    monkeypatch.setattr(reproduction, "PUBLISHED", published)
    old = [claim_of(name, f"Old {name}.", commit="aaaa", date="2026-01-01") for name in CLAIMS[:3]]
    make_run(tmp_path / "first", *old)
    reproduction.publish(tmp_path / "first", list(CLAIMS[:3]))
    new = claim_of(CLAIMS[1], "New.", commit="bbbb", date="2026-02-02")
    make_run(tmp_path / "second", new)
    reproduction.publish(tmp_path / "second", [CLAIMS[1]])
    text = (published / "README.md").read_text()
    for claim in (old[0], new, old[2]):
        record = claim["run"]
        assert f"{claim['finding']} | {record['commit']} | {record['date']} |" in text
        assert text.count(f'<a id="{claim["name"]}"></a>') == 1
    assert f"Old {CLAIMS[1]}." not in text
    assert "New." in (published / CLAIMS[1] / "figure.pdf").read_text()
    assert f"Old {CLAIMS[0]}." in (published / CLAIMS[0] / "figure.pdf").read_text()


@pytest.mark.parametrize("scale", ["fast", "tiny"])
def test_only_full_runs_are_published(
    scale: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments", "--scale", scale, "--publish"])
    monkeypatch.setattr(reproduction, "run_all", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit):
        reproduction.main()
    assert "only runs at scale full are published" in capsys.readouterr().err


def test_an_override_of_a_nested_key_leaves_the_rest_of_its_group_to_the_scale() -> None:
    plain = configured("beyond_diagonal", "scale=tiny")
    assert plain.relu.time == 16.0
    one = configured("beyond_diagonal", "scale=tiny", "relu.n=7")
    assert (one.relu.n, one.relu.time, one.deep_diagonal.time) == (7, 16.0, 40.0)
    # a key that the scale changes too; a group given as a whole; and a value that is none
    assert configured("beyond_diagonal", "scale=tiny", "relu.time=3").relu.time == 3
    both = configured("beyond_diagonal", "scale=tiny", "relu={n: 7, time: 3}")
    assert (both.relu.n, both.relu.time, both.relu.width) == (7, 3, plain.relu.width)
    assert configured("acceleration_rule", "scale=tiny", "rhos=[1, 4]").rhos == [1, 4]
    assert configured("plane", "scale=tiny", "num_workers=null").num_workers is None


def outcome(**changes) -> Outcome:
    fields = {
        "verdict": "confirmed",
        "finding": "It is so.",
        "sizes": "",
        "measured": {},
        "results": xr.Dataset(),
        "figure": Figure(),
        "caption": "",
    }
    return Outcome(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "confirmed where lambda <= 1"},
        {"finding": "no full stop"},
        {"finding": " ".join(["word"] * 70) + "."},
    ],
)
def test_a_verdict_is_one_of_three_and_a_finding_is_a_sentence(changes: dict) -> None:
    assert outcome().verdict == "confirmed"
    with pytest.raises(ValueError, match=r"verdict = |finding = "):
        outcome(**changes)


def test_every_panel_gets_a_letter_and_the_figure_its_problem_sizes(tmp_path: Path) -> None:
    figure = Figure()
    (first, second, third), image = figure.subplots(1, 3), np.zeros((2, 2))
    figure.colorbar(first.imshow(image), ax=first)
    second.set_title("title")
    third.axis("off")
    settings = configured("plane", "scale=tiny")
    study = lambda _: outcome(figure=figure, sizes="2 data sets")  # noqa: E731
    run(settings, "1", "claim", study, tmp_path)
    assert list(panels(figure)) == [first, second]
    assert "(a)" in first.get_title(loc="left")
    assert "(b)" in second.get_title()
    assert second.get_title().endswith(" title")
    assert figure.get_supxlabel() == "2 data sets"


def test_numbers_with_the_same_columns_share_a_table() -> None:
    by_lam = {f"lambda={k}": [0.5 * k, 1.0 * k, 2.0 * k] for k in (1, 2)}
    text = tables({"error": by_lam, "flag": True, "gap": {"a": by_lam | {"lambda=2": None}}})
    assert text == (
        "|  |  |\n|---|---|\n| flag | True |\n\n"
        "|  | lambda=1 | lambda=2 |\n|---|---|---|\n"
        "| error | 1 [0.5, 2] | 2 [1, 4] |\n"
        "| gap, a | 1 [0.5, 2] | - |\n"
    )


def test_a_wide_table_is_turned_on_its_side() -> None:
    rows = {name: {f"lambda={k}": k for k in range(12)} for name in ("a_b", "c")}
    lines = tables(rows).splitlines()
    assert lines[0] == "|  | a b | c |"
    assert lines[2] == "| lambda=0 | 0 | 0 |"
    assert len(lines) == 14
