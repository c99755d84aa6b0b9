"""A bad command line is told what is wrong and the nearest key, exits 2 and writes nothing."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Answer = tuple[int, str]


@pytest.fixture
def answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """The exit code of a command in an empty directory, and what it says on stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)

    def run(app: str, *words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", [f"dln-{app}", *words])
        with pytest.raises(SystemExit) as ending:
            importlib.import_module(f"dln_momentum.cli.{app}").main()
        return int(ending.value.code or 0), capsys.readouterr().err

    yield run
    root.handlers[:], root.level = handlers, level


BAD: list[tuple[str, list[str]]] = [
    # a misspelt key
    (
        "train trainer.max_step=5",
        ["unknown key trainer.max_step (did you mean trainer.max_steps?)"],
    ),
    ("train optimizer.gama=0.1", ["unknown key optimizer.gama (did you mean optimizer.gamma?)"]),
    ("train model.alhpa=0.1", ["model.alhpa (did you mean model.alpha?)"]),
    ("train gamma=0.1", ["unknown key gamma (did you mean optimizer.gamma?)"]),
    ("train batch_size=5", ["unknown key batch_size (did you mean sampling.batch_size?)"]),
    ("train trainer.gamma=0.1", ["trainer.gamma (did you mean optimizer.gamma?)"]),
    ("train sed=3", ["unknown key sed (did you mean seed?)"]),
    ("train hydra.run.dri=x", ["hydra.run.dri (did you mean hydra.run.dir?)"]),
    ("flow flow.lambda=1", ["unknown key flow.lambda (did you mean flow.lam?)"]),
    (
        "flow flow.gamma=0.01 optimizer.beta=0.9",
        [
            "unknown key flow.gamma (did you mean flow.lam = gamma/(1-beta)^2?)",
            "unknown key optimizer.beta (did you mean flow.lam = gamma/(1-beta)^2?)",
        ],
    ),
    ("flow lam=1", ["unknown key lam (did you mean flow.lam?)"]),
    ("flow optimizer=gamma_beta", ["no group optimizer (did you mean flow.lam = gamma/(1-beta)"]),
    ("flow model=power", ["model = power has depth 3: a flow is of theta = u v, depth 2"]),
    ("train trainer.margin=4", ["trainer.margin = 4 must be null with loss = squared"]),
    ("sweep trainer.margin=4", ["trainer.margin = 4 must be null with loss = squared"]),
    (
        "train model=power method=nesterov",
        ["method.name = nesterov must be heavy_ball with depth > 2"],
    ),
    ("flow flow.tme=1", ["flow.tme (did you mean flow.time?)"]),
    ("verify max_stps=5", ["max_stps (did you mean max_steps?)"]),
    ("sweep sweep.gama=[0.1]", ["sweep.gama (did you mean sweep.gamma?)"]),
    ("sweep sweep.dataseed=[0]", ["sweep.dataseed (did you mean sweep.data_seed?)"]),
    # a key that another option of the group has
    ("train data=digits data.rho=0.5", ["unknown key data.rho, which is a key of data=sparse"]),
    ("train model.phi=0.5", ["unknown key model.phi, which is a key of model=biased"]),
    ("train optimizer=lam_eps optimizer.gamma=1", ["which is a key of optimizer=gamma_beta"]),
    # keys cannot be added
    ("train +trainer.max_step=5", ["trainer.max_step (did you mean trainer.max_steps?)"]),
    ("train ++data.mu_typo=1", ["unknown key data.mu_typo"]),
    ("train +data.n=5", ["data.n is there: leave out the +"]),
    ("train ~trainer.tools", ["unknown key trainer.tools (did you mean trainer.tol?)"]),
    # a missing group, an unknown option
    ("train dta=digits", ["unknown group dta (did you mean data?)"]),
    ("train data=diabets", ["data=diabets: no such option (did you mean diabetes?)"]),
    ("train optimizer=adam", ["optimizer=adam: no such option", "gamma_beta, lam_beta, lam_eps"]),
    ("train optimizer=lam_epsilon", ["no such option (did you mean lam_eps?)"]),
    ("train sampling=reshufle", ["no such option (did you mean reshuffle?)"]),
    ("train experiment=oscilating", ["no such option (did you mean oscillating?)"]),
    ("train logger=tensorbord", ["no such option (did you mean tensorboard?)"]),
    ("train -m data=sparse,digitz", ["data=digitz: no such option (did you mean digits?)"]),
    ("flow sampling=reshuffle", ["dln-flow has no group sampling; its groups: data, experiment"]),
    ("flow experiment=oscillating", ["experiment=oscillating chooses optimizer", "dln-flow"]),
    ("flow experiment=label_noise", ["experiment=label_noise chooses sampling", "dln-flow"]),
    # old names
    ("train data.batch_size=5", ["data.batch_size is now sampling.batch_size"]),
    ("train data.sampling=reshuffle", ["data.sampling is now sampling.kind"]),
    ("verify data.label_noise=1", ["data.label_noise is now sampling.label_noise"]),
    ("sweep data.noise_until=1", ["data.noise_until is now sampling.noise_until"]),
    ("train optimizer=heavy_ball", ["optimizer=heavy_ball is now optimizer=gamma_beta"]),
    ("train output=own_directory", ["output is now paths"]),
    # a group that is left out, a value that cannot be
    (
        "train ~optimizer",
        ["~optimizer: a group cannot be left out; options of optimizer: eps_beta, gamma_b"],
    ),
    ("train ~paths", ["~paths: a group cannot be left out"]),
    (
        "train data=null trainer.tool=1",
        ["data=null: no such option", "(did you mean trainer.tol?)"],
    ),
    ("flow flow=null", ["flow=null: no such option"]),
    ("train =5", ["'=5' must be key=value"]),
    ("train seed=${nothing}", ["Interpolation key 'nothing' not found"]),
    ("train hydra.run.dir=/dev/null/x", ["hydra.run.dir = '/dev/null/x' cannot be made"]),
    ("train optimizer.gamma=null", ["optimizer.beta = 0.9 given: give exactly one of the pairs"]),
    ("train data=file data.path=[1]", ["data.path = [1] must be of type str"]),
    ("train data.kind=nothing", ["error: data.kind = 'nothing' must be one of sparse, file"]),
    ("train trainer.max_steps=1e300", ["must be an integer in [1, 9007199254740992]"]),
    ("train trainer.records=1e9", ["trainer.records = 1000000000 must be an integer in [2, 10000"]),
    ("flow flow.records=1e9", ["flow.records = 1000000000 must be in [2, 1000000]"]),
    # pairs
    ("train optimizer.lam=1", ["optimizer.lam = 1 given: give exactly one of the pairs"]),
    ("train optimizer.eps=1 optimizer.gamma=1", ["give exactly one of the pairs"]),
    ("sweep sweep.lam=[1,2]", ["sweep.lam given: give exactly one of the pairs"]),
    ("sweep sweep.gamma=[1,2] optimizer.gamma=1", ["optimizer.gamma given, though it is swept"]),
    # malformed overrides and flags
    ("train trainer.tol", ["'trainer.tol' must be key=value"]),
    ("train trainer.tol=[1", ["'trainer.tol=[1' has no value that can be read"]),
    ("train --mutlirun", ["unknown flag --mutlirun (did you mean --multirun?)"]),
    ("train --cfg everything", ["argument --cfg/-c: invalid choice: 'everything'"]),
    ("train --config-dir nowhere", ["--config-dir nowhere not found (working directory: "]),
    ("sweep sweep.gamma=0.1,0.2", ["sweep.gamma=[0.1,0.2] is a list, -m a job for each"]),
    ("train experiment=osc optimizer.lam=1 optimizer.gamma=1", ["experiment=osc: no such option"]),
    ("train --config-name nothing", ["'nothing'"]),
    # options of other commands
    ("flow flow=of_optimizer", ["flow=of_optimizer: no such option; options of flow: annealed"]),
    ("train optimizer=of_flow", ["optimizer=of_flow: no such option; options of optimizer"]),
    ("verify flow=gradient", ["flow=gradient: no such option; options of flow: of_optimizer"]),
    # lists of a sweep under the key of one value
    ("sweep optimizer.gamma=[0.1,0.2]", ["sweep.gamma=[0.1,0.2] makes it an axis"]),
    ("sweep model.alpha=[0.1,0.2]", ["sweep.alpha=[0.1,0.2] makes it an axis"]),
    ("sweep data.seed=[0,1]", ["sweep.data_seed=[0,1] makes it an axis"]),
    # types and ranges
    ("train trainer.max_steps=1.5", ["trainer.max_steps = 1.5 must be of type int"]),
    ("train trainer.max_steps=many", ["trainer.max_steps = 'many' must be of type int"]),
    ("train data.n=[5]", ["data.n = [5] must be of type int"]),
    ("train trainer.progress=3", ["trainer.progress = 3 must be of type bool | None"]),
    ("train trainer.gradient=numerical", ["must be one of closed_form, autograd"]),
    ("train trainer.records=1 trainer.tol=-1", ["trainer.records = 1", "trainer.tol = -1"]),
    ("train optimizer.beta=1", ["optimizer.beta = 1 must be in [0, 1)"]),
    ("train engine.path_sums=none", ["engine.path_sums = 'none' must be one of telescoped"]),
    ("train sampling.batch_size=21", ["sampling.batch_size = 21 must be in [1, n] = [1, 20]"]),
    ("flow flow.method=euler", ["flow.method = 'euler' must be one of auto, explicit, implicit"]),
    ("verify flow.lam=-1", ["flow.lam = -1 must be > 0"]),
    # several at once
    (
        "train trainer.tool=5 data=spars optimizer.lam=3 sampling.kind",
        ["4 problems", "trainer.tol?", "did you mean sparse?", "optimizer.lam = 3", "key=value"],
    ),
    (
        "train data.n=50 optimizer.gamma=-1 model.alpha=0 trainer.block_size=0",
        ["4 problems", "data.n = 50", "optimizer.gamma = -1", "model.alpha = 0", "block_size = 0"],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "expected"), BAD, ids=[line for line, _ in BAD])
def test_a_bad_command_line_is_refused(
    line: str, expected: list[str], answer: Callable[..., Answer], tmp_path: Path
) -> None:
    code, told = answer(*line.split())
    assert code == 2
    assert told.startswith("error: ")
    assert "Traceback" not in told
    for words in expected:
        assert words in told
    assert not list(tmp_path.iterdir())


def test_files_of_the_user_stay(answer: Callable[..., Answer], tmp_path: Path) -> None:
    mine = tmp_path / "history.nc"
    mine.write_text("mine")
    code, told = answer("train", "hydra.run.dir=.", "trainer.max_steps=10")
    assert (code, mine.read_text()) == (2, "mine")
    assert "already holds files of another run; choose an empty directory" in told
    assert list(tmp_path.iterdir()) == [mine]


def test_a_config_of_the_user_without_a_section_is_refused(
    answer: Callable[..., Answer], tmp_path: Path
) -> None:
    groups = "[data: sparse, paths: default, _self_, override hydra/job_logging: stdout]"
    (tmp_path / "mine.yaml").write_text(f"defaults: {groups}\nseed: 0\n")
    code, told = answer("train", "--config-dir", str(tmp_path), "--config-name", "mine", "+name=a")
    assert code == 2
    assert "there is no sampling; its options: full, reshuffle" in told
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.slow
def test_a_study_of_the_user(answer: Callable[..., Answer], tmp_path: Path) -> None:
    """Its axes choose the pair of rates, and its mistakes are told in its terms."""
    folder = tmp_path / "own" / "sweep"
    folder.mkdir(parents=True)
    first = "defaults: [grid, _self_]\n"
    for name, text in {
        "good": f"{first}lam: [1, 2]\nmemory_gb: 1e-9\n",
        "bad": f"{first}alpah: [0.1, 0.2]\n",
        "short": "alpha: [0.1, 0.2]\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)

    def told(*words: str) -> str:
        code, text = answer("sweep", "--config-dir", "own", *words)
        assert code == 2
        return text

    # composed, as (lam, eps): refused only for its memory
    good = told("sweep=good", "optimizer.eps=0.1")
    assert "sweep.memory_gb" in good
    assert "problems" not in good
    assert "sweep.alpah (did you mean sweep.alpha?)" in told("sweep=bad")
    assert "defaults: [grid, _self_]" in told("sweep=short")
    wrong = told("sweep=god", "optimizer.eps=0.1")
    assert "sweep=god: no such option (did you mean good?)" in wrong
    assert "optimizer.eps" not in wrong


@pytest.mark.slow
def test_empty_directories_of_the_user_stay(answer: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "mine" / "run").mkdir(parents=True)
    bad = "optimizer.gamma=-1"
    assert answer("train", bad, "hydra.run.dir=mine/run")[0] == 2
    assert answer("train", bad, "hydra.run.dir=mine/run/new/one")[0] == 2
    assert answer("train", "-m", bad, "hydra.sweep.dir=mine/run")[0] == 2
    assert [p.name for p in tmp_path.rglob("*") if p.is_dir()][:2] == ["mine", "run"]
    assert not (tmp_path / "mine" / "run" / "new").exists()
    assert answer("train", "-m", bad, "seed=1,2", "hydra.sweep.dir=new/jobs")[0] == 2
    assert not (tmp_path / "new").exists()


def test_a_mistyped_key_is_answered_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['dln-train', 'optimizer.gama=1']\n"
        "from dln_momentum.cli.train import main\n"
        "try: main()\n"
        "except SystemExit as ending: code = ending.code\n"
        "assert not {'torch', 'lightning', 'xarray'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: unknown key optimizer.gama (did you mean optimizer.gamma?)\n"


def test_the_traceback_is_there_for_whoever_asks(
    answer: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.errors import HydraException

    from dln_momentum.cli.train import main

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["dln-train", "optimizer.gama=1"])
    with pytest.raises(HydraException):
        main()
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_directory_that_cannot_be_made_is_refused(answer: Callable[..., Answer]) -> None:
    taken = Path("taken").absolute()
    taken.touch()
    for directory in (taken, taken / "below"):
        code, said = answer("train", "debug=quick", f"hydra.run.dir={directory}")
        assert code == 2
        assert said.startswith(f"error: hydra.run.dir = '{directory}' cannot be made: ")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_one_line_and_code_130(
    ending: type[BaseException], answer: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning turns Ctrl-C during training into an exit with code 1."""

    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if ending is KeyboardInterrupt:
                raise
            sys.exit(1)

    monkeypatch.setattr("dln_momentum.cli.fitting.fit", interrupted)
    folder = Path("out").absolute()
    code, said = answer("train", "debug=quick", "hydra.run.dir=out")
    assert (code, said) == (130, f"interrupted; dln-train resume={folder} continues it\n")
    # before anything is written there is nothing to continue
    monkeypatch.setattr("dln_momentum.cli.job.Job.begin", interrupted)
    code, said = answer("train", "debug=quick", "hydra.run.dir=other")
    assert (code, said, Path("other").exists()) == (130, "interrupted\n", False)
