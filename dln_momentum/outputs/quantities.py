"""The vocabulary: every quantity under the one name that all files, dashboards and classes use.

``python -m dln_momentum.outputs.quantities`` writes ``docs/quantities.md`` from this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

RATES = ("gamma", "beta", "lam", "eps")
"""The momentum parameters that a user may give; a pair of them determines a run."""
SEEDS = ("seed", "data_seed")

PATH = "_path"
"""``NAME_path`` in results.nc holds the values of ``NAME`` at the recorded steps."""

PLACES = {
    "t": "summary.json of dln-train",
    "f": "summary.json of dln-flow",
    "w": "summary.json of dln-sweep",
    "v": "verify.json",
    "h": "history.nc of dln-train",
    "c": "history.nc of dln-flow (continuous time)",
    "r": "results.nc",
    "a": "attribute of Run, Snapshot or FlowPath",
}
"""Where a quantity is found, by the letter that stands for the place in `Quantity.found`."""


@dataclass(frozen=True)
class Quantity:
    """A row of the table.

    Attributes:
        name: the name everywhere, a Python identifier.
        symbol: LaTeX, without dollar signs.
        long_name: what it is.
        found: letters of `PLACES`.
        group: of its TensorBoard tag ``group/name``; empty for what has no tag.
        units: "1" for pure numbers and for quantities in the units of the data.
    """

    name: str
    symbol: str
    long_name: str
    found: str
    group: str = ""
    units: str = "1"


def _table() -> Iterator[Quantity]:
    q = Quantity
    # settings
    yield q("kind", "", "the command: train, flow, sweep or verify", "tfwv", units="")
    yield q("status", "", "how it ended", "tfwvra", units="")
    yield q("data", "", "name of the data", "tfwv", units="")
    yield q("n", "n", "rows of X", "tfwv")
    yield q("d", "d", "columns of X, the coordinates of theta", "tfwv")
    yield q("rank", r"\mathrm{rank}\,X", "rank of X", "tfvr")
    yield q("alpha", r"\alpha", "initialisation scale", "tfvr")
    yield q("seed", "", "seed of the initialisation, the mini-batches and the label noise", "tfvr")
    yield q("data_seed", "", "seed of the data", "r")
    yield q("start", "", "index of the start in the array of starts", "r")
    yield q("batch_size", "b", "rows in a mini-batch", "twv")
    yield q(
        "path_sums", "", "how S_+- is computed: telescoped, direct or gradient_sum", "tw", units=""
    )
    yield q("gamma", r"\gamma", "step size", "tvhra")
    yield q("beta", r"\beta", "momentum", "tvhra")
    yield q(
        "lam",
        r"\lambda",
        "gamma/(1-beta)^2; of a flow, the coefficient of w''",
        "tfvhra",
        units="time",
    )
    yield q(
        "eps", r"\varepsilon", "gamma/(1-beta), the time that one step takes", "tvhra", units="time"
    )
    yield q("lam_ks", r"\lambda_{KS}", "lambda (1+beta)/2", "tvhr", units="time")
    yield q(
        "flow_lam",
        r"\lambda",
        "lambda of the flow that the statements are about",
        "v",
        units="time",
    )
    yield q(
        "small_lambda_threshold",
        r"\min_i \Delta_{0,i} / (2 F(w_0))",
        "lambda below which Delta never vanishes",
        "tfvr",
        units="time",
    )
    # time
    yield q("step", "k", "recorded step", "hra", units="steps")
    yield q("steps", "k", "steps taken", "tvra", units="steps")
    yield q(
        "steps_to_tol",
        r"k_{\mathrm{tol}}",
        "steps to a training loss at or below the tolerance; none where it was not reached",
        "tra",
        units="steps",
    )
    yield q("time", "t", "time of a flow; eps times the step of a run", "fhc", "flow", "time")
    yield q("t", "t", "times of a flow, called time in files", "a", units="time")
    yield q("coordinate", "i", "index of the coordinate", "hcr")
    yield q("solver", "", "methods that integrated the flow, one after the other", "f", units="")
    yield q("solver_steps", "", "steps of these methods", "f", units="steps")
    yield q("solvers", "", "method, error settings and work of each", "a", units="")
    yield q("message", "", "what the solver reported", "f", units="")
    # iterates
    yield q("theta", r"\theta", "predictor u v", "hcra")
    yield q("theta_star", r"\theta^*", "theta that made the labels", "hcr")
    yield q("theta_start", r"\theta_0", "predictor at the start", "a")
    yield q(
        "minimizer",
        r"\arg\min D",
        "argmin of D(., theta~_0) over X theta = y, for Delta and theta~_0 of the end",
        "hc",
    )
    yield q("u", "u", "first layer, (w_+ + w_-)/2", "a")
    yield q("v", "v", "second layer, (w_+ - w_-)/2", "a")
    yield q("w_plus", "w_+", "u + v", "hca")
    yield q("w_minus", "w_-", "u - v", "hca")
    yield q("dw_plus", r"\dot w_+", "velocity of w_+", "a", units="1/time")
    yield q("dw_minus", r"\dot w_-", "velocity of w_-", "a", units="1/time")
    # loss and recovery
    yield q("train_loss", r"L(\theta)", "1/(2n) ||X theta - y||^2", "tfrhca", "recovery")
    yield q("loss", r"L(\theta)", "training loss, called train_loss in files and by Run", "a")
    yield q("initial_loss", r"L(\theta_0)", "training loss at the start", "f")
    yield q("recovery_error", r"\|\theta - \theta^*\|_2", "distance to theta*", "tfrhc", "recovery")
    yield q(
        "test_error",
        r"L_{\mathrm{test}}(\theta)",
        "1/(2m) ||X_test theta - y_test||^2",
        "tfrhc",
        "recovery",
    )
    yield q("l1_norm", r"\|\theta\|_1", "l1 norm of theta", "tfrhc", "recovery")
    # energy
    yield q("energy", r"F + \frac{\lambda}{2} \|\dot w\|^2", "energy of a flow", "fca", "flow")
    yield q("initial_energy", r"E_0", "energy at the start", "f")
    yield q("dissipated", r"\int \|\dot w\|^2", "energy that a flow has dissipated", "fca", "flow")
    yield q(
        "energy_balance_error",
        r"|E_0 - E - \int \|\dot w\|^2| / E_0",
        "relative error of the energy balance",
        "f",
    )
    # balancedness
    group = "balancedness"
    yield q("balancedness", r"\Delta", "Delta = |u^2 - v^2| = |w_+ w_-|", "hcra")
    yield q("balancedness_start", r"\Delta_0", "balancedness at the start", "a")
    yield q("balancedness_l1", r"\|\Delta\|_1", "l1 norm of the balancedness", "tfrhc", group)
    yield q("initial_balancedness_l1", r"\|\Delta_0\|_1", "||Delta||_1 at the start", "tfr")
    yield q(
        "balancedness_ratio",
        r"\|\Delta\|_1 / \|\Delta_0\|_1",
        "||Delta||_1 relative to the start",
        "tfrhc",
        group,
    )
    yield q(
        "min_balancedness_ratio",
        r"\min_i \Delta_i / \Delta_{0,i}",
        "least Delta relative to the start",
        "tfrhc",
        group,
    )
    yield q("sign_changes", "", "sign changes of the entries of w_+- so far", "tfrhca", group)
    # path sums
    group = "path_sums"
    yield q("s_plus", "S_+", "path sum S_+", "hra")
    yield q("s_minus", "S_-", "path sum S_-", "hra")
    yield q("s_plus_total", r"\sum_i S_{+,i}", "sum of S_+ over the coordinates", "h", group)
    yield q("s_minus_total", r"\sum_i S_{-,i}", "sum of S_- over the coordinates", "h", group)
    yield q(
        "path_sum_balancedness_error",
        r"\max_i |\Delta_i / (\Delta_{0,i} e^{-(S_{+,i} + S_{-,i})}) - 1|",
        "error of Delta against Delta_0 exp(-(S_+ + S_-))",
        "trh",
        group,
    )
    yield q(
        "path_identity_error",
        r"\max_i |\Delta_i / (\Delta_{0,i} e^{-(\tilde S_{+,i} + \tilde S_{-,i})}) - 1|",
        "the same with the boundary terms of S_+-",
        "trh",
        group,
    )
    yield q(
        "log_free_error",
        r"\max_i |q_i - \hat q_i| / \max_i \Delta_{0,i}",
        "error of u^2 - v^2 against its log-free sum, relative to max_i Delta_0",
        "trh",
        group,
    )
    # path integrals
    group = "path_integrals"
    yield q("i_plus", "I_+", "path integral I_+", "c")
    yield q("i_minus", "I_-", "path integral I_-", "c")
    yield q(
        "path_integral_balancedness_error",
        r"\max_i |\Delta_i - \hat\Delta_i| / \max(\Delta_i, \hat\Delta_i)",
        "error of Delta against Delta_0 exp(-(I_+ + I_-))",
        "fc",
        group,
    )
    yield q(
        "path_integral_identity_error",
        r"\max_i |\Delta_i - \hat\Delta_i| / \max(\Delta_i, \hat\Delta_i)",
        "the same with the boundary terms of I_+-",
        "fc",
        group,
    )
    yield q("path_integral_uncertainty", "", "error estimate of the quadrature of I_+-", "f")
    yield q("path_integral_share", "", "fraction of I_+- that is summed from its definition", "f")
    yield q("G", r"\int \nabla L", "integral of grad L", "a")
    yield q("G_delayed", "H", "H with lambda H' + H = G", "a")
    yield q("gradient_square", r"\int (\nabla L)^2", "integral of (grad L)^2", "a")
    # implicit bias
    group = "implicit_bias"
    yield q("log_init", "c", "arcsinh(2 theta~_0/Delta) of the perturbed initialisation", "hca")
    yield q(
        "predicted_balancedness",
        r"\hat\Delta",
        "Delta_0 exp(-(S_+ + S_-)) with the boundary terms of S_+-",
        "a",
    )
    yield q(
        "kkt_residual",
        "",
        "relative norm of the part of (arcsinh(2 theta/Delta) - c)/2 outside the row space",
        "tfrhc",
        group,
    )
    yield q(
        "log_perturbed_init_norm",
        r"\ln \|\tilde\theta_0\|",
        "logarithm of the norm of the perturbed initialisation",
        "tfrhc",
        group,
    )
    yield q(
        "own_level_set_distance",
        "",
        "distance to argmin D(., theta~_0) over X theta' = X theta",
        "fhc",
        group,
    )
    yield q(
        "distance_to_minimizer",
        "",
        "distance to argmin D(., theta~_0) over X theta' = y",
        "tfrhc",
        group,
    )
    yield q(
        "distance_to_limit",
        "",
        "distance to argmin D(., theta~_0) over X theta' = y, Delta and theta~_0 of the end",
        "fhc",
        group,
    )
    yield q(
        "distance_to_unperturbed_minimizer",
        "",
        "distance to argmin psi_Delta over X theta' = y",
        "tfr",
    )
    yield q(
        "distance_to_gradient_flow_minimizer",
        "",
        "distance to argmin D_{Delta_0}(., theta_0) over X theta' = y",
        "tfr",
    )
    yield q(
        "distance_to_effective_initialisation_limit",
        "",
        "distance to the limit of gradient flow from u = sqrt(Delta), v = 0",
        "f",
    )
    # the computation
    yield q("seconds", "", "wall time", "tfwv", units="s")
    yield q("seconds_training", "", "wall time of the training", "w", units="s")
    yield q("seconds_minimisers", "", "wall time of the minimisers", "w", units="s")
    yield q("runs", "", "points of the grid", "w")
    yield q("axes", "", "sizes of the swept axes, by name", "w", units="")
    yield q("endings", "", "number of runs of each status", "w", units="")
    yield q("run_steps", "", "steps of all runs together", "w", units="steps")
    yield q(
        "run_steps_per_second", "", "steps of all runs a second of training", "w", units="steps/s"
    )
    yield q("medians_over", "", "the runs that the medians are over", "w", units="")
    yield q("medians", "", "medians of the quantities, by name", "w", units="")
    yield q("violated", "", "names of the statements that are violated", "v", units="")
    yield q("verdicts", "", "number of statements of each verdict", "v", units="")
    yield q("statements", "", "the statements: predicted, measured, error, verdict", "v", units="")
    # provenance; attributes of NetCDF files have these names, and `config`
    yield q("versions", "", "versions of Python and of the packages", "tfwv", units="")
    yield q(
        "commit", "", "git commit of the package, if it is run from a repository", "tfwv", units=""
    )
    yield q("data_hash", "", "BLAKE2b digest of X and y", "tfwvr", units="")
    yield q("processor", "", "name of the processor", "tfwv", units="")


QUANTITIES = {quantity.name: quantity for quantity in _table()}
"""The table, by name."""


def quantity(name: str) -> Quantity:
    r"""The row of a name; that of ``NAME`` for ``NAME_path``.

    Raises:
        KeyError: for a name that is not in the table.

    >>> quantity("balancedness").symbol, quantity("train_loss_path").name
    ('\\Delta', 'train_loss')
    """
    return QUANTITIES[name if name in QUANTITIES else name.removesuffix(PATH)]


def tag(name: str) -> str:
    """The TensorBoard tag of a quantity.

    >>> tag("kkt_residual")
    'implicit_bias/kkt_residual'
    """
    return f"{QUANTITIES[name].group}/{name}"


def attributes(name: str) -> dict[str, str]:
    """``long_name``, ``units`` and ``symbol`` of a variable of a NetCDF file."""
    row = quantity(name)
    long_name = row.long_name + (", at the recorded steps" if row.name != name else "")
    return {"long_name": long_name, "units": row.units, "symbol": row.symbol}


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset, with `attributes` on each of its variables; it is changed in place."""
    for name, variable in dataset.variables.items():
        variable.attrs |= attributes(str(name))
    return dataset


