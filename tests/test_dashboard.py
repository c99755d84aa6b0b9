"""Event files: what TensorBoard's own reader finds in them, against the files they were made of."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Layout,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.plugins.hparams import metadata

from dln_momentum.cli.flow import flow
from dln_momentum.cli.sweep import sweep
from dln_momentum.cli.train import train
from dln_momentum.outputs import dashboard, dashboard_sweep, events, tfrecord
from dln_momentum.outputs.dashboard_panels import panels
from dln_momentum.outputs.history import History
from dln_momentum.outputs.quantities import QUANTITIES, spans_decades, tag
from dln_momentum.training.board import DashboardLogger
from tests.helpers import blank_figures, column, run_job

SMALL = ["data.n=5", "data.d=8", "data.s=1"]
SHORT = [*SMALL, "trainer.max_steps=300", "trainer.records=12"]


def read(directory: Path) -> EventAccumulator:
    """Every event of a directory."""
    everything = {"scalars": 0, "tensors": 0, "compressedHistograms": 0, "images": 0}
    return EventAccumulator(str(directory), size_guidance=everything).Reload()


def hparams_of(found: EventAccumulator) -> dict[str, Any]:
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    parsed = metadata.parse_session_start_info_plugin_data(content)
    return {
        name: getattr(value, str(value.WhichOneof("kind")))
        for name, value in parsed.hparams.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from a tiny start, a flow, and a sweep."""
    root = tmp_path_factory.mktemp("outputs")
    with blank_figures():
        run_job("train", train, root / "train", *SHORT, "model.alpha=1e-25")
        run_job("flow", flow, root / "flow", *SMALL, "flow.records=12")
        axes = ["sweep.gamma=[0.01,0.02]", "sweep.beta=[0.5,1.5]", "sweep.trajectories=true"]
        run_job("sweep", sweep, root / "sweep", *SHORT, *axes)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "flow"])
def test_curves_are_those_of_the_history_over_log10_t(folder: Path, kind: str) -> None:
    found = read(folder / kind)
    history = xr.load_dataset(folder / kind / "history.nc", engine="h5netcdf")
    (axis,) = history["time"].dims
    times = history["time"].to_numpy()
    assert [path.name for path in (folder / kind).glob("*tfevents*")] == ["dashboard.tfevents"]
    drawn = [
        str(name)
        for name, value in history.data_vars.items()
        if value.dims == (axis,) and QUANTITIES[str(name)].group
    ]
    assert len(drawn) > 10
    for name in drawn:
        values = history[name].to_numpy()
        kept = np.isfinite(values) & ((values > 0) | (not spans_decades(name)))
        if not kept.any():
            continue
        points = found.Scalars(tag(name))
        expected = np.log10(values[kept]) if spans_decades(name) else values[kept]
        # TensorBoard keeps single precision
        np.testing.assert_allclose([p.value for p in points], expected, rtol=1e-6, atol=1e-37)
        positive = times[times > 0]
        at = 1000 * np.log10(np.where(times > 0, times, positive[0] / 2))
        np.testing.assert_array_equal([p.step for p in points], np.round(at[kept]))
    # Delta_0 = 2e-50 is below what single precision holds
    if kind == "train":
        first = found.Scalars("potential/log10 balancedness_l1")[0].value
        assert first == pytest.approx(np.log10(8 * 2e-50), rel=1e-6)


def test_a_run_and_a_flow_share_their_tags_and_their_axis(folder: Path) -> None:
    run, flow_ = (read(folder / kind) for kind in ("train", "flow"))
    shared = set(run.Tags()["scalars"]) & set(flow_.Tags()["scalars"])
    assert {tag(name) for name in ("train_loss", "l1_norm", "kkt_residual", "test_error")} <= shared
    history = xr.load_dataset(folder / "train" / "history.nc", engine="h5netcdf")
    last = run.Scalars(tag("l1_norm"))[-1].step
    # step 1000 log10 t, rounded
    assert 10 ** (last / 1000) == pytest.approx(float(history["time"][-1]), rel=2e-3)


