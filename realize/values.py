"""The values that stores, wire and mover exchange about files.

Plain frozen values with hardly any behaviour; this module does no I/O and imports no other module of Realize.
Paths are bytes: relative to the directory of a store, components joined by ``/``, as they are on disk.
Times are nanoseconds since the epoch, sizes and offsets are bytes, digests are 32 bytes of BLAKE3.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from realize.by_value import ByValue

if TYPE_CHECKING:
    from attrs import frozen as frozen  # noqa: PLC0414 -- that exports it

    from realize.extras import Extras
else:
    # mypy keeps everybody from changing a value; if that were checked at run time, too, to make one would take three
    # times as long, and some ten are made for each file.
    from attrs import define as frozen

MAX_SMALL_BYTES: Final = 2 << 20
"""Total content of a batch of small files at most, and so the size of a small file at most."""

BLOCK_BYTES: Final = 1 << 20
"""Contents are compared in blocks of this size; the last block of a comparison may be shorter."""

SLICE_BYTES: Final = 16 << 20
"""A job that reads much and answers little lets others have their turn after each slice of this size, and stops if its
answer is no longer wanted."""

DIGEST_BYTES: Final = 32
"""Length of a BLAKE3 digest."""

SPAN_BYTES: Final = 4 << 20
"""Length of a span at most, the part of a file that is cut into chunks, and offered to a destination, at once."""

SPANS_AHEAD: Final = 8
"""Spans of one file at most that are cut and not picked yet, or offered and not answered yet."""

CHUNK_DIGEST_BYTES: Final = 16
"""Length of the digest of a chunk."""

MAX_VALUE_BYTES: Final = 65_535
"""Length of one value of the protocol at most; AMP's length field has 16 bits."""

MAX_COMPONENT_BYTES: Final = 255
"""Longest component of a path: NAME_MAX of every Linux file system that matters."""

MAX_TARGET_BYTES: Final = 4095
"""Longest target of a symlink: PATH_MAX of Linux, without the NUL byte at its end."""

MAX_EXTRAS_BYTES: Final = 60_000
"""What the `Extras` of one file take at most, so that they fit a value of the protocol."""

MAX_NAME_CHARS: Final = 200
"""Length of the name of a peer, a directory or a standing move at most, so that the protocol and file systems take it.

All of them are ASCII.
"""

MAX_CHUNK_BYTES: Final = MAX_VALUE_BYTES
"""Length of a chunk at most."""

MAX_ALIKE_FILES: Final = 8
"""Numbered names of one name at most that are compared with a file, since they have files of its size."""

MAX_OFFERED_CHUNKS: Final = 2_048
"""Chunks that are offered at once at most."""

MIN_HOLE_BYTES: Final = 64 << 10
"""Length of a hole at least that is told as such; a shorter one is zeros like any others."""

MAX_HOLE_BYTES: Final = 16 << 20
"""Length of a hole that is told at once at most: others have their turn after each, which takes some 3 ms to hash."""

OWNERS: Final = 0o700
"""The permissions of the owner: a directory without one of them may keep its owner from what is in it."""

ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
"""The content of a block that is a hole; whoever has this very object need not read it, and knows its digest."""

Content: TypeAlias = bytes | memoryview
"""Some bytes of a file."""


@frozen(eq=False, repr=False)
class Hole(ByValue):
    """So many bytes of a file that were never written: they read as zeros, and take no room.

    `MIN_HOLE_BYTES` to `MAX_HOLE_BYTES`.
    """

    length: int

    def __len__(self) -> int:
        """Its length in bytes."""
        return self.length


Piece: TypeAlias = Content | Hole
"""A piece of a file on its way."""


def in_holes(pieces: Sequence[Piece]) -> int:
    """The total length in bytes of the holes among these pieces."""
    return sum(len(piece) for piece in pieces if isinstance(piece, Hole))


Chunk: TypeAlias = tuple[int, bytes]
"""A piece of a file: its length, and its 128-bit XXH3 digest.

The digest distinguishes chunks but proves nothing, since it is not cryptographic.
"""


