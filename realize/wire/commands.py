"""The commands of the protocol; the only module that names wire strings.

The docstring of each class, written in the voice of the sender, says what the command means, who sends it and which
right it needs; ``docs/protocol.md`` says the rest.
"Requester" is the side that opened the directory or stream, "holder" the side that has the files.
Numbers of directories (handles), listings and streams are chosen by the requester and belong to the connection;
one that is in use, unknown, or of another kind is answered with ``PROTOCOL``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from twisted.protocols import amp

from realize.errors import ProtocolError, RealizeError, every_error
from realize.numbered import MAX_NAME_NUMBER
from realize.throttle.tree import Scope
from realize.values import (
    DIGEST_BYTES,
    MAX_HOLE_BYTES,
    MAX_OFFERED_CHUNKS,
    MAX_VALUE_BYTES,
    MIN_HOLE_BYTES,
    OnConflict,
    Preserve,
    Use,
    WhereKind,
)
from realize.wire import packing
from realize.wire.arguments import Choice, Flag, Name, Number, Octets, Packed, PackedOne, Text

MAJOR: Final = 2
"""Peers with different major versions do not talk to each other."""

MINOR: Final = 1
"""Later minor versions add commands, optional arguments and capabilities, and change nothing."""

MOVES_SINCE_MINOR: Final = 1
"""The minor version that brought `Moves` and `SteerMove`."""

DELTAS: Final = "deltas"
"""The capability to understand `OfferChunks`, `CutSpan` and `PickChunks`."""

ECHO: Final = "echo"
"""The capability to answer a `Ping` that wants an answer."""

KEEP_BOTH: Final = "keep-both"
"""The capability to understand the policy ``rename``, and `FindSiblings`."""

ONE_FILE_SYSTEM: Final = "one-file-system"
"""The capability to understand ``one_file_system`` of `Walk`."""

BACKUPS: Final = "backups"
"""The capability to understand ``backup`` of `OpenDirectory`."""

EXAMINE: Final = "examine"
"""The capability to understand `Examine`."""

LINKS: Final = "links"
"""The capability to list symlinks, and to understand `ReadLinks` and `PutLinks`."""

HOLES: Final = "holes"
"""The capability to understand `Zeros`."""

ZSTD: Final = "zstd"
"""The capability to understand `Compressed`."""

ZSTD_ALWAYS: Final = "zstd-always"
"""The wish that content is compressed on every link, both ways, and not only where that makes it faster."""

EXTRA_ATTRIBUTES: Final = "extra-attributes"
"""The capability to understand `ReadExtras`, `Foresee`, and ``extras`` of other commands."""

HARD_LINKS: Final = "hard-links"
"""The capability to list the identities of files with several names, and to understand `LinkFiles`."""

PUT_DIRECTORIES: Final = "put-directories"
"""The capability to understand ``directories`` of `PutSmall`."""

WALK_AHEAD: Final = "walk-ahead"
"""The capability to understand ``further`` of `Walk`."""

REST: Final = "rest"
"""The capability to answer a `Ping` at once, and to send fewer while nothing is under way."""

CAPABILITIES: Final = (
    DELTAS,
    ECHO,
    KEEP_BOTH,
    ONE_FILE_SYSTEM,
    BACKUPS,
    EXAMINE,
    LINKS,
    HOLES,
    ZSTD,
    EXTRA_ATTRIBUTES,
    HARD_LINKS,
    PUT_DIRECTORIES,
    WALK_AHEAD,
    REST,
)
"""The capabilities that this software announces in Hello, unless it is told otherwise."""

MAX_HANDLES: Final = 64
MAX_LISTINGS: Final = 8
MAX_STREAMS: Final = 128
MAX_RUNNING_COMMANDS: Final = 256
"""Most commands in progress on one connection; any more are answered with ``BUSY``."""

MAX_CREDIT_BYTES: Final = 1 << 30
"""Most credit that one ``Credit`` may give."""

HOLE_CREDIT_BYTES: Final = MIN_HOLE_BYTES
"""Bytes of credit that a hole uses up: what its zeros take to hash must not pile up at the receiver."""

MIN_COMPRESSED_BYTES: Final = 256
"""The least content in one ``Compressed``, in bytes: less is not worth a box of its own."""

_MAX_NUMBER: Final = (1 << 32) - 1
_ALL_KINDS: Final = packing.bits_of(frozenset(Preserve))
_MAX_BITMAP_BYTES: Final = MAX_OFFERED_CHUNKS // 8


class Reason(enum.Enum):
    """Why a peer says goodbye."""

    DONE = "is done"
    DEADLINE = "reached its deadline"
    INTERRUPTED = "was interrupted"
    DRAINING = "is shutting down"
    REFUSED = "ends the connection because the configuration no longer allows it"


class Direction(enum.Enum):
    """Which sending a limit applies to, seen from the side that answers."""

    SEND = "send"
    RECEIVE = "receive"
    BOTH = "both"


class Steering(enum.Enum):
    """What to do with a standing move."""

    RUN = "run"
    """Begin a run now, not at its time or at the next attempt; one that goes on goes on."""
    PAUSE = "pause"
    """End the run that goes on, in order, and begin no other one until it is resumed, also over a restart."""
    RESUME = "resume"
    """Go on as configured."""


class RealizeCommand(amp.Command):
    """Base of all commands; any command may be answered with any declared error."""

    errors: ClassVar[dict[type[Exception], bytes]] = {
        error: error.wire_code for error in every_error() if error is not RealizeError
    }


class _OneWay(amp.Command):
    """Base of the commands without an answer; an error ends the stream or the connection that they belong to."""

    requiresAnswer = False


def _number() -> Number:
    return Number(_MAX_NUMBER)


class Hello(RealizeCommand):
    """I speak this version, and am this software.

    The connecting side sends it first, once; the answer says the same of the accepting side, and the name under which
    it knows the sender.
    Needs a known key and nothing else.
    Answers ``VERSION`` if the major versions differ, and the connection ends.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"major", Number(999)),
        (b"minor", Number(999)),
        (b"software", Text(200)),
        (b"capabilities", Packed(packing.TEXTS)),
        (b"run", Text(64)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [*arguments, (b"name", Text(200))]


class Ping(_OneWay):
    """I am still here.

    Either side sends it when it has sent nothing for 15 s, at rest (`REST`) for longer; needs no right.
    Whoever has the capability `ECHO` answers one that wants an answer, which tells how long a round trip takes.
    """


class Goodbye(_OneWay):
    """I am about to close the connection, for this reason.

    Either side may send it, also before Hello was answered; needs no right.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"reason", Choice(Reason))]


class OpenDirectory(RealizeCommand):
    """Let ``handle`` stand for ``base`` below that directory, and say where it is.

    The requester sends it; needs any right on the directory.
    A directory that does not exist and one without rights get the same ``DENIED``.
    ``age`` is how many nanoseconds ago the run began, if that was over another connection.
    ``origin`` identifies the sender of everything that I write there, which must not learn what others have put there.
    ``backup`` is a directory below ``base`` for the files that I replace; it needs ``write``.
    ``mode`` has the permission bits, if it is a directory.
    ``accepts`` says what I may set beside content, as the bits of `realize.wire.packing.bits_of`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"directory", Name()),
        (b"base", Octets(4096)),
        (b"salt", Octets(64)),
        (b"age", Number(optional=True)),
        (b"origin", Octets(32, least=32, optional=True)),
        (b"backup", Octets(4096, least=1, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [
        (b"kind", Choice(WhereKind)),
        (b"chain", Packed(packing.CHAIN)),
        (b"now", Number()),
        (b"rights", Packed(packing.TEXTS)),
        (b"mode", Number(0o777, optional=True)),
        (b"accepts", Number(_ALL_KINDS, optional=True)),
    ]


class MeasureSpace(RealizeCommand):
    """Say how much space you may use on the file system of the directory.

    The requester sends it; needs any right on the directory that the handle stands for.
    ``files`` is absent where the file system does not count them.
    Since 1.1.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number())]
    response: ClassVar[list[tuple[bytes, Any]]] = [
        (b"free", Number()),
        (b"total", Number()),
        (b"files", Number(optional=True)),
    ]


class TryWrite(RealizeCommand):
    """Write a trial file, make it durable under another name, remove it, and say how long that took.

    The requester sends it; needs ``write`` or ``create``.
    Since 1.1.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number())]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"nanoseconds", Number())]


