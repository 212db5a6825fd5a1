"""What a command costs in memory while it is in progress, told from its box before anything else is done with it.

More than it takes on the average, since peers choose what they ask: what a box holds is parsed into objects, the answer
is built before it is sent, and a batch of small files is held as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.protocols import amp

from realize.values import MAX_SMALL_BYTES, MAX_VALUE_BYTES
from realize.wire import commands

COMMAND_BYTES: Final = 32 << 10
"""Bytes for what every command in progress needs."""

STREAM_BYTES: Final = 32 << 10
"""Bytes for a stream that is open, beside its content: the file, its hasher, and all that keeps them in order."""

DIRECTORY_BYTES: Final = 112 << 10
"""Bytes for a directory that is open, and for what is remembered of large files that are compared there."""

PAGE_BYTES: Final = 4 << 20
"""Bytes for a page of a listing that is being read: the names of a large directory."""

CUTTING_BYTES: Final = 9 << 20
"""Bytes for a stream whose content is cut: the span that is being cut, and the one that is being sent."""

SEARCH_BYTES: Final = 6 << 20
"""Bytes to find out what the old version of a file has of the new one: what was read ahead, and an index."""

ITEMS_BYTES: Final = 256 << 10
"""Bytes for the items of a command about many files, and for what is answered about each, which may be an error."""

_PARSED: Final = 4
"""How many times as large as its bytes what is parsed from a box may be."""

_MORE: Final = {
    commands.OpenDirectory.commandName: DIRECTORY_BYTES,
    commands.OpenRead.commandName: STREAM_BYTES,
    commands.OpenWrite.commandName: STREAM_BYTES,
    commands.PutSmall.commandName: MAX_SMALL_BYTES,
    commands.ReadSmall.commandName: MAX_SMALL_BYTES,
    commands.Walk.commandName: PAGE_BYTES,
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
    items = ITEMS_BYTES if name in _BATCHES else 0
    size = COMMAND_BYTES + items + _PARSED * sum(map(len, box.values())) + _MORE.get(name, 0)
    return size + MAX_VALUE_BYTES if name in _ANSWERS else size