def extent(chunks: Sequence[Chunk], wanted: Sequence[bool] | None = None) -> int:
    """The total length in bytes of the chunks, or of the wanted ones."""
    lengths = map(itemgetter(0), chunks)
    return sum(lengths if wanted is None else compress(lengths, wanted))


MAX_COARSENESS_NS: Final = 2_000_000_000
"""The most that `coarseness_ns` returns."""


def coarseness_ns(stamp_ns: int) -> int:
    """How much later than its time stamp a change of a file may have happened, beyond a tick of the kernel's clock.

    Some file systems round time stamps down: FAT to two seconds, ext3, and ext4 with 128-byte inodes, to seconds, and
    exFAT to 10 ms.
    This is concluded from the time stamp itself, which is then a multiple of that unit.
    """
    if stamp_ns % 1_000_000_000 == 0:
        return MAX_COARSENESS_NS
    return 10_000_000 if stamp_ns % 10_000_000 == 0 else 0


class Order(enum.Enum):
    """Which files of a source go first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    SMALLEST = "smallest"


class Compress(enum.Enum):
    """Whether content is compressed on its way between two machines."""

    AUTO = "auto"
    """Where the line is slower than compression, and as long as the content shrinks."""
    ALWAYS = "always"
    """On every line, both ways, as long as the content shrinks."""
    NEVER = "never"
    """Neither what is sent nor what comes."""


class Kind(enum.Enum):
    """The kind of an entry in a listing."""

    FILE = 1
    """A regular file."""
    PARTIAL = 2
    """A file being received, or left over from an interrupted transfer; ``path`` is the final name."""
    LEFT = 3
    """Something that is not moved: a device, socket, FIFO or symlink; ``note`` says which."""
    UNREADABLE = 4
    """A directory or file that could not be read; ``note`` says why."""
    DIRECTORY = 5
    """A directory; its contents follow."""
    LINK = 6
    """A symlink, in a listing that was asked for them; otherwise it is LEFT."""


@frozen(eq=False, repr=False)
class Entry(ByValue):
    """One name in a listing; ``mode`` has the permission bits (0o777) of a directory.

    ``identity`` is a token of the inode of a file that has other names, too, in a listing that was asked for it.
    """

    path: bytes
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    note: str = ""
    mode: int = 0
    identity: bytes = b""


@frozen(eq=False, repr=False)
class Version(ByValue):
    """Identifies the state of a file at one instant: any write, replacement or touch changes at least one field."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@frozen(eq=False, repr=False)
class Attributes(ByValue):
    """What is copied besides the content; ``mode`` has permission bits only (0o777)."""

    mtime_ns: int
    mode: int
    extras: Extras | None = None
    """What else is; None: nothing."""

    def leaves(self, kind: Preserve) -> bool:
        """Whether the mode, or the time, is not carried over after all."""
        return self.extras is not None and kind in self.extras.leaves


@frozen(eq=False, repr=False)
class Seen(ByValue):
    """The version of a final file that may be replaced, and no other: a precondition, with values from `Existing`."""

    identity: bytes
    ctime_ns: int


@frozen(eq=False, repr=False)
class SmallFile(ByValue):
    """A complete file of at most `MAX_SMALL_BYTES`; ``attributes`` is None if they are not to be preserved.

    ``replaces`` is the only version of the final file of that name that it may replace; None if it may replace any.
    ``number`` is the only one that it may get under `OnConflict.RENAME`; 0 if it may get any.
    """

    path: bytes
    content: Content
    digest: bytes
    attributes: Attributes | None
    replaces: Seen | None = None
    number: int = 0

    @property
    def size(self) -> int:
        """Length of the content in bytes."""
        return len(self.content)


@frozen(eq=False, repr=False)
class Fetched(ByValue):
    """A small file as it was read, and the version it was read from."""

    file: SmallFile
    version: Version


class Preserve(enum.Enum):
    """What may be carried over besides the content of a file."""

    MODE = "mode"
    """Permission bits (0o777), of directories too."""
    TIMES = "times"
    """Modification times, of directories too."""
    OWNER = "owner"
    """Owner and group."""
    ACL = "acl"
    """POSIX access control lists, and the default ones of directories."""
    XATTR = "xattr"
    """Extended attributes of users."""
    HARDLINKS = "hardlinks"
    """Which names are those of one file."""


