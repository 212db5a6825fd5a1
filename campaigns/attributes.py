"""Files with owners, access control lists, extended attributes and several names, and an oracle that knows all of it.

A file may have left its source only if its copy has every attribute; in the end all names of a file lead to one.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import random
import stat
import struct
from pathlib import Path
from typing import Final

from attrs import define, evolve, field, frozen

from campaigns.oracle import LOST, Fault, Oracle, digest, shown
from campaigns.trees import Planter

ACCESS: Final = "system.posix_acl_access"
DEFAULT: Final = "system.posix_acl_default"
_LISTS: Final = {ACCESS, DEFAULT}
_PRIVATE: Final = "user.realize."
"""What Realize notes for itself, which is nobody's attribute."""

_OWNERS: Final = (0, 1, 2, 33, 65534, 4242)
"""Users and groups of Debian, and a number without a name."""
_DIRECTORIES: Final = (b"", b"a", b"a/b", b"c", b"new/d")
_NAMES: Final = (b"x", b"\xff\n", b"long" * 40)


@frozen
class Given:
    """What an object has besides its content; ``lists`` and ``xattrs`` by name, as the kernel keeps them."""

    mode: int
    uid: int
    gid: int
    lists: dict[str, bytes]
    xattrs: dict[str, bytes]


def given(place: bytes, *, marks_stay: bool = False) -> Given:
    """What a file or directory has now."""
    status = os.lstat(place)
    found: dict[str, bytes] = {}
    for name in os.listxattr(place, follow_symlinks=False):
        if name in _LISTS or (name.startswith("user.") and not name.startswith(_PRIVATE)):
            found[name] = os.getxattr(place, name, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode) & (~stat.S_ISVTX if marks_stay else ~0)
    lists = {name: value for name, value in found.items() if name in _LISTS}
    return Given(mode, status.st_uid, status.st_gid, lists, {n: v for n, v in found.items() if n not in _LISTS})


@define(eq=False)
class AttributeOracle(Oracle):
    """Knows the attributes of all files and directories, and which names are those of one file."""

    attributes: dict[bytes, Given] = field(factory=dict)
    above: dict[bytes, Given] = field(factory=dict)
    """Of directories."""
    links: list[tuple[bytes, ...]] = field(factory=list)
    """Names of one file, none of which had anything in its way, or failed by itself."""
    symlinks: dict[bytes, tuple[bytes, int, int]] = field(factory=dict)
    """Target, owner and group of each symlink."""
    manifest: Path | None = None
    """Has a line for everything that has left the source."""
    _gone_symlinks: list[bytes] = field(factory=list, init=False)

    def note_failures(self) -> None:
        """A name that fails goes later, when the others have gone; the mark of a partial may not have gone, either."""
        self.links.clear()
        self.marks_stay = True

    def not_at_source(self) -> list[bytes]:
        """Symlinks that have gone are noted for `lost`."""
        here = os.fsencode(self.source)
        self._gone_symlinks = [path for path in self.symlinks if not os.path.islink(os.path.join(here, path))]
        return super().not_at_source()

    def lost(self, gone: list[bytes], destination: Path | None = None) -> list[Fault]:
        """A file that has left its source without its attributes is lost, too."""
        faults = super().lost(gone, destination)
        top = os.fsencode(destination or self.destination)
        for path in gone:
            faults += self._bare(top, path)
        faults += self._lost_symlinks(top)
        if self.manifest is not None:
            recorded = _recorded(self.manifest)
            faults += [
                Fault("manifest", f"{shown(path)} is not at the source, and has no line")
                for path in [*gone, *self._gone_symlinks]
                if path not in recorded
            ]
        return faults

    def _bare(self, top: bytes, path: bytes) -> list[Fault]:
        place = os.path.join(top, path)
        try:
            found = given(place, marks_stay=self.marks_stay)
            same = digest(place) == self.versions[path].digest
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENODATA, errno.ENOTDIR}:
                raise
            return []  # lost altogether, or somewhere else
        wanted = self.attributes[path]
        if not same or found == wanted:
            return []
        return [Fault(LOST, f"attributes of {shown(path)}, which is not at the source: {found}, not {wanted}")]

    def _lost_symlinks(self, top: bytes) -> list[Fault]:
        looks = {path: (_symlink(os.path.join(top, path)), self.symlinks[path]) for path in self._gone_symlinks}
        return [
            Fault(LOST, f"symlink {shown(path)}: {found}, not {wanted}")
            for path, (found, wanted) in looks.items()
            if found != wanted
        ]

    def final(self) -> list[Fault]:
        """All has arrived: what were names of one file are that, and directories have their attributes, too."""
        faults = super().final()
        top, here = os.fsencode(self.destination), os.fsencode(self.source)
        for names in self.links:
            inodes = {
                os.stat(os.path.join(top, name)).st_ino for name in names if os.path.exists(os.path.join(top, name))
            }
            if len(inodes) > 1:
                faults.append(Fault("links", f"{len(inodes)} files of the names {[shown(each) for each in names]}"))
        used = {parent for path in self.versions for parent in _parents(path)}
        for path, wanted in self.above.items():
            if path in used and os.path.isdir(os.path.join(top, path)):
                found = given(os.path.join(top, path))
                if found != wanted:
                    faults.append(Fault("directory", f"{shown(path)}: {found}, not {wanted}"))
        faults += [
            Fault("stranded", f"symlink {shown(path)}: still at the source")
            for path in self.symlinks
            if os.path.islink(os.path.join(here, path))
        ]
        return faults


