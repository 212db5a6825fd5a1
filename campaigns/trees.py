"""The files that campaigns move: small trees with odd names, modes and times, and files that are in their way."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
from collections.abc import Iterator
from typing import Final

from attrs import frozen
from blake3 import blake3

from campaigns.oracle import Oracle, Version
from realize.fs.syscalls import start_writeback

_NAMES: Final = (
    b"plain",
    b"with space",
    "\u00fcn\u00ef".encode(),
    b"co:lon",
    b"new\nline",
    b"-dash",
    b"bad\xff",
    b".hidden",
    b"L" * 240,
    b".%d.part",
    b".%d.realize-0123456789abcdef.part",
    b".plain%d.realize-HASH.part",
)
_MODES: Final = (0o644, 0o600, 0o444, 0o755, 0o640, 0o400)
_DIRECTORIES: Final = (b"", b"a", b"a/b", b"c", b"c/.d.part", b"e/f/g")
_DIRECTORY_MODES: Final = (0o755, 0o700, 0o750, 0o711)
_SMALL: Final = (0, 1, 100, 4096, 10_000, 70_000)
LARGE: Final = 2 << 20


@frozen
class Copy:
    """A copy of a file, on its way into another file of that length."""

    file: io.FileIO
    content: bytes

    def write_in_vain(self, *, told: bool) -> None:
        """Write it to a disk that takes nothing, so that only the page cache has it; its program may be ``told``."""
        os.pwrite(self.file.fileno(), self.content, 0)
        if told:
            with contextlib.suppress(OSError):
                os.fsync(self.file.fileno())
        else:
            start_writeback(self.file.fileno(), 0, 0)


class Planter:
    """Makes files at a source, in waves, each file with a name of its own."""

    def __init__(self, oracle: Oracle, rng: random.Random) -> None:
        self._oracle, self._rng = oracle, rng
        self._count = 0
        self._later: list[bytes] = []
        """The names for the next wave."""
        self._due: list[bytes] = []
        self._waves_before: set[bytes] = set()
        """Files of earlier waves, of which there may be a partial."""

    def wave(self, *, small: int = 25, large: int = 2, largest: int = 2 * LARGE) -> int:
        """Make a tree; returns its size in bytes."""
        for path in _DIRECTORIES[1:]:
            self._directory(path)
        self._due, self._later = self._later, []
        total = 0
        for number in range(small + large):
            size = self._rng.choice(_SMALL) if number < small else self._rng.randrange(LARGE, largest)
            total += size
            self.put(self._name(), self._rng.randbytes(size))
        for path, (mode, mtime_ns) in self._oracle.directories.items():
            place = os.path.join(os.fsencode(self._oracle.source), path)
            os.chmod(place, mode)
            os.utime(place, ns=(mtime_ns, mtime_ns))
        return total

    def _name(self) -> bytes:
        if self._due:
            return self._due.pop()
        self._count += 1
        pattern = self._rng.choice(_NAMES)
        name = pattern % self._count if b"%d" in pattern else pattern + b"%d" % self._count
        where = self._rng.choice(_DIRECTORIES)
        if name.endswith(b".realize-HASH.part"):
            # The name that our partial of another file would have; that file comes once this one has been moved.
            received = b"plain%d" % self._count
            name = name.replace(b"HASH", _hash(received))
            self._later.append(os.path.join(where, received))
        return os.path.join(where, name)

    def _directory(self, path: bytes) -> None:
        os.makedirs(os.path.join(os.fsencode(self._oracle.source), path), exist_ok=True)
        parts = path.split(b"/")
        for length in range(1, len(parts) + 1):
            self._oracle.directories.setdefault(
                b"/".join(parts[:length]), (self._rng.choice(_DIRECTORY_MODES), self._time())
            )

    def _time(self) -> int:
        return self._rng.randrange(10**18, 17 * 10**17)

    def put(self, path: bytes, content: bytes) -> None:
        """Make a file at the source."""
        version = Version(hashlib.sha256(content).hexdigest(), self._rng.choice(_MODES), self._time())
        with self._oracle.lock:
            _write(os.path.join(os.fsencode(self._oracle.source), path), content, version.mode, version.mtime_ns)
            self._oracle.made(path, version)

    def again(self, count: int) -> None:
        """Make new versions of some files that were moved."""
        known = self.replaceable()
        paths = self._rng.sample(known, min(count, len(known)))
        for number, path in enumerate([*paths, *self._later]):
            self.put(path, self._rng.randbytes(LARGE + 1000 if number == 0 else 5000))

    def replaceable(self) -> list[bytes]:
        """The names that a run may be given once more."""
        return sorted(path for path in self._oracle.versions if not path.endswith(b".part"))

    def obstacles(self) -> None:
        """Put into the destination other versions of some files, identical files, and files of somebody else."""
        oracle, rng = self._oracle, self._rng
        top = os.fsencode(oracle.destination)
        for path, _ in list(oracle.versions.items()):
            chance = rng.random()
            place = os.path.join(top, path)
            with open(os.path.join(os.fsencode(oracle.source), path), "rb") as file:
                content = file.read()
            if chance < 0.1:
                _write(place, content, 0o640, 10**18)
            elif chance < 0.25:
                old = content[: len(content) // 2] + b"old" + content[len(content) // 2 + 7 :]
                _write(place, old, 0o644, 10**18)
                oracle.earlier.setdefault(path, set()).add(hashlib.sha256(old).hexdigest())
            elif chance < 0.35 and len(os.path.basename(path)) < 100:
                self._foreign(os.path.join(os.path.dirname(path), b"." + os.path.basename(path) + b".part"))
            elif chance < 0.45 and len(os.path.basename(path)) < 100:
                name = os.path.basename(path)
                self._foreign(os.path.join(os.path.dirname(path), b"." + name + b".realize-" + _hash(name) + b".part"))
        self._foreign(b".y.part/inside")
        self._foreign(b"not ours")

    @contextlib.contextmanager
    def copies(self) -> Iterator[list[Copy]]:
        """Let another program begin to copy a third of the last wave: the destination has zeros so far."""
        made: list[Copy] = []
        with contextlib.ExitStack() as stack, self._oracle.lock:
            for path in sorted(self._oracle.versions.keys() - self._waves_before):
                place = os.path.join(os.fsencode(self._oracle.destination), path)
                try:
                    with open(os.path.join(os.fsencode(self._oracle.source), path), "rb") as file:
                        content = file.read()
                except FileNotFoundError:
                    continue
                if self._rng.random() < 0.67 or os.path.lexists(place):
                    continue
                zeros = bytes(len(content))
                _write(place, zeros, 0o600, self._time())
                self._oracle.earlier.setdefault(path, set()).add(hashlib.sha256(zeros).hexdigest())
                made.append(Copy(stack.enter_context(open(place, "r+b", buffering=0)), content))
            self._waves_before.update(self._oracle.versions)
            yield made

    def _foreign(self, path: bytes) -> None:
        place = os.path.join(os.fsencode(self._oracle.destination), path)
        if path in self._oracle.versions or os.path.lexists(place):
            return
        _write(place, self._rng.randbytes(3000), 0o644, self._time())
        self._oracle.planted(self._oracle.destination / os.fsdecode(path))


def _hash(name: bytes) -> bytes:
    """The part of ``name`` that the name of its partial contains."""
    return blake3(name).hexdigest()[:16].encode()


def _write(place: bytes, content: bytes, mode: int, mtime_ns: int) -> None:
    _make_directories(os.path.dirname(place))
    with open(place, "wb") as file:
        file.write(content)
    os.chmod(place, mode)
    os.utime(place, ns=(mtime_ns, mtime_ns))


def _make_directories(path: bytes) -> None:
    """Set the narrowest permissions: anything more open at the destination than at the source is a fault of the run."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path, 0o700)