def test_measured_and_predicted_are_lines_of_one_chart(folder: Path) -> None:
    for kind in ("train", "flow"):
        found = read(folder / kind)
        event = found.Tensors("custom_scalars__config__")[0]
        layout = Layout.FromString(event.tensor_proto.string_val[0])
        charts = {
            chart.title: list(chart.multiline.tag) for c in layout.category for chart in c.chart
        }
        lines = [tag(name) for name in ("balancedness_l1", "predicted_balancedness_l1")]
        assert [f"^{line}$" for line in lines] in charts.values()
        ends = [found.Scalars(line)[-1].value for line in lines]
        # the theorem: they meet in the limit; the run of 300 steps is not there
        if kind == "flow":
            assert ends[0] == pytest.approx(ends[1], abs=1e-6)
        assert set(found.Tags()["scalars"]) >= set(lines)


def test_the_prediction_is_the_sum_over_the_path(folder: Path) -> None:
    history = xr.load_dataset(folder / "flow" / "history.nc", engine="h5netcdf")
    exponent = (history["i_plus"] + history["i_minus"]).to_numpy()
    expected = (history["balancedness"][0].to_numpy() * np.exp(-exponent)).sum(-1)
    points = read(folder / "flow").Scalars(tag("predicted_balancedness_l1"))
    np.testing.assert_allclose([p.value for p in points], np.log10(expected), rtol=1e-6)


def test_settings_stand_beside_results(folder: Path) -> None:
    row = hparams_of(read(folder / "train"))
    assert row["alpha"] == 1e-25
    assert row["gamma"] == 0.01
    assert row["status"] == "max_steps"
    assert row["data_seed"] == 0
    assert row["model.init"] == "uniform"
    assert row["sampling.label_noise"] == 0
    columns = [
        metadata.parse_experiment_plugin_data(
            read(folder / kind).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
        )
        for kind in ("train", "flow")
    ]
    # TensorBoard reads the columns of one run, whichever it meets first
    assert [m.name.tag for m in columns[0].metric_infos] == [
        m.name.tag for m in columns[1].metric_infos
    ]
    for found in columns:
        shown = {info.name for info in found.hparam_infos if info.differs}
        assert shown == {"alpha", "beta", "gamma", "lam", "status"}
        assert {"data_seed", "batch_size", "data.noise"} <= {i.name for i in found.hparam_infos}


def test_histograms_count_every_coordinate(folder: Path) -> None:
    found = read(folder / "train")
    for name in ("vectors/theta", "vectors/log10 balancedness"):
        points = found.Tensors(name)
        assert len(points) == len(found.Scalars(tag("l1_norm")))
        for point in points:
            buckets = np.frombuffer(point.tensor_proto.tensor_content).reshape(-1, 3)
            assert buckets[:, 2].sum() == 8


def test_text_is_the_summary_and_the_config(folder: Path) -> None:
    (page,) = read(folder / "train").Tensors("summary")
    shown = page.tensor_proto.string_val[0].decode()
    assert "| status | max_steps |" in shown
    assert (folder / "train" / "config.yaml").read_text() in shown


def test_a_sweep_has_quantiles_over_its_runs_and_a_row_for_each(folder: Path) -> None:
    place, name = folder / "sweep", tag("train_loss")
    results = xr.load_dataset(place / "results.nc", engine="h5netcdf")
    losses = results["train_loss_path"].to_numpy().reshape(len(results["step"]), -1)[:, [0, 2]]
    # two runs, the other two points have beta = 1.5
    for kind, expected in (("quantile_0.1", losses.min(1)), ("quantile_0.9", losses.max(1))):
        points = read(place / kind).Scalars(name)
        np.testing.assert_allclose([p.value for p in points], np.log10(expected), rtol=1e-6)
        at = np.round(1000 * np.log10(results["step"].to_numpy()[1:]))
        assert [p.step for p in points][1:] == at.tolist()
    rows = sorted(path.parent.name for path in place.glob("runs/*/dashboard.tfevents"))
    assert rows == [f"gamma_{g}-beta_{b}" for g in (0.01, 0.02) for b in (0.5, 1.5)]
    one = read(place / "runs" / "gamma_0.02-beta_0.5")
    row = hparams_of(one)
    assert (row["gamma"], row["beta"], row["status"]) == (0.02, 0.5, "max_steps")
    loss = float(results["train_loss"].sel(gamma=0.02, beta=0.5))
    assert one.Scalars(name)[0].value == pytest.approx(np.log10(loss), rel=1e-6)
    assert hparams_of(read(place / "runs" / "gamma_0.02-beta_1.5"))["status"] == "invalid"


