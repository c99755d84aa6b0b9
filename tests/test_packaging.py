"""What is built: the sdist runs its own tests, and the wheel has what the commands need."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    """What the core and the extras that the package itself imports require."""
    extras = PROJECT["optional-dependencies"]
    groups = [PROJECT["dependencies"], *(extras[name] for name in ("train", "data", "plot"))]
    return [Requirement(line) for group in groups for line in group]


def pins(name: str) -> dict[str, Version]:
    """The versions of a file of constraints."""
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {package.lower(): Version(version) for package, version in pairs}


def test_constraints_are_versions_that_are_allowed() -> None:
    newest, oldest = pins("constraints.txt"), pins("constraints-oldest.txt")
    for requirement in requirements():
        name = requirement.name
        assert newest[name] in requirement.specifier, requirement
        (least,) = (c.version for c in requirement.specifier if c.operator == ">=")
        assert oldest[name] == Version(least), requirement


def test_one_version() -> None:
    cited = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", cited, re.MULTILINE) == [PROJECT["version"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made of it."""
    pytest.importorskip("hatch_fancy_pypi_readme")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_has_the_configs_and_nothing_of_the_experiments(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        page = str(Parser().parsestr(archive.read(metadata).decode()).get_payload())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    wanted = {name for name in configs if not name.startswith("conf/study")}
    assert {n.removeprefix("dln_momentum/") for n in names if n.endswith(".yaml")} == wanted
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"dln_momentum", "hydra_plugins", Path(metadata).parts[0]}
    # the index page has no relative link or image, and no caption without its image
    assert not re.findall(r"\]\((?!https?:)", page)
    assert "![" not in page
    assert "```sh\nmake train" in page


@pytest.mark.slow
def test_every_test_of_the_sdist_can_be_collected(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    chosen = ["tests/test_problem.py", "tests/test_docs.py", "tests/test_quantities.py"]
    for words in (["--collect-only"], ["-m", "not slow", *chosen]):
        done = subprocess.run([*command, *words], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
