"""What stores, the wire and the mover say to each other about files.

Plain frozen values with hardly any behaviour; this module does no I/O and imports only the errors.
Paths are bytes: relative to the directory of a store, components joined by ``/``, as they are on disk.
Times are nanoseconds since the epoch, sizes and offsets are bytes, digests are 32 bytes of BLAKE3.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import compress
from operator import itemgetter
from typing import Final, TypeAlias

from attrs import frozen

MAX_SMALL_BYTES: Final = 2 << 20
"""The contents of a batch of small files have at most this many bytes together; so a small file has no more."""

BLOCK_BYTES: Final = 1 << 20
"""Contents are compared in blocks of this many bytes; the last one of a comparison may be shorter."""

SLICE_BYTES: Final = 16 << 20
"""Bytes after which what reads much for little makes way for others, and stops if nobody waits for it any more."""

DIGEST_BYTES: Final = 32
"""Length of a BLAKE3 digest in bytes."""

SPAN_BYTES: Final = 4 << 20
"""At most so many bytes are cut into chunks, and offered to a destination, at once."""

SPANS_AHEAD: Final = 8
"""The most spans that are cut and not picked yet, or offered and not answered, of one file."""

CHUNK_DIGEST_BYTES: Final = 16
"""Length of the digest of a chunk in bytes."""

MAX_VALUE_BYTES: Final = 65_535
"""The most bytes of one value of the protocol; AMP's length field has 16 bits."""

MAX_CHUNK_BYTES: Final = MAX_VALUE_BYTES
"""The most bytes of one chunk."""

MAX_OFFERED_CHUNKS: Final = 2_048
"""The most chunks that are offered at once."""

Content: TypeAlias = bytes | memoryview
"""Some bytes of a file."""

Chunk: TypeAlias = tuple[int, bytes]
"""A piece of a file: its length, and its XXH3 digest of 128 bits, which tells chunks apart but proves nothing."""


def extent(chunks: Sequence[Chunk], wanted: Sequence[bool] | None = None) -> int:
    """How many bytes the chunks have together, or those of them that are wanted."""
    lengths = map(itemgetter(0), chunks)
    return sum(lengths if wanted is None else compress(lengths, wanted))


def coarseness_ns(stamp_ns: int) -> int:
    """How much later than this time stamp of a file its event may have been, beyond a tick of the kernel's clock.

    Some file systems keep no fractions: FAT counts in two seconds, ext4 with 128-byte inodes and ext3 in seconds, exFAT
    in 10 ms.
    They show it by their stamps, which are whole.
    """
    if stamp_ns % 1_000_000_000 == 0:
        return 2_000_000_000
    return 10_000_000 if stamp_ns % 10_000_000 == 0 else 0


class Kind(enum.Enum):
    """What a name in a listing stands for."""

    FILE = 1
    """A regular file."""
    PARTIAL = 2
    """A file being received, or left over from an interrupted transfer; ``path`` is the final name."""
    LEFT = 3
    """Something that is not moved: a symlink, device, socket or FIFO; ``note`` says which."""
    UNREADABLE = 4
    """A directory or file that could not be looked at; ``note`` says why."""
    DIRECTORY = 5
    """A directory; what is in it follows."""


@frozen
class Entry:
    """One name in a listing; ``mode`` holds the permission bits (0o777) of a directory."""

    path: bytes
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    note: str = ""
    mode: int = 0


