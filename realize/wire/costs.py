"""What a command costs in memory while it is in progress, told from its box before anything else is done with it.

More than it takes on the average, since peers choose what they ask: what a box holds is parsed into objects, the answer
is built before it is sent, and a batch of small files is held as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.protocols import amp

from realize.values import SMALL
from realize.wire import commands
from realize.wire.boxes import VALUE_LIMIT

COMMAND: Final = 32 << 10
"""Bytes for what every command in progress needs."""

STREAM: Final = 32 << 10
"""Bytes for a stream that is open, beside its content: the file, its hasher, and all that keeps them in order."""

DIRECTORY: Final = 112 << 10
"""Bytes for a directory that is open, and for what is remembered of large files that are compared there."""

PAGE: Final = 4 << 20
"""Bytes for a page of a listing that is being read: the names of a large directory."""

CUTTING: Final = 9 << 20
"""Bytes for a stream whose content is cut: the span that is being cut, and the one that is being sent."""

SEARCH: Final = 6 << 20
"""Bytes to find out what the old version of a file has of the new one: what was read ahead, and an index."""

ITEMS: Final = 256 << 10
"""Bytes for the items of a command about many files, and for what is answered about each, which may be an error."""

_PARSED: Final = 4
"""How many times as large as its bytes what is parsed from a box may be."""

_MORE: Final = {
    commands.OpenDirectory.commandName: DIRECTORY,
    commands.OpenRead.commandName: STREAM,
    commands.OpenWrite.commandName: STREAM,
    commands.PutSmall.commandName: SMALL,
    commands.ReadSmall.commandName: SMALL,
    commands.Walk.commandName: PAGE,
}
_BATCHES: Final = commands.names(
    commands.Describe,
    commands.Forbidden,
    commands.MakeDirectories,
    commands.Prune,
    commands.PutSmall,
    commands.ReadSmall,
    commands.Remove,
    commands.SetDirectories,
    commands.Settle,
)
_ANSWERS: Final = commands.names(
    commands.BlockDigests,
    commands.CutSpan,
    commands.Describe,
    commands.Forbidden,
    commands.GetThrottle,
    commands.ReadSmall,
    commands.Status,
    commands.Walk,
)
"""Those whose answers may be as large as a value."""


def of(box: Mapping[bytes, bytes]) -> int:
    """The bytes that a command may make us hold until it was answered."""
    name = box[amp.COMMAND]
    items = ITEMS if name in _BATCHES else 0
    size = COMMAND + items + _PARSED * sum(map(len, box.values())) + _MORE.get(name, 0)
    return size + VALUE_LIMIT if name in _ANSWERS else size
