"""The file that ``--manifest`` names: one line of JSON for each file that arrived, and one for each that was removed.

No file is removed that the manifest does not have: the line that says that it arrived is on stable storage before the
file is removed.
While one group of lines is being written and made durable, the next one collects, as with commits.

Invariants of the file: it is only ever appended to; each group is written at once under a lock, so that lines of
several commands never mix; a group that cannot be written completely is truncated away.
After a crash its last line may be incomplete; the next group then starts on a line of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.by_value import ByValue
from realize.concurrency.shielded import RunInThread, shielded_opening
from realize.errors import InternalError, RealizeError, StorageError, UsageError
from realize.fs.ancestors import Ancestors
from realize.fs.durable import write_all
from realize.fs.handle import Handle
from realize.fs.oserrors import storage_error
from realize.fs.own_files import OWN_FILES
from realize.fs.syscalls import fsync_directory
from realize.json_fields import given_path_fields, path_fields, utc_text
from realize.keys import PublicKey
from realize.locations import LocalLocation, Location
from realize.mover.interfaces import Arrived, IManifest
from realize.runs.session import Session
from realize.units import display_text

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


@frozen(eq=False, repr=False)
class Ends(ByValue):
    """What makes the fields of the two sides in each line: for each source by its name, and for the destination.

    They are made for each group of lines, for a peer that is connected to again may have another key by then.
    """

    sources: Mapping[str, Callable[[], Mapping[str, str]]]
    destination: Callable[[], Mapping[str, str]]


@contextlib.asynccontextmanager
async def recording(path: str, session: Session, locations: Sequence[Location]) -> AsyncIterator[Manifest]:
    """Keep the manifest of a run between these locations, the destination last.

    Raises `UsageError` if a manifest cannot be kept under that name.
    """
    await session.in_thread(refuse_inside, path, locations)
    file = await _opened(session, path)
    *sources, destination = locations
    ends = Ends(
        {str(each): partial(_fields_of, session, "source", each) for each in sources},
        partial(_fields_of, session, "destination", destination),
    )
    manifest = Manifest(file, ends, session.run, session.in_thread)
    ended: RealizeError | None = None
    try:
        yield manifest
    except RealizeError as error:
        ended = error
        raise
    finally:
        missing = await manifest.close()
        if missing and ended is not None:
            raise type(ended)(f"{ended}; {missing}") from ended


def _fields_of(session: Session, end: str, location: Location) -> dict[str, str]:
    return end_fields(end, location, session.key_of(location))


def end_fields(end: str, location: Location, key: PublicKey | None) -> dict[str, str]:
    """The fields of one side: its location, and the public key of the peer if it is at one."""
    where = path_fields(os.fsencode(location.resolved), end)
    return where | ({} if key is None else {f"{end}_key": key.base64})


def refuse_inside(path: str, locations: Sequence[Location]) -> None:
    """Raise `UsageError` if the manifest is below a local source or destination; blocks, so call it in a thread.

    It would be moved away itself, or could be replaced by a file that arrives.
    """
    above = set(_upwards(os.path.realpath(path)))
    *sources, destination = locations
    dangers = [(each, f"source {each}: it would be moved itself") for each in sources]
    dangers.append((destination, f"destination {destination}: a file that arrives could replace it"))
    for location, danger in dangers:
        if isinstance(location, LocalLocation) and _identity(location.path) in above:
            raise UsageError(f"manifest {display_text(path)} is in {danger}")


def _upwards(path: str) -> Iterator[tuple[int, int]]:
    """The identities of a file and of all directories above it, as far as they exist."""
    while True:
        identity = _identity(path)
        if identity is not None:
            yield identity
        above = os.path.dirname(path)
        if above == path:
            return
        path = above


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


class ManifestFile:
    """The open file; its methods block, so call them in a thread.

    A new one has mode 0600, because it tells what was moved.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        OWN_FILES.add(path)
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
            raise UsageError(f"manifest {display_text(path)}: {reason}") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"manifest {display_text(path)}: is not a regular file")  # noqa: TRY301
            _make_name_durable(path)
        except OSError as error:
            os.close(fd)
            raise UsageError(f"manifest {display_text(path)}: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise
        self._handle = Handle(fd)

    def append(self, lines: bytes, *, sync: bool) -> None:
        """Append complete lines; ``sync`` makes them durable.

        Raises `StorageError` or another error of storage, and leaves no part of the lines in the file if it can.
        """
        try:
            with self._handle as fd:
                fcntl.flock(fd, fcntl.LOCK_EX)
                try:
                    self._write(fd, lines)
                finally:
                    fcntl.flock(fd, fcntl.LOCK_UN)
                if sync:
                    os.fdatasync(fd)
        except OSError as error:
            found = storage_error(error, os.fsencode(self._path))
            raise type(found)(f"manifest {found}; sources are only removed once they are in it") from error

    def _write(self, fd: int, lines: bytes) -> None:
        status = os.fstat(fd)
        if not status.st_nlink:
            raise StorageError(f"manifest {display_text(self._path)}: was deleted; no source is removed without it")
        torn = status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n"
        try:
            write_all(fd, b"\n" + lines if torn else lines)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, status.st_size)
            raise

    def close(self) -> None:
        """Close the file, once nothing is being appended any more; does not block."""
        self._handle.close()


