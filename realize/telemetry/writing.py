"""Where the lines of a log go: a thread that writes them, so that a slow reader or disk stops nobody else.

Lines wait in memory until the thread writes them, `COLLECT` seconds after they came, or at once if they are urgent.
If nobody reads, or the disk is full, so many wait and no more: ordinary lines beyond `MOST` bytes are dropped, precious
ones (the audit trail) only beyond `MOST_PRECIOUS`; how many were is said when it flows again.

Invariants: lines are written whole and in order, each once; nobody who logs waits for the disk or a reader; a signal
or a file that was moved away makes the writer open its file anew, and if it cannot, it goes on with the one it has.
Before `Writer.start` nothing is opened and no thread runs, for twistd forks in between.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from realize.errors import ConfigError
from realize.units import display_text

COLLECT: Final = 0.02
"""Seconds that an ordinary line may wait for others: what a crash may cost, for one write instead of many."""

MOST: Final = 8 << 20
"""Bytes that may wait; what is no part of the audit trail is dropped beyond it."""

MOST_PRECIOUS: Final = 64 << 20
"""Bytes that may wait; everything is dropped beyond it."""

AGAIN: Final = 1.0
"""Seconds until the next attempt when the disk refused a line."""

STDERR: Final = 2

_AT_ONCE: Final = 256 << 10


class Writer:
    """Writes lines to the file at ``path``, or to stderr if that is None.

    ``chores`` is called in the writing thread after each turn, and answers in how many seconds it wants to be called
    again at the latest, or None.
    ``tell`` is called there with what there is to say of the log itself: a number of ordinary and of precious lines
    that were dropped, or an error that kept the file from being opened anew.
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
        self._fd = STDERR
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._taken = 0
        self._written = 0
        self._dropped = [0, 0]
        self._lock = threading.Lock()
        self._progress = threading.Condition(self._lock)
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

    def put(self, line: bytes, *, urgent: bool = False, precious: bool = False) -> None:
        """Take one line, with its line end."""
        with self._lock:
            if self._waiting > (MOST_PRECIOUS if precious else MOST):
                self._dropped[precious] += 1
                return
            self._lines.append(line)
            self._waiting += len(line)
            self._taken += 1
        if self._closed:
            self._write_directly()
            return
        if urgent:
            self._hurry.set()
        if not self._wake.is_set():
            self._wake.set()

    def wake(self) -> None:
        """Call the chores soon."""
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew, for whoever moved it away."""
        self._reopen = True
        self._hurry.set()
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait at most so long until everything taken so far is written; whether it is."""
        if self._thread is None or not self._thread.is_alive():
            self._write_directly()
            return not self._lines
        with self._progress:
            taken = self._taken
            self._hurry.set()
            self._wake.set()
            return self._progress.wait_for(lambda: self._written >= taken, seconds)

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
                self._hurry.wait(COLLECT)
            self._wake.clear()
            self._hurry.clear()
            self._look_after_file()
            while self._lines and self._write_some():
                pass

    def _write_some(self) -> bool:
        """Write some of the lines; whether it is worth going on."""
        with self._lock:
            batch: list[bytes] = []
            size = 0
            while self._lines and size < _AT_ONCE:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
        data = memoryview(b"".join(batch))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody else made stderr non-blocking.
                select.select([], [self._fd], [], AGAIN)
            except OSError:
                if self._path is None:
                    self._drop(batch, data)  # nobody will ever read it
                    break
                if self._ending:
                    self._drop(batch, data)
                    return False
                time.sleep(AGAIN)
                self._look_after_file()
        with self._progress:
            self._waiting -= size
            self._written += len(batch)
            self._progress.notify_all()
            dropped, self._dropped = self._dropped, [0, 0]
        if any(dropped):
            self._tell_dropped(*dropped)
        return True

    def _drop(self, batch: list[bytes], left: memoryview) -> None:
        with self._lock:
            self._dropped[0] += min(len(batch), bytes(left).count(b"\n"))

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
        with self._lock, contextlib.suppress(OSError):
            while self._lines and _takes_more(self._fd):
                line = self._lines.popleft()
                self._waiting -= len(line)
                os.write(self._fd, line)


def is_terminal() -> bool:
    """Whether stderr is one."""
    return os.isatty(STDERR)


def is_journal(environ: dict[str, str] | os._Environ[str]) -> bool:
    """Whether stderr is the journal, as systemd says with ``JOURNAL_STREAM`` (systemd.exec(5))."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)


def _takes_more(fd: int) -> bool:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    return bool(select.select([], [fd], [], 0)[1])