USUALLY_PRESERVED: Final = frozenset({Preserve.MODE, Preserve.TIMES})
"""What is carried over unless something else is asked for."""


EXTRAS: Final = frozenset({Preserve.OWNER, Preserve.ACL, Preserve.XATTR})
"""What `Extras` are made of."""


def preserving(asked: Collection[Preserve] | bool) -> frozenset[Preserve]:  # noqa: FBT001 -- what a program may pass
    """Return what is carried over if a program asks for these, for the usual (True), or for nothing (False).

    An access control list is one with the permission bits, so it brings them.
    """
    if isinstance(asked, bool):
        return USUALLY_PRESERVED if asked else frozenset()
    return frozenset({*asked, Preserve.MODE}) if Preserve.ACL in asked else frozenset(asked)


class Links(enum.Enum):
    """Which symlinks a directory takes, and gives away."""

    NONE = "none"
    INSIDE = "inside"
    """Those whose target stays inside the directory, see `realize.fs.names.leads_outside`."""
    ANY = "any"


@frozen(eq=False, repr=False)
class Symlink(ByValue):
    """A symlink, as it is: ``target`` is what it says, whatever that leads to.

    ``mtime_ns`` is None if its time is not to be preserved, ``extras`` if its owner is not.
    """

    path: bytes
    target: bytes
    mtime_ns: int | None
    extras: Extras | None = None


@frozen(eq=False, repr=False)
class FoundSymlink(ByValue):
    """A symlink as it was read, and the version of the link itself; its size is the length of the target."""

    link: Symlink
    version: Version


class Linked(enum.Enum):
    """How a symlink ended at a destination."""

    CREATED = 1
    REPLACED = 2
    """It replaced a symlink with another target."""
    SKIPPED = 3
    """Not made: something else has the name, and the policy was `OnConflict.SKIP`."""
    ALREADY_THERE = 4
    """A symlink with that target was there."""


@frozen(eq=False, repr=False)
class HardLink(ByValue):
    """A request to make ``path`` another name of the file ``to``, which has a content with this digest."""

    path: bytes
    to: bytes
    digest: bytes


class HardLinked(enum.Enum):
    """What became of a `HardLink`."""

    CREATED = 1
    ALREADY_THERE = 2
    """Both were names of one file."""
    NOT_LINKED = 3
    """It cannot be a name of that file; its content can be sent."""


@frozen(eq=False, repr=False)
class Removal(ByValue):
    """A request to remove a file, or a symlink, if it is still this version."""

    path: bytes
    version: Version


@frozen(eq=False, repr=False)
class Directory(ByValue):
    """A directory at the destination, and the attributes to set; ``mode`` has permission bits only (0o777).

    ``mtime_ns`` is None if nothing was put into it; then bits that ``mode`` lacks are cleared, and nothing else is set.
    """

    path: bytes
    mode: int
    mtime_ns: int | None = None
    extras: Extras | None = None


@frozen(eq=False, repr=False)
class Vacant(ByValue):
    """A request to remove a directory if it is empty.

    ``mtime_ns`` is its expected modification time; None if directories were removed from it, which changes that.
    """

    path: bytes
    mtime_ns: int | None


@frozen(eq=False, repr=False)
class Expected(ByValue):
    """A small file that the destination may have already; ``attributes`` as for a `SmallFile`."""

    path: bytes
    size: int
    digest: bytes
    attributes: Attributes | None = None


@frozen(eq=False, repr=False)
class Existing(ByValue):
    """What a destination has under one name.

    ``final_size`` is None if there is no regular file of that name.
    ``partial_size`` is None if there is no partial.
    ``obstacle`` names what is there instead of a regular file ("directory", "symlink", ...), or is empty.
    ``identity`` is a token of the final file's inode, the same in all stores that were opened with the same salt.
    ``ctime_ns`` is when the final file last changed, by the destination's clock.
    ``recent`` says that it may have changed since the run started; the destination knows whether its clock was set
    meanwhile.
    """

    final_size: int | None = None
    mtime_ns: int = 0
    ctime_ns: int = 0
    identity: bytes = b""
    partial_size: int | None = None
    obstacle: str = ""
    recent: bool = False

    @property
    def seen(self) -> Seen | None:
        """The version of the final file, if there is one."""
        return None if self.final_size is None else Seen(self.identity, self.ctime_ns)


