"""How much memory a command may take while it is in progress, estimated from its box before anything else is done.

The estimates are above the average, since peers choose what they ask: what a box holds is parsed into objects, the
answer is built before it is sent, and a batch of small files is held as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.protocols import amp

from realize.values import MAX_SMALL_BYTES, MAX_TARGET_BYTES, MAX_VALUE_BYTES
from realize.wire import commands
from realize.wire.packing import MAX_PACK_ITEMS

COMMAND_BYTES: Final = 32 << 10
"""For every command in progress."""

STREAM_BYTES: Final = 32 << 10
"""For an open stream, besides its content: the file, its hasher and their bookkeeping."""

DIRECTORY_BYTES: Final = 112 << 10
"""For an open directory, and what is remembered of large files that are compared there."""

PAGE_BYTES: Final = 4 << 20
"""For a page of a listing that is being read: the names of a large directory."""

CUTTING_BYTES: Final = 9 << 20
"""For a stream whose content is cut: the span that is being cut, and the one that is being sent."""

SEARCH_BYTES: Final = 6 << 20
"""For finding the chunks of a new version in the old one: the read-ahead buffer and the index."""

ITEMS_BYTES: Final = 256 << 10
"""For the items of a command about many files, and the answer for each, which may be an error."""

TARGETS_BYTES: Final = MAX_PACK_ITEMS * MAX_TARGET_BYTES
"""For the targets of the symlinks that one command asks for."""

FOUND_EXTRAS_BYTES: Final = 4 * MAX_VALUE_BYTES
"""For the attributes of the files that one command asks for, of which no more are read than an answer takes."""

LINKABLE_FILES_BYTES: Final = 1280 << 10
"""For what a store notes of files that it has put in a directory, once a peer has asked it to link some."""

_PARSED: Final = 4
"""How many times as large as a box the objects parsed from it may be."""

_MORE: Final = {
    commands.OpenDirectory.commandName: DIRECTORY_BYTES,
    commands.OpenRead.commandName: STREAM_BYTES,
    commands.OpenWrite.commandName: STREAM_BYTES,
    commands.PutSmall.commandName: MAX_SMALL_BYTES,
    commands.ReadExtras.commandName: FOUND_EXTRAS_BYTES,
    commands.ReadLinks.commandName: TARGETS_BYTES,
    commands.ReadSmall.commandName: MAX_SMALL_BYTES,
    commands.Walk.commandName: PAGE_BYTES,
}
_BATCHES: Final = commands.names(
    commands.Describe,
    commands.Examine,
    commands.FindSiblings,
    commands.Forbidden,
    commands.Foresee,
    commands.LinkFiles,
    commands.MakeDirectories,
    commands.Prune,
    commands.PutLinks,
    commands.PutSmall,
    commands.ReadExtras,
    commands.ReadLinks,
    commands.ReadSmall,
    commands.Remove,
    commands.SetDirectories,
    commands.Settle,
)
_ANSWERS: Final = commands.names(
    commands.BlockDigests,
    commands.CutSpan,
    commands.Describe,
    commands.Examine,
    commands.Forbidden,
    commands.GetThrottle,
    commands.Moves,
    commands.ReadExtras,
    commands.ReadLinks,
    commands.ReadSmall,
    commands.Reload,
    commands.Status,
    commands.Walk,
)
"""Commands whose answers may be as large as an AMP value."""


def of(box: Mapping[bytes, bytes]) -> int:
    """Return how many bytes a command may make us hold until it is answered."""
    name = box[amp.COMMAND]
    items = ITEMS_BYTES if name in _BATCHES else 0
    size = COMMAND_BYTES + items + _PARSED * sum(map(len, box.values())) + _MORE.get(name, 0)
    return size + MAX_VALUE_BYTES if name in _ANSWERS else size
