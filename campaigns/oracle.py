"""The oracle: it knows what every file must be, by SHA-256, mode and modification time, without asking Realize.

Content is lost if it is complete neither at the source nor under its final name at the destination, unless its own
producer replaced it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

LOST: Final = "LOST"
_PARTIAL: Final = re.compile(rb"\..+\.part", re.DOTALL)

_NESTED: Final = re.compile(rb"(?:\.){2}.+(?:\.realize-[0-9a-f]{16}\.part){2}", re.DOTALL)
"""What a power cut may leave of a file whose own name looks like that of a partial, which is a known limit."""


@frozen
class Version:
    """A version that a producer made of a file: its content and its attributes."""

    digest: str
    mode: int
    mtime_ns: int


@frozen
class Fault:
    """Something that is wrong; ``kind`` is `LOST` for the one thing that must never happen."""

    kind: str
    text: str


@frozen
class Foreign:
    """A file at the destination that belongs to somebody else."""

    path: Path
    digest: str
    mode: int
    inode: int
    mtime_ns: int


@define(eq=False)
class Oracle:
    """Knows what was made at ``source`` and must arrive at ``destination``.

    Hold ``lock`` to change files, and what is known about them, in one step.
    """

    source: Path
    destination: Path
    versions: dict[bytes, Version] = field(factory=dict)
    """The current version of each file, by path below the source."""
    earlier: dict[bytes, set[str]] = field(factory=dict)
    """Digests that a file had before, on either side, each of which may still be at the destination."""
    directories: dict[bytes, tuple[int, int]] = field(factory=dict)
    """Permission bits and modification time of each directory below the source."""
    foreign: list[Foreign] = field(factory=list)
    busy: set[bytes] = field(factory=set)
    """Files that a producer is writing at the moment."""
    lock: threading.RLock = field(factory=threading.RLock)
    archive: Path | None = None
    """The folder to which a consumer takes files that arrived."""
    began_ns: int = field(factory=time.time_ns)
    inodes_stay: bool = True
    """Whether a file keeps its inode number for the whole case."""
    marks_stay: bool = False
    """Whether the sticky bit of a partial may remain on a final file, as after a power cut."""

    def made(self, path: bytes, version: Version) -> None:
        """Note that a producer has made a file, or a newer version of it."""
        with self.lock:
            if path in self.versions:
                self.earlier.setdefault(path, set()).add(self.versions[path].digest)
            self.versions[path] = version

    def planted(self, path: Path) -> None:
        """Note a file that somebody else has put at the destination."""
        status = path.stat()
        self.foreign.append(
            Foreign(path, digest(os.fsencode(path)) or "", status.st_mode, status.st_ino, status.st_mtime_ns)
        )

    def note_failures(self) -> None:
        """Note that single files may fail from now on."""

    def not_at_source(self) -> list[bytes]:
        """The files whose current version is no longer at the source."""
        with self.lock:
            top = os.fsencode(self.source)
            return [
                path
                for path, version in self.versions.items()
                if path not in self.busy and digest(os.path.join(top, path)) != version.digest
            ]

    def lost(self, gone: list[bytes], destination: Path | None = None) -> list[Fault]:
        """The faults of files missing at the source (``gone``) that are not complete at the destination either.

        ``gone`` must have been listed before the destination is looked at, because files move only one way.
        """
        top = os.fsencode(destination or self.destination)
        faults = []
        for path in gone:
            with self.lock:
                if path in self.busy:
                    continue
                version = self.versions[path]
                found = digest(os.path.join(top, path))
                if found == version.digest or self._taken(path, version):
                    continue
                # A producer may have made a newer version there since the list was made.
                if digest(os.path.join(os.fsencode(self.source), path)) == version.digest:
                    continue
            what = f"{_short(found)} instead of {_short(version.digest)}"
            faults.append(Fault(LOST, f"{shown(path)}: not at the source, and at the destination {what}"))
        return faults

    def check(self) -> list[Fault]:
        """Check both sides while anything may be going on."""
        faults = self.lost(self.not_at_source())
        faults += self.foreign_faults()
        faults += self._open_faults()
        return faults

    def foreign_faults(self) -> list[Fault]:
        """Check the files that belong to somebody else."""
        faults = []
        for each in self.foreign:
            try:
                status = each.path.lstat()
                found = digest(os.fsencode(each.path))
            except FileNotFoundError:
                faults.append(Fault("foreign", f"{each.path.name}: is gone"))
                continue
            now = (found, status.st_mode, status.st_mtime_ns)
            if now != (each.digest, each.mode, each.mtime_ns):
                faults.append(Fault("foreign", f"{each.path.name}: was changed"))
            elif self.inodes_stay and status.st_ino != each.inode:
                faults.append(Fault("foreign", f"{each.path.name}: is another file"))
        return faults

    def _open_faults(self) -> list[Fault]:
        """Check that nothing at the destination is more open than at the source, or a version that never existed."""
        faults = []
        top = os.fsencode(self.destination)
        for path, (mode, _) in self.directories.items():
            try:
                status = os.lstat(os.path.join(top, path))
            except FileNotFoundError:
                continue
            if stat.S_IMODE(status.st_mode) & 0o077 & ~mode:
                faults.append(Fault("open", f"{shown(path)}: {stat.S_IMODE(status.st_mode):o}, was {mode:o}"))
        for path, version in list(self.versions.items()):
            if _is_marked(os.path.join(top, path)):
                continue  # a partial for another file, which has the name of this one
            found = digest(os.path.join(top, path))
            with self.lock:
                known = {self.versions[path].digest, version.digest, *self.earlier.get(path, ())}
                if found is not None and found not in known and path not in self.busy:
                    faults.append(Fault("damaged", f"{shown(path)}: {_short(found)} under its final name"))
        return faults

    def final(self) -> list[Fault]:
        """Check after an undisturbed run that everything is there, once, and unchanged."""
        faults = self.check()
        for path, _ in files(self.source):
            faults.append(Fault("stranded", f"{shown(path)}: still at the source"))
        top = os.fsencode(self.destination)
        for path, version in self.versions.items():
            if self._taken(path, version):
                continue
            try:
                status = os.lstat(os.path.join(top, path))
            except FileNotFoundError:
                continue  # lost, or stranded
            mode = stat.S_IMODE(status.st_mode) & (~stat.S_ISVTX if self.marks_stay else ~0)
            if (mode, status.st_mtime_ns) != (version.mode, version.mtime_ns):
                faults.append(
                    Fault(
                        "attributes",
                        f"{shown(path)}: {mode:o} {status.st_mtime_ns}, was {version.mode:o} {version.mtime_ns}",
                    )
                )
        ours = {os.path.relpath(os.fsencode(each.path), top) for each in self.foreign}
        for path, _ in files(self.destination):
            if path not in self.versions and path not in ours:
                name = os.path.basename(path)
                if not _NESTED.fullmatch(name):
                    faults.append(Fault("partial left" if _PARTIAL.fullmatch(name) else "extra", shown(path)))
        return faults + self._directory_faults()

    def _directory_faults(self) -> list[Fault]:
        faults = []
        used = {parent for path in self.versions for parent in _parents(path)}
        for path, (mode, mtime_ns) in self.directories.items():
            if not os.path.isdir(os.path.join(os.fsencode(self.source), path)):
                faults.append(Fault("directory", f"{shown(path)}: is gone at the source"))
            if path not in used:
                continue
            try:
                status = os.lstat(os.path.join(os.fsencode(self.destination), path))
            except FileNotFoundError:
                continue  # what was in it is named already, or was taken with it
            found = stat.S_IMODE(status.st_mode)
            if found != mode:
                faults.append(Fault("directory", f"{shown(path)}: mode {found:o}, was {mode:o}"))
            # Removals by a run that was killed have changed the time of the directory at the source.
            if status.st_mtime_ns != mtime_ns and status.st_mtime_ns < self.began_ns:
                faults.append(Fault("directory", f"{shown(path)}: mtime {status.st_mtime_ns}, was {mtime_ns}"))
        return faults

    def _taken(self, path: bytes, version: Version) -> bool:
        return self.archive is not None and digest(os.path.join(os.fsencode(self.archive), path)) == version.digest


def digest(path: bytes) -> str | None:
    """The SHA-256 of a regular file; None if there is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def files(folder: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """All regular files below a folder, by relative path."""
    top = os.fsencode(folder)
    for where, _, names in os.walk(top):
        for name in names:
            path = os.path.join(where, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, top), status


def shown(path: bytes) -> str:
    """A name for a report."""
    return path.decode(errors="backslashreplace").replace("\n", "\\n")


def _is_marked(path: bytes) -> bool:
    try:
        return bool(_PARTIAL.fullmatch(os.path.basename(path)) and os.lstat(path).st_mode & stat.S_ISVTX)
    except FileNotFoundError:
        return False


def _short(found: str | None) -> str:
    return "nothing" if found is None else found[:12]


def _parents(path: bytes) -> Iterator[bytes]:
    while path := os.path.dirname(path):
        yield path
