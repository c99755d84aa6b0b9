"""The figure of flows of many lambda: their numbers at the end, against lambda."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dln_momentum.flows import FlowStatus
from dln_momentum.outputs.flow_results import counted
from dln_momentum.outputs.plotting import LARGEST, spans_a_decade, style

PANELS = {
    "recovery_error": r"recovery error $\|\theta - \theta^*\|_2$",
    "l1_norm": r"$\|\theta\|_1$",
    "balancedness_ratio": r"$\|\Delta\|_1 \,/\, \|\Delta_0\|_1$",
    "sign_changes": r"sign changes of $w_\pm$",
    "distance_to_gradient_flow_minimizer": "distance to the gradient-flow limit",
    "time": "time t at the end",
}


def flows_figure(results: xr.Dataset) -> Figure:
    """Recovery, l1 norm, balancedness, sign changes, gradient-flow limit and time against lambda.

    Args:
        results: as `dln_momentum.outputs.flow_results.flows_dataset` gives them; the last of
            several times is drawn.
    """
    last = results.isel(time=-1) if "time" in results.dims else results
    last = last.sortby("lam")
    last = last.where(last["status"] != FlowStatus.FAILED.value)
    lam = last["lam"].to_numpy()
    with style():
        figure = Figure(figsize=(12, 6.5), layout="constrained")
        for ax, (name, title) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
            values = np.broadcast_to(last[name].to_numpy(), lam.shape).astype(float)
            shown = np.where(np.abs(values) < LARGEST, values, np.nan)
            ax.plot(lam, shown, marker="o", ms=3)
            ax.set(xlabel=r"$\lambda$", ylabel=title)
            if lam[0] == 0 and len(lam) > 1:
                # lambda = 0 is drawn where the axis is linear
                ax.set_xscale("symlog", linthresh=lam[1])
            elif spans_a_decade(lam):
                ax.set_xscale("log")
            if spans_a_decade(shown):
                ax.set_yscale("log")
        endings = ", ".join(f"{n} {label}" for label, n in counted(results).items())
        figure.suptitle(f"{len(lam)} flows: {endings}")
        return figure