class CloseDirectory(RealizeCommand):
    """Forget the handle; its streams are abandoned and their partials kept, its listings end.

    The requester sends it; needs no right.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number())]


class Walk(RealizeCommand):
    """Send me the next page of a listing; a new listing number starts one.

    The requester sends it; needs ``read``.
    Only the first call's ``partials``, ``avoid``, ``leave`` (see `realize.leaving`), ``one_file_system``, ``links`` and
    ``hard_links`` count; the last three are for whoever has the capabilities `ONE_FILE_SYSTEM`, `LINKS` and
    `HARD_LINKS`.
    When ``more`` is false, this was the last page and the number is free again.
    With ``further``, for whoever has the capability `WALK_AHEAD`, earlier calls need not be answered yet: this one is
    for the page behind theirs, or finds that there is none.
    ``now`` is the clock of the responder when it read the page, in nanoseconds since the epoch.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"listing", _number()),
        (b"partials", Flag()),
        (b"avoid", Octets(64)),
        (b"leave", Packed(packing.RULES, optional=True)),
        (b"one_file_system", Flag(optional=True)),
        (b"links", Flag(optional=True)),
        (b"hard_links", Flag(optional=True)),
        (b"further", Flag(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [
        (b"entries", Packed(packing.ENTRIES)),
        (b"more", Flag()),
        (b"now", Number()),
    ]


class EndWalk(RealizeCommand):
    """Give up a listing; it is no error if it has ended already.

    The requester sends it; needs no right.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"listing", _number())]


class Examine(RealizeCommand):
    """Say what these names stand for, as a listing would.

    The requester sends it, to whoever has the capability `EXAMINE`; needs ``read``.
    ``links`` and ``hard_links`` are as for `Walk`.
    ``now`` is the clock of the responder before it looked, in nanoseconds since the epoch.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"paths", Packed(packing.PATHS)),
        (b"links", Flag(optional=True)),
        (b"hard_links", Flag(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"examined", Packed(packing.EXAMINED_ENTRIES)), (b"now", Number())]


class Describe(RealizeCommand):
    """Say what is there under these names.

    The requester sends it; needs ``write``, ``create`` or ``read``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number()), (b"paths", Packed(packing.PATHS))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"found", Packed(packing.FOUND))]


class Forbidden(RealizeCommand):
    """Say which of these files permissions forbid me to read, move away or put; touch nothing.

    The requester sends it, for a dry run; needs ``read``, for ``move`` also ``remove``, for ``put`` ``write`` or
    ``create``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"paths", Packed(packing.PATHS)),
        (b"use", Choice(Use)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"forbidden", Packed(packing.FORBIDDEN_FILES))]


