"""Gathers the sources of the site: docs/, and the pages that are made from the repository.

    python docs/site/pages.py FOLDER

Claims, benchmarks and the changelog are copied; the reference of configs, that of Python, and the
table of what computes and tests each equation are made from the source.
"""

from __future__ import annotations

import ast
import posixpath
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?\[((?:[^\[\]]|\[[^\]]*\])*)\])\(([^)#:\s]+)(#[\w-]*)?\)")
"""A link to a file, in Markdown: its brackets, its text, its path and its anchor."""
ANCHOR = re.compile(r'<a id="([\w-]+)"></a>')
COPIED = {
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "performance.md",
    "experiments/reproduction/README.md": "reproduction/index.md",
}
"""Pages of the repository and where they stand in the site."""
HIDDEN = ("study", "hydra")
"""Groups of conf/ that are not chosen by a user of the commands."""


def gather(folder: Path) -> None:
    """Write all sources into an empty folder."""
    pages = COPIED | {
        source.relative_to(ROOT).as_posix(): f"reproduction/{source.parent.name}.md"
        for source in sorted((ROOT / "experiments/reproduction").glob("*/README.md"))
    }
    own = [
        path for path in (ROOT / "docs").rglob("*") if path.is_file() and "site" not in path.parts
    ]
    pages |= {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
              for path in own}  # fmt: skip
    for figure in (ROOT / "experiments").rglob("*.png"):
        source = figure.relative_to(ROOT).as_posix()
        pages[source] = source.removeprefix("experiments/")
    for source, target in pages.items():
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".md":
            place.write_text(_relinked((ROOT / source).read_text(), source, pages))
        else:
            shutil.copy(ROOT / source, place)
    with (folder / "reproduction/index.md").open("a") as index:
        index.write("\n```{toctree}\n:hidden:\n:glob:\n*\n```\n")
    (folder / "configs.md").write_text("\n".join(_configs()))
    (folder / "python.rst").write_text("\n".join(_python()))
    (folder / "theory_in_code.md").write_text("\n".join(_theory_in_code()))
    shutil.copy(ROOT / "docs/site/conf.py", folder)


def _relinked(text: str, source: str, pages: dict[str, str]) -> str:
    """The text of a page with links that lead, from its place in the site, to what they led to.

    A link to a file that is no page of the site becomes its text.
    """
    folder = posixpath.dirname(pages[source]) or "."
    made = {"docs/theory_in_code.md", "docs/configs.md", "docs/python.rst"}

    def moved(match: re.Match[str]) -> str:
        shown, words, path, anchor = match[1], match[2], match[3], match[4] or ""
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = there.removeprefix("docs/") if there in made else pages.get(there)
        return words if place is None else f"{shown}({posixpath.relpath(place, folder)}{anchor})"

    text = LINK.sub(moved, text)
    # an anchor of HTML is a target of MyST, which is one for the whole site
    prefix = "" if source.startswith("docs/") else f"{Path(pages[source]).stem}-"
    for anchor in ANCHOR.findall(text):
        text = text.replace(f"](#{anchor})", f"](#{prefix}{anchor})")
    return ANCHOR.sub(rf"({prefix}\1)=", text)


def _configs() -> Iterator[str]:
    """Every file of conf/ that a user chooses, as it is written, with its comments."""
    yield "# Configs\n\nThe options of each group as they are written; `--help` shows the same.\n"
    yield "## Commands\n"
    for path in sorted((ROOT / "conf").glob("*.yaml")):
        yield _file(path, path.stem)
    for group in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        if group.name not in HIDDEN:
            yield f"## {group.name}\n"
            for path in sorted(group.glob("*.yaml")):
                yield _file(path, f"{group.name}={path.stem}")
    yield "## Studies of the claims\n\nConfigs of `python -m experiments.NAME`.\n"
    for path in sorted((ROOT / "conf/study").glob("*.yaml")):
        yield _file(path, path.stem)


def _file(path: Path, title: str) -> str:
    return f"### `{title}`\n\n```yaml\n{path.read_text().strip()}\n```\n"


def _python() -> Iterator[str]:
    """The public interface, from its docstrings, classes after functions."""
    tree = ast.parse((ROOT / "dln_momentum/__init__.py").read_text())
    (public,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    yield "Python\n======\n\n``import dln_momentum as dln``; each name is ``dln.NAME``.\n"
    yield ".. currentmodule:: dln_momentum\n"
    names = sorted(set(public) - {"__version__", "schedules"}, key=str.lower)
    for title, kind, chosen in (
        ("Functions", "autofunction", [name for name in names if not name[0].isupper()]),
        ("Classes", "autoclass", [name for name in names if name[0].isupper()]),
    ):
        yield f"{title}\n{'-' * len(title)}\n"
        for name in chosen:
            yield f".. {kind}:: dln_momentum.{name}\n"


def _theory_in_code() -> Iterator[str]:
    """For each section of the theory what computes it, what judges it and what tests it."""
    cited: dict[str, list[tuple[str, str]]] = {}
    methods = set[str]()
    package = ROOT / "dln_momentum"
    for path in [*sorted(package.rglob("*.py")), *sorted((ROOT / "experiments").glob("*.py"))]:
        module = path.relative_to(package if package in path.parents else ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                name = "" if isinstance(node, ast.Module) else node.name
                for anchor in re.findall(r"theory\.md#([\w-]+)", ast.get_docstring(node) or ""):
                    cited.setdefault(anchor, []).append((module, name))
            if isinstance(node, ast.ClassDef):
                inside = (x.name for x in node.body if isinstance(x, ast.FunctionDef))
                methods |= {name for name in inside if not name.startswith("__")}
    tests = [
        (f"{path.stem}: {test}", used, anchors)
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        for test, used, anchors in _tests(path, methods)
    ]
    uses = Counter(name for _, used, _ in tests for name in used)
    yield "# Where each equation is computed and tested\n"
    yield (
        "Made from the source: beside a section of the [theory](theory.md) stand the functions and "
        "classes, or modules and experiments, whose docstrings cite it; what of `dln-verify` "
        "judges it on a setting of the user's, if anything does; and tests, first those whose "
        "docstrings cite it, then those that use one of these functions, classes and modules, "
        "first what the fewest tests use.\n"
    )
    yield "| section | computed by | judged by | tested by |\n|---|---|---|---|"
    theory = (ROOT / "docs/theory.md").read_text()
    for anchor in re.findall(r'<a id="([\w-]+)"></a>', theory):
        found = cited.get(anchor, [])
        # of a section that modules alone cite, what tests import from those
        names = {name for _, name in found if name} or {module for module, _ in found}
        judging = [pair for pair in found if pair[0].startswith("verification/")]
        using = sorted(
            (min(uses[name] for name in names & used), test)
            for test, used, anchors in tests
            if names & used and anchor not in anchors
        )
        columns = [
            _most_exact([pair for pair in found if pair not in judging]),
            _most_exact(judging),
            [*(test for test, _, own in tests if anchor in own), *(test for _, test in using)],
        ]
        if found:
            yield f"| [{anchor}](theory.md#{anchor}) | {' | '.join(map(_cell, columns))} |"


def _most_exact(found: list[tuple[str, str]]) -> list[str]:
    """The functions and classes that cite a section, or the modules where none of them does."""
    named = [pair for pair in found if pair[1]]
    return [f"{module}: {name}" for module, name in named or found]


def _cell(names: list[str], most: int = 6) -> str:
    if not names:
        return "-"
    more = f"<br>and {len(names) - most} more" if len(names) > most else ""
    return "<br>".join(f"`{name.removesuffix(': ')}`" for name in names[:most]) + more


def _tests(path: Path, methods: set[str]) -> Iterator[tuple[str, set[str], set[str]]]:
    """The tests of a file, what of the package each uses, and the sections that it cites.

    A name counts where the file has imported it, where it is an attribute of something imported,
    or where it is that of a method; with it counts the module that it was imported from.
    """
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name.partition(".")[0]: _imported(node, alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    own = {name: found for name, found in imported.items() if found}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        inside, used = [*ast.walk(node)], set[str]()
        for item in inside:
            if isinstance(item, ast.Name):
                used |= own.get(item.id, set())
            if isinstance(item, ast.Attribute):
                base = item.value.id if isinstance(item.value, ast.Name) else ""
                used |= {item.attr} if base in own or item.attr in methods else set()
        anchors = re.findall(r"theory\.md#([\w-]+)", ast.get_docstring(node) or "")
        yield node.name, used, {*anchors}


def _imported(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> set[str]:
    """The name that an import is of, and its module as a path; empty for other packages."""
    source = alias.name if isinstance(node, ast.Import) else node.module or ""
    package, _, inside = source.partition(".")
    if package not in ("dln_momentum", "experiments"):
        return set()
    folder = "experiments/" if package == "experiments" else ""
    place = folder + inside.replace(".", "/")
    whole = f"{place}/{alias.name}" if inside else f"{folder}{alias.name}"
    # what is imported may be a name of a module or a module itself
    return {alias.name, f"{place}.py", f"{whole}.py"}


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
