"""The standard output of a command: nothing that is only printed may end a job.

A reader that closes its end of a pipe, as ``head``, and a terminal that has no sign for a letter
would otherwise raise in the middle of a job whose files are what counts.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class UnbrokenFile(io.FileIO):
    """A file descriptor whose reader may go away: what is written from then on is dropped."""

    def write(self, data: Any, /) -> int:
        """Write bytes; the number of bytes that are dealt with."""
        try:
            return super().write(data)
        except BrokenPipeError:
            # for what writes to the descriptor itself too, and for Python's own last flush
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def settle_streams() -> None:
    """Let standard output outlive its reader, and write what its encoding lacks as escapes.

    Nothing where standard output is no file of the system, as in a notebook or under a test.
    """
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):
        return
    # python -u has no buffer
    is_buffered = isinstance(out.buffer, io.BufferedWriter)
    if isinstance(out.buffer.raw if is_buffered else out.buffer, UnbrokenFile):
        return
    out.flush()
    raw = UnbrokenFile(out.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=out.encoding,
        errors="backslashreplace",
        line_buffering=out.line_buffering,
        write_through=out.write_through,
    )