class FindSiblings(RealizeCommand):
    """Say for each of these files which number is free for it, and which numbered names have files of its size.

    The requester sends it, if the holder has the capability ``keep-both``, for names that are taken; needs ``write`` or
    ``create``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number()), (b"files", Packed(packing.SIZED_FILES))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"siblings", Packed(packing.SIBLINGS))]


class ReadSmall(RealizeCommand):
    """Send me these files whole: the content of all that could be read, in order, on this stream.

    The requester sends it; needs ``read``.
    The command grants credit for all of the content; the answer follows the last byte, and closes the stream.
    ``removing`` says that they will be removed afterwards, so those that a program has open for writing are not sent.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"stream", _number()),
        (b"paths", Packed(packing.PATHS)),
        (b"removing", Flag(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"heads", Packed(packing.FETCHED))]


class PutSmall(RealizeCommand):
    """Write, verify and commit these files; their content, in order, follows on this stream at once.

    The requester sends it; needs ``write`` or ``create``.
    The answer means that each file that has an outcome is on stable storage; it closes the stream.
    ``extras`` has for each file what else it is to get, for whoever has the capability `EXTRA_ATTRIBUTES`.
    ``directories`` are made first, as by `MakeDirectories`, for whoever has the capability ``put-directories``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"stream", _number()),
        (b"policy", Choice(OnConflict)),
        (b"heads", Packed(packing.SMALL_HEADS)),
        (b"extras", Packed(packing.EACH_EXTRAS, optional=True)),
        (b"directories", Packed(packing.DIRECTORIES, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"outcomes", Packed(packing.OUTCOMES))]


class ReadLinks(RealizeCommand):
    """Tell me the targets of these symlinks.

    The requester sends it, if the holder has the capability ``links``; needs ``read``.
    The answer is about the first of them, at least one and as many as fit; I ask again for the rest.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number()), (b"paths", Packed(packing.PATHS))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"links", Packed(packing.FOUND_LINKS))]


