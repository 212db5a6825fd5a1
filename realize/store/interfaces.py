"""The contract of a store: list, read, write, commit and remove the files of one directory.

The user of an `IStore` cannot tell whether it is local or remote.
Every method that returns a Deferred may fail with any `realize.errors.RealizeError`.
Methods that take a list return a list of the same length and order; where one item can fail by itself, the list holds
its error instead of a result, and the others are not affected.
An empty list only asks whether the operation is allowed.

Invariants that every implementation keeps:

* no name leads outside the directory, and no symlink is followed below it;
* a final file is replaced atomically or not at all, and only by content whose digest was verified;
* ``put_small``, ``put_links``, ``link_files``, ``commit``, ``settle`` and the end of ``match_final`` answer only once
  the final file, or symlink, is on stable storage;
* ``remove`` removes nothing but the version that it was asked to remove.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from realize.by_value import ByValue
from realize.errors import RealizeError
from realize.values import (
    Attributes,
    Chunk,
    Directory,
    Entry,
    Existing,
    Expected,
    Fetched,
    FoundSymlink,
    HardLink,
    HardLinked,
    Linked,
    OnConflict,
    Piece,
    Preserve,
    Removal,
    Seen,
    Siblings,
    Sized,
    SmallFile,
    Space,
    Stored,
    Symlink,
    Travelled,
    Use,
    Vacant,
    Version,
    Where,
    frozen,
)

if TYPE_CHECKING:
    from realize.extras import Extras, FoundExtras, WantedExtras


@frozen(eq=False, repr=False)
class Examined(ByValue):
    """What names stand for, in their order, and when that was looked at: ns since the epoch, by the store's machine."""

    entries: Sequence[Entry | RealizeError]
    now_ns: int


class IListing(Interface):
    """The entries below a directory, depth first, a page at a time."""

    now_ns: int = Attribute(
        "Time on the clock of the store's machine when the last page was read, in ns since the epoch."
    )
    held: int = Attribute("Approximate number of bytes kept in memory here between two pages.")

    def next_page() -> Deferred[list[Entry]]:
        """Return the next entries, in path order; an empty list is the end."""

    def close() -> None:
        """Give up the rest."""


class IReader(Interface):
    """The content of one file, read from its start to its end."""

    version: Version = Attribute("The version of the file when it was opened.")
    attributes: Attributes = Attribute("Modification time and permission bits at the same instant.")
    deltas: bool = Attribute("Whether `cut` and `pick` may be used.")
    allocated: int | None = Attribute(
        "Bytes that the content takes, without its holes; None if it has none, or unknown."
    )

    def block_digests(length: int) -> Deferred[list[bytes]]:
        """Return the digests of the `realize.values.BLOCK_BYTES`-sized blocks of the next ``length`` bytes.

        The position does not change; ``length`` must not reach beyond the end of the file.
        """

    def skip(length: int) -> Deferred[None]:
        """Skip the next ``length`` bytes, which the other side has, but include them in the digest."""

    def cut() -> Deferred[list[Chunk]]:
        """Return the chunks of the next span, `realize.values.SPAN_BYTES` bytes that were not cut yet; none at the end.

        May be called up to `realize.values.SPANS_AHEAD` times ahead of `pick`, even without waiting in between.
        Must not be called after `read`; `block_digests` and `skip` must not be called after it.
        """

    def pick(wanted: Sequence[bool]) -> Deferred[list[Piece]]:
        """Return the content of the wanted chunks of the first span that was cut and not picked yet.

        The position moves behind that span, and all of it is included in the digest, wanted or not.
        Like `cut`, it may be called without waiting for earlier calls.
        """

    def read() -> Deferred[list[Piece]]:
        """Return the next pieces of content, as many as are available; an empty list is the end of the file.

        Holes are pieces, too, and were not read: together, they are no longer than `realize.values.MAX_HOLE_BYTES`, or
        only the last of them is.

        A file that ends before ``version.size`` fails with `realize.errors.SourceChanged`, or with
        `realize.errors.WrongSize` if it is still that version.
        Spans that were cut and not picked are read like the rest, once all earlier calls are answered.
        """

    def at_most(size: int) -> None:
        """Say that of the content that `read` returns no more than ``size`` bytes are wanted, holes not counted.

        A peer then sends hardly more; to be called before the first `read`.
        """

    def stop() -> None:
        """Want nothing more: `read` returns what a peer has sent that is here by now, and then fails."""

    def finish() -> Deferred[bytes]:
        """Return the digest of the whole content, once all of it was read or skipped.

        This, or the last `read`, fails with `realize.errors.SourceChanged` if the file was not ``version`` any more
        when its end was read, and with `realize.errors.WrongSize` if there is content beyond ``version.size``.
        """

    def close() -> None:
        """Release all resources; may be called at any time, more than once."""


