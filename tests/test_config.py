"""Configs: defaults stand once, groups do what they say, and a saved config runs again."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hydra import compose
from omegaconf import DictConfig, OmegaConf

import dln_momentum as dln
from dln_momentum import EngineOptions, InputError, summarise
from dln_momentum.cli.job import Job
from dln_momentum.cli.setup import Setup, build
from dln_momentum.cli.train import train
from dln_momentum.config import CONF_DIR, composed, with_all_rates
from dln_momentum.config.help import keys as help_keys
from dln_momentum.config.help import register_resolvers
from dln_momentum.config.location import initialised, options_of
from dln_momentum.config.reading import leaves
from dln_momentum.data import LOADERS
from tests.helpers import run_app, run_job

APPS = ("train", "sweep", "flow", "verify")
QUICK = ["data.n=5", "data.d=8", "data.s=1", "trainer.max_steps=300", "trainer.records=5"]


def defaults_of(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


# ---- one set of defaults


def test_a_call_from_python_has_the_defaults_of_the_command() -> None:
    config = composed("train")
    python = defaults_of(dln.train)
    same = {"sampling": "sampling.kind", "seed": "seed"}
    same |= {key: f"sampling.{key}" for key in ("batch_size", "label_noise", "noise_until")}
    same |= {
        key: f"trainer.{key}"
        for key in ("max_steps", "tol", "margin", "gradient_tol", "divergence_bound", "records")
    }
    same |= {key: f"engine.{key}" for key in ("backend", "path_sums", "num_workers")}
    same |= {"speed": "model.speed"}
    for argument, key in same.items():
        assert python[argument] == OmegaConf.select(config, key), key


@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_has_the_defaults_of_its_config(kind: str) -> None:
    given = {str(key): config for key, config in composed_data(kind).items() if key != "kind"}
    python = defaults_of(LOADERS[kind])
    # a loss is a section of its own
    assert set(given) == set(python) - {"loss"}
    for key, value in given.items():
        mine = list(python[key]) if isinstance(python[key], tuple) else python[key]
        assert mine == value, key


def composed_data(kind: str) -> dict[str, Any]:
    data = OmegaConf.masked_copy(composed("train", [f"data={kind}", *path_of(kind)]), ["data"])
    found = OmegaConf.to_container(data.data)
    assert isinstance(found, dict)
    return {str(key): None if value == "x" else value for key, value in found.items()}


def path_of(kind: str) -> list[str]:
    return ["data.path=x"] if kind == "file" else []


def test_the_engine_has_the_defaults_of_its_config() -> None:
    config, options = composed("train"), EngineOptions()
    for key in ("backend", "path_sums", "tile_runs"):
        assert getattr(options, key) == config.engine[key]
    for key in ("tol", "divergence_bound"):
        assert getattr(options, key) == config.trainer[key]


# ---- help


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_help_says_what_every_key_means(app: str) -> None:
    """Except for the arguments of a logger or monitor, which Lightning documents."""
    done = subprocess.run(
        [sys.executable, "-m", f"dln_momentum.cli.{app}", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = done.stdout
    for group in {"train": ["data", "optimizer", "logger"], "flow": ["flow"]}.get(app, ["data"]):
        for option in options_of(group, app):
            assert re.search(rf"^{group}=.*\b{option}\b", shown, re.MULTILINE), option
    config = composed(app)
    for key in leaves(config):
        section, _, leaf = key.partition(".")
        if section in ("callbacks", "logger"):
            continue
        name = leaf or section
        assert re.search(rf"^ *{name}: .*# \w", shown, re.MULTILINE), key
    assert f"\ndln-{app} " in shown


@pytest.mark.slow
def test_help_shows_the_values_that_the_command_line_gives() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dln_momentum.cli.train", "data=digits", "data.n=12", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^  n: 12 +# training rows", done.stdout, re.MULTILINE)
    assert "Two classes of handwritten digits" in done.stdout
    assert re.search(r"^  classes: \[0, 1\] +# the first", done.stdout, re.MULTILINE)
    assert callable(help_keys)


def test_help_shows_what_has_no_value_yet() -> None:
    """``dln-train data=file --help`` is asked by whoever does not know data.path."""
    register_resolvers()
    with initialised():
        shown = help_keys(_root_=compose("train", ["data=file"], return_hydra_config=True))
    assert re.search(r"^  path: \?\?\? +# the file", shown, re.MULTILINE)


# ---- types


def test_whole_numbers_may_be_written_as_floats() -> None:
    setup = build(composed("train", ["trainer.max_steps=1e3", "trainer.records=2e1", "data.n=1e1"]))
    assert (setup.plan.max_steps, setup.plan.records, setup.problem.n) == (1000, 20, 10)
    assert isinstance(setup.plan.max_steps, int)


# ---- optimizer


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([], ["gamma", "beta"]),
        (["optimizer=lam_eps"], ["lam", "eps"]),
        (["optimizer=lam_beta"], ["lam", "beta"]),
        (["optimizer=lam_gamma"], ["lam", "gamma"]),
        (["optimizer=eps_beta"], ["eps", "beta"]),
        (["optimizer.eps=0.1", "optimizer.beta=0.9"], ["eps", "beta"]),
        (["optimizer.lam=1", "optimizer.eps=0.1"], ["lam", "eps"]),
        (["optimizer.beta=0.9", "optimizer.lam=1"], ["lam", "beta"]),
        (["optimizer.gamma=0.01", "optimizer.lam=1"], ["lam", "gamma"]),
    ],
)
def test_every_pair_names_the_default_run(words: list[str], keys: list[str]) -> None:
    config = composed("train", words)
    assert list(config.optimizer) == keys
    values: Any = OmegaConf.to_container(config, resolve=True)
    saved = with_all_rates(values)["optimizer"]
    # a pair determines the others up to the rounding of a few operations
    assert dict(saved) == pytest.approx({"gamma": 0.01, "beta": 0.9, "lam": 1, "eps": 0.1})
    momentum = build(config).momentum
    assert (momentum.gamma, momentum.beta) == (saved["gamma"], saved["beta"])


@pytest.mark.slow
@pytest.mark.parametrize("words", [["optimizer.lam=3", "optimizer.eps=0.17"], ["model=gaussian"]])
def test_a_saved_config_runs_again_to_the_same_numbers(tmp_path: Path, words: list[str]) -> None:
    first = run_app(tmp_path / "first", *QUICK, *words)
    rates = OmegaConf.load(tmp_path / "first" / "config.yaml").optimizer
    assert all(isinstance(rates[name], float) for name in ("gamma", "beta", "lam", "eps"))
    done = subprocess.run(
        [sys.executable, "-m", "dln_momentum.cli.train", "--config-dir", "first",
         "--config-name", "config", "hydra.run.dir=again"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    kept = json.loads((tmp_path / "first" / "summary.json").read_text())
    other = ("seconds", "commit")  # a commit may be made in between
    assert {k: v for k, v in again.items() if k not in other} == {
        k: v for k, v in kept.items() if k not in other
    }
    configs = [(tmp_path / run / "config.yaml").read_text() for run in ("first", "again")]
    assert configs[0] == configs[1]
    assert first.summary["status"] == again["status"]


def test_four_rates_that_disagree_are_refused() -> None:
    config = composed("train")
    OmegaConf.set_struct(config, False)
    values: Any = OmegaConf.to_container(config, resolve=True)
    saved = with_all_rates(values)["optimizer"]
    config.optimizer = saved | {"lam": 2.0}
    with pytest.raises(InputError, match=r"optimizer.lam = 2 must be 1, which gamma = 0.01"):
        build(config)


# ---- callbacks and loggers


@pytest.mark.parametrize(("monitors", "has_history"), [("none", False), ("minimal", True)])
def test_monitors_are_a_choice(tmp_path: Path, monitors: str, has_history: bool) -> None:
    full = run_app(tmp_path / "full", *QUICK)
    run = run_app(tmp_path / "few", *QUICK, f"callbacks={monitors}", "logger=none")
    left = {path.name for path in run.directory.iterdir()}
    history = {"history.nc"} if has_history else set()
    assert left == {"config.yaml", "status.json", "summary.json", "checkpoints"} | history
    # the end of a run does not depend on who looks
    # nor does the best of the recorded path where nothing is recorded
    timing = {"seconds", *(() if has_history else (k for k in full.summary if k[:5] == "best_"))}
    assert {k: v for k, v in run.summary.items() if k not in timing} == {
        k: v for k, v in full.summary.items() if k not in timing
    }


def test_a_table_of_scalars_instead_of_tensorboard(tmp_path: Path) -> None:
    run = run_app(tmp_path, *QUICK, "logger=csv")
    assert not list(tmp_path.rglob("*tfevents*"))
    header = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "errors/train_loss" in header
    assert isinstance(run.history(), xr.Dataset)


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_without_its_package_is_refused(
    tmp_path: Path, logger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.pytorch.loggers as loggers

    name = {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[logger]

    class Missing(loggers.CSVLogger):
        def __init__(self, **_: Any) -> None:
            raise ModuleNotFoundError(f"No module named '{logger}'")

    monkeypatch.setattr(loggers, name, Missing)
    with pytest.raises(InputError, match=rf"pip install 'dln-momentum\[{logger}\]'"):
        run_job("train", train, tmp_path / "run", *QUICK, f"logger={logger}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("callbacks.mine", {"x": 1}, r"callbacks.mine must have a key _target_"),
        ("callbacks.mine", {"_target_": "builtins.dict"}, r"must be the path of a Callback"),
        ("logger.mine", {"_target_": "no.such.Logger"}, r"logger.mine cannot be made"),
    ],
)
def test_what_is_no_callback_or_logger_is_refused(
    tmp_path: Path, key: str, value: dict, message: str
) -> None:
    config = composed("train", QUICK)
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(InputError, match=message):
        train(Job(config, tmp_path / "run", "train"))
    assert not (tmp_path / "run").exists()


# ---- experiments


def end_of(*words: str) -> tuple[Setup, dict[str, float], str]:
    """The end of ``dln-train WORDS``, without files."""
    setup = build(composed("train", words))
    module = setup.module()
    module.stepper.advance(setup.plan.max_steps)
    snapshot = module.snapshot()
    assert snapshot is not None
    found = {name: value[0].item() for name, value in summarise(snapshot, setup.problem).items()}
    return setup, found, module.status_labels[0]


def shrinking(found: dict[str, float]) -> float:
    return found["balancedness_l1"] / found["initial_balancedness_l1"]


@pytest.mark.slow
def test_every_experiment_shows_what_its_comment_says() -> None:
    """Numbers are those of the comments, to the digits given there or to a tenth."""
    assert options_of("experiment") == [
        "default", "label_noise", "large_lambda", "oscillating", "real_data", "tiny_alpha",
    ]  # fmt: skip
    _, default, status = end_of()
    assert status == "converged"
    assert default["sign_changes"] == 0
    assert shrinking(default) == pytest.approx(0.52 / 0.60, abs=0.01)
    assert default["distance_to_gradient_flow_minimizer"] == pytest.approx(0.004, rel=0.1)

    _, oscillating, _ = end_of("experiment=oscillating")
    _, calm, _ = end_of("experiment=oscillating", "optimizer.lam=0.1")
    assert oscillating["sign_changes"] == pytest.approx(30, abs=2)
    assert calm["sign_changes"] == 0
    assert shrinking(oscillating) > 1
    assert shrinking(calm) == pytest.approx(0.9, abs=0.02)

    _, noisy, _ = end_of("experiment=label_noise")
    quiet_words = ["sampling.label_noise=0", "sampling.noise_until=0"]
    _, quiet, _ = end_of("experiment=label_noise", *quiet_words)
    assert noisy["balancedness_l1"] == pytest.approx(0.01, rel=0.1)
    assert quiet["balancedness_l1"] == pytest.approx(0.45, rel=0.1)
    assert quiet["recovery_error"] / noisy["recovery_error"] == pytest.approx(16, rel=0.1)

    _, large, _ = end_of("experiment=large_lambda")
    _, small, _ = end_of("experiment=large_lambda", "optimizer.lam=0.1")
    assert large["sign_changes"] == pytest.approx(111, rel=0.1)
    assert large["recovery_error"] / small["recovery_error"] == pytest.approx(1 / 6, rel=0.15)

    _, tiny, _ = end_of("experiment=tiny_alpha")
    assert tiny["recovery_error"] == pytest.approx(0.001, rel=0.1)
    assert default["recovery_error"] == pytest.approx(0.33, rel=0.1)
    assert tiny["train_loss"] < 5e-8

    setup, real, status = end_of("experiment=real_data")
    assert (status, setup.problem.n, setup.problem.d) == ("converged", 20, 65)
    assert real["kkt_residual"] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_an_experiment_goes_with_a_command_or_is_refused(app: str, experiment: str) -> None:
    needs = {"label_noise": "sampling", "large_lambda": "optimizer", "oscillating": "optimizer"}
    if app == "flow" and experiment in needs:
        with pytest.raises(InputError, match=f"chooses {needs[experiment]}, a group that dln-flow"):
            composed(app, [f"experiment={experiment}"])
        return
    assert isinstance(composed(app, [f"experiment={experiment}"]), DictConfig)


def test_the_files_of_a_group_are_all_options_of_some_command() -> None:
    groups = {path.parent.name for path in CONF_DIR.glob("*/*.yaml")} - {"study", "help"}
    asked = {
        line.split(": ")[0].removeprefix("  - ").removeprefix("override ")
        for app in APPS
        for line in (CONF_DIR / f"{app}.yaml").read_text().splitlines()
        if line.startswith("  - ") and ": " in line
    }
    assert groups <= asked | {"hydra"}