class PutLinks(RealizeCommand):
    """Make these symlinks, which never replace anything but symlinks.

    The requester sends it, if the holder has the capability ``links``; needs ``write`` or ``create``.
    The answer means that each symlink that has an outcome is on stable storage.
    ``trial`` asks what would become of them, and nothing is touched.
    ``extras`` is as for `PutSmall`; only owners count.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"policy", Choice(OnConflict)),
        (b"links", Packed(packing.SYMLINKS)),
        (b"trial", Flag(optional=True)),
        (b"extras", Packed(packing.EACH_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"outcomes", Packed(packing.LINK_OUTCOMES))]


class ReadExtras(RealizeCommand):
    """Tell me owners, access control lists and extended attributes of these files, directories and symlinks.

    The requester sends it, if the holder has the capability ``extra-attributes``; needs ``read``.
    ``wanted`` says which, and ``lenient`` what may be left out if it cannot be carried over, as bits; ``numeric`` says
    that I do not want names.
    The answer is about the first of them, at least one and as many as fit; I ask again for the rest.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"paths", Packed(packing.PATHS)),
        (b"wanted", Number(_ALL_KINDS)),
        (b"lenient", Number(_ALL_KINDS)),
        (b"numeric", Flag()),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"found", Packed(packing.FOUND_EXTRAS))]


class Foresee(RealizeCommand):
    """Say what of these attributes you could not keep, as far as you can tell without leaving anything behind.

    The requester sends it, if the holder has the capability ``extra-attributes``; needs ``write`` or ``create``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"paths", Packed(packing.PATHS)),
        (b"extras", Packed(packing.EACH_EXTRAS)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"foreseen", Packed(packing.FORESEEN))]


class LinkFiles(RealizeCommand):
    """Give these files other names, too, and make those durable.

    The requester sends it, to whoever has the capability `HARD_LINKS`; needs ``write`` or ``create``.
    Only files are linked that were put, or found to be there already, on this handle after the first `LinkFiles`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"links", Packed(packing.FILE_LINKS)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"outcomes", Packed(packing.FILE_LINK_OUTCOMES))]


