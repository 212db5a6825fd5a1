"""A file system in memory of which a power cut leaves exactly what was synced.

It keeps what POSIX promises, and nothing that real file systems do beyond that:

* fsync of a file makes its content, mode and modification time durable, but not its name;
* fsync of a directory makes the current names in it durable, with its own mode and time; a file with a durable name has
  at least the mode that it was created with, because every file system writes both together;
* a rename, link, removal or new directory is not durable before the directories that it changed are synced.

`StrictTree` is pure; `campaigns.fuse` makes it available to the kernel.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, field

ROOT: Final = 1
"""The number by which the kernel knows the root."""
NOREPLACE: Final = 1
"""The flag of renameat2(2)."""


@define(frozen=True)
class Durable:
    """The part of a file, or of the attributes of a directory, that a power cut leaves."""

    content: bytes
    mode: int
    mtime_ns: int


@define(eq=False)
class Node:
    """A file or directory; ``number`` is the kernel's name for it, ``inode`` what stat(2) says."""

    number: int
    inode: int
    mode: int
    links: int = 1
    content: bytearray = field(factory=bytearray)
    names: dict[bytes, Node] = field(factory=dict)
    mtime_ns: int = field(factory=time.time_ns)
    ctime_ns: int = field(factory=time.time_ns)
    durable: Durable = field(init=False)
    durable_names: dict[bytes, Node] = field(factory=dict)
    above: tuple[Node, bytes] | None = None
    """For a directory: its parent, and its name there."""

    def __attrs_post_init__(self) -> None:
        self.durable = Durable(b"", self.mode, self.mtime_ns)

    @property
    def is_directory(self) -> bool:
        """Whether it has names in it."""
        return stat.S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.content)