def _recorded(manifest: Path) -> set[bytes]:
    """The paths of all that a manifest says is durable."""
    paths = set()
    for line in manifest.read_bytes().split(b"\n")[:-1] if manifest.exists() else ():
        with contextlib.suppress(ValueError):  # what a kill has torn
            record = json.loads(line)
            exact = record.get("path_base64")
            if record["event"] == "durable":
                paths.add(record["path"].encode() if exact is None else base64.b64decode(exact))
    return paths


def _symlink(place: bytes) -> tuple[bytes, int, int] | None:
    try:
        status = os.lstat(place)
        return os.readlink(place), status.st_uid, status.st_gid
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is something else
            raise
        return None


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[:length]) for length in range(1, len(parts) + 1)]


class AttributePlanter(Planter):
    """Plants files with attributes, other names of some of them, and symlinks."""

    def __init__(self, oracle: AttributeOracle, rng: random.Random) -> None:
        super().__init__(oracle, rng)
        self._known = oracle
        self._chance = rng
        self._links = 0

    def wave(self, *, small: int = 25, large: int = 2, largest: int = 4 << 20) -> int:
        """Files first, then their other names and symlinks, then what directories have."""
        total = super().wave(small=small, large=large, largest=largest)
        self._other_names()
        self._symlinks()
        for path in self._known.directories:
            self._directory_attributes(path)
        return total

    def put(self, path: bytes, content: bytes) -> None:
        """Half of the content is such that it shrinks; what a file is given shows in its mode, too."""
        if self._chance.random() < 0.5:
            content = (content[:1000] * (len(content) // 1000 + 1))[: len(content)]
        self._known.links = [names for names in self._known.links if path not in names]
        super().put(path, content)
        place = self._at(path)
        self._give(place)
        version = self._known.versions[path]
        os.utime(place, ns=(version.mtime_ns, version.mtime_ns))
        self._note(path)

    def replaceable(self) -> list[bytes]:
        """Of the names of one file a run replaces one, and leaves the others to the next: see docs/safety.md."""
        top = os.fsencode(self._known.destination)
        return [path for path in super().replaceable() if os.lstat(os.path.join(top, path)).st_nlink == 1]

    def obstacles(self) -> None:
        """What has something in its way is not linked."""
        super().obstacles()
        top = os.fsencode(self._known.destination)
        self._known.links = [
            names for names in self._known.links if not any(os.path.lexists(os.path.join(top, name)) for name in names)
        ]

    def _at(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._known.source), path)

    def _note(self, path: bytes) -> None:
        found = given(self._at(path))
        self._known.attributes[path] = found
        self._known.versions[path] = evolve(self._known.versions[path], mode=found.mode)

    def _give(self, place: bytes, *, directory: bool = False) -> None:
        rng = self._chance
        if rng.random() < 0.6:
            os.chown(place, rng.choice(_OWNERS), rng.choice(_OWNERS))
        for number in range(rng.choice([0, 0, 1, 3])):
            size = rng.choice([0, 10, 200]) if not directory else 10
            os.setxattr(place, f"user.made{number}", rng.randbytes(size))
        mode = stat.S_IMODE(os.stat(place).st_mode)
        if rng.random() < 0.4:
            os.setxattr(place, ACCESS, _list(mode, rng))
        if directory and rng.random() < 0.4:
            os.setxattr(place, DEFAULT, _list(0o750, rng))

    def _other_names(self) -> None:
        known, rng = self._known, self._chance
        whole = sorted(
            path for path in known.versions if os.path.exists(self._at(path)) and not path.endswith(b".part")
        )
        for path in rng.sample(whole, min(4, len(whole))):
            names = [path]
            for _ in range(rng.choice([1, 2, 6])):
                self._links += 1
                other = os.path.join(rng.choice(_DIRECTORIES), rng.choice(_NAMES) + b"-%d" % self._links)
                if where := os.path.dirname(other):
                    self._directory(where)
                os.link(self._at(path), self._at(other))
                known.made(other, known.versions[path])
                self._note(other)
                names.append(other)
            known.links.append(tuple(names))

    def _symlinks(self) -> None:
        for _ in range(3):
            self._links += 1
            path, target = b"link-%d" % self._links, b"a/b/%d" % self._links
            os.symlink(target, self._at(path))
            uid, gid = self._chance.choice(_OWNERS), self._chance.choice(_OWNERS)
            os.chown(self._at(path), uid, gid, follow_symlinks=False)
            self._known.symlinks[path] = target, uid, gid

    def _directory_attributes(self, path: bytes) -> None:
        mode, mtime_ns = self._known.directories[path]
        place = self._at(path)
        if path not in self._known.above:
            self._give(place, directory=True)
            mode = stat.S_IMODE(os.stat(place).st_mode)
        os.chmod(place, mode)
        os.utime(place, ns=(mtime_ns, mtime_ns))
        self._known.directories[path] = mode, mtime_ns
        self._known.above[path] = given(place)


def _list(mode: int, rng: random.Random) -> bytes:
    """An access control list, as the kernel keeps it, that lets no more than the mode."""
    owner, group, others = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    none = 0xFFFFFFFF
    entries = [(0x01, owner, none)]
    entries += [
        (0x02, rng.choice([0, 4, 6, 7]), number) for number in sorted(rng.sample(_OWNERS, rng.choice([0, 1, 2])))
    ]
    entries += [(0x04, rng.choice([0, group]), none)]
    entries += [(0x08, rng.choice([0, 4]), number) for number in sorted(rng.sample(_OWNERS, 1))]
    entries += [(0x10, group, none), (0x20, others, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
