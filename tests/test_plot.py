"""dln.plot and dln-plot: what is drawn is the statistics of the runs, and can be read."""

from __future__ import annotations

import io
import re
import zlib
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fontTools.subset import Options
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

import dln_momentum as dln
from dln_momentum.cli.plot import main
from dln_momentum.outputs.drawing import set_scale
from dln_momentum.outputs.figure_files import lay_out, save
from dln_momentum.outputs.sweep_figure import overview
from dln_momentum.outputs.table_axes import Axis
from dln_momentum.outputs.table_figure import table_figure
from dln_momentum.rates import named_rates


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Runs over gamma, beta and seed; at the largest gamma and beta one of three diverges."""
    random = np.random.default_rng(0)
    rows = [
        {"gamma": gamma, "beta": beta, "seed": seed, "l1_norm": random.uniform(1, 2),
         "status": "diverged" if (gamma, beta, seed) == (1.0, 0.9, 0) else "converged",
         "data": "drawn", "sampling.kind": ("full", "reshuffle")[seed > 0]}
        for gamma in (0.01, 0.1, 1.0) for beta in (0.0, 0.5, 0.9) for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def usable(runs: Any) -> Any:
    return runs[runs["status"] != "diverged"]


def labels_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_curves_are_medians_and_quartiles(runs: pd.DataFrame) -> None:
    figure = dln.plot(runs, x="gamma", y="l1_norm", hue="beta")
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == r"step size $\gamma$"
    assert labels_of(figure) == ["0", "0.5", "0.9"]
    curves = [line for line in ax.lines if line.get_linestyle() == "-"]
    for beta, curve in zip((0.0, 0.5, 0.9), curves, strict=True):
        groups = usable(runs[runs["beta"] == beta]).groupby("gamma")["l1_norm"]
        np.testing.assert_array_equal(curve.get_ydata(), groups.median())
        band = ax.collections[curves.index(curve)].get_paths()[0].vertices
        low, high = groups.quantile(0.25), groups.quantile(0.75)
        assert set(np.asarray(band)[:, 1]) >= {*low, *high}
    # the one place where some of the runs diverged
    (circles,) = (line for line in ax.lines if line.get_linestyle() == "None")
    assert np.isfinite(np.asarray(circles.get_ydata())).tolist() == [False, False, True]
    title = figure.get_suptitle()
    assert "27 runs, 26 converged, 1 diverged" in title
    assert "open circle: some of the runs have diverged" in title


def test_a_map_has_level_lines_and_hatches_mixed_cells(runs: pd.DataFrame) -> None:
    renamed = runs.rename(columns={"gamma": "optimizer.gamma"})
    figure = dln.plot(renamed, x="optimizer.gamma", y="beta", z="l1_norm")
    ax = figure.axes[0]
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    medians = usable(runs).pivot_table(index="beta", columns="gamma", values="l1_norm",
                                       aggfunc="median")  # fmt: skip
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), medians.to_numpy().ravel())
    (hatched,) = (c for c in ax.collections if isinstance(c, PolyCollection))
    assert hatched.get_hatch()
    (cell,) = hatched.get_paths()
    # a cell of a log axis reaches half a decade to both sides, of a linear one half a gap
    np.testing.assert_allclose(cell.get_extents().get_points(), [[10**-0.5, 0.7], [10**0.5, 1.1]])
    assert "hatched: some of the runs have diverged" in figure.get_suptitle()
    assert r"\lambda$ (solid)" in figure.get_suptitle()


def test_panels_points_and_text(runs: pd.DataFrame) -> None:
    figure = dln.plot(runs, x="sampling.kind", y="l1_norm", col="beta", kind="scatter")
    assert [ax.get_title() for ax in figure.axes] == [
        rf"momentum $\beta$ = {beta}" for beta in ("0", "0.5", "0.9")
    ]
    points = sum(len(np.asarray(line.get_xdata())) for ax in figure.axes for line in ax.lines)
    assert points == 27
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["full", "reshuffle"]


@pytest.mark.parametrize(
    "values", [[0.01, 0.02, 0.03], [0.011, 0.012, 0.0131], [0.1, 0.3, 1.0, 5.0], [1e-5, 1e-4, 2e-3]]
)
def test_labels_of_short_log_axes_do_not_overlap(values: list[float]) -> None:
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    set_scale(ax, "x", values)
    ax.set(xscale="log")
    set_scale(ax, "x", values)
    ax.plot(values, values)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    ticks = [*ax.xaxis.get_major_ticks(), *ax.xaxis.get_minor_ticks()]
    low, high = ax.get_xlim()
    shown = [t.label1 for t in ticks if t.label1.get_text() and low <= t.get_loc() <= high]
    boxes = sorted(list(label.get_window_extent(renderer).extents) for label in shown)
    assert len(boxes) >= 2
    assert all(left[2] < right[0] for left, right in pairwise(boxes))


LONG = ["a factor model of rank 3", "rademacher", "uniform on the sphere"]


@pytest.mark.parametrize(
    "axes",
    [
        {"alpha": np.linspace(0.0123, 0.0987, 6), "speed": np.linspace(-0.01234, 0.01, 5)},
        {"data.design": LONG},
        *(
            pytest.param(axes, marks=pytest.mark.slow)
            for axes in (
                {"gamma": np.array([0.01, 0.02, 0.03]), "beta": np.linspace(0.5, 0.98765, 4)},
                {
                    "gamma": np.geomspace(1.2345e-3, 0.1, 6),
                    "model.factory.of_a_long_name": ["gaussian", "rademacher"],
                },
                {"data.design": LONG, "lam": np.linspace(-98765.4, 123456.0, 7)},
                {"speed": np.linspace(-1.2345e-7, 2e-7, 64), "alpha": np.geomspace(0.1, 0.13, 3)},
            )
        ),
    ],
    ids="-".join,
)
def test_nothing_of_a_sweeps_figure_is_cut_off_or_covered(axes: dict[str, Any]) -> None:
    shape = [len(values) for values in axes.values()]
    share = np.random.default_rng(0).uniform(size=shape)
    # linear colour bars, and logarithmic ones of less than a decade and of several
    spans = {"recovery_error": (-1.9, -1.8), "balancedness_ratio": (-0.3, 0.3),
             "steps_to_tol": (4.1, 5.9), "sign_changes": (0, 0.9),
             "distance_to_gradient_flow_minimizer": (-9, -2)}  # fmt: skip
    values = {name: 10 ** (low + (high - low) * share) for name, (low, high) in spans.items()}
    values["status"] = np.where(share > 0.5, "converged", "max_steps").astype(object)
    results = xr.Dataset({k: (list(axes), v) for k, v in values.items()}, axes, {"data": "drawn"})
    if "beta" in axes:  # which has lines of lambda
        results = results.assign_coords(named_rates(results["gamma"], results["beta"]))
    figure = overview(results)
    assert figure is not None
    lay_out(figure)
    boxes: list[Any] = [
        part.get_tightbbox() for part in (*figure.axes, *figure.legends, *figure.texts)
    ]
    everything, page = Bbox.union(boxes), figure.bbox
    assert page.x0 <= everything.x0 < everything.x1 <= page.x1
    assert page.y0 <= everything.y0 < everything.y1 <= page.y1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for ax in figure.axes:
        labels = [label for label in ax.get_xticklabels() if label.get_text()]
        if labels and labels[0].get_rotation() == 0:
            ends = [label.get_window_extent() for label in labels]
            assert all(left.x1 < right.x0 for left, right in pairwise(ends))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (Axis("line", "gama", "l1_norm"), "x = gama is no column (did you mean gamma?)"),
        (Axis("heatmap", "gamma", "beta"), "z is missing"),
        (Axis("heatmap", "gamma", "beta", "status"), "z = status must be numbers"),
        (Axis("line", "gamma", "l1_norm", z="beta"), "z = beta is for kind=heatmap"),
        (Axis("pie", "gamma", "l1_norm"), "kind = pie must be one of line, scatter, heatmap"),
        (Axis("heatmap", "gamma", "data", "l1_norm"), "y = data has one value; a heat map needs"),
        (Axis("line", "gamma", "data"), "y = data must be numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs: pd.DataFrame, axes: Axis, message: str) -> None:
    with pytest.raises(dln.InputError) as caught:
        table_figure(runs, axes)
    assert message in str(caught.value)


def test_without_names_a_table_is_refused_with_what_varies(runs: pd.DataFrame) -> None:
    with pytest.raises(dln.InputError, match="y missing: name columns; what varies here"):
        dln.plot(runs, x="gamma")
    with pytest.raises(dln.InputError, match="kind=overview is of one run, flow or sweep"):
        dln.plot(runs)


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return dln.sweep(
        lambda seed: dln.sparse(n=5, d=8, s=1, seed=seed),
        gamma=[0.5, 1.0, 2.0], beta=[0.0, 0.5], data_seed=[0, 1, 2], max_steps=50,
    )  # fmt: skip


@pytest.mark.slow
def test_a_dataset_a_file_and_a_table_are_one_figure(sweep: xr.Dataset, tmp_path: Path) -> None:
    sweep.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    dln.collect(tmp_path).to_csv(tmp_path / "runs.csv")
    dln.results(tmp_path, tmp_path).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    sources = [sweep, tmp_path, tmp_path / "results.nc", str(tmp_path / "runs.csv")]
    drawn = [dln.plot(source, x="gamma", y="train_loss", hue="beta") for source in sources]
    # a table of text rounds nothing
    for figure in drawn:
        ours, first = figure.axes[0].lines, drawn[0].axes[0].lines
        for line, other in zip(ours, first, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())


def test_the_sweeps_own_figure_marks_mixed_cells(sweep: xr.Dataset) -> None:
    mixed = sweep.copy(deep=True)
    mixed.attrs["data"] = "drawn"
    mixed["status"][...] = "converged"
    mixed["status"][2, 1, 0] = "diverged"
    figure = overview(mixed)
    assert figure is not None
    hatched = [c for ax in figure.axes for c in ax.collections if c.get_hatch()]
    # five maps and the map of the status
    assert len(hatched) == 6
    assert all(len(collection.get_paths()) == 1 for collection in hatched)


def run_command(*words: object) -> int:
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_writes_both_files_and_replaces_none(
    runs: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = tmp_path / "runs.csv"
    runs.to_csv(table)
    assert run_command(table, "x=gamma", "y=l1_norm") == 0
    kept = [tmp_path / f"gamma-l1_norm{suffix}" for suffix in (".png", ".pdf")]
    assert [path.stat().st_size > 1000 for path in kept] == [True, True]
    before = [path.read_bytes() for path in kept]
    assert run_command(table, "x=gamma", "y=l1_norm") == 0
    assert len(list(tmp_path.iterdir())) == 3
    runs.assign(l1_norm=runs["l1_norm"] + 1).to_csv(table)
    assert run_command(table, "x=gamma", "y=l1_norm", f"out={kept[0]}") == 0
    assert (tmp_path / "gamma-l1_norm-2.png").exists()
    assert [path.read_bytes() for path in kept] == before
    capsys.readouterr()
    assert run_command(table, "x=gamma", "huee=beta", "y=") == 2
    shown = capsys.readouterr().err
    assert "unknown key huee (did you mean hue?)" in shown
    assert "give y once, with a value" in shown
    assert run_command(tmp_path / "nowhere", "x=gamma", "y=beta") == 2
    assert run_command(table, "x=gamma", "y=beta", "out=no/where.png") == 2
    assert run_command("x=gamma") == 2


def test_null_is_a_value_among_others() -> None:
    table = pd.DataFrame(
        {"design": ["gaussian", "rademacher"] * 2, "batch_size": [5, 5, None, None],
         "l1_norm": [1.0, 2.0, 3.0, 4.0]}
    )  # fmt: skip
    figure = dln.plot(table, x="design", y="l1_norm", hue="batch_size")
    assert labels_of(figure) == ["5", "none"]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert drawn == [[1, 2], [3, 4]]
    panels = dln.plot(table, x="design", y="l1_norm", col="batch_size").axes
    assert [ax.get_title() for ax in panels] == [
        "rows in a mini-batch $b$ = 5", "rows in a mini-batch $b$ = none",
    ]  # fmt: skip
    # text, and null beside a single number, have a place each on a map
    ax = dln.plot(table, x="design", y="batch_size", z="l1_norm").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["gaussian", "rademacher"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["5", "none"]
    (mesh,) = [item for item in ax.collections if isinstance(item, QuadMesh)]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), [1, 2, 3, 4])


def test_runs_without_a_place_on_the_axis_are_counted() -> None:
    table = pd.DataFrame({"gamma": [0.1, 0.2, np.nan], "l1_norm": [1.0, 2.0, 3.0]})
    assert "1 runs have no gamma" in dln.plot(table, x="gamma", y="l1_norm").get_suptitle()


def test_numbers_that_differ_by_rounding_are_one_place() -> None:
    """lambda of (gamma, beta) and of (lam, eps): 1 and 1 - 1e-15."""
    table = pd.DataFrame({"lam": [0.5, 1.0, 1 - 1e-15, 2.0], "l1_norm": [1.0, 2.0, 4.0, 5.0]})
    line = dln.plot(table, x="lam", y="l1_norm").axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.5, 1, 2])
    np.testing.assert_array_equal(line.get_ydata(), [1, 3, 5])


def test_the_scale_is_that_of_what_is_drawn() -> None:
    """Outliers beyond the quartiles span decades; the band does not, and its axis has numbers."""
    table = pd.DataFrame(
        {"gamma": [0.1] * 9 + [0.2] * 9, "l1_norm": [1e-3, *np.linspace(1, 2, 7), 1e3] * 2}
    )
    (ax,) = dln.plot(table, x="gamma", y="l1_norm").axes
    assert ax.get_yscale() == "linear"


def test_the_runs_of_train_are_drawn_as_those_of_a_sweep() -> None:
    problem = dln.sparse(n=5, d=8, s=1)
    runs = dln.train(problem, gamma=[0.01, 0.02], beta=[[0.5], [0.9]], max_steps=99)
    swept = dln.sweep(problem, gamma=[0.01, 0.02], beta=[0.5, 0.9], max_steps=99)
    names = {"x": "gamma", "y": "l1_norm", "hue": "beta"}
    drawn = [
        [line.get_xydata() for line in dln.plot(source, **names).axes[0].get_lines()]
        for source in (runs, swept)
    ]
    assert len(drawn[0]) == 2
    np.testing.assert_array_equal(np.array(drawn[0]), np.array(drawn[1]))
    with pytest.raises(dln.InputError, match="what varies here: gamma, beta, lam, eps"):
        dln.plot(runs, x="gamma")
    with pytest.raises(dln.InputError, match="l1_norm has a value at every step"):
        dln.plot(runs.to_dataset(), **names)


def test_fonts_in_a_pdf_hold_the_glyphs_and_no_tables_that_text_is_set_by(tmp_path: Path) -> None:
    """Type 42, which journals and editors of drawings read; 8,000 glyphs would be 700 kB."""
    if not hasattr(Options, "_drop_tables_default"):
        pytest.skip("a fontTools that keeps it elsewhere")
    usual, figure = list(Options().drop_tables), Figure()
    figure.text(0.5, 0.5, r"fi AV $\theta_\infty$")
    save(figure, tmp_path / "text.pdf")
    written = (tmp_path / "text.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", written, re.DOTALL)
    unpacked = [zlib.decompress(stream) for stream in streams if stream[:1] == b"\x78"]
    fonts = [TTFont(io.BytesIO(s)) for s in unpacked if s[:4] == b"\x00\x01\x00\x00"]
    assert len(fonts) >= 2
    assert all("glyf" in font and len(font.getGlyphOrder()) < 50 for font in fonts)
    assert not any(table in font for font in fonts for table in ("GSUB", "GPOS", "GDEF"))
    assert Options().drop_tables == usual