def test_many_rows_stand_in_a_logdir_of_their_own(folder: Path, tmp_path: Path) -> None:
    """More than 40 runs, and TensorBoard shows none of a logdir until they are ticked by hand."""
    results = xr.load_dataset(folder / "sweep" / "results.nc", engine="h5netcdf").isel(beta=0)
    many = xr.concat([results] * 20, "gamma", data_vars="minimal").assign_coords(
        gamma=np.geomspace(0.01, 0.1, 40)
    )
    summary, root = {"kind": "sweep", "status": "finished"}, tmp_path / "outputs"
    where = dashboard_sweep.write(root / "a", many, summary, "seed: 0\n", root=root)
    assert where is not None
    assert where == tmp_path / "outputs-rows" / "a"
    assert len(list(where.glob("*/dashboard.tfevents"))) == 40
    assert len(list(root.rglob("*.tfevents"))) == 4


def test_curves_of_a_run_under_way_are_replaced_at_its_end(tmp_path: Path) -> None:
    logger, history = DashboardLogger(tmp_path, every=0), History()
    for step in (0, 1, 2, 4):
        history.record(step, {"train_loss": column(10.0**-step), "theta": column(1.0)[None]})
        logger.follow(history, step, eps=0.1)
    (live,) = tmp_path.iterdir()
    points = read(tmp_path).Scalars(tag("train_loss"))
    # step 4 is not over: other monitors may still measure at it
    assert [p.value for p in points] == [0, -1, -2]
    assert [p.step for p in points] == [-1301, -1000, -699]
    logger.log_metrics({"mine": 3.0}, step=10)
    logger.finish(None, {"status": "max_steps", "eps": 0.1}, "seed: 0\n")
    assert not live.exists()
    assert [(p.step, p.value) for p in read(tmp_path).Scalars("mine")] == [(0, 3.0)]


def test_checksums_are_those_of_tensorboard() -> None:
    # the lengths at which chunks begin and end
    ends = [place * tfrecord.CHUNK + more for place in (0, 1, 2) for more in range(-4, 6)]
    messages = [np.random.default_rng(n).bytes(n) for n in ends if n >= 4]
    for data, crc in zip(messages, tfrecord.crc_32c(messages), strict=True):
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert masked == masked_crc32c(data), len(data)


def test_buckets_are_those_of_numpy() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 200)).round(2)
    rows[1, 3], rows[2] = np.nan, np.arange(200)
    for values, (found,) in zip(rows, events.histograms("a", rows), strict=True):
        buckets = np.frombuffer(found.tensor.tensor_content).reshape(-1, 3)
        counts, edges = np.histogram(values[np.isfinite(values)], events.BINS)
        np.testing.assert_array_equal(buckets[:, 2], counts)
        np.testing.assert_array_equal(buckets[:, 0], edges[:-1])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(3), np.full(3, 5e-324), np.full(3, 1e30), np.array([1.0, 1.0 + 2e-16]),
        np.array([-1e300, 2.0]),
        np.array([np.nan, np.inf, 1.0]), np.array([1e-320, 2e-320]),
    ],
)  # fmt: skip
def test_a_histogram_of_anything_finite_counts_it(values: np.ndarray) -> None:
    (found,) = events.histogram("a", values)
    buckets = np.frombuffer(found.tensor.tensor_content).reshape(-1, 3)
    kept = values[np.isfinite(values) & (abs(values) < 3e38)]
    assert buckets[:, 2].sum() == len(kept)
    assert buckets[0, 0] <= kept.min() <= kept.max() <= buckets[-1, 1]
    assert (buckets[:, 0] < buckets[:, 1]).all()
    assert not events.histogram("a", np.array([np.nan, np.inf]))


def test_a_dashboard_costs_less_than_a_tenth_of_a_second(folder: Path, tmp_path: Path) -> None:
    place = folder / "train"
    history = xr.load_dataset(place / "history.nc", engine="h5netcdf")
    summary = {"status": "max_steps", "eps": 0.1}
    started = time.process_time()
    dashboard.write(tmp_path, history, summary, (place / "config.yaml").read_text())
    # 12 records instead of 200; 0.05 s for those on an Intel Xeon
    assert time.process_time() - started < 0.1


def test_what_is_no_overview_is_shown_whole(folder: Path) -> None:
    shown = [value.tag for value in panels(folder / "train" / "overview.png")]
    assert shown == ["overview/0 all"]