@frozen
class Version:
    """What a file was at one instant: any write, replacement or touch changes at least one field."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@frozen
class Attributes:
    """What is carried over besides the content; ``mode`` holds permission bits only (0o777)."""

    mtime_ns: int
    mode: int


@frozen
class Seen:
    """A version of a final file, as `Existing` tells it: the only one that may be replaced."""

    place: bytes
    ctime_ns: int


@frozen
class SmallFile:
    """A whole file of at most `MAX_SMALL_BYTES` bytes; ``attributes`` is None when they are not to be preserved.

    ``replaces`` is the only version of a final file of that name that it may replace; None if any.
    """

    path: bytes
    content: bytes
    digest: bytes
    attributes: Attributes | None
    replaces: Seen | None = None

    @property
    def size(self) -> int:
        """Length of the content in bytes."""
        return len(self.content)


@frozen
class Fetched:
    """A small file as it was read, and the version it was read from."""

    file: SmallFile
    version: Version


@frozen
class Removal:
    """Remove this file if it is still this version."""

    path: bytes
    version: Version


@frozen
class Directory:
    """A directory at the destination; ``mode`` holds permission bits only (0o777).

    Without ``mtime_ns`` nothing was put into it: then only those bits are taken away that ``mode`` has not.
    """

    path: bytes
    mode: int
    mtime_ns: int | None = None


@frozen
class Vacant:
    """A directory that is to be removed if it is empty.

    ``mtime_ns`` is what it must still be; None if others have been removed from it meanwhile, which changed it.
    """

    path: bytes
    mtime_ns: int | None


@frozen
class Expected:
    """A small file that the destination may already have; ``attributes`` as for a `SmallFile`."""

    path: bytes
    size: int
    digest: bytes
    attributes: Attributes | None = None


@frozen
class Existing:
    """What a destination holds under one name.

    ``final_size`` is None if there is no regular file of that name.
    ``partial_size`` is None if there is no partial.
    ``obstacle`` names what is there instead of a regular file ("directory", "symlink", ...), or is empty.
    ``place`` identifies the inode of the final file across stores that were opened with the same salt.
    ``ctime_ns`` is when the final file last changed, by the destination's clock.
    ``recent`` says that this may have been since the run began; the destination knows if that clock was set since.
    """

    final_size: int | None = None
    mtime_ns: int = 0
    ctime_ns: int = 0
    place: bytes = b""
    partial_size: int | None = None
    obstacle: str = ""
    recent: bool = False

    @property
    def seen(self) -> Seen | None:
        """The version of the final file, if there is one."""
        return None if self.final_size is None else Seen(self.place, self.ctime_ns)


NOTHING: Final = Existing()
"""What is there under most names, so it need not be made for each."""


class OnConflict(enum.Enum):
    """What to do when the destination has another file of that name."""

    REPLACE = 1
    SKIP = 2
    FAIL = 3


class Use(enum.Enum):
    """What is to be done with files, where it is asked beforehand whether that is permitted."""

    READ = 1
    MOVE = 2
    """Read, and then removed."""
    PUT = 3
    COMPARE = 4
    """Read, to see whether it is what would be put."""


class Committed(enum.Enum):
    """How a file came to be whole, verified and durable at the destination."""

    CREATED = 1
    REPLACED = 2
    SKIPPED = 3
    """It did not: another file has the name, and the policy was `OnConflict.SKIP`."""


@frozen
class Travelled:
    """So many bytes of the contents of files, which follow each other in this order, have gone over a connection."""

    paths: Sequence[bytes]
    amount: int


@frozen
class Stored:
    """What a commit has made: how, and which version of which file, as `Existing` would say it.

    ``place`` is empty if there is none of ours, or if it could not be told.
    """

    how: Committed
    place: bytes = b""
    ctime_ns: int = 0

    def is_still(self, existing: Existing) -> bool:
        """Whether the final file that was described is just this version."""
        return bool(self.place) and (self.place, self.ctime_ns) == (existing.place, existing.ctime_ns)


class WhereKind(enum.Enum):
    """What the location of a store is."""

    ABSENT = 1
    DIRECTORY = 2
    FILE = 3


@frozen
class Space:
    """How much room the file system of a store has, in bytes and in files.

    ``free_files`` is None where the file system does not count them.
    """

    free: int
    size: int
    free_files: int | None = None


@frozen
class Where:
    """Where a store is.

    ``chain`` holds salted identities of the location (or of its nearest existing ancestor) and of every directory above
    it, nearest first: two stores overlap if the first of one is in the chain of the other.
    If ``kind`` is FILE, the first is the file itself and the second the directory it is in.
    ``now_ns`` is the clock of the store's machine.
    ``mode`` are the permission bits (0o777) of a directory.
    """

    kind: WhereKind
    chain: tuple[bytes, ...]
    now_ns: int
    mode: int | None = None
