"""TensorBoard's event files: protocol buffers of the package tensorboard in frames of TFRecord.

The frames are written here: the writer that comes with tensorboard imports 0.1 s of modules, and
torch's ``SummaryWriter`` starts a thread and a file for every run. The protocol buffers alone take
0.02 s, and are imported when the first value is made.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A ``Summary.Value``: the generated classes of tensorboard have no types."""

CHUNK = 512
"""Bytes whose checksum is computed at once."""

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


def histogram(tag: str, values: np.ndarray) -> list[Value]:
    """The distribution of finite values in `BINS` equal buckets; nothing for none."""
    finite = values[np.isfinite(values) & (abs(values) < LARGEST)]
    if not finite.size:
        return []
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        # all but equal: edges so close could not be told apart
        margin = abs(high) / 1000 or 0.5
        low, high = low - margin, high + margin
    counts, edges = np.histogram(finite, BINS, (low, high))
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return [_tensor(tag, "histograms", buckets)]


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


def events(steps: Iterable[tuple[int, Sequence[Value]]]) -> bytes:
    """Values at steps as the bytes of an event file, without its head."""
    event, summary = (
        _messages("compat.proto.event").Event,
        _messages("compat.proto.summary").Summary,
    )
    now = time.time()
    frames = (
        event(wall_time=now, step=step, summary=summary(value=values)).SerializeToString()
        for step, values in steps
        if values
    )
    return b"".join(map(_frame, frames))


def head() -> bytes:
    """The first frame of a file."""
    event = _messages("compat.proto.event").Event
    return _frame(event(wall_time=time.time(), file_version=VERSION).SerializeToString())


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


def _frame(data: bytes) -> bytes:
    """A record of TFRecord: its length, the checksum of that, the data and its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", _masked(length)), data, struct.pack("<I", _masked(data)))
    )


def _masked(data: bytes) -> int:
    """The CRC-32C of bytes, rotated and shifted as TFRecord wants it."""
    crc = crc_32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc_32c(data: bytes) -> int:
    """The cyclic redundancy check of bytes by Castagnoli's polynomial.

    The register is linear in what it has read: what a byte adds to it depends on the byte and on
    how many follow. So a chunk is a sum (exclusive or) over a table of both, in which the register
    before it is added to its first four bytes.

    >>> hex(crc_32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for start in range(0, len(data), CHUNK):
        part = np.frombuffer(data[start : start + CHUNK].ljust(4, b"\0"), dtype=np.uint8).copy()
        short = 4 - min(4, len(data) - start)
        part[:4] ^= np.frombuffer(struct.pack("<I", crc), dtype=np.uint8)
        if short:
            # of fewer than four bytes the rest of the register moves up
            part = part[: 4 - short]
        rows = np.arange(CHUNK - len(part), CHUNK)
        added = int(np.bitwise_xor.reduce(_contributions()[rows, part]))
        crc = added ^ (crc >> 8 * (4 - short) if short else 0)
    return crc ^ 0xFFFFFFFF


@cache
def _contributions() -> NDArray[np.uint32]:
    """What a byte adds to the register, by its place before the end of a chunk, [CHUNK, 256]."""
    bits = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        bits = bits >> 1 ^ np.uint32(0x82F63B78) * (bits & 1)
    found = np.empty((CHUNK, 256), dtype=np.uint32)
    found[-1] = bits
    for place in range(CHUNK - 2, -1, -1):
        later = found[place + 1]
        found[place] = bits[later & 0xFF] ^ (later >> 8)
    return found
