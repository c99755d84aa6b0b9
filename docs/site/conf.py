"""Sphinx, for the sources that pages.py has gathered; `make docs` calls both."""

import re
from importlib.metadata import version as version_of
from typing import Any

project = "dln-momentum"
author = "The dln-momentum developers"
version = release = version_of(project)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "dln-momentum"
# a name that several classes have leads nowhere
suppress_warnings = ["ref.python"]
# what stands in single backticks is a name of the code, and leads to it where it is documented
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_prompt_text = ">>> "
copybutton_only_copy_prompt_lines = False


# The docstrings are written to be read as text: stars and bars are those of mathematics, and an
# indented paragraph is an equation.
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes):$")
_MARKUP = re.compile(r"(?<![\\*])([*|])(?!\*)|(?<=\w)(_)(?=[^\w`]|$)")


def as_restructured_text(_app: Any, _kind: Any, _name: Any, _object: Any, _options: Any,
                         lines: list[str]) -> None:  # fmt: skip
    """Mark equations as literal blocks, and escape what is no markup."""
    found: list[str] = []
    in_section = in_doctest = in_literal = in_table = False
    for number, line in enumerate(lines):
        before = next((x for x in reversed(lines[:number]) if x.strip()), "")
        in_doctest = line.lstrip().startswith(">>>") or (in_doctest and bool(line.strip()))
        in_section |= bool(_SECTION.match(line))
        if line.strip() and not line.startswith("   "):
            in_literal = False
        opens = line.startswith("    ") and number > 0 and not lines[number - 1].strip()
        # what belongs to a directive, as `.. math::`, is indented by three
        in_literal |= line.startswith("..")
        if opens and not in_section and not in_doctest and not in_literal:
            if not before.startswith((" ", "- ", "..")) and not before.endswith("::"):
                found += ["::", ""]
            in_literal = True
        rule = bool(line.strip()) and set(line) <= set("= ")
        in_table = (in_table or rule) and bool(line.strip())
        if in_table and not rule:
            # the columns stay where they are: the backslash takes a space behind the cell
            found.append(re.sub(r"(?<!`)\*(.*?)  ", r"\\*\1 ", line))
        else:
            found.append(line if rule or in_doctest or in_literal else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    # what stands in backticks is literal
    line = re.sub(r"docs/theory\.md#([\w-]+)", r"`theory: \1 <theory.html#\1>`__", line)
    parts = re.split(r"(``.*?``|`[^`]*`_*)", line)
    return "".join(part if part.startswith("`") else _MARKUP.sub(r"\\\1\2", part) for part in parts)


def setup(app: Any) -> None:
    """Before napoleon, which reads the sections of the docstrings."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
