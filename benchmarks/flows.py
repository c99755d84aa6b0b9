"""Many momentum flows at once, and one after the other by SciPy.

512 values of lambda, log-spaced in [1e-2, 1e2], on (n, d, s, alpha) = (20, 30, 3, 0.1) to t = 500:
`momentum_flows` takes all of them in one call, the solvers of SciPy some of them, evenly spaced in
ln lambda. All of it on one core, in CPU seconds, interleaved. For each solver: the cost of a flow,
the median and quartiles of its paired ratio to that of a flow in the batch, and the errors of w(T)
relative to its largest entry, against `momentum_flow` (rtol 1e-13).

    python -m benchmarks.flows --flows 512 --scipy-flows 9 --repeats 5
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp

from benchmarks.machine import header, machine
from dln_momentum import Flows, momentum_flow, momentum_flows, sparse

TIME, ALPHA = 500.0, 0.1
PROBLEM = sparse(20, 30, 3)
W_0 = torch.full((PROBLEM.d,), math.sqrt(2) * ALPHA, dtype=torch.float64)


def batched(lam: np.ndarray, rtol: float) -> Flows:
    """All flows in one call."""
    return momentum_flows(PROBLEM, W_0, W_0, torch.from_numpy(lam), TIME, rtol=rtol)


def by_scipy(method: str, lam: float, rtol: float) -> np.ndarray:
    """(w_+, w_-) at the end of one flow, on plain arrays with the gradient in closed form."""
    X, y, n, d = PROBLEM.X.numpy(), PROBLEM.y.numpy(), PROBLEM.n, PROBLEM.d

    def rhs(t: float, state: np.ndarray) -> np.ndarray:
        w_plus, w_minus, dw_plus, dw_minus = state.reshape(4, d)
        g = X.T @ (X @ ((w_plus * w_plus - w_minus * w_minus) / 4) - y) / n
        ddw = -(dw_plus + g * w_plus) / lam, -(dw_minus - g * w_minus) / lam
        return np.concatenate([dw_plus, dw_minus, *ddw])

    start = np.concatenate([W_0.numpy(), W_0.numpy(), np.zeros(2 * d)])
    # the end alone, so that no time goes into outputs
    solution = solve_ivp(rhs, (0, TIME), start, method, [TIME], rtol=rtol, atol=1e-3 * rtol)
    return solution.y[: 2 * d, -1]


def by_momentum_flow(lam: float) -> np.ndarray:
    """The same by the package's single flow, which carries G and two more integrals."""
    path = momentum_flow(PROBLEM, W_0, W_0, lam, TIME)
    return torch.cat([path.w_plus[-1], path.w_minus[-1]]).numpy()


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of one call: the machine may be shared."""
    started = time.process_time()
    run()
    return time.process_time() - started


def relative_errors(ends: np.ndarray, references: np.ndarray) -> str:
    """The largest and the median error of [flows, 2d]."""
    errors = np.abs(ends - references).max(1) / np.abs(references).max(1)
    return f"{errors.max():.0e} / {np.median(errors):.0e}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=512)
    parser.add_argument("--scipy-flows", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rtol", type=float, default=1e-9)
    parser.add_argument("--scipy-rtol", type=float, default=1e-9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lam = np.logspace(-2, 2, arguments.flows)
    places = np.linspace(0, len(lam) - 1, arguments.scipy_flows).round().astype(int)
    solvers: dict[str, Callable[[float], np.ndarray]] = {
        "DOP853": lambda value: by_scipy("DOP853", value, arguments.scipy_rtol),
        "LSODA": lambda value: by_scipy("LSODA", value, arguments.scipy_rtol),
        "momentum_flow": by_momentum_flow,
    }
    batched(lam[:16], arguments.rtol)  # compiles, and warms the caches
    references = np.stack([by_momentum_flow(value) for value in lam[places]])
    costs: dict[str, list[float]] = {name: [] for name in ("momentum_flows", *solvers)}
    for _ in range(arguments.repeats):
        costs["momentum_flows"].append(cpu_seconds(lambda: batched(lam, arguments.rtol)) / len(lam))
        for name, solve in solvers.items():
            seconds = [cpu_seconds(lambda s=solve, v=value: s(v)) for value in lam[places]]
            costs[name].append(float(np.mean(seconds)))
    flows = batched(lam, arguments.rtol)
    w = torch.cat([flows.w_plus[-1], flows.w_minus[-1]], -1).numpy()[places]
    ends = {"momentum_flows": w} | {
        name: np.stack([solve(value) for value in lam[places]]) for name, solve in solvers.items()
    }
    table = Table("solver", "ms / flow", "ratio, median (quartiles)", "error, largest / median")
    for name, cost in costs.items():
        ratios = np.divide(cost, costs["momentum_flows"])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        errors = relative_errors(ends[name], references)
        ratio = f"{middle:.3g} ({low:.3g} to {high:.3g})"
        table.add_row(name, f"{1e3 * np.median(cost):.3g}", ratio, errors)
    Console().print(header(machine()))
    Console().print(table)
    Console().print(
        f"{flows}\n{flows.steps.double().mean():.0f} leapfrog steps a flow; estimated errors: "
        f"{flows.error_estimate[-1].max():.0e} / {flows.error_estimate[-1].median():.0e}"
    )


if __name__ == "__main__":
    main()