class IWriter(Interface):
    """One file that is being written to a directory; holds the lock on its partial."""

    have: int = Attribute("Bytes that an earlier transfer left in the partial.")
    deltas: bool = Attribute("Whether `offer` may be used.")
    takes_holes: bool = Attribute("Whether holes are not sent; else their zeros are.")
    near: bool = Attribute("Whether the file is on this machine: to write it, nothing has to travel.")

    def match(digests: Sequence[bytes], length: int) -> Deferred[int]:
        """Compare the next ``length`` bytes of the partial, block by block, with the digests of the source.

        Returns how many bytes match, from the current position up to the first block that differs, and moves the
        position behind them.
        Must not be called after `write`.
        """

    def offer(chunks: Sequence[Chunk]) -> Deferred[list[bool]]:
        """Announce the next chunks, after those offered before; return for each whether it must be written.

        The others are taken from the existing final file; if their content turns out to differ, `commit` fails with
        `realize.errors.VerifyFailed`.
        A call offers at most `realize.values.SPAN_BYTES` bytes, and all calls together no more than the file's size.
        May be called ahead of `write`, even without waiting in between, but not once more was written than was wanted.
        """

    def write(pieces: Sequence[Piece]) -> Deferred[None]:
        """Write the next content: first the wanted ones of the chunks offered, in order, then all the rest.

        The first call drops what the partial held beyond the position, so holes take no room.
        The Deferred fires when more may be written.
        """

    def commit(digest: bytes, attributes: Attributes | None) -> Deferred[Stored]:
        """Verify the content, make it durable, and give the file its final name; this always closes the writer.

        The result tells the version of the final file.
        Cancelling works as for `IStore.put_small`.

        A digest or size that differs from the announced one fails with `realize.errors.VerifyFailed`, and the partial
        is discarded.
        """

    def abandon(*, keep: bool) -> Deferred[int | None]:
        """Close without committing; with ``keep``, what has arrived is made durable as a partial, else discarded.

        Returns how many bytes of the partial are durable, or None if that is unknown or the writer was closed already.
        May be called at any time, more than once, and after `commit`.
        """


