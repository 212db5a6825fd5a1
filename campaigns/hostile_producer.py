"""Programs that make files for a standing move, each in a way of its own that is hard to follow.

Each tells the ledger what it did, when a content was complete; and none leaves a complete content under a name that it
will give to another one.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from campaigns.ledger import Ledger
from campaigns.oracle import LOST, Fault, shown

BURST_FILES: Final = 1_000
"""Files of a burst, which is to take a second."""

KEPT_S: Final = 60.0
"""Seconds after which the directories that were made are removed if they are empty."""

WINDOW_S: Final = 0.1
"""A file that is opened this shortly before its removal may have been opened after the last look at it."""


class HostileProducer:
    """Some threads that fill the source until they are stopped, and pause when they are told to."""

    def __init__(self, ledger: Ledger, spool: Path, seed: int) -> None:
        self._ledger = ledger
        self._spool = spool
        self._top = os.fsencode(ledger.source)
        self._count = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._may_work = threading.Event()
        self._may_work.set()
        self._directories: deque[tuple[float, bytes]] = deque()
        """Directories at the top, and when they were made."""
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []
        spool.mkdir()
        works: list[tuple[Callable[[random.Random], None], float]] = [
            (self._burst, 6.0),
            (self._rename_into_place, 0.1),
            (self._deep_tree, 1.0),
            (self._rotate, 1.5),
            (self._truncate, 0.3),
            (self._hold_open, 1.0),
            (self._rename_directory, 1.0),
            (self._move_tree_in, 1.0),
            (self._withdraw, 0.5),
            (self._large, 2.0),
            (self._tidy, 5.0),
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(*each, random.Random(seed * 100 + number)), daemon=True)
            for number, each in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        """Begin nothing more until `go_on`; what is held open is still finished."""
        self._may_work.clear()

    def go_on(self) -> None:
        """Work again."""
        self._may_work.set()

    def stop(self) -> None:
        """Stop, after each has finished what it is at."""
        self._stopping.set()
        self._may_work.set()
        for thread in self._threads:
            thread.join(60)

    def _work(self, work: Callable[[random.Random], None], pause_s: float, rng: random.Random) -> None:
        try:
            while not self._stopping.wait(rng.uniform(0.5, 1.5) * pause_s):
                self._may_work.wait()
                if not self._stopping.is_set():
                    work(rng)
                    self.counts[work.__name__.strip("_").replace("_", " ")] += 1
        except Exception:  # noqa: BLE001
            self.faults.append(Fault("campaign", traceback.format_exc()))

    def _place(self, path: bytes) -> bytes:
        return os.path.join(self._top, path)

    def _number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def _content(self, rng: random.Random, size: int | None = None) -> bytes:
        length = rng.choice([0, 20, 500, 5_000, 20_000]) if size is None else size
        return b"%d " % self._number() + rng.randbytes(length)  # no two are the same, not even empty ones

    def _directory(self, path: bytes) -> bytes:
        """Note a directory, for it to be removed when it has long been empty."""
        self._directories.append((time.monotonic(), path))
        return path

    def _tidy(self, _: random.Random) -> None:
        """Directories that have been there for a while are removed, if they are empty."""
        while self._directories and self._directories[0][0] < time.monotonic() - KEPT_S:
            path = self._directories.popleft()[1]
            for below in os.walk(self._place(path), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(below[0])

    def _write(self, path: bytes, content: bytes) -> None:
        """Write a new file in one go, in a directory that is there."""
        with open(self._place(path), "xb") as file:
            file.write(content)
            with self._ledger.lock:
                file.flush()
                self._ledger.made(path, content)

    def _burst(self, rng: random.Random) -> None:
        """A thousand files in a second, in new directories."""
        top = self._directory(b"burst%d" % self._number())
        began = time.monotonic()
        for number in range(BURST_FILES):
            where = os.path.join(top, b"%d" % (number // 100))
            os.makedirs(self._place(where), exist_ok=True)
            self._write(os.path.join(where, b"f%d" % number), self._content(rng, rng.choice([10, 1_000, 4_000])))
            ahead = began + number / BURST_FILES - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)

    def _rename_into_place(self, rng: random.Random) -> None:
        """As browsers, FTP servers and rsync do: a name for what is not complete, in pieces, then the final one."""
        number = self._number()
        final = rng.choice([b"download%d.bin", b"upload %d", b"r\xc3\xa9sum\xff%d"]) % number
        first = rng.choice([final + b".part", b"." + final + b".Xq3f", final + b".filepart"])
        content = self._content(rng)
        with open(self._place(first), "xb") as file:
            for at in range(0, len(content), 4_096):
                file.write(content[at : at + 4_096])
                file.flush()
                time.sleep(rng.choice([0, 0, 0.01, 0.1]))
            with self._ledger.lock:
                file.flush()
                os.rename(self._place(first), self._place(final))
                self._ledger.made(final, content)

    def _deep_tree(self, rng: random.Random) -> None:
        """Directories in directories, made and filled at once, the deepest ones first or last."""
        parts = [
            self._directory(b"deep%d" % self._number()),
            *(b"level%d" % level for level in range(rng.randrange(1, 30))),
        ]
        os.makedirs(self._place(os.path.join(*parts)))
        depths = list(range(1, len(parts) + 1))
        rng.shuffle(depths)
        for depth in depths:
            self._write(os.path.join(*parts[:depth], b"file"), self._content(rng))

    def _rotate(self, rng: random.Random) -> None:
        """A log that is written to all the time, gets another name while it is open, and is closed later."""
        number = self._number()
        log, rotated = b"app%d.log" % number, b"app%d.log.1" % number
        content = self._content(rng)
        with open(self._place(log), "xb") as file:
            for _ in range(rng.randrange(5, 40)):
                line = b"%d something happened\n" % self._number()
                file.write(line)
                file.flush()
                content += line
                time.sleep(rng.choice([0.01, 0.1]))
            os.rename(self._place(log), self._place(rotated))
            time.sleep(rng.choice([0, 0.5, 3]))
            file.seek(0)
            file.truncate()
            file.write(content)
            with self._ledger.lock:
                file.flush()
                self._ledger.made(rotated, content)

    def _truncate(self, rng: random.Random) -> None:
        """A file that is complete, and is then written anew under its name, at once or when it may be under way."""
        path, content = b"changing%d" % self._number(), self._content(rng)
        self._write(path, content)
        for _ in range(rng.randrange(1, 4)):
            time.sleep(rng.choice([0.01, 0.3, self._ledger.settle_s, self._ledger.settle_s + 0.2]))
            newer = self._content(rng)
            try:
                fd = os.open(self._place(path), os.O_WRONLY)
            except FileNotFoundError:
                return  # it was moved
            opened = time.monotonic()
            with open(fd, "wb") as file:
                with self._ledger.lock:
                    file.truncate()
                    self._ledger.replaced(content)
                file.write(newer)
                time.sleep(rng.choice([0, 0.05]))
                with self._ledger.lock:
                    file.flush()
                    if os.fstat(fd).st_nlink:
                        self._ledger.made(path, newer)
                        content = newer
                        continue
            held = time.monotonic() - opened
            if held > WINDOW_S:
                self.faults.append(
                    Fault(LOST, f"{shown(path)}: was removed {held:.3f} s after it was opened for writing")
                )
            self.counts["opened when it was removed"] += 1
            return

    def _hold_open(self, rng: random.Random) -> None:
        """A file that stays open for writing for long, with pauses that are longer than it takes to settle."""
        path, content = b"held%d" % self._number(), b""
        ends = time.monotonic() + rng.choice([2, 5, 15]) * self._ledger.settle_s
        with open(self._place(path), "xb") as file:
            while time.monotonic() < ends and not self._stopping.is_set():
                piece = self._content(rng, 1_000)
                file.write(piece)
                file.flush()
                content += piece
                time.sleep(rng.choice([0.1, 1.0, 2.5]) * self._ledger.settle_s)
            with self._ledger.lock:
                file.flush()
                self._ledger.made(path, content)

    def _rename_directory(self, rng: random.Random) -> None:
        """A tree that is filled under one name and gets another one, at once or when it may be under way."""
        number = self._number()
        first, final = b"incoming%d" % number, self._directory(b"ready%d" % number)
        os.makedirs(self._place(os.path.join(first, b"below")))
        contents = {}
        for name in (b"a", b"b", b"below/c", b"below/d"):
            contents[name] = self._content(rng)
            self._write(os.path.join(first, name), contents[name])
        time.sleep(rng.choice([0, 0, 0.1, self._ledger.settle_s, self._ledger.settle_s + 0.1]))
        with self._ledger.lock:
            os.rename(self._place(first), self._place(final))
            for name, content in contents.items():
                self._ledger.renamed(content, os.path.join(final, name))
        self._write(os.path.join(final, b"below", b"later"), self._content(rng))

    def _move_tree_in(self, rng: random.Random) -> None:
        """A tree that was filled elsewhere, and appears as a whole."""
        number = self._number()
        outside = os.path.join(os.fsencode(self._spool), b"%d" % number)
        contents = {}
        for name in (b"x", b"sub/y", b"sub/sub/z"):
            contents[name] = self._content(rng)
            os.makedirs(os.path.dirname(os.path.join(outside, name)), exist_ok=True)
            with open(os.path.join(outside, name), "xb") as file:
                file.write(contents[name])
        arrived = self._directory(b"arrived%d" % number)
        with self._ledger.lock:
            os.rename(outside, self._place(arrived))
            for name, content in contents.items():
                self._ledger.made(os.path.join(arrived, name), content)

    def _withdraw(self, rng: random.Random) -> None:
        """A file whose producer removes it again, before it settles or when it may be under way."""
        path, content = b"withdrawn%d" % self._number(), self._content(rng)
        self._write(path, content)
        time.sleep(rng.choice([0, 0.1, self._ledger.settle_s]))
        with self._ledger.lock:
            self._ledger.replaced(content)
            if os.path.exists(self._place(path)):
                os.unlink(self._place(path))

    def _large(self, rng: random.Random) -> None:
        """A file that is on its way for a while."""
        self._write(b"large%d" % self._number(), self._content(rng, rng.choice([3, 8, 20]) << 20))