class Settle(RealizeCommand):
    """Say which of these contents you have; what you say you have is on stable storage when you answer.

    The requester sends it; needs ``write`` or ``create``.
    ``attributes`` has the attributes that each file is to get then; without it, all keep their own.
    ``extras`` is as for `PutSmall`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"expected", Packed(packing.EXPECTED_FILES)),
        (b"attributes", Packed(packing.EACH_ATTRIBUTES, optional=True)),
        (b"extras", Packed(packing.EACH_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"settled", Packed(packing.SETTLED))]


class MatchFinal(RealizeCommand):
    """Say how much of the final file, from ``offset`` on, equals these blocks of mine.

    The requester sends it; needs ``write`` or ``create``.
    ``attributes``, with ``extras``, are those that the file is to get when its last byte has matched.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"path", Octets()),
        (b"size", Number()),
        (b"offset", Number()),
        (b"digests", Packed(packing.DIGESTS)),
        (b"attributes", PackedOne(packing.ATTRIBUTES, optional=True)),
        (b"extras", PackedOne(packing.ONE_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"matched", Number())]


class OpenWrite(RealizeCommand):
    """I want to send a file of ``size`` bytes on this stream.

    The requester sends it; needs ``write`` or ``create``.
    ``have`` is how many bytes of it an earlier transfer left.
    Content may follow as far as `Credit` allows, which the holder grants when it is ready.
    ``preserve`` is false if `CommitStream` will bring no attributes.
    With policy ``replace``, ``replaces`` is the only version of the final file that may be replaced; any, without it.
    With policy ``rename``, ``number`` is the only one that the file may get; any, without it.
    ``allocated`` is how many of the bytes take space at my end, if the file has holes.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"stream", _number()),
        (b"path", Octets()),
        (b"size", Number()),
        (b"policy", Choice(OnConflict)),
        (b"preserve", Flag(optional=True)),
        (b"replaces", PackedOne(packing.SEEN, optional=True)),
        (b"number", Number(MAX_NAME_NUMBER, least=1, optional=True)),
        (b"allocated", Number(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"have", Number())]


class MatchPartial(RealizeCommand):
    """Say how many of the next ``length`` bytes of the partial equal these blocks of mine.

    The requester sends it before any content; bytes that match need not be sent.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"digests", Packed(packing.DIGESTS)),
        (b"length", Number()),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"matched", Number())]


class OfferChunks(RealizeCommand):
    """These are the next chunks of the file: take those that its old version has from there, and say which I must send.

    The requester sends it, if the holder has the capability ``deltas``, before it has sent more than was wanted.
    ``wanted`` has a bit for each chunk; the next content consists of the chunks whose bit is 1.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"chunks", Packed(packing.CHUNKS))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"wanted", Octets(_MAX_BITMAP_BYTES))]


class Data(_OneWay):
    """These are the next bytes of the file; at least one, and never more than the credit.

    The side that has the content sends it: the requester of `OpenWrite`, the holder after `StartRead`.
    `realize.wire.boxes` knows its layout, so that it bypasses AMP's general machinery.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"content", Octets(least=1))]


class Zeros(_OneWay):
    """The next ``length`` bytes of the file are a hole.

    Whoever sends `Data` may send it instead, if the side that receives the content has the capability `HOLES`.
    It uses up `HOLE_CREDIT_BYTES` of the credit, whatever its length.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"length", Number(MAX_HOLE_BYTES, least=MIN_HOLE_BYTES)),
    ]


class Compressed(_OneWay):
    """The next ``length`` bytes of the file are what this frame of Zstandard contains.

    Whoever sends `Data` may send it instead, if both sides have the capability `ZSTD`.
    The frame is shorter than its content, and uses up as much credit as its content.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"length", Number(MAX_VALUE_BYTES, least=MIN_COMPRESSED_BYTES)),
        (b"content", Octets(least=1)),
    ]


