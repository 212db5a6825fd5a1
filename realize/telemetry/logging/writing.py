"""Write log lines in a thread of their own, so that a slow reader or disk stops nothing else.

Lines wait in memory until the thread writes them: `COLLECT_S` after they came, or at once if they are urgent.
If nobody reads, or the disk is full, the queue is bounded: ordinary lines are dropped beyond `MAX_QUEUED_LINES`, and
lines of the audit log only beyond `MAX_QUEUED_AUDIT_LINES`.
How many were dropped is logged once writing works again.

Invariants: lines are written whole and in order, each once; logging never waits for the disk, a reader or a lock.
When the file was moved away, or `reopen` is called, the writer opens it again under its name; if it cannot, it goes on
writing to the file that it has open.
Before `Writer.start` no file is opened and no thread runs, because twistd may fork until then.
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
"""How long an ordinary line waits for others, to save writes; a crash may lose the lines of this time."""

MAX_QUEUED_LINES: Final = 30_000
"""Lines that may wait (about 10 MB); beyond this, all but the audit log is dropped."""

MAX_QUEUED_AUDIT_LINES: Final = 200_000
"""Lines that may wait (about 60 MB); beyond this, every line is dropped."""

WRITE_RETRY_S: Final = 1.0
"""Delay before the next attempt after a failed write."""

_MAX_WRITE_BYTES: Final = 256 << 10


class Writer:
    """Writes lines to the file at ``path``, or to stderr if that is None.

    The functions are called in the writing thread.
    ``periodic`` is called before each wait for lines, and returns in how many seconds it wants to be called again at
    the latest, or None.
    ``dropped`` is called with the numbers of ordinary lines and of audit lines that were dropped, and
    ``not_reopened`` with the reason why the file could not be opened again.
    """

    def __init__(
        self,
        path: str | None,
        *,
        periodic: Callable[[], float | None] = lambda: None,
        dropped: Callable[[int, int], None] = lambda _ordinary, _audit: None,
        not_reopened: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._periodic = periodic
        self._tell_dropped = dropped
        self._tell_not_reopened = not_reopened
        self._fd = _stderr()
        # A deque needs no lock to append at one end and pop at the other.
        # An event between lines is set once the lines before it are written.
        self._lines: deque[bytes | threading.Event] = deque()
        self._dropped = [0, 0]
        self._wake = threading.Event()
        self._urgent = threading.Event()
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

    def put(self, line: bytes, audit: bool = False) -> None:  # noqa: FBT001, FBT002 -- called for every record
        """Queue one line, line end included; ``audit`` says that it belongs to the audit log."""
        if len(self._lines) >= (MAX_QUEUED_AUDIT_LINES if audit else MAX_QUEUED_LINES):
            self._dropped[audit] += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()
        if self._closed:
            self._write_directly()

    def put_urgent(self, line: bytes, audit: bool = False) -> None:  # noqa: FBT001, FBT002
        """Queue one line that must not wait for others."""
        self.put(line, audit)
        self._urgent.set()

    def wake(self) -> None:
        """Have ``periodic`` called soon."""
        self._wake.set()

    def reopen(self) -> None:
        """Have the file opened again under its name, after it was moved away."""
        self._reopen = True
        self._urgent.set()
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until everything queued so far is written; returns whether it is."""
        if self._thread is None:
            self._write_directly()
            return not self._lines
        written = threading.Event()
        self._lines.append(written)
        self._urgent.set()
        self._wake.set()
        return written.wait(seconds)

    @property
    def unwritten(self) -> int:
        """Lines that wait, or were dropped without ``dropped`` being told; after `close` they are lost for good."""
        return sum(self._dropped) + sum(isinstance(item, bytes) for item in self._lines.copy())

    def close(self, seconds: float) -> None:
        """Write the lines that wait, taking at most ``seconds``; later lines are written if that needs no waiting."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending = True
            self._urgent.set()
            self._wake.set()
            thread.join(seconds)
            if thread.is_alive():
                return  # it hangs in a write, and has taken the lines
        self._closed = True
        self._write_directly()

    # In the thread.

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._periodic())
            if not self._ending:
                self._urgent.wait(COLLECT_S)
            self._wake.clear()
            self._urgent.clear()
            try:
                self._write_all()
            except MemoryError:
                # The thread must survive, or no later line would be written.
                time.sleep(WRITE_RETRY_S)
                self._wake.set()

    def _write_all(self) -> None:
        self._look_after_file()
        # Not the lines that come meanwhile: they wait for others until the next turn.
        left = len(self._lines)
        while left > 0 and (written := self._write_some()):
            left -= written

    def _write_some(self) -> int:
        """Write some of the lines; returns how many, or 0 to give up for this turn."""
        batch: list[bytes] = []
        waiting: list[threading.Event] = []
        size = 0
        while self._lines and size < _MAX_WRITE_BYTES:
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
        """Write all of it, however long that takes; returns False if the process is ending and the disk refuses it."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Another process has made stderr non-blocking.
                select.select([], [self._fd], [], WRITE_RETRY_S)
            except OSError:
                if self._path is None or self._ending:
                    # Nobody will ever read this stderr, or the disk is still full at the end.
                    self._dropped[0] += bytes(data).count(b"\n")
                    return self._path is None
                time.sleep(WRITE_RETRY_S)
                self._look_after_file()
        return True

    def _look_after_file(self) -> None:
        """Open the file again if that was asked for, or if it was moved away."""
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

    # Without the thread.

    def _write_directly(self) -> None:
        """Write the lines that wait, as far as that is possible without blocking."""
        with contextlib.suppress(OSError):
            while self._lines and _takes_more(self._fd):
                item = self._lines[0]
                if isinstance(item, bytes):
                    os.write(self._fd, item)
                self._lines.popleft()


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return os.isatty(_stderr())


def is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is the journal, as systemd says with ``JOURNAL_STREAM`` (systemd.exec(5))."""
    try:
        status = os.fstat(_stderr())
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _stderr() -> int:
    # In a process that was started without stderr, descriptor 2 may be another file; see `realize.process`.
    return 2 if sys.__stderr__ is None else sys.__stderr__.fileno()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


def _takes_more(fd: int) -> bool:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    return bool(select.select([], [fd], [], 0)[1])
