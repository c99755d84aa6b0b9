"""Files of text, compressed or not, and what is wrong with one that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dln_momentum.errors import InputError
from dln_momentum.memory import available_bytes


def opened(file: Path) -> Callable[..., Any]:
    """The function that opens a file, by its suffix."""
    return {".gz": gzip.open, ".bz2": bz2.open}.get(file.suffix.lower(), open)


def check_bytes(file: Path) -> None:
    """Raise for what pandas would read up to a NUL byte, or what expands beyond memory."""
    size, room = 0, available_bytes()
    try:
        with opened(file)(file, "rb") as stream:
            while part := stream.read(2**20):
                size += len(part)
                if b"\0" in part:
                    raise ValueError("it holds NUL bytes: it must be text in UTF-8")
                if size > room:
                    raise ValueError(f"it holds more than the {room} bytes of memory available")
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> InputError:
    """The error of a file, naming the line where that is known."""
    return InputError([f"path = {str(file)!r} cannot be read: {_reason(file, error)}"])


def _reason(file: Path, error: Exception) -> str:
    """What is wrong with the text, by its line, for what pandas says of it."""
    said = str(error)
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", said):
        expected, line, fields = found.groups()
        return (
            f"line {line} has {fields} fields where those above have {expected}; each must have as "
            "many as the header, and a text that holds the separator must be in double quotes"
        )
    if found := re.search(r"EOF inside string starting at row (\d+)", said):
        # rows are counted from 0, from the header on
        return f"the double quote that opens in line {int(found[1]) + 1} is not closed"
    if "No columns to parse" in said:
        return "it is empty; its first line must hold the names of the columns"
    if isinstance(error, UnicodeDecodeError) and (place := _undecodable(file)):
        return f"{place} is not text in UTF-8: save the file in that encoding"
    return said


def _undecodable(file: Path) -> str:
    """The first line of a text that is not in UTF-8, and its first byte that is not."""
    with opened(file)(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1} (0x{line[error.start]:02x}),"
    return ""
