"""The contract of a store: list, read, write, commit and remove the files of one directory.

Whoever holds an `IStore` cannot tell whether it is local or remote.
Every method that returns a Deferred may fail with any `realize.errors.RealizeError`.
Methods that take a list answer with a list of the same length and order; where one item can fail by itself, its place
in the answer holds the error instead of a result, and the others are not affected.
An empty list asks only whether it would be allowed.

Invariants that every implementation keeps:

* no name leads outside the directory, and no symlink is followed below it;
* a final file is replaced atomically or not at all, and only by content whose digest was verified;
* ``put_small``, ``commit``, ``settle`` and the end of ``match_final`` answer only when the final file is on stable
  storage;
* ``remove`` removes nothing but the version it was asked to remove.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from realize.errors import RealizeError
from realize.values import (
    Attributes,
    Chunk,
    Content,
    Directory,
    Entry,
    Existing,
    Expected,
    Fetched,
    OnConflict,
    Removal,
    Seen,
    SmallFile,
    Space,
    Stored,
    Travelled,
    Use,
    Vacant,
    Version,
    Where,
)


class IListing(Interface):
    """The entries below a directory, depth first, a page at a time."""

    now_ns: int = Attribute("What the clock of the store's machine showed when the last page was read.")
    held: int = Attribute("About how many bytes are remembered here between two pages.")

    def next_page() -> Deferred[list[Entry]]:
        """The next entries, in path order; an empty list is the end."""

    def close() -> None:
        """Give up the rest."""


class IReader(Interface):
    """The content of one file that is being read from its start to its end."""

    version: Version = Attribute("What the file was when it was opened.")
    attributes: Attributes = Attribute("Modification time and permission bits at that instant.")
    deltas: bool = Attribute("Whether `cut` and `pick` may be used.")

    def block_digests(length: int) -> Deferred[list[bytes]]:
        """Digests of the `realize.values.BLOCK_BYTES`-sized blocks of the next ``length`` bytes; the position stays.

        ``length`` must not reach beyond the end of the file.
        """

    def skip(length: int) -> Deferred[None]:
        """The other side has the next ``length`` bytes: count them into the digest and go on behind them."""

    def cut() -> Deferred[list[Chunk]]:
        """The chunks of the next `realize.values.SPAN_BYTES` bytes that were not cut yet; none at the end of the file.

        May be called up to `realize.values.SPANS_AHEAD` times ahead of `pick`, also without waiting in between.
        Not to be called after `read`, nor `block_digests` and `skip` after it.
        """

    def pick(wanted: Sequence[bool]) -> Deferred[list[Content]]:
        """The content of those chunks of the first span that was cut and not picked yet; the position moves behind it.

        May be called ahead, too.
        All of the span counts into the digest, wanted or not.
        """

    def read() -> Deferred[list[Content]]:
        """The next pieces of content, as many as are at hand; an empty list is the end of the file.

        A file that ends before ``version.size`` fails with `realize.errors.SourceChanged`, or with
        `realize.errors.WrongSize` if it is still that version.
        What was cut and not picked is read like the rest, once all that was asked for is answered.
        """

    def finish() -> Deferred[bytes]:
        """The digest of the whole content, once all was read or skipped.

        Fails with `realize.errors.SourceChanged` if the file was not ``version`` any more when its end was read, and
        with `realize.errors.WrongSize` if there is more behind ``version.size``; or the last `read` does.
        """

    def close() -> None:
        """Release everything; may be called at any time, more than once."""


class IWriter(Interface):
    """One file on its way into a directory; it holds the lock on the partial of that name."""

    have: int = Attribute("How many bytes an earlier transfer left in the partial.")
    deltas: bool = Attribute("Whether `offer` may be used.")

    def match(digests: Sequence[bytes], length: int) -> Deferred[int]:
        """Compare the next ``length`` bytes of the partial, block by block, with the digests of the source.

        Answers how many bytes matched, from the current position up to the first block that differs, and moves the
        position behind them.
        Not to be called after `write`.
        """

    def offer(chunks: Sequence[Chunk]) -> Deferred[list[bool]]:
        """These are the next chunks, behind those that were offered before: say which must be written.

        The others are taken from the final file that is there; if they turn out to be something else, `commit` fails
        with `realize.errors.VerifyFailed`.
        At most `realize.values.SPAN_BYTES` bytes at once, and in sum not more than the file is to have.
        May be called ahead of `write`, also without waiting in between, but not once more was written than was wanted.
        """

    def write(pieces: Sequence[Content]) -> Deferred[None]:
        """Go on with the content: first what was wanted of the chunks offered, in order, then all the rest.

        What the partial held behind the position is dropped at the first call.
        Fires when more may be written.
        """

    def commit(digest: bytes, attributes: Attributes | None) -> Deferred[Stored]:
        """Verify, make durable, and give the file its final name; the writer is closed whatever the answer.

        The answer says which version the final file is.
        To be cancelled is as with `IStore.put_small`.

        Another digest or size than announced fails with `realize.errors.VerifyFailed` and discards the partial.
        """

    def abandon(*, keep: bool) -> Deferred[int | None]:
        """Close without committing; ``keep`` makes what has arrived durable as a partial, else it is discarded.

        Answers how many bytes are durable in the partial, None if that cannot be known or it was closed already.

        May be called at any time, more than once, also after `commit`.
        """


class IStore(Interface):
    """The files of one directory, or of one location below it."""

    def open(salt: bytes, run_age_ns: int = 0) -> Deferred[Where]:
        """Say where this is; to be called first, and with the same salt for all stores of a run.

        ``run_age_ns`` is how long ago the run began, if this is not its first connection; see `describe`.
        """

    def space() -> Deferred[Space]:
        """How much room there is, for whoever writes here, where the location is or would be made."""

    def try_write() -> Deferred[int]:
        """Write something, make it durable under another name, and remove it; how long that took in nanoseconds.

        Nothing is left behind, and at no time anything but a partial is there to be seen.
        """

    def walk(*, partials: bool = False, avoid: bytes = b"", leave: Sequence[bytes] = ()) -> IListing:
        """Everything below the location, as `Entry` values; a directory comes before what is in it.

        A directory whose salted identity is ``avoid`` is reported as unreadable instead of being entered.
        Directories that ``leave`` says so of (`realize.leaving`) are listed, and not entered.
        Partials are listed only if asked for.
        """

    def describe(paths: Sequence[bytes]) -> Deferred[list[Existing | RealizeError]]:
        """What is there under these names, and whether it may have changed since the run began.

        A final file that is to be replaced later must still be what was described last; else that fails with
        `realize.errors.Busy`.
        So does it, in the end, if more were described than a store can remember: describe it anew.
        Only of what was not described at all, whatever is there may be replaced.
        """

    def forbidden(paths: Sequence[bytes], use: Use) -> Deferred[list[RealizeError | None]]:
        """Why each of these files could not be used so; None for one that permissions say nothing against.

        Nothing is touched, so it is no promise.
        """

    def read_small(paths: Sequence[bytes], *, removing: bool = False) -> Deferred[list[Fetched | RealizeError]]:
        """Whole files of at most `realize.values.MAX_SMALL_BYTES` bytes each, and at most that many together.

        What no longer fits is answered with `realize.errors.SourceChanged`, and what has more, or less, content than
        its size says with `realize.errors.WrongSize`.
        So is, with `realize.errors.SourceChanged`, what a program has open for writing, as far as that can be known, if
        the files are to be removed afterwards (``removing``).
        """

    def reads_at_once() -> int:
        """How many bytes a call of `read_small` should ask for now, at most `realize.values.MAX_SMALL_BYTES`.

        Less than that where content is slow in coming: a batch counts only when it is there, and a larger file is
        better read as a stream.
        """

    def takes_at_once() -> int:
        """The same for what a call of `put_small` should bring."""

    def put_small(files: Sequence[SmallFile], policy: OnConflict) -> Deferred[list[Stored | RealizeError]]:
        """Write, verify and commit whole files.

        Cancelled, what has begun goes on, and is answered; cancelled again, it is given up.
        Then, or when a connection is lost, it fails with `realize.errors.Unanswered` if the files may be there, now or
        in a moment, and with anything else only if they are not, and never will be.
        """

    def settle(expected: Sequence[Expected]) -> Deferred[list[bool | RealizeError]]:
        """Whether the final file of that name has exactly that content; if so, it is durable when this answers.

        It then has the attributes that were given with it, and the present as its change time, as if it had just
        arrived, for the caller may remove the source.
        One that has that content, but that another program has open for writing, is answered with
        `realize.errors.Busy`, as far as that can be known.
        """

    def match_final(
        path: bytes, size: int, offset: int, digests: Sequence[bytes], attributes: Attributes | None = None
    ) -> Deferred[int]:
        """Compare blocks of the final file from ``offset`` on; answers how many bytes matched.

        A final file that is not ``size`` bytes long, or changes meanwhile, matches nothing.
        When the last byte of the file has matched, the file is durable before this answers, with these attributes and
        the present as its change time, or this fails with `realize.errors.Busy`, as with `settle`.
        """

    def open_reader(path: bytes, *, removing: bool = False) -> Deferred[IReader]:
        """Start to read a file of any size.

        If it is to be removed afterwards (``removing``), and a program has it open for writing, this fails with
        `realize.errors.SourceChanged`, as far as that can be known.
        """

    def make_directories(directories: Sequence[Directory]) -> Deferred[list[RealizeError | None]]:
        """Make those that are missing, in this order, with their permissions, but all that their owner needs.

        Others get the same, unless their owner may not write to them; also then if they have just these permissions,
        which `set_directories` gave them.
        One with an empty path is the location itself, which is not touched if it is there.
        Directories that are made on demand for a file that brings attributes are for their owner alone.
        """

    def set_directories(directories: Sequence[Directory]) -> Deferred[list[bool | RealizeError]]:
        """Give those that are there their permissions and times for good, in this order: deepest first.

        Answers for each whether it has them; those that are missing, or belong to others, have not.
        Set-uid, set-gid and sticky bits stay what they are.
        """

    def open_writer(
        path: bytes, size: int, policy: OnConflict, *, preserve: bool = True, replaces: Seen | None = None
    ) -> Deferred[IWriter]:
        """Start, or go on, to write a file of ``size`` bytes.

        ``replaces`` is the only version of the final file that it may replace; None if any.
        ``preserve`` says that `IWriter.commit` will have attributes.
        Fails with `realize.errors.Busy` while somebody else is writing it, and with `realize.errors.NoSpace`, before
        anything is sent, if there is no room for all of it.
        It may wait for others that are being written; cancelled, it does so no more.
        """

    def remove(removals: Sequence[Removal]) -> Deferred[list[RealizeError | None]]:
        """Remove the files that are still the version named; the directories that they were in stay.

        To be cancelled is as with `put_small`.

        A file that is not that version any more is kept: `realize.errors.SourceChanged`.
        So is one that a program has open for writing, as far as that can be known.
        One that is gone already is `realize.errors.NotFound`: there is nothing to do, and nothing was done.
        """

    def prune(vacant: Sequence[Vacant]) -> Deferred[list[bool | RealizeError]]:
        """Remove those of these directories that are empty and still what they were, in this order.

        Answers for each whether it was removed; whatever keeps the system from removing it is a reason for it to stay.
        Nothing that is in a directory is ever removed with it, and the location itself has no name here.
        """

    def in_transit() -> Sequence[Travelled] | None:
        """How far the files are whose content is on its way here, or from here; None if it goes over no connection.

        What waits on this machine for its turn, or for the network, has not gone yet.
        """

    def close() -> Deferred[None]:
        """End; everything that is still open is abandoned and kept."""
