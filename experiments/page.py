"""The page of a reproduction: every claim in one sentence, with its figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEAD = """# The poster's claims, reproduced

Papazov, Pesme and Flammarion, "Leveraging Continuous Time to Understand Momentum When Training
Diagonal Linear Networks", AISTATS 2024. Made by `{command}`; one claim alone by the command in its
entry.

The network predicts <theta, x> with theta = u * v, coordinate by coordinate, and w_+- = u +- v. It
is trained by momentum gradient descent MGD(gamma, beta) of step size gamma and momentum beta, whose
continuous form is the momentum gradient flow MGF(lambda), lambda w'' + w' + grad F(w) = 0 with
lambda = gamma/(1-beta)^2, followed in steps of eps = gamma/(1-beta); t = k eps. GF is gradient
flow, lambda = 0. Problems are (n, d, s, alpha): n examples of d coordinates, an s-sparse theta*,
and the initialisation u_0 = sqrt(2) alpha, v_0 = 0. Delta = |u^2 - v^2| is the balancedness,
Delta_0 at the start and Delta_inf at the end; theta~_0 is the perturbed initialisation of the
theory. Formulas and proofs: `docs/theory.md` of this repository.

The settings are ours: the poster's own are not in its text. Where its text has a sign or a square
wrong, the claim is worded with the right one; `python -m experiments.corrections` shows the
difference in numbers. A verdict follows from the numbers by a rule in the experiment's code, whose
thresholds are among its settings. "Confirmed in part" says where in its sentence. Claims marked
"beyond the poster" are not in it.

| # | claim | verdict | what was found | commit | date | seconds |
|---|---|---|---|---|---|---|
"""

COMMANDS = {"full": "make reproduce", "fast": "make reproduce-fast"}


def page(claims: Sequence[dict[str, Any]], names: Sequence[str], folder: str = "") -> str:
    """Markdown for the claims as they were run, those that failed to run included.

    Args:
        claims: contents of ``claim.json``, or ``name`` and ``error`` of one that failed to run.
        names: of all claims, in their order: a claim's number is its place here.
        folder: where the claims' folders are, as seen from the page: empty, or ending in a slash.
    """
    scale = next((claim["scale"] for claim in claims if "scale" in claim), "full")
    head = HEAD.format(command=COMMANDS.get(scale, f"python -m experiments --scale {scale}"))
    numbered = [(names.index(claim["name"]) + 1, claim) for claim in claims]
    rows = "".join(_row(number, claim) for number, claim in numbered)
    return head + rows + "".join(_section(number, claim, folder) for number, claim in numbered)


def title(name: str) -> str:
    """A claim's name as a heading.

    >>> title("small_lambda")
    'Small lambda'
    """
    return name.replace("_", " ").capitalize()


def source(claim: dict[str, Any]) -> str:
    """Where the claim is from.

    >>> source({"section": "2 and 6"}), source({"section": ""})
    ('poster, section 2 and 6', 'beyond the poster')
    """
    return f"poster, section {claim['section']}" if claim["section"] else "beyond the poster"


def _row(number: int, claim: dict[str, Any]) -> str:
    record = claim["run"]
    end = f"{record['commit']} | {record['date']} | {record['seconds']:.0f} |\n"
    if "verdict" not in claim:
        return f"| {number} | {claim['name']} | **failed to run** | - | {end}"
    link = f"[{claim['name']}](#{claim['name']})"
    return f"| {number} | {link} | {claim['verdict']} | {claim['finding']} | {end}"


def _section(number: int, claim: dict[str, Any], folder: str) -> str:
    name = claim["name"]
    head = f'\n<a id="{name}"></a>\n\n## {number}. {title(name)}\n\n'
    if "verdict" not in claim:
        return f"{head}Failed to run.\n"
    at = f"{folder}{name}/"
    return (
        f"{head}"
        f"> {claim['claim']} ({source(claim)})\n\n"
        f"**{claim['verdict'].capitalize()}.** {claim['finding']}\n\n"
        f"![{name}]({at}figure.png)\n\n"
        f"{claim['caption']} {claim['sizes']}.\n\n"
        f"[numbers and settings]({at}README.md), [figure.pdf]({at}figure.pdf), "
        f"[claim.json]({at}claim.json); `{claim['command']}`\n"
    )
