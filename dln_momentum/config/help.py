"""The groups and keys of a command for ``--help``, with the comments of the files under `conf/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, ListConfig, OmegaConf

from dln_momentum.config.location import CONF_DIR, options_of

KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# ?(?P<comment>.*))?$")
LONGEST = 34
"""Columns of ``key: value`` up to which comments are aligned."""


def register_resolvers() -> None:
    """Register the resolvers of the configs.

    ``${run_id:}`` makes output directories unique; ``${groups:}`` and ``${keys:}`` are the groups
    and keys of a command for its ``--help``.
    """
    if not OmegaConf.has_resolver("run_id"):
        OmegaConf.register_new_resolver("run_id", lambda: uuid4().hex[:6], use_cache=True)
        OmegaConf.register_new_resolver("groups", groups)
        OmegaConf.register_new_resolver("keys", keys)


def groups(*, _root_: DictConfig) -> str:
    """A line ``group=chosen  other options`` for each group of the command."""
    lines, app = [], str(_root_.hydra.help.app_name).removeprefix("dln-")
    for group, chosen in sorted(app_groups(_root_).items()):
        others = ", ".join(option for option in options_of(group, app) if option != chosen)
        choice = f"{group}={'null' if chosen is None else chosen}"
        lines.append(f"{choice:<24}{others}".rstrip())
    return "\n".join(lines)


def keys(*, _root_: DictConfig) -> str:
    """Every key with its value and its comment, section by section."""
    chosen = app_groups(_root_)
    parts = []
    for section, value in _root_.items():
        if section == "hydra":
            continue
        if not isinstance(value, DictConfig):
            source, values = _root_.hydra.job.config_name, {section: value}
            parts += _lines(values, _comments(f"{source}"), "")
        else:
            file = f"{section}/{chosen.get(str(section))}"
            comments = _comments(file)
            head = f"{section}:  # {comments.get('', file)}"
            parts += [head, *_lines(value, comments, "  ")]
    # what is left is a template of Python's, in which $ opens a name
    return "\n".join(parts).replace("$", "$$")


def app_groups(root: DictConfig) -> dict[str, Any]:
    """The groups of a command, and what is chosen of each."""
    choices = root.hydra.runtime.choices.items()
    return {str(group): option for group, option in choices if not group.startswith("hydra/")}


def _lines(values: Any, comments: dict[str, str], indent: str) -> Iterator[str]:
    for key in values:
        is_missing = isinstance(values, DictConfig) and OmegaConf.is_missing(values, key)
        value = "???" if is_missing else values[key]
        shown = f"{indent}{key}:"
        if not isinstance(value, DictConfig):
            shown += " ???" if is_missing else f" {_text(value)}"
        comment = comments.get(str(key))
        yield f"{shown:<{LONGEST}}# {comment}" if comment else shown
        if isinstance(value, DictConfig):
            yield from _lines(value, comments, indent + "  ")


def _text(value: Any) -> str:
    if isinstance(value, ListConfig):
        return f"[{', '.join(map(_text, value))}]"
    return OmegaConf.to_yaml(OmegaConf.create([value])).removeprefix("- ").strip()


@cache
def _comments(file: str) -> dict[str, str]:
    """The comment behind each key of a file and of the files of its defaults list.

    The first comment of the file is under the empty key.
    """
    path = CONF_DIR / f"{file}.yaml"
    if not path.exists():
        return {}
    text = path.read_text()
    found: dict[str, str] = {}
    if bases := re.search(r"^defaults: \[(.*)\]", text, re.MULTILINE):
        for base in bases[1].split(", "):
            found |= _comments(f"{file.rpartition('/')[0]}/{base}") if base != "_self_" else {}
    first = next((line for line in text.splitlines() if not line.startswith("# @package")), "")
    found[""] = first.removeprefix("# ")
    for line in text.splitlines():
        match = KEY.match(line)
        if match and match["comment"]:
            found[match["key"]] = match["comment"]
    return found
