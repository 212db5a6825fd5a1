"""Programs that work at the source while its files are moved: they create, append, replace, and store through mappings.

Each tells the oracle what it did: what it wrote and closed is what the oracle expects.
If a producer's file was removed while it had it open, it writes the whole content again under that name, and tells so.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from campaigns.oracle import LOST, Fault, Oracle, Version, shown

WINDOW_NS: Final = 100_000_000
"""A file that is opened this shortly before its removal may have been opened after the last check of it."""


class Producers:
    """Some threads that change the source until they are stopped."""

    def __init__(self, oracle: Oracle, spool: Path, seed: int, *, mappings: bool) -> None:
        self._oracle = oracle
        self._spool = spool
        self._contents: dict[bytes, bytes] = {}
        self._stopping = threading.Event()
        self._count = 0
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []
        spool.mkdir()
        works = [self._create, self._append, self._replace, *([self._store] if mappings else [])]
        self._threads = [
            threading.Thread(target=self._work, args=(work, random.Random(seed * 10 + number)), daemon=True)
            for number, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, after each has finished its current step."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self, work: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            while not self._stopping.wait(rng.uniform(0.01, 0.12)):
                work(rng)
        except Exception:  # noqa: BLE001
            self.faults.append(Fault("campaign", traceback.format_exc()))

    def _place(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._oracle.source), path)

    def _new_path(self, rng: random.Random) -> bytes:
        with self._oracle.lock:
            self._count += 1
            where = rng.choice([b"", *self._oracle.directories])
            return os.path.join(where, b"produced%d" % self._count)

    def _known_path(self, rng: random.Random) -> bytes | None:
        with self._oracle.lock:
            free = [path for path in self._contents if path not in self._oracle.busy]
            if not free:
                return None
            path = rng.choice(free)
            self._oracle.busy.add(path)
            return path

    def _create(self, rng: random.Random) -> None:
        """Create a file, in pieces, in a directory that may just have become empty."""
        path = self._new_path(rng)
        self._oracle.busy.add(path)
        try:
            fd = os.open(self._place(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            self.faults.append(Fault("directory", f"{shown(path)}: its directory was removed under its producer"))
            self._oracle.busy.discard(path)
            return
        self._write_on(fd, path, b"", rng)
        self.counts["created"] += 1

    def _append(self, rng: random.Random) -> None:
        """Append to a file that is still there."""
        path = self._known_path(rng)
        if path is None:
            return
        try:
            fd = os.open(self._place(path), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            self._oracle.busy.discard(path)  # it was moved
            return
        self._write_on(fd, path, self._contents[path], rng)
        self.counts["appended to"] += 1

    def _write_on(self, fd: int, path: bytes, content: bytes, rng: random.Random) -> None:
        opened_ns = time.time_ns()
        try:
            for _ in range(rng.randrange(1, 5)):
                piece = rng.randbytes(rng.choice([10, 1000, 30_000]))
                content += piece
                os.write(fd, piece)
                with self._oracle.lock:
                    known = self._oracle.earlier.setdefault(path, {hashlib.sha256(b"").hexdigest()})
                    known.add(hashlib.sha256(content).hexdigest())
                if rng.random() < 0.5:
                    time.sleep(rng.choice([0.001, 0.01, 0.1, 0.4]))
            self._finish(fd, path, content, opened_ns)
        finally:
            os.close(fd)
            self._oracle.busy.discard(path)

    def _store(self, rng: random.Random) -> None:
        """Store through a shared mapping, with pauses, after the descriptor was closed."""
        path = self._known_path(rng)
        if path is None:
            return
        content = bytearray(self._contents[path])
        try:
            fd = os.open(self._place(path), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._oracle.busy.discard(path)
            return
        opened_ns = time.time_ns()
        watched = os.open(self._place(path), os.O_PATH | os.O_CLOEXEC) if content else -1
        try:
            if not content or os.fstat(watched).st_ino != os.fstat(fd).st_ino:
                os.close(fd)
                return
            with mmap.mmap(fd, 0) as mapped:
                os.close(fd)
                for _ in range(rng.randrange(1, 4)):
                    at, piece = rng.randrange(len(content)), rng.randbytes(1)
                    mapped[at : at + 1] = piece
                    content[at : at + 1] = piece
                    with self._oracle.lock:
                        self._oracle.earlier.setdefault(path, set()).add(hashlib.sha256(content).hexdigest())
                    time.sleep(rng.choice([0.001, 0.1, 0.3]))
                # The kernel updates the file's time when the stores are written back.
                mapped.flush()
                self._finish(watched, path, bytes(content), opened_ns)
            self.counts["stored to"] += 1
        finally:
            if watched >= 0:
                os.close(watched)
            self._oracle.busy.discard(path)

    def _replace(self, rng: random.Random) -> None:
        """Replace a file by rename, or one that was moved away already."""
        path = self._known_path(rng) if rng.random() < 0.6 else self._new_path(rng)
        if path is None:
            return
        self._oracle.busy.add(path)
        self._put(path, rng.randbytes(rng.choice([10, 5000, 40_000])))
        self._oracle.busy.discard(path)
        self.counts["replaced"] += 1

    def _put(self, path: bytes, content: bytes) -> None:
        with self._oracle.lock:
            self._count += 1
            spooled = os.path.join(os.fsencode(self._spool), b"%d" % self._count)
        with open(spooled, "wb") as file:
            file.write(content)
            file.flush()
            status = os.fstat(file.fileno())
        with self._oracle.lock:
            try:
                os.rename(spooled, self._place(path))
            except FileNotFoundError:
                self.faults.append(Fault("directory", f"{shown(path)}: its directory was removed under its producer"))
                return
            self._made(path, content, status)

    def _finish(self, fd: int, path: bytes, content: bytes, opened_ns: int) -> None:
        """Note that the content is complete; to be called while the file is still open for writing."""
        status = os.fstat(fd)
        if status.st_nlink:
            with self._oracle.lock:
                self._made(path, content, status)
            return
        if status.st_ctime_ns - opened_ns > WINDOW_NS:
            held = (status.st_ctime_ns - opened_ns) / 1e9
            self.faults.append(Fault(LOST, f"{shown(path)}: was removed {held:.3f} s after it was opened for writing"))
        else:
            self.counts["opened when it was removed"] += 1
        self._put(path, content)

    def _made(self, path: bytes, content: bytes, status: os.stat_result) -> None:
        version = Version(hashlib.sha256(content).hexdigest(), status.st_mode & 0o7777, status.st_mtime_ns)
        self._oracle.made(path, version)
        self._contents[path] = content