class Credit(_OneWay):
    """You may send ``amount`` more bytes on this stream.

    The side that receives the content sends it.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"amount", Number(MAX_CREDIT_BYTES, least=1)),
    ]


class StopStream(_OneWay):
    """I cannot take more of this stream, because of this error.

    The side that receives the content sends it, so that a sender without credit does not wait for ever.
    `CommitStream` or `AbandonStream` must still follow.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"code", Octets(40)),
        (b"description", Text()),
    ]


class CommitStream(RealizeCommand):
    """All content was sent, and this is the digest of the whole file: verify it, make it durable, give it its name.

    The requester sends it; the stream is closed whatever the answer.
    Without ``attributes`` only the content is carried over; with them, ``extras`` says what else is.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"stream", _number()),
        (b"digest", Octets(DIGEST_BYTES, least=DIGEST_BYTES)),
        (b"attributes", PackedOne(packing.ATTRIBUTES)),
        (b"extras", PackedOne(packing.ONE_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"outcome", PackedOne(packing.OUTCOME))]


class AbandonStream(RealizeCommand):
    """I will not finish this file; ``keep`` what has arrived as a durable partial, or discard it.

    The requester sends it; it is no error if the stream is closed already.
    ``kept`` is how many bytes the partial has then; absent if the stream was closed.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"keep", Flag())]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"kept", Number(optional=True))]


class OpenRead(RealizeCommand):
    """I want to read this file on this stream.

    The requester sends it; needs ``read``.
    ``removing`` says that it will be removed afterwards, so it is refused if a program has it open for writing.
    ``allocated`` is how many bytes of the file take space, if it has holes.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"stream", _number()),
        (b"path", Octets()),
        (b"removing", Flag(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [
        (b"version", PackedOne(packing.VERSIONS)),
        (b"attributes", PackedOne(packing.PRESENT_ATTRIBUTES)),
        (b"allocated", Number(optional=True)),
    ]


class BlockDigests(RealizeCommand):
    """Tell me the digests of the blocks of the next ``length`` bytes; the position does not change.

    The requester sends it before `StartRead`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"length", Number())]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"digests", Packed(packing.DIGESTS))]


class SkipBlocks(RealizeCommand):
    """I have the next ``length`` bytes: skip them, but include them in the digest.

    The requester sends it before `StartRead`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"length", Number())]


class CutSpan(RealizeCommand):
    """Cut the next span of the file that was not cut yet, and tell me its chunks; none at the end of the file.

    The requester sends it before `StartRead`, if the holder has the capability ``deltas``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number())]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"chunks", Packed(packing.CHUNKS))]


class PickChunks(RealizeCommand):
    """Send me these chunks of the first span that was cut and not picked, and go on after that span.

    All of the span is included in the digest.
    The requester sends it before `StartRead`; it is answered once the content of all these chunks was sent.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number()), (b"wanted", Octets(_MAX_BITMAP_BYTES))]


class StartRead(RealizeCommand):
    """From here on, send the content, as far as `Credit` allows.

    The requester sends it, once.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number())]


class EndRead(RealizeCommand):
    """Tell me when all content was sent, and the digest of the whole file, or why it ended early.

    The requester sends it right after `StartRead`; the answer follows the last `Data`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number())]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"digest", Octets(DIGEST_BYTES, least=DIGEST_BYTES))]


class CloseStream(RealizeCommand):
    """I want no more of this stream that I was reading; it is no error if it is closed already.

    The requester sends it.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"stream", _number())]


class Remove(RealizeCommand):
    """Remove these files and symlinks if they are still these versions.

    The requester sends it; needs ``remove``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number()), (b"removals", Packed(packing.REMOVALS))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"removed", Packed(packing.REMOVED))]


class Prune(RealizeCommand):
    """Remove those of these directories that are empty and unchanged.

    The requester sends it; needs ``remove`` or ``prune``.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"handle", _number()), (b"vacant", Packed(packing.VACANT))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"pruned", Packed(packing.PRUNED))]