@shielded_opening(ManifestFile.close)
async def _opened(session: Session, path: str) -> ManifestFile:
    """The file, opened in a thread; closed again if nobody waits for it any more."""
    file: ManifestFile = await session.in_thread(ManifestFile, path)
    return file


def _make_name_durable(path: str) -> None:
    # The name of the file itself, since ``path`` may be a symlink, and the directories above, which may be new too.
    fd = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_directory(fd)
        Ancestors().sync(fd)
    finally:
        os.close(fd)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@frozen(eq=False, repr=False)
class _Line(ByValue):
    event: str
    text: bytes


@implementer(IManifest)
class Manifest:
    """Collects lines into groups; after the first group that cannot be written, everything fails with its error."""

    def __init__(
        self,
        file: ManifestFile,
        ends: Ends,
        run: str,
        run_in_thread: RunInThread,
        now: Callable[[], dt.datetime] = _now,
    ) -> None:
        self._file = file
        self._ends = ends
        self._run = run
        self._run_in_thread = run_in_thread
        self._now = now
        self._lines: list[_Line] = []
        self._waiting: list[Deferred[None]] = []
        self._writing = False
        self._synced = True
        self._error: RealizeError | None = None
        self._unwritten: list[_Line] = []

    def durable(self, source: str, files: Sequence[Arrived]) -> Deferred[None]:
        """See `IManifest`."""
        self._add("durable", source, files)
        return self._recorded()

    def removed(self, source: str, files: Sequence[Arrived]) -> None:
        """See `IManifest`."""
        self._add("removed", source, files)
        self._next_group()

    def unknown(self, source: str, files: Sequence[Arrived]) -> None:
        """See `IManifest`."""
        self._add("unknown", source, files)
        self._next_group()

    async def finish(self) -> None:
        """Make all lines durable; raises the error of any group that could not be written."""
        await self._recorded()

    async def close(self) -> str:
        """Write the remaining lines as far as possible, and close the file; returns what it lacks, as text for people.

        Lines about the removal of files are tried once more if they could not be written: there may be space for them
        by now, and no later run would record them.
        """
        try:
            with contextlib.suppress(RealizeError):
                await self._recorded()
            with contextlib.suppress(RealizeError):
                if self._unwritten:
                    lines = b"".join(line.text for line in self._unwritten)
                    await maybeDeferred(self._run_in_thread, self._file.append, lines, sync=True)
                    self._unwritten = []
        finally:
            self._file.close()
        removed = sum(line.event == "removed" for line in self._unwritten)
        return f"removals that are missing in it: {removed:,}" if removed else ""

    def _recorded(self) -> Deferred[None]:
        """Fires when all lines so far are durable."""
        if self._error is not None:
            return fail(self._error)
        if self._synced and not self._lines:
            return succeed(None)
        recorded: Deferred[None] = Deferred()
        self._waiting.append(recorded)
        self._next_group()
        return recorded

    def _add(self, event: str, source: str, files: Sequence[Arrived]) -> None:
        if self._error is not None and event == "durable":
            return
        lines = self._lines if self._error is None else self._unwritten
        at = utc_text(self._now())
        of_source = self._ends.sources.get(source, partial(path_fields, os.fsencode(source), "source"))
        ends = {**of_source(), **self._ends.destination()}
        for file in files:
            record: dict[str, Any] = {
                "event": event,
                **path_fields(file.path),
                **given_path_fields(file.stored_as, "stored_as"),
                **given_path_fields(file.backup, "backup"),
                "size": file.size,
                "blake3": file.digest.hex() if file.target is None else None,
                **given_path_fields(file.target, "target"),
                **given_path_fields(file.linked_to, "linked_to"),
                "how": None if file.how is None else file.how.name.lower(),
                **ends,
                f"{event}_at": at,
                "run": self._run,
            }
            lines.append(_Line(event, json.dumps(record).encode("ascii") + b"\n"))

    def _next_group(self) -> None:
        if self._writing or not (self._lines or self._waiting):
            return
        group, self._lines = self._lines, []
        waiting, self._waiting = self._waiting, []
        self._writing, self._synced = True, False
        lines = b"".join(line.text for line in group)
        written = maybeDeferred(self._run_in_thread, self._file.append, lines, sync=bool(waiting))
        written.addBoth(self._written, group, waiting)

    def _written(self, result: object, group: Sequence[_Line], waiting: Sequence[Deferred[None]]) -> None:
        self._writing = False
        if isinstance(result, Failure):
            self._broken(result, group, waiting)
            return
        self._synced = bool(waiting)
        self._next_group()
        for each in waiting:
            each.callback(None)

    def _broken(self, failure: Failure, group: Sequence[_Line], waiting: Sequence[Deferred[None]]) -> None:
        cause = failure.value
        error = cause if isinstance(cause, RealizeError) else InternalError(f"manifest: {failure.getErrorMessage()}")
        self._error = error
        self._unwritten = [line for line in (*group, *self._lines) if line.event != "durable"]
        later, self._waiting, self._lines = self._waiting, [], []
        for each in (*waiting, *later):
            each.errback(error)