class StrictTree:
    """The file system; every method is one system call of a process, and may raise OSError."""

    def __init__(self, *, noreplace: bool = True) -> None:
        self.noreplace = noreplace
        """Whether it knows RENAME_NOREPLACE; many network file systems do not."""
        self.removing: Callable[[Node, bytes, Node], None] | None = None
        """Called with directory, name and file before a file loses a name."""
        self._last_number = ROOT
        self._last_inode = ROOT
        self.root = Node(ROOT, ROOT, stat.S_IFDIR | 0o755)
        self.nodes = {ROOT: self.root}

    def node(self, number: int) -> Node:
        """The file that the kernel's number stands for; ESTALE after a power cut."""
        try:
            return self.nodes[number]
        except KeyError:
            raise _error(errno.ESTALE) from None

    def lookup(self, directory: Node, name: bytes) -> Node:
        """The file of that name in a directory."""
        try:
            return directory.names[name]
        except KeyError:
            raise _error(errno.ENOENT) from None

    def create(self, directory: Node, name: bytes, mode: int) -> Node:
        """Create a file or a directory, as the type in ``mode`` says."""
        if name in directory.names:
            raise _error(errno.EEXIST)
        self._last_inode += 1
        node = self._new(self._last_inode, mode)
        if node.is_directory:
            node.above = (directory, name)
        directory.names[name] = node
        _touch(directory)
        return node

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        """Give a file another name."""
        if name in directory.names:
            raise _error(errno.EEXIST)
        directory.names[name] = node
        node.links += 1
        node.ctime_ns = time.time_ns()
        _touch(directory)

    def unlink(self, directory: Node, name: bytes) -> None:
        """Remove a name of a file."""
        node = self.lookup(directory, name)
        if node.is_directory:
            raise _error(errno.EISDIR)
        if self.removing is not None:
            self.removing(directory, name, node)
        del directory.names[name]
        node.links -= 1
        node.ctime_ns = time.time_ns()
        _touch(directory)

    def rmdir(self, directory: Node, name: bytes) -> None:
        """Remove a directory that is empty."""
        node = self.lookup(directory, name)
        if not node.is_directory:
            raise _error(errno.ENOTDIR)
        if node.names:
            raise _error(errno.ENOTEMPTY)
        del directory.names[name]
        _touch(directory)

    def rename(self, directory: Node, name: bytes, to: Node, new: bytes, flags: int = 0) -> None:
        """Rename a file or directory, over a file unless the flags forbid it."""
        if flags and not (flags == NOREPLACE and self.noreplace):
            raise _error(errno.EINVAL)
        node = self.lookup(directory, name)
        there = to.names.get(new)
        if there is node:
            return
        if there is not None:
            if flags & NOREPLACE:
                raise _error(errno.EEXIST)
            if there.is_directory:
                raise _error(errno.ENOTEMPTY if there.names else errno.EISDIR)
            there.links -= 1
        del directory.names[name]
        to.names[new] = node
        if node.is_directory:
            node.above = (to, new)
        node.ctime_ns = time.time_ns()
        _touch(directory)
        _touch(to)

    def read(self, node: Node, offset: int, size: int) -> bytes:
        """Read content."""
        return bytes(node.content[offset : offset + size])

    def write(self, node: Node, offset: int, data: bytes) -> None:
        """Write content."""
        if len(node.content) < offset:
            node.content.extend(bytes(offset - len(node.content)))
        node.content[offset : offset + len(data)] = data
        _touch(node)

    def truncate(self, node: Node, size: int) -> None:
        """Shorten or lengthen a file."""
        if len(node.content) > size:
            del node.content[size:]
        else:
            node.content.extend(bytes(size - len(node.content)))
        _touch(node)

    def set_mode(self, node: Node, mode: int) -> None:
        """Set permission bits."""
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        node.ctime_ns = time.time_ns()

    def set_mtime(self, node: Node, mtime_ns: int) -> None:
        """Set the modification time."""
        node.mtime_ns = mtime_ns
        node.ctime_ns = time.time_ns()

    def sync(self, node: Node) -> None:
        """fsync(2)."""
        node.durable = Durable(b"" if node.is_directory else bytes(node.content), node.mode, node.mtime_ns)
        if node.is_directory:
            node.durable_names = dict(node.names)

    def settle(self) -> None:
        """Make everything durable, as if it had been there for long."""
        for node in list(self.nodes.values()):
            self.sync(node)

    def find(self, components: tuple[bytes, ...]) -> Node | None:
        """What a power cut would leave at a path."""
        node = self.root
        for name in components:
            below = node.durable_names.get(name)
            if below is None:
                return None
            node = below
        return node

    def path(self, directory: Node) -> tuple[bytes, ...]:
        """The path of a directory."""
        names: list[bytes] = []
        while directory.above is not None:
            directory, name = directory.above
            names.append(name)
        return tuple(reversed(names))

    def durable_files(self) -> Iterator[tuple[tuple[bytes, ...], str]]:
        """The path and SHA-256 of each file that a power cut would leave."""

        def below(directory: Node, place: tuple[bytes, ...]) -> Iterator[tuple[tuple[bytes, ...], str]]:
            for name, node in directory.durable_names.items():
                if node.is_directory:
                    yield from below(node, (*place, name))
                else:
                    yield (*place, name), hashlib.sha256(node.durable.content).hexdigest()

        return below(self.root, ())

    def cut(self) -> None:
        """Cut the power and restore it: only durable content is left, and the kernel's old numbers are invalid."""
        seen: dict[int, Node] = {}

        def revived(node: Node) -> Node:
            if id(node) in seen:
                seen[id(node)].links += 1
                return seen[id(node)]
            kept = node.durable
            again = self._new(node.inode, kept.mode)
            seen[id(node)] = again
            again.content, again.mtime_ns, again.durable = bytearray(kept.content), kept.mtime_ns, kept
            fill(node, again)
            return again

        def fill(old: Node, new: Node) -> None:
            new.names = {name: revived(node) for name, node in old.durable_names.items()}
            for name, node in new.names.items():
                if node.is_directory:
                    node.above = (new, name)
            new.durable_names = dict(new.names)

        self.nodes = {ROOT: self.root}
        fill(self.root, self.root)

    def _new(self, inode: int, mode: int) -> Node:
        self._last_number += 1
        node = Node(self._last_number, inode, mode)
        self.nodes[node.number] = node
        return node


def _touch(node: Node) -> None:
    node.mtime_ns = node.ctime_ns = time.time_ns()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
