"""The names of ``--files-from``: read from a file or from standard input, judged, and sorted."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator
from typing import Final

from realize.errors import BadName, Interrupted, UsageError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.sorting import SortedRecords, Sorter
from realize.units import display_text

STDIN: Final = "-"
"""What stands for standard input."""

_LIST_PIECE_BYTES: Final = 256 << 10

_STOP_LOOK_INTERVAL_S: Final = 0.25
"""How often it is asked whether to go on, while nothing comes."""


def read_names(path: str, *, from0: bool, should_stop: Callable[[], bool]) -> SortedRecords:
    """Return the names in a file, one on each line, or with ``from0`` with a NUL byte behind each; blocks.

    Empty ones are skipped, and ``./`` before a name and slashes behind it count for nothing.
    Raises `UsageError` for a name that is absolute, leads upwards or is too long, with the number of its line, and
    `Interrupted` once ``should_stop`` says so, even if nothing comes.
    """
    shown = "standard input" if path == STDIN else display_text(path)
    end = b"\0" if from0 else b"\n"
    sorter = Sorter()
    try:
        for number, line in enumerate(_lines(path, shown, end, should_stop), 1):
            try:
                name = _name_of(line)
            except BadName as error:
                raise UsageError(
                    f"--files-from {shown}: {'name' if from0 else 'line'} {number:,}: {error}; "
                    "expected names below the source"
                ) from error
            if name:
                sorter.add(name)
        return sorter.sorted()
    finally:
        sorter.close()


def _name_of(line: bytes) -> bytes:
    if line.startswith(b"/"):
        names.judge(line)  # which refuses it
    name = names.tidied(line)
    if name:
        names.judge(name)
    return name


def _lines(path: str, shown: str, end: bytes, should_stop: Callable[[], bool]) -> Iterator[bytes]:
    rest = b""
    for chunk in _chunks(path, shown, should_stop):
        *lines, rest = (rest + chunk).split(end)
        yield from lines
        if len(rest) > 2 * names.MAX_PATH_BYTES:
            break  # too long, whatever comes
    if rest:
        yield rest


def _chunks(path: str, shown: str, should_stop: Callable[[], bool]) -> Iterator[bytes]:
    try:
        fd = 0 if path == STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise UsageError(f"--files-from {shown}: {reason}") from error
    try:
        waits = not stat.S_ISREG(os.fstat(fd).st_mode)
        while True:
            if should_stop():
                raise Interrupted("interrupted while names were read")
            if waits and not select.select([fd], [], [], _STOP_LOOK_INTERVAL_S)[0]:
                continue
            if not (chunk := os.read(fd, _LIST_PIECE_BYTES)):
                return
            yield chunk
    except OSError as error:
        raise UsageError(f"--files-from {shown}: {error.strerror}") from error
    finally:
        if path != STDIN:
            release(fd)
