"""Where the lines of a log go: a thread that writes them, so that a slow reader or disk stops nobody else.

Lines wait in memory until the thread writes them, `COLLECT_S` seconds after they came, or at once if they are urgent.
If nobody reads, or the disk is full, so many wait and no more: ordinary lines beyond `MAX_QUEUED_LINES` are dropped,
precious ones
(the audit trail) only beyond `MAX_QUEUED_AUDIT_LINES`; how many were is said when it flows again.

Invariants: lines are written whole and in order, each once; nobody who logs waits for the disk, a reader or a lock;
a signal or a file that was moved away makes the writer open its file anew, and if it cannot, it goes on with the one it
has.
Before `Writer.start` nothing is opened and no thread runs, for twistd forks in between.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from realize.errors import ConfigError
from realize.units import display_text

COLLECT_S: Final = 0.05
"""Seconds that an ordinary line waits for others: what a crash may cost, for one write instead of many."""

MAX_QUEUED_LINES: Final = 30_000
"""Lines that may wait, about 10 MB; what is no part of the audit trail is dropped beyond it."""

MAX_QUEUED_AUDIT_LINES: Final = 200_000
"""Lines that may wait, about 60 MB; everything is dropped beyond it."""

WRITE_RETRY_S: Final = 1.0
"""Seconds until the next attempt when the disk refused a line."""

_AT_ONCE: Final = 256 << 10


class Writer:
    """Writes lines to the file at ``path``, or to stderr if that is None.

    ``chores`` is called in the writing thread after each turn, and answers in how many seconds it wants to be called
    again at the latest, or None.
    ``dropped`` is called there with the numbers of ordinary and of precious lines that were dropped, and
    ``not_reopened`` with the reason why the file could not be opened anew.
    """

    def __init__(
        self,
        path: str | None,
        *,
        chores: Callable[[], float | None] = lambda: None,
        dropped: Callable[[int, int], None] = lambda _ordinary, _precious: None,
        not_reopened: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._chores = chores
        self._tell_dropped = dropped
        self._tell_not_reopened = not_reopened
        self._fd = _stderr()
        # Appending and taking from the other end need no lock.  An event in between is set when what is before it is
        # written.
        self._lines: deque[bytes | threading.Event] = deque()
        self._dropped = [0, 0]
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._reopen = False
        self._complained = False
        self._thread: threading.Thread | None = None
        self._ending = False
        self._closed = False

    def start(self) -> None:
        """Open the file and begin to write; raises `ConfigError` if it cannot be opened."""
        if self._path is not None:
            try:
                self._fd = _open(self._path)
            except OSError as error:
                raise ConfigError(f"log file {display_text(self._path)}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: bytes, precious: bool = False) -> None:  # noqa: FBT001, FBT002 -- called for every record
        """Take one line, with its line end."""
        if len(self._lines) >= (MAX_QUEUED_AUDIT_LINES if precious else MAX_QUEUED_LINES):
            self._dropped[precious] += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()
        if self._closed:
            self._write_directly()

    def hurry(self, line: bytes, precious: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take one line that is not to wait for others."""
        self.put(line, precious)
        self._hurry.set()

    def wake(self) -> None:
        """Call the chores soon."""
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew, for whoever moved it away."""
        self._reopen = True
        self._hurry.set()
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait at most so long until everything so far is written; whether it is."""
        if self._thread is None:
            self._write_directly()
            return not self._lines
        written = threading.Event()
        self._lines.append(written)
        self._hurry.set()
        self._wake.set()
        return written.wait(seconds)

    @property
    def unwritten(self) -> int:
        """Lines that were dropped and not told of, or wait; after `close`, those that nobody will ever read."""
        return sum(self._dropped) + sum(isinstance(item, bytes) for item in self._lines.copy())

    def close(self, seconds: float) -> None:
        """Write what waits, for at most so long; lines that come later are written if that takes no waiting."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending = True
            self._hurry.set()
            self._wake.set()
            thread.join(seconds)
            if thread.is_alive():
                return  # it hangs in a write, and has what was to be written
        self._closed = True
        self._write_directly()

    # The thread.

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._chores())
            if not self._ending:
                self._hurry.wait(COLLECT_S)
            self._wake.clear()
            self._hurry.clear()
            try:
                self._write_all()
            except MemoryError:
                # Nobody else would write what comes later.
                time.sleep(WRITE_RETRY_S)
                self._wake.set()

    def _write_all(self) -> None:
        self._look_after_file()
        # Not what comes meanwhile: the next turn collects that.
        left = len(self._lines)
        while left > 0 and (written := self._write_some()):
            left -= written

    def _write_some(self) -> int:
        """Write some of the lines; how many, or 0 if it is not worth going on."""
        batch: list[bytes] = []
        waiting: list[threading.Event] = []
        size = 0
        while self._lines and size < _AT_ONCE:
            item = self._lines.popleft()
            if isinstance(item, bytes):
                batch.append(item)
                size += len(item)
            else:
                waiting.append(item)
        try:
            content = b"".join(batch)
        except MemoryError:
            self._dropped[0] += len(batch)
            content = b""
        if not self._write(memoryview(content)):
            return 0
        for each in waiting:
            each.set()
        if any(self._dropped):
            dropped, self._dropped = self._dropped, [0, 0]
            self._tell_dropped(*dropped)
        return len(batch) + len(waiting)

    def _write(self, data: memoryview) -> bool:
        """Write all of it, however long it takes; whether there was no reason to give up."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody else made stderr non-blocking.
                select.select([], [self._fd], [], WRITE_RETRY_S)
            except OSError:
                if self._path is None or self._ending:
                    # Nobody will ever read it, or the disk is full to the last.
                    self._dropped[0] += bytes(data).count(b"\n")
                    return self._path is None
                time.sleep(WRITE_RETRY_S)
                self._look_after_file()
        return True

    def _look_after_file(self) -> None:
        """Open the file anew if somebody asked for it, or moved it away."""
        if self._path is None or not (self._reopen or self._is_gone()):
            return
        self._reopen = False
        try:
            fd = _open(self._path)
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._tell_not_reopened(error.strerror or str(error))
            return
        self._complained = False
        os.close(self._fd)
        self._fd = fd

    def _is_gone(self) -> bool:
        try:
            there, ours = os.stat(self._path or ""), os.fstat(self._fd)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    # Without it.

    def _write_directly(self) -> None:
        """Write what waits as far as nobody has to be waited for."""
        with contextlib.suppress(OSError):
            while self._lines and _takes_more(self._fd):
                item = self._lines[0]
                if isinstance(item, bytes):
                    os.write(self._fd, item)
                self._lines.popleft()


def is_terminal() -> bool:
    """Whether stderr is one."""
    return os.isatty(_stderr())


def is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is the journal, as systemd says with ``JOURNAL_STREAM`` (systemd.exec(5))."""
    try:
        status = os.fstat(_stderr())
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _stderr() -> int:
    # Its number may be another file's where the process began without; see `realize.fs.descriptors`.
    return 2 if sys.__stderr__ is None else sys.__stderr__.fileno()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


def _takes_more(fd: int) -> bool:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    return bool(select.select([], [fd], [], 0)[1])