class MakeDirectories(RealizeCommand):
    """Make those of these directories that are missing, with their permissions and full access for their owner.

    The requester sends it before it puts files there; needs ``write`` or ``create``.
    ``extras`` is as for `PutSmall`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"directories", Packed(packing.DIRECTORIES)),
        (b"extras", Packed(packing.EACH_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"made", Packed(packing.MADE))]


class SetDirectories(RealizeCommand):
    """Give those of these directories that exist their final permissions and times.

    The requester sends it when no more files will follow; needs ``write`` or ``create``.
    The answer means that they are on stable storage.
    ``extras`` is as for `PutSmall`.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"handle", _number()),
        (b"directories", Packed(packing.DIRECTORIES)),
        (b"extras", Packed(packing.EACH_EXTRAS, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"done", Packed(packing.DONE))]


class Status(RealizeCommand):
    """Report your status.

    Either side may send it; needs no right, but an admin learns more.
    ``report`` is a JSON object.
    """

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"report", Text(60_000))]


class SetThrottle(RealizeCommand):
    """Limit what is sent: by you, or (``direction``) by others to you.

    Either side may send it.
    An empty ``name`` with scope ``connection`` means the connection that it travels on, and needs no right; anything
    else needs ``admin``, and only a daemon understands it.
    ``rate`` is in bytes per second; without it there is no limit.
    With ``milliseconds`` the former limit is restored after that time.
    It takes effect at once, even on data that waits already.
    ``former`` is the limit on sending that was replaced; absent if there was none, or if only receiving is limited.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"scope", Choice(Scope)),
        (b"name", Name()),
        (b"direction", Choice(Direction)),
        (b"rate", Number(optional=True)),
        (b"milliseconds", Number(optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"former", Number(optional=True))]


class GetThrottle(RealizeCommand):
    """Tell me the limits and the present rates.

    Either side may send it; needs no right, but an admin learns those of all peers.
    ``report`` is a JSON list of objects: scope, name, peer, direction, limit, rate, waited, lasts;
    a daemon adds ``yours``: whether the limit applies to the connection that asks.
    """

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"report", Text(60_000))]


class Moves(RealizeCommand):
    """Tell me of your standing moves, or of the one of that name.

    The connecting side sends it; needs ``admin``.
    ``report`` is a JSON object: ``moves`` is a list of objects, ``now`` your clock in seconds since the epoch, and
    ``truncated`` is true if moves were left out because not all would fit.
    Since 2.1.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"name", Name(optional=True))]
    response: ClassVar[list[tuple[bytes, Any]]] = [(b"report", Text(60_000))]


class SteerMove(RealizeCommand):
    """Run, pause or resume the standing move of that name.

    The connecting side sends it; needs ``admin``.
    Since 2.1.
    """

    arguments: ClassVar[list[tuple[bytes, Any]]] = [(b"name", Name()), (b"action", Choice(Steering))]


class Reload(RealizeCommand):
    """Read your configuration again, and take it over.

    A user at the control socket sends it; a daemon understands it from nobody else.
    ``report`` is a JSON object: either ``errors``, a list of lines, and nothing has changed; or ``changes``, a list of
    objects with ``key`` and ``change``, and ``restart_needed``, a list of keys.
    Since 2.1.
    """

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"report", Text(60_000))]


def every_command() -> list[type[amp.Command]]:
    """Return all commands of the protocol."""
    return [
        command
        for command in globals().values()
        if isinstance(command, type) and issubclass(command, amp.Command) and command not in {RealizeCommand, _OneWay}
    ]


def stream_of(box: Mapping[bytes, bytes]) -> int | None:
    """Return the number of the stream that a command names, which may be malformed; None if it cannot be told."""
    try:
        return _number().fromString(box.get(b"stream", b""))
    except ProtocolError:
        return None


def names(*commands: type[amp.Command]) -> frozenset[bytes]:
    """Return the names of these commands on the wire."""
    return frozenset(command.commandName for command in commands)