@frozen(eq=False, repr=False)
class Sized(ByValue):
    """A file at the source by its name and its size."""

    path: bytes
    size: int


@frozen(eq=False, repr=False)
class Siblings(ByValue):
    """The numbered names (`realize.numbered`) of a name at a destination.

    ``free`` is a number whose name is free, the lowest if few are taken.
    ``alike`` has numbers whose files have the size that was asked for.
    """

    free: int
    alike: tuple[int, ...] = ()


NOTHING: Final = Existing()
"""The value for most names, shared so that it need not be created for each."""


class OnConflict(enum.Enum):
    """What to do when the destination has another file of that name."""

    RENAME = 4
    """Keep both: the newcomer gets a free numbered name (`realize.numbered`)."""
    REPLACE = 1
    SKIP = 2
    FAIL = 3


class Use(enum.Enum):
    """What a caller intends to do with files, when it asks beforehand whether that is permitted."""

    READ = 1
    MOVE = 2
    """Read, and then removed."""
    PUT = 3
    COMPARE = 4
    """Read, to see whether it is what would be put."""


class Committed(enum.Enum):
    """The outcome of a commit."""

    __hash__ = object.__hash__  # as good as that of `enum.Enum`, which is in Python, and called for each file

    CREATED = 1
    REPLACED = 2
    SKIPPED = 3
    """Not committed: another file has the name, and the policy was `OnConflict.SKIP`."""
    RENAMED = 4
    """Created under a numbered name: something else has the name itself, and the policy was `OnConflict.RENAME`."""


@frozen(eq=False, repr=False)
class Travelled(ByValue):
    """``amount`` bytes of the contents of these files, sent one after the other, have gone over a connection."""

    paths: Sequence[bytes]
    amount: int


@frozen(eq=False, repr=False)
class Backup(ByValue):
    """Where a file is now that was replaced: its ``path`` below the directory for backups.

    With ``own``, that is the store's own directory, of which no user of it may learn anything; else the user named it.
    """

    path: bytes
    own: bool = False


@frozen(eq=False, repr=False)
class Stored(ByValue):
    """The result of a commit: how, and the version of the file that it made, with the values of `Existing`.

    ``identity`` is empty if the commit made no file, or if that is unknown.
    ``number`` is that of the name under which a file is that was `Committed.RENAMED`, else 0.
    ``backup`` says where the file is that was `Committed.REPLACED`, if it was kept.
    """

    how: Committed
    identity: bytes = b""
    ctime_ns: int = 0
    number: int = 0
    backup: Backup | None = None

    @property
    def asked_backup(self) -> bytes:
        """The path of the backup, below the directory that the user of the store named; empty if there is none."""
        return b"" if self.backup is None or self.backup.own else self.backup.path

    def is_still(self, existing: Existing) -> bool:
        """Whether the final file that was described is exactly this version."""
        return bool(self.identity) and (self.identity, self.ctime_ns) == (existing.identity, existing.ctime_ns)


class WhereKind(enum.Enum):
    """The kind of a store's location."""

    ABSENT = 1
    DIRECTORY = 2
    FILE = 3


@frozen(eq=False, repr=False)
class Space(ByValue):
    """The free space on the file system of a store, in bytes and in files.

    ``free_files`` is None where the file system does not count them.
    """

    free: int
    size: int
    free_files: int | None = None


@frozen(eq=False, repr=False)
class Where(ByValue):
    """Where a store is.

    ``identities`` has the tokens (see `Existing`) of the location, or of its nearest existing ancestor, and of every
    directory above, nearest first: two stores overlap if the first token of one is among those of the other.
    If ``kind`` is FILE, the first token is that of the file itself, and the second that of its directory.
    ``now_ns`` is the time by the clock of the store's machine.
    ``mode`` has the permission bits (0o777) of a directory.
    """

    kind: WhereKind
    identities: tuple[bytes, ...]
    now_ns: int
    mode: int | None = None
