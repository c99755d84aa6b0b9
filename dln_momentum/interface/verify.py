"""Every statement of the theory on a problem, judged, in one call."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from dln_momentum.arrays import integer_of, number_of
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.errors import Checks
from dln_momentum.interface import notebook
from dln_momentum.interface.arguments import checked, method_of, with_defaults
from dln_momentum.interface.keywords import names_its_arguments
from dln_momentum.problem import Problem
from dln_momentum.rates import Momentum
from dln_momentum.schedules import Schedule
from dln_momentum.start import Start, uniform
from dln_momentum.verification import Measurements, Setting, Statement, Verdict, statements

if TYPE_CHECKING:
    import pandas as pd


class Report:
    """The statements of the theory on one setting, with their verdicts; prints as a table.

    Attributes:
        statements: all of them, in the order of the theory.
    """

    def __init__(self, found: list[Statement]) -> None:
        self.statements = found

    def __iter__(self) -> Iterator[Statement]:
        return iter(self.statements)

    def __len__(self) -> int:
        return len(self.statements)

    @property
    def violated(self) -> list[Statement]:
        """The statements that failed."""
        return [s for s in self.statements if s.verdict is Verdict.VIOLATED]

    @property
    def holds(self) -> list[Statement]:
        """The statements that hold on the whole run."""
        return [s for s in self.statements if s.verdict is Verdict.HOLDS]

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each statement: name, section, numbers, judged and verdict."""
        import pandas as pd

        rows = [{k: v for k, v in s.as_dict().items() if k != "hypotheses"} for s in self]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        counts = Counter(s.verdict for s in self)
        found = ", ".join(f"{verdict.value}: {counts[verdict]}" for verdict in Verdict)
        return f"Report({len(self)} statements; {found})"

    def _repr_html_(self) -> str:
        header = ("§", "statement", "predicted", "measured", "error", "tolerance", "verdict")
        # what failed first
        found = sorted(self.statements, key=lambda s: s.verdict is not Verdict.VIOLATED)
        return notebook.table(repr(self), header, map(_cells, found), len(found))

    def __str__(self) -> str:
        try:
            from dln_momentum.outputs.terminal import wide_console
            from dln_momentum.verification.table import statement_table

            console = wide_console()
        except ModuleNotFoundError:  # the core alone
            return "\n".join(map(_line, self))
        with console.capture() as captured:
            console.print(statement_table(self.statements, console.width))
        return captured.get()


def _cells(s: Statement) -> tuple[str, ...]:
    """A statement and what it lacks, as a row of text."""
    lacks = "".join(f"; needs {h.text} ({h.found})" for h in s.unmet)
    part = f"; judged {s.judged}" if s.judged else ""
    return (str(s.section), s.name + part + lacks, *s.numbers, s.verdict.value)


def _line(s: Statement) -> str:
    """A statement on one line, where no table can be printed."""
    found = f"measured {s.measured:.4g} {s.relation} predicted {s.predicted:.4g}"
    return f"{s.name}: {found}, error {s.error:.1e} of at most {s.tolerance:.1e}: {s.verdict.value}"


@names_its_arguments
def verify(
    problem: Problem,
    start: Start | None = None,
    *,
    lam: float | None = None,
    eps: float | None = None,
    gamma: float | None = None,
    beta: float | None = None,
    method: str = "heavy_ball",
    schedule: Schedule | None = None,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    decay_until: int | None = None,
    dampening: float = 0.0,
    kappa: Any = None,
    batch_size: int | None = None,
    sampling: str = "with_replacement",
    label_noise: float = 0.0,
    noise_until: int = 0,
    seed: int = 0,
    max_steps: int | None = None,
    tol: float = 1e-20,
) -> Report:
    """Evaluate every statement of the theory on a problem: predicted, measured, verdict.

    Args:
        problem: the data, one problem.
        start: one start; `uniform(0.1)` if left out.
        lam, eps, gamma, beta: a pair, as for `train`; lam alone chooses a step that resolves the
            flow of that lambda.
        method, schedule, weight_decay, decoupled, decay_until, dampening, kappa: of the discrete
            run, as for `train`. Statements about heavy ball at constant rates do not apply to
            another one; its own certificate is judged in their place.
        batch_size, sampling, label_noise, noise_until, seed: of the discrete run, as for `train`.
        max_steps: of the discrete run; None for as many as take a few seconds.
        tol: the energy at which a run or a flow counts as converged.

    Raises:
        InputError: for what is not allowed.

    >>> import dln_momentum as dln
    >>> report = dln.verify(dln.Problem(X=[[1.0, 2.0]], y=[2.0]), dln.Start([0.5], [0.0]), lam=0.2)
    >>> report.violated
    []
    >>> int(report.to_dataframe().verdict.isin(["holds", "holds in part"]).sum()) > 30
    True
    """
    checks = Checks()
    start = checks.passed(uniform(), checked, problem, start)
    if start.runs:
        checks.problems += [f"start has run dimensions {list(start.runs)}; verify takes one start"]
    pair = {"gamma": gamma, "beta": beta, "lam": lam, "eps": eps}
    numbers = {k: checks.passed(None, number_of, k, x) for k, x in pair.items() if x is not None}
    given = {key: value for key, value in numbers.items() if value is not None}
    label_noise = checks.passed(0.0, number_of, "label_noise", label_noise)
    noise_until = checks.passed(1, integer_of, "noise_until", noise_until, 0)
    tol = checks.passed(1e-20, number_of, "tol", tol)
    if not 0 < tol < math.inf:
        checks.problems.append(f"tol = {tol:g} must be finite and > 0")
    if max_steps is not None:
        max_steps = checks.passed(1, integer_of, "max_steps", max_steps, 1)
    only_flow, momentum = set(given) == {"lam"}, None
    if only_flow or len(given) < len(numbers):
        # there is no pair that checks them
        rates = {key: value for key, value in given.items() if key != "beta"}
        checks.problems += [
            f"{key} = {value:g} must be finite and > 0"
            for key, value in rates.items()
            if not 0 < value < math.inf
        ]
    else:
        momentum = checks.passed(None, Momentum.from_pair, **with_defaults(given))
    settings = {
        "name": method,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "decoupled": decoupled,
        "decay_until": decay_until,
        "dampening": dampening,
        "kappa": kappa,
    }
    own = checks.passed(None, method_of, settings, depth=start.depth)
    if momentum is not None and own is not None:
        rates = (torch.tensor([x], dtype=torch.float64) for x in (momentum.gamma, momentum.beta))
        checks.problems += own.problems(*rates)
    if not isinstance(problem, Problem):
        checks.raise_if_any()
    batches = checks.passed(None, BatchStream, problem.n, batch_size, sampling, seed)
    noise = checks.passed(None, LabelNoise, problem.n, label_noise, noise_until, seed)
    checks.raise_if_any()
    assert batches is not None
    assert own is not None
    w_plus, w_minus = start.weights(problem.d)
    setting = Setting(
        problem,
        w_plus,
        w_minus,
        momentum=momentum,
        lam=given["lam"] if only_flow else None,
        batches=batches,
        label_noise=noise if label_noise else None,
        method=own,
        max_steps=max_steps,
        tol=tol,
    )
    return Report(list(statements(Measurements(setting))))
