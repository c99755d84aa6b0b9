"""The frames of TFRecord, in which TensorBoard's event files hold their records."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

CHUNK = 512
"""Bytes whose checksum is computed at once."""


def framed(records: Sequence[bytes]) -> bytes:
    """Records of TFRecord: the length of each, the checksum of that, the data and its checksum."""
    parts = [part for data in records for part in (struct.pack("<Q", len(data)), data)]
    # rotated and shifted as TFRecord wants it
    masked = (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF for crc in crc_32c(parts))
    checked = zip(parts, masked, strict=True)
    return b"".join(piece for part, crc in checked for piece in (part, struct.pack("<I", crc)))


def crc_32c(messages: Sequence[bytes]) -> list[int]:
    """The cyclic redundancy check of messages of four bytes or more by Castagnoli's polynomial.

    The register is linear in what it has read: what a byte adds to it depends on the byte and on
    how many follow. So a chunk is a sum (exclusive or) over a table of both, in which the register
    before it is added to its first four bytes; at first all bits of it are set. Zeros before a
    message change nothing.

    >>> [hex(crc) for crc in crc_32c([b"123456789", bytes(1000)])]
    ['0xe3069283', '0xd84dda57']
    """
    table = _contributions()
    padded = [
        bytes(-len(text) % CHUNK) + bytes(255 - byte for byte in text[:4]) + text[4:]
        for text in messages
    ]
    chunks = np.frombuffer(b"".join(padded), dtype=np.uint8).reshape(-1, CHUNK)
    sums: list[int] = []
    for start in range(0, len(chunks), CHUNK):
        part = table[np.arange(CHUNK), chunks[start : start + CHUNK]]
        sums += np.bitwise_xor.reduce(part, axis=1).tolist()
    first, second, third, fourth = table[:4].tolist()
    found, place = [], 0
    for text in padded:
        crc, end = 0, place + len(text) // CHUNK
        for added in sums[place:end]:
            crc = (
                added ^ first[crc & 255] ^ second[crc >> 8 & 255]
                ^ third[crc >> 16 & 255] ^ fourth[crc >> 24]
            )  # fmt: skip
        found.append(crc ^ 0xFFFFFFFF)
        place = end
    return found


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
