"""TensorBoard's event files: protocol buffers of the package tensorboard in frames of TFRecord.

The frames are our own (`dln_momentum.outputs.tfrecord`): the writer that comes with tensorboard
imports 0.1 s of modules, and torch's ``SummaryWriter`` starts a thread and a file for every run.
The protocol buffers alone take 0.02 s, and are imported when the first value is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from dln_momentum.outputs.tfrecord import framed

Value = Any
"""A ``Summary.Value``: the generated classes of tensorboard have no types."""


VERSION = "brain.Event:2"
"""What the first event of a file has to say."""

BINS = 30
"""Buckets of a histogram, as many as TensorBoard draws."""

LARGEST = float(np.finfo(np.float32).max)
"""TensorBoard keeps scalars in single precision."""


def scalars(values: Mapping[str, float]) -> list[Value]:
    """One scalar a tag; what single precision cannot hold, and nan, is left out."""
    make = _messages("compat.proto.summary").Summary.Value
    return [
        make(tag=tag, simple_value=value)
        for tag, value in values.items()
        if -LARGEST < value < LARGEST
    ]


def scalar_rows(columns: Mapping[str, np.ndarray]) -> list[bytes]:
    """`scalars` of each row of columns by tag, as the bytes of one ``Summary`` a row.

    Making a message for each of a few thousand numbers would take as long as everything else in a
    file. All but a number is the same in all messages of a tag, and the number stands at the end.

    >>> rows = scalar_rows({"a/b": np.array([0.5, np.nan, 1e300])})
    >>> rows[0] == _messages("compat.proto.summary").Summary(
    ...     value=scalars({"a/b": 0.5})
    ... ).SerializeToString(), rows[1:]
    (True, [b'', b''])
    """
    make = _messages("compat.proto.summary").Summary
    begins = [make(value=scalars({tag: 1.0})).SerializeToString()[:-4] for tag in columns]
    table = np.stack([*columns.values()], axis=1).astype(np.float64)
    shown = abs(table) < LARGEST
    cells = np.where(shown, table, 0.0).astype("<f4").view("V4")
    return [
        b"".join(
            begin + number for begin, number, yes in zip(begins, row, there, strict=True) if yes
        )
        for row, there in zip(cells.tolist(), shown.tolist(), strict=True)
    ]


def histogram(tag: str, values: np.ndarray) -> list[Value]:
    """The distribution of finite values in `BINS` equal buckets; nothing for none."""
    return histograms(tag, values.reshape(1, -1))[0]


def histograms(tag: str, rows: np.ndarray) -> list[list[Value]]:
    """`histogram` of each row of an array; the buckets are those of `numpy.histogram`."""
    finite = np.isfinite(rows) & (abs(rows) < LARGEST)
    low = np.where(finite, rows, np.inf).min(axis=1, initial=np.inf)
    high = np.where(finite, rows, -np.inf).max(axis=1, initial=-np.inf)
    some = low <= high
    low, high = np.where(some, low, 0.0), np.where(some, high, 0.0)
    # all but equal: edges so close could not be told apart
    equal = high - low <= 1e-6 * np.maximum(abs(low), abs(high))
    margin = abs(high) / 1000
    margin = np.where(equal, np.where(margin > 0, margin, 0.5), 0.0)
    low, high = (low - margin)[:, None], (high + margin)[:, None]
    edges = np.linspace(low[:, 0], high[:, 0], BINS + 1, axis=1)
    kept = np.where(finite, rows, low)
    place = np.minimum(((kept - low) / (high - low) * BINS).astype(int), BINS - 1)
    # rounding may have put a value beside its bucket
    place -= kept < np.take_along_axis(edges, place, 1)
    place += (kept >= np.take_along_axis(edges, place + 1, 1)) & (place < BINS - 1)
    counts = np.zeros((len(rows), BINS))
    np.add.at(counts, (np.arange(len(rows))[:, None], place), finite)
    buckets = np.stack([edges[:, :-1], edges[:, 1:], counts], axis=2)
    return [
        [_tensor(tag, "histograms", table)] if shown else []
        for table, shown in zip(buckets, some, strict=True)
    ]


def text(tag: str, markdown: str) -> list[Value]:
    """A page of Markdown."""
    return [_tensor(tag, "text", [markdown.encode()])]


def image(tag: str, png: bytes, width: int, height: int) -> list[Value]:
    """A picture in the PNG format."""
    size = [str(width).encode(), str(height).encode()]
    return [_tensor(tag, "images", [*size, png])]


def layout(categories: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Value]:
    """The charts of the page Custom Scalars: the tags (regular expressions) of each, by title.

    Args:
        categories: the charts by title, by the heading under which they stand.
    """
    pb = _messages("plugins.custom_scalar.layout")
    found = pb.Layout(
        category=[
            pb.Category(
                title=heading,
                chart=[
                    pb.Chart(title=title, multiline=pb.MultilineChartContent(tag=tags))
                    for title, tags in charts.items()
                ],
            )
            for heading, charts in categories.items()
        ]
    )
    return [_tensor("custom_scalars__config__", "custom_scalars", [found.SerializeToString()])]


def hparams(
    name: str,
    settings: Mapping[str, Any],
    columns: Mapping[str, type],
    first: Sequence[str],
    metrics: Mapping[str, str],
    status: str,
) -> list[Value]:
    """One row of the page HPARAMS, and the columns of its table.

    TensorBoard takes the columns from one run of a logdir, whichever it meets first, so that every
    run should name those of all.

    Args:
        name: of the row; rows of one name are averaged.
        settings: the row: numbers, booleans and text by column.
        columns: every column, with float, bool or str.
        first: those that are shown from the start; TensorBoard does so for five.
        metrics: the names of results by the tag of the scalar whose last value they are.
        status: how the run ended: SUCCESS or FAILURE.
    """
    api, data = _messages("plugins.hparams.api"), _messages("plugins.hparams.plugin_data")
    kinds = {float: "FLOAT64", bool: "BOOL", str: "STRING"}
    experiment = api.Experiment(
        hparam_infos=[
            api.HParamInfo(
                name=column,
                type=getattr(api, f"DATA_TYPE_{kinds[kind]}"),
                # the table begins with columns that are said to differ
                differs=column in first,
            )
            for column, kind in columns.items()
        ],
        metric_infos=[
            api.MetricInfo(name=api.MetricName(tag=tag), display_name=shown)
            for tag, shown in metrics.items()
        ],
    )
    start = data.SessionStartInfo(group_name=name, start_time_secs=time.time())
    for column, value in settings.items():
        cell = start.hparams[column]
        if isinstance(value, bool):
            cell.bool_value = value
        elif isinstance(value, int | float):
            cell.number_value = value
        else:
            cell.string_value = str(value)
    end = data.SessionEndInfo(end_time_secs=time.time(), status=getattr(api, f"STATUS_{status}"))
    parts = {"experiment": experiment, "session_start_info": start, "session_end_info": end}
    return [
        _tensor(
            f"_hparams_/{kind}",
            "hparams",
            0.0,
            data.HParamsPluginData(**{kind: part}).SerializeToString(),
        )
        for kind, part in parts.items()
    ]


def events(steps: Iterable[tuple[int, Sequence[Value] | bytes]]) -> bytes:
    """Values at steps as the bytes of an event file, without its head.

    Args:
        steps: messages, or the bytes of a ``Summary`` as `scalar_rows` makes them.
    """
    event, summary = (
        _messages("compat.proto.event").Event,
        _messages("compat.proto.summary").Summary,
    )
    now, records = time.time(), list[bytes]()
    for step, values in steps:
        if isinstance(values, bytes) and values:
            # protocol buffers are read as one message where they follow each other
            start = event(wall_time=now, step=step).SerializeToString()
            records.append(start + _SUMMARY + _varint(len(values)) + values)
        elif values:
            made = event(wall_time=now, step=step, summary=summary(value=values))
            records.append(made.SerializeToString())
    return framed(records)


_SUMMARY = b"\x2a"
"""Field 5 of an Event, its summary, whose length follows."""


def _varint(number: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first.

    >>> _varint(300).hex()
    'ac02'
    """
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def head() -> bytes:
    """The first frame of a file."""
    event = _messages("compat.proto.event").Event
    return framed([event(wall_time=time.time(), file_version=VERSION).SerializeToString()])


def _tensor(tag: str, plugin: str, content: Any, settings: bytes = b"") -> Value:
    """A value that a plugin of TensorBoard reads: a number, rows of numbers, or byte strings."""
    pb, types = _messages("compat.proto.summary"), _messages("compat.proto.types")
    if isinstance(content, list):
        shape, given = (len(content),), {"dtype": types.DT_STRING, "string_val": content}
    else:
        array = np.asarray(content, dtype=np.float64)
        shape = array.shape
        given = {"dtype": types.DT_DOUBLE, "tensor_content": array.tobytes()}
    sizes = _messages("compat.proto.tensor_shape").TensorShapeProto
    named = pb.SummaryMetadata.PluginData(plugin_name=plugin, content=settings)
    return pb.Summary.Value(
        tag=tag,
        metadata=pb.SummaryMetadata(plugin_data=named),
        tensor=_messages("compat.proto.tensor").TensorProto(
            tensor_shape=sizes(dim=[sizes.Dim(size=size) for size in shape]), **given
        ),
    )


@cache
def _messages(name: str) -> Any:
    """The generated classes of one file of protocol buffers."""
    return import_module(f"tensorboard.{name}_pb2")
