"""The ledger of what a producer made for a standing move, by digest: no two contents are ever the same.

It knows which names a content had after it was complete, whether its producer withdrew or replaced it, and when it was
complete, without asking Realize.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define, field

from campaigns.oracle import LOST, Fault, shown

FORGOTTEN: Final = "forgotten"
TWICE: Final = "twice"
_PARTIAL: Final = re.compile(rb"\..+\.part", re.DOTALL)


@define(eq=False)
class Made:
    """A complete content: the names it has had, and since when it is complete, on the monotonic clock."""

    names: list[bytes]
    since: float
    gone: bool = False
    """Whether its producer has removed or replaced it: it may have arrived before, or not at all."""
    renamed_late: bool = False
    """Whether it got another name after it may have been moved already: it may have arrived under both."""
    done: bool = False
    """Whether it was at the destination, and gone from the source."""


@define(eq=False)
class Ledger:
    """What was made below ``source`` and must arrive below ``destination``.

    ``settle_s`` is how long a file must be left alone before it is moved.
    Hold ``lock`` to change files, and what is known of them, in one step.
    """

    source: Path
    destination: Path
    settle_s: float
    contents: dict[str, Made] = field(factory=dict)
    lock: threading.RLock = field(factory=threading.RLock)
    counts: Counter[str] = field(factory=Counter)
    _waiting: dict[str, Made] = field(factory=dict)
    """The contents that are not known to have been moved."""
    _seen: dict[bytes, tuple[tuple[int, ...], str]] = field(factory=dict)
    """What was read at the destination, by path, with what shows that it is still the same."""

    def made(self, path: bytes, content: bytes) -> None:
        """Note a content that was complete and closed just now."""
        with self.lock:
            digest = digest_of(content)
            self.contents[digest] = self._waiting[digest] = Made([path], time.monotonic())
            self.counts["files"] += 1

    def replaced(self, content: bytes) -> None:
        """Note that the producer has removed, or overwritten, a content."""
        with self.lock:
            self.contents[digest_of(content)].gone = True

    def renamed(self, content: bytes, path: bytes) -> None:
        """Note that a complete content has another name now."""
        with self.lock:
            made = self.contents[digest_of(content)]
            made.names.append(path)
            made.renamed_late |= time.monotonic() - made.since > self.settle_s / 2
            made.since = time.monotonic()

    def waiting(self, before: float) -> int:
        """How many contents were complete by then, and are not known to have been moved."""
        with self.lock:
            return sum(1 for made in self._waiting.values() if not made.gone and made.since < before)

    def look(self, before: float) -> list[Fault]:
        """Look at both ends while anything may go on, for losses among what was complete ``before`` (monotonic time).

        Files move one way only: what is at the source is listed first.
        What has arrived, and is gone from the source, is taken away from the destination, as a consumer does.
        """
        at_source = self._names_at_source()
        arrived = self._arrived()
        faults = []
        with self.lock:
            known = {digest: made for digest, made in self._waiting.items() if made.since < before}
            known |= {digest: self.contents[digest] for digest in arrived if digest in self.contents}
        for digest, made in known.items():
            names = [name for name in arrived.get(digest, ()) if name in made.names]
            here = any(name in at_source for name in made.names)
            if names and not here:
                faults += self._take(digest, names)
            elif not (names or here or made.done or made.gone or self._is_anywhere(digest, made)):
                faults.append(Fault(LOST, f"{shown(made.names[-1])}: is at neither end"))
        return faults

    def _take(self, digest: str, names: list[bytes]) -> list[Fault]:
        made = self.contents[digest]
        copies = len(names) + made.done
        made.done = True
        self._waiting.pop(digest, None)
        for name in names:
            place = os.path.join(os.fsencode(self.destination), name)
            with contextlib.suppress(OSError):
                os.unlink(place)
                if b"/" in name:
                    os.rmdir(os.path.dirname(place))
        if copies < 2:
            self.counts["arrived"] += 1
        elif made.renamed_late:
            self.counts["arrived under an earlier name as well"] += 1
        else:
            return [Fault(TWICE, f"{', '.join(map(shown, names))}: the same content arrived {copies} times")]
        return []

    def _is_anywhere(self, digest: str, made: Made) -> bool:
        """Look again: it may have got another name, or arrived, since both ends were listed."""
        with self.lock:
            for top in (self.source, self.destination):
                for name in made.names:
                    with contextlib.suppress(OSError):
                        if digest_of(Path(os.fsdecode(os.path.join(os.fsencode(top), name))).read_bytes()) == digest:
                            return True
        return made.gone

    def final(self, since: float) -> list[Fault]:
        """The faults that are left when all must have arrived; ``since`` is when the last disturbance was over."""
        faults = self.look(time.monotonic())
        at_source = self._names_at_source()
        arrived = self._arrived()
        for name in at_source:
            waited = time.monotonic() - since
            faults.append(Fault(FORGOTTEN, f"{shown(name)}: still at the source after {waited:.1f} s"))
        for digest, names in arrived.items():
            made = self.contents.get(digest)
            for name in names:
                if made is None:
                    kind = "partial left" if _PARTIAL.fullmatch(os.path.basename(name)) else "unknown content"
                    faults.append(Fault(kind, shown(name)))
                elif name not in made.names:
                    faults.append(Fault("wrong name", f"{shown(name)}: was never called that, but {made.names}"))
        return faults

    def _names_at_source(self) -> set[bytes]:
        return {path for path, _ in _files(self.source)}

    def _arrived(self) -> dict[str, list[bytes]]:
        """The names at the destination by digest; a file is read again only if it is another one than before."""
        found: dict[str, list[bytes]] = {}
        top = os.fsencode(self.destination)
        seen: dict[bytes, tuple[tuple[int, ...], str]] = {}
        for path, status in _files(self.destination):
            mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            known = self._seen.get(path)
            if known is None or known[0] != mark:
                try:
                    with open(os.path.join(top, path), "rb") as file:
                        known = mark, hashlib.file_digest(file, "sha256").hexdigest()
                except FileNotFoundError:
                    continue
            seen[path] = known
            found.setdefault(known[1], []).append(path)
        self._seen = seen
        return found


def digest_of(content: bytes) -> str:
    """What identifies a content."""
    return hashlib.sha256(content).hexdigest()


def _files(folder: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """All regular files below a folder, by relative path, also in directories that get another name meanwhile."""
    top = os.fsencode(folder)
    for where, _, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    yield os.path.relpath(path, top), status
