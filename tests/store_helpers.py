"""What tests of every store use: contents, names, and ways to read a listing or a file to its end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from blake3 import blake3
from twisted.internet.defer import fail

from realize.errors import (
    ConnectionFailed,
    RealizeError,
    Unanswered,
)
from realize.fs import names
from realize.store.interfaces import IListing, IReader
from realize.values import (
    BLOCK_BYTES,
    Attributes,
    Committed,
    Content,
    Entry,
    Hole,
    Kind,
    Piece,
    SmallFile,
    Stored,
)

_T = TypeVar("_T")


def digest(content: bytes) -> bytes:
    """The BLAKE3 digest of some content."""
    return blake3(content).digest()


def block_digests(content: bytes) -> list[bytes]:
    """The digests of the blocks of some content."""
    return [digest(content[start : start + BLOCK_BYTES]) for start in range(0, len(content), BLOCK_BYTES)]


def how(outcome: Stored | RealizeError) -> Committed | RealizeError:
    """The outcome of a commit, whatever the version, or the error of one that failed."""
    return outcome.how if isinstance(outcome, Stored) else outcome


def small_file(path: bytes, content: bytes, attributes: Attributes | None = None) -> SmallFile:
    """A small file with the right digest."""
    return SmallFile(path, content, digest(content), attributes)


def partial_path(path: bytes) -> bytes:
    """The path under which a file is received, unless that name is taken."""
    *directory, name = names.judge(path)
    return names.join((*directory, names.partial_name(name)))


BAD_NAMES = (b"", b"/etc/passwd", b"a//b", b"a/", b".", b"..", b"a/../b", b"../a", b"a\0b")
"""Names that every store must refuse."""

_OF_PARTIALS = (partial_path(b"x"), partial_path(b".x/b"), partial_path(b"y") + b"/c")

ODD_NAMES = (
    *(b"a:b", b"new\nline", b"\xff\xfe not UTF-8", b" ", b"-rf", b"a/.hidden", b"n" * 255, b".x.part"),
    *_OF_PARTIALS,
)
"""Names that every store must use as they are."""


def random_bytes(length: int, *, seed: int = 1) -> bytes:
    """Content that has chunks; the same for the same seed."""
    return random.Random(seed).randbytes(length)


LARGE_CONTENT = bytes(range(256)) * 4096 * 2 + b"the end"
"""Content of a little more than two blocks."""


async def listed(listing: IListing) -> list[Entry]:
    """All entries of a listing."""
    entries: list[Entry] = []
    while page := await listing.next_page():
        entries += page
    return entries


async def listed_files(listing: IListing) -> list[Entry]:
    """All entries of a listing that are not directories."""
    return [entry for entry in await listed(listing) if entry.kind is not Kind.DIRECTORY]


async def read_all(reader: IReader) -> bytes:
    """The rest of a file."""
    content: list[Content] = []
    while pieces := await reader.read():
        content += filled(pieces)
    return b"".join(content)


def filled(pieces: Iterable[Piece]) -> list[Content]:
    """The pieces, with zeros in place of holes."""
    return [bytes(len(piece)) if isinstance(piece, Hole) else piece for piece in pieces]


async def read_to_end(reader: IReader) -> bytes:
    """The digest of a file, after reading the rest of it."""
    await read_all(reader)
    return await reader.finish()


async def failure(waiting: Awaitable[_T]) -> BaseException:
    """The error that an operation ends with."""
    try:
        result = await waiting
    except RealizeError as error:
        return error
    raise AssertionError(f"it should have failed, but answered {result!r}")


def lose_connection_at(store, step: str, *, done: bool) -> None:
    """Let the first call of that method of a store about something fail, as a lost connection does.

    With ``done``, the call has done its work all the same.
    """
    real = getattr(store, step)

    def breaks(items, *arguments, **options):
        if not items:
            return real(items, *arguments, **options)
        setattr(store, step, real)
        if done:
            real(items, *arguments, **options)
        cause = ConnectionFailed("lost")
        return fail(cause if step.startswith("read_") else Unanswered(str(cause)))

    setattr(store, step, breaks)