class IStore(Interface):
    """The files of one directory, or of one location below it."""

    links: bool = Attribute("Whether symlinks can be moved: `walk` can list them; known once `open` has answered.")
    hard_links: bool = Attribute("Whether `link_files` may be used, and `walk` tells identities; known like ``links``.")
    takes_directories: bool = Attribute(
        "Whether `put_small` brings directories along and saves a round trip; known like ``links``."
    )
    replaces: bool = Attribute("Whether the user of it may replace files; known once `open` has answered.")
    tells: frozenset[Preserve] = Attribute("What `read_extras` knows, and mode and times; known like `links`.")
    accepts: frozenset[Preserve] = Attribute("What may be set here, mode and times included; known like `links`.")

    def open(salt: bytes, run_age_ns: int = 0) -> Deferred[Where]:
        """Return where this store is; must be called first, with the same salt for all stores of a run.

        ``run_age_ns`` is how long ago the run began, if this is not its first connection; see `describe`.
        """

    def space() -> Deferred[Space]:
        """Return how much space there is for files written here, where the location is or would be made."""

    def try_write() -> Deferred[int]:
        """Write a trial file, make it durable under another name, and remove it; return the nanoseconds that took.

        Nothing is left behind, and nothing but a partial can be seen at any time.
        """

    def walk(
        *,
        partials: bool = False,
        avoid: bytes = b"",
        leave: Sequence[bytes] = (),
        one_file_system: bool = False,
        links: bool = False,
        hard_links: bool = False,
    ) -> IListing:
        """List everything below the location, as `Entry` values; a directory comes before what is in it.

        A directory whose identity token is ``avoid`` is reported as unreadable instead of being entered.
        Directories that match the rules ``leave`` (`realize.leaving`) are listed, but not entered.
        With ``one_file_system``, one on another file system than the location is listed as left, and not entered.
        Partials are listed only with ``partials``.
        Symlinks are `realize.values.Kind.LINK` with ``links``, else they are among what is left alone.
        With ``hard_links``, files that have other names, too, wherever these are, have an identity token.
        """

    def examine(paths: Sequence[bytes], *, links: bool = False, hard_links: bool = False) -> Deferred[Examined]:
        """Return for each of these names the entry that a listing would have, or an error.

        ``links`` and ``hard_links`` are as for `walk`.
        A directory comes without its contents, and what does not exist gives `realize.errors.NotFound`.
        """

    def describe(paths: Sequence[bytes]) -> Deferred[list[Existing | RealizeError]]:
        """Return what is there under these names, and whether it may have changed since the run began.

        The answer is what a later replacement is conditional on: pass it as ``replaces``, and the replacement fails
        with `realize.errors.Busy` unless the final file is still the version that was described; then describe it anew.
        Without ``replaces``, any final file may be replaced.
        """

    def keeps_both() -> bool:
        """Return whether `OnConflict.RENAME` and `siblings` may be used; a peer of an older version knows neither."""

    def siblings(files: Sequence[Sized]) -> Deferred[list[Siblings | RealizeError]]:
        """Return for each file which number is free for it, and which numbered names have files of its size.

        The files of the same size are at most `realize.values.MAX_ALIKE_FILES`, those that came last first: one of
        them may be the very file, from a run that ended before it could remove the source.
        """

    def forbidden(paths: Sequence[bytes], use: Use) -> Deferred[list[RealizeError | None]]:
        """Return why permissions forbid to use each of these files like that; None if they do not.

        Nothing is touched, so None is no promise.
        """

    def read_small(
        paths: Sequence[bytes], *, removing: bool = False, wanted: WantedExtras | None = None
    ) -> Deferred[list[Fetched | RealizeError]]:
        """Read whole files, of at most `realize.values.MAX_SMALL_BYTES` bytes together.

        A file that does not fit gives `realize.errors.SourceChanged`, one that has more or less content than its size
        says `realize.errors.WrongSize`.
        If the files are to be removed afterwards (``removing``), a file that a program has open for writing, as far as
        that can be known, gives `realize.errors.SourceChanged`, too.
        A file may come with what is ``wanted`` of it beside mode and time; of all others it is for `read_extras`.
        """

    def reads_at_once() -> int:
        """Return how many bytes a call of `read_small` should ask for now, at most `realize.values.MAX_SMALL_BYTES`.

        It is less on a slow link: a batch counts only once all of it has arrived, and a larger file is better read as a
        stream.
        """

    def takes_at_once() -> int:
        """Return how many bytes a call of `put_small` should bring now; see `reads_at_once`."""

    def round_trip() -> float:
        """Return how many seconds any call takes besides its work, as far as that is known; 0 here."""

    def put_small(
        files: Sequence[SmallFile], policy: OnConflict, directories: Sequence[Directory] = ()
    ) -> Deferred[list[Stored | RealizeError]]:
        """Write, verify and commit whole files.

        ``directories`` are made before, as by `make_directories`; where ``takes_directories`` is not true, that is
        still to be waited for.
        Under `OnConflict.RENAME`, a file with a ``number`` whose name was taken since fails with
        `realize.errors.Busy`: what took it may be the same file, so ask for its `siblings` again.

        Cancelled once, what has begun goes on, and its answer is delivered; cancelled again, it is given up.
        Then, or when a connection is lost, it fails with `realize.errors.Unanswered` if the files may be there, now or
        in a moment; any other error means that they are not there and never will be.
        """

    def read_links(
        paths: Sequence[bytes], *, wanted: WantedExtras | None = None
    ) -> Deferred[list[FoundSymlink | RealizeError]]:
        """Read symlinks, which are never followed.

        One that the directory does not give away gives `realize.errors.LinkRefused`, and what is no symlink (any more)
        `realize.errors.SourceChanged`.
        A symlink may come with its owner, if that is ``wanted``, as files do from `read_small`.
        """

    def put_links(
        links: Sequence[Symlink], policy: OnConflict, *, trial: bool = False
    ) -> Deferred[list[Linked | RealizeError]]:
        """Make symlinks, with their times, and make them durable.

        One that the directory does not take, whatever its policy, gives `realize.errors.LinkRefused`.
        A symlink of that name with the same target stays, and gets the time and the present as its change time, as if
        it had just arrived; one with another target is replaced, atomically, if ``policy`` says so and it did not
        arrive since the run began.
        Anything else of that name gives `realize.errors.Conflict`: a symlink never replaces a file or a directory, nor
        is it replaced by one.
        With ``trial`` nothing is touched; the answers are those that are to be expected.
        Cancelling works as for `put_small`.
        """

    def read_extras(
        paths: Sequence[bytes], wanted: frozenset[Preserve], *, numeric: bool = False, lenient: frozenset[Preserve]
    ) -> Deferred[list[FoundExtras | RealizeError]]:
        """Read owners, access control lists and extended attributes of files, directories and symlinks.

        With ``numeric``, owners and the users of lists come without names.
        What cannot be carried over gives `realize.errors.NotKept`, unless it is ``lenient``; then it is left out.
        The version is what has them: if it is that of the content as well, they belong together.
        The answer is about the first of the paths, at least one and as many as a value of the protocol holds; ask again
        for the rest.
        """

    def foresee(paths: Sequence[bytes], extras: Sequence[Extras]) -> Deferred[list[RealizeError | None]]:
        """Return for each what could not be kept of it here; None is no promise, since nothing is left behind."""

    def link_files(links: Sequence[HardLink]) -> Deferred[list[HardLinked | RealizeError]]:
        """Give files that are here other names, too, in this order, and make these durable.

        Only a file is linked that this store has put, or compared with what its user has, since the first call of this,
        and that is unchanged since; call it without any before the first file is put.
        What cannot be linked gives `realize.values.HardLinked.NOT_LINKED`: another file has the name, the file is
        another one by now, is on another file system, or has as many names as it can.  Nothing is ever replaced.
        Cancelling works as for `put_small`.
        """

    def settle(expected: Sequence[Expected]) -> Deferred[list[bool | RealizeError]]:
        """Return for each whether the final file of that name has exactly that content; if so, it is durable by then.

        It then also has the attributes given with it, and the present as its change time, as if it had just arrived,
        since the caller may remove the source.
        A file with that content that another program has open for writing, as far as that can be known, gives
        `realize.errors.Busy`.
        """

    def match_final(
        path: bytes, size: int, offset: int, digests: Sequence[bytes], attributes: Attributes | None = None
    ) -> Deferred[int]:
        """Compare blocks of the final file from ``offset`` on; return how many bytes match.

        A final file that is not ``size`` bytes long, or changes meanwhile, matches nothing.
        When its last byte has matched, the file is durable before this answers, with these attributes and the present
        as its change time, or this fails with `realize.errors.Busy`, as `settle` does.
        """

    def open_reader(path: bytes, *, removing: bool = False) -> Deferred[IReader]:
        """Start reading a file of any size.

        If it is to be removed afterwards (``removing``) and a program has it open for writing, as far as that can be
        known, this fails with `realize.errors.SourceChanged`.
        """

    def make_directories(directories: Sequence[Directory]) -> Deferred[list[RealizeError | None]]:
        """Make missing directories, in this order, with their permissions and full access for their owner.

        Existing ones get the same permissions, unless their owner may not write to them; even then if they have just
        the permissions that `set_directories` would have given them.
        An empty path means the location itself, which is not changed if it exists.
        Directories that are made on demand, for a file that brings attributes, are accessible to their owner alone.
        """

    def set_directories(directories: Sequence[Directory]) -> Deferred[list[bool | RealizeError]]:
        """Give existing directories their final permissions and times, in this order: deepest first.

        Returns for each whether it has them, durably, which is False for those that are missing or belong to others.
        Fails with `RealizeError` if they cannot be made durable.
        Set-uid, set-gid and sticky bits are kept.
        """

    def open_writer(
        path: bytes,
        size: int,
        policy: OnConflict,
        *,
        preserve: bool = True,
        replaces: Seen | None = None,
        number: int = 0,
        allocated: int | None = None,
    ) -> Deferred[IWriter]:
        """Start or resume writing a file of ``size`` bytes.

        ``replaces`` is the only version of the final file that it may replace; None allows any.
        ``number`` is the only one that it may get under `OnConflict.RENAME`, as for `put_small`; 0 allows any.
        ``preserve`` says that `IWriter.commit` will get attributes.
        ``allocated`` is how many of the bytes will probably take space, if the file has holes.
        Fails with `realize.errors.Busy` while somebody else is writing the file, and with `realize.errors.NoSpace`,
        before anything is sent, if there is no space for all of it.
        It may wait for space until other files are written; cancelling it ends that.
        """

    def remove(removals: Sequence[Removal]) -> Deferred[list[RealizeError | None]]:
        """Remove the files and symlinks that are still the given version; their directories stay.

        Cancelling works as for `put_small`.

        A file that is another version by now, or that a program has open for writing as far as that can be known, is
        kept and gives `realize.errors.SourceChanged`.
        One that is gone already gives `realize.errors.NotFound`: there was nothing to do, and nothing was done.
        """

    def prune(vacant: Sequence[Vacant]) -> Deferred[list[bool | RealizeError]]:
        """Remove those of these directories that are empty and unchanged, in this order.

        Returns for each whether it was removed; one that the system refuses to remove just stays.
        The content of a directory is never removed with it, and the location itself cannot be named here.
        """

    def in_transit() -> Sequence[Travelled] | None:
        """Return how far the files in transit to or from here are; None if content goes over no connection.

        What still waits on this machine, for its turn or for the network, does not count as travelled.
        """

    def close() -> Deferred[None]:
        """Close the store; whatever is still open is closed, and files being written are kept as partials."""