def document() -> str:
    """``docs/quantities.md``: the table."""
    where = "\n".join(f"- {letter}: {place}" for letter, place in PLACES.items())
    rows = "\n".join("| " + " | ".join(_cells(row)) + " |" for row in QUANTITIES.values())
    return (
        "# Quantities\n\n"
        "Every quantity has one name, in files, on dashboards and in Python. This page is written\n"
        "by `python -m dln_momentum.outputs.quantities` from the table in that module.\n\n"
        "Variables of NetCDF files have the attributes `long_name`, `units` and `symbol`; the\n"
        "files themselves have `kind`, `config` (the YAML text), `versions`, `commit`,\n"
        "`data_hash` and `processor`. `NAME_path` in results.nc holds the values of `NAME` at\n"
        "the recorded steps. TensorBoard shows `group/name`; of several runs at once\n"
        "`group/name/median`, `/min` and `/max`; and `result/name` beside the settings of a run,\n"
        "its value at the end. Units of `1` are those of the data, or none.\n\n"
        f"Found in:\n\n{where}\n\n"
        "| name | symbol | what it is | units | TensorBoard group | found in |\n"
        f"|---|---|---|---|---|---|\n{rows}\n"
    )


def _cells(row: Quantity) -> list[Any]:
    # a bare | would end the cell
    symbol = row.symbol.replace("|", r"\vert ").replace(r"\\vert", r"\Vert")
    text = row.long_name.replace("|", r"\|")
    return [
        f"`{row.name}`",
        f"${symbol}$" if symbol else "",
        text,
        row.units,
        row.group,
        " ".join(row.found),
    ]


if __name__ == "__main__":
    page = Path(__file__).resolve().parents[2] / "docs" / "quantities.md"
    page.write_text(document())
    print(page)
