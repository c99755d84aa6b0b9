"""Whether a NetCDF-4 file is as long as it was written, without a library that reads it."""

from __future__ import annotations

from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_END_AT = {0: 40, 1: 44, 2: 28, 3: 28}
"""Where the superblock of HDF5 holds the length of the file, by its version, with offsets of 8
bytes ("HDF5 File Format Specification", section II.A)."""


def is_whole(path: Path) -> bool:
    """Whether a file begins as HDF5 does and has the length that it says it has.

    That is how a copy ends that was broken off, or a file on a disk that was full or lost power.

    Raises:
        OSError: if it cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     is_whole(Path(file.name))
    False
    """
    with path.open("rb") as file:
        head = file.read(64)
    if len(head) < 64 or not head.startswith(_SIGNATURE) or head[8] not in _END_AT:
        return False
    at = _END_AT[head[8]]
    return path.stat().st_size >= int.from_bytes(head[at : at + 8], "little")
