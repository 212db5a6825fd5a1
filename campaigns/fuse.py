"""The part of the kernel's FUSE protocol that our file systems need; see linux/fuse.h.

It uses ``/dev/fuse`` directly, without any library, with one thread for each mount.
The kernel caches nothing but the pages of open files, so that every other request gets here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import Final

from campaigns.strict import Node, StrictTree

_libc: Final = ctypes.CDLL(None, use_errno=True)
_MOST: Final = 128 * 1024
"""Bytes in one write."""

_HEAD: Final = struct.Struct("<IIQQIIIHH")
_ANSWER: Final = struct.Struct("<IiQ")
_ATTRIBUTES: Final = struct.Struct("<6Q10I")
_BIG_WRITES: Final = 1 << 5
_MAX_PAGES: Final = 1 << 22

_MODE, _SIZE, _MTIME, _MTIME_NOW = 1 << 0, 1 << 3, 1 << 5, 1 << 8

_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY = 2, 42, 36, 38


def mount(target: str) -> int:
    """Mount a file system, which is served through the descriptor that is returned."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
    if _libc.mount(b"campaign", os.fsencode(target), b"fuse", 0, options.encode()):
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, f"cannot mount a FUSE file system: {os.strerror(number)}", target)
    return fd


class Server:
    """Answers the kernel from a tree until the file system is unmounted."""

    def __init__(self, fd: int, tree: StrictTree) -> None:
        self._fd = fd
        self.tree = tree
        self._listings: dict[int, list[tuple[bytes, Node]]] = {}
        self._last_listing = 0
        self._answers: dict[int, Callable[[Node, bytes], bytes]] = {
            1: self._lookup,
            3: lambda node, _: self._attributes(node),
            4: self._set_attributes,
            9: self._mkdir,
            10: self._unlink,
            11: self._rmdir,
            12: self._rename,
            13: self._link,
            14: self._opened,
            15: self._read,
            16: self._write,
            17: self._room,
            18: self._nothing,
            20: self._sync,
            25: self._nothing,
            27: self._open_listing,
            28: self._list,
            29: self._close_listing,
            30: self._sync,
            35: self._create,
            45: self._rename_with_flags,
        }

    def run(self) -> None:
        """Serve until the file system is unmounted; to be run in a thread."""
        while True:
            try:
                request = os.read(self._fd, _MOST + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in {errno.EINTR, errno.ENOENT, errno.EAGAIN}:
                    continue
                raise
            _, code, unique, number, *_ = _HEAD.unpack_from(request)
            if code in {_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY}:
                continue
            self._reply(unique, code, number, request[_HEAD.size :])

    def _reply(self, unique: int, code: int, number: int, body: bytes) -> None:
        failed, content = 0, b""
        try:
            if code == 26:
                content = self._begin()
            elif code in self._answers:
                content = self._answers[code](self.tree.node(number), body)
            else:
                failed = errno.ENOSYS
        except OSError as error:
            failed = error.errno or errno.EIO
        # The process that sent the request may have been killed.
        with contextlib.suppress(FileNotFoundError):
            os.write(self._fd, _ANSWER.pack(_ANSWER.size + len(content), -failed, unique) + content)

    def _begin(self) -> bytes:
        flags = _BIG_WRITES | _MAX_PAGES
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, _MOST, flags, 16, 12, _MOST, 1, _MOST // 4096, 0, 0)

    def _attributes(self, node: Node) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + _packed(node)

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + _packed(node)

    def _lookup(self, node: Node, body: bytes) -> bytes:
        return self._entry(self.tree.lookup(node, body[:-1]))

    def _set_attributes(self, node: Node, body: bytes) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode = struct.unpack_from("<IIQQQQQQIIII", body)
        if valid & _MODE:
            self.tree.set_mode(node, mode)
        if valid & _SIZE:
            self.tree.truncate(node, size)
        if valid & _MTIME:
            signed = mtime - (1 << 64) if mtime >> 63 else mtime
            self.tree.set_mtime(node, time.time_ns() if valid & _MTIME_NOW else signed * 10**9 + mtime_ns)
        return self._attributes(node)

    def _mkdir(self, node: Node, body: bytes) -> bytes:
        mode, _ = struct.unpack_from("<II", body)
        return self._entry(self.tree.create(node, body[8:-1], stat.S_IFDIR | stat.S_IMODE(mode)))

    def _create(self, node: Node, body: bytes) -> bytes:
        _, mode, _, _ = struct.unpack_from("<IIII", body)
        made = self.tree.create(node, body[16:-1], stat.S_IFREG | stat.S_IMODE(mode))
        return self._entry(made) + self._opened(made, body)

    def _unlink(self, node: Node, body: bytes) -> bytes:
        self.tree.unlink(node, body[:-1])
        return b""

    def _rmdir(self, node: Node, body: bytes) -> bytes:
        self.tree.rmdir(node, body[:-1])
        return b""

    def _rename(self, node: Node, body: bytes) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        old, new, _ = body[8:].split(b"\0")
        self.tree.rename(node, old, self.tree.node(number), new)
        return b""

    def _rename_with_flags(self, node: Node, body: bytes) -> bytes:
        number, flags, _ = struct.unpack_from("<QII", body)
        old, new, _ = body[16:].split(b"\0")
        self.tree.rename(node, old, self.tree.node(number), new, flags)
        return b""

    def _link(self, node: Node, body: bytes) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        linked = self.tree.node(number)
        self.tree.link(linked, node, body[8:-1])
        return self._entry(linked)

    def _opened(self, node: Node, _: bytes) -> bytes:
        return struct.pack("<QII", node.number, 0, 0)

    def _nothing(self, _: Node, __: bytes) -> bytes:
        return b""

    def _read(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return self.tree.read(node, offset, size)

    def _write(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        self.tree.write(node, offset, body[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _sync(self, node: Node, _: bytes) -> bytes:
        self.tree.sync(node)
        return b""

    def _room(self, _: Node, __: bytes) -> bytes:
        return struct.pack("<5Q4I24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0)

    def _open_listing(self, node: Node, _: bytes) -> bytes:
        # A snapshot, so that names that come and go meanwhile do not make the listing skip others.
        self._last_listing += 1
        self._listings[self._last_listing] = list(node.names.items())
        return struct.pack("<QII", self._last_listing, 0, 0)

    def _close_listing(self, _: Node, body: bytes) -> bytes:
        self._listings.pop(struct.unpack_from("<Q", body)[0], None)
        return b""

    def _list(self, _: Node, body: bytes) -> bytes:
        listing, offset, size = struct.unpack_from("<QQI", body)
        listed = bytearray()
        for number, (name, child) in enumerate(self._listings[listing][offset:], start=offset + 1):
            kind = stat.S_IFMT(child.mode) >> 12
            entry = struct.pack("<QQII", child.inode, number, len(name), kind) + name
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return bytes(listed)


def _packed(node: Node) -> bytes:
    mtime, mtime_ns = divmod(node.mtime_ns, 10**9)
    ctime, ctime_ns = divmod(node.ctime_ns, 10**9)
    unsigned = mtime % (1 << 64)
    return _ATTRIBUTES.pack(
        node.inode,
        node.size,
        -(-node.size // 512),
        unsigned,
        unsigned,
        ctime,
        mtime_ns,
        mtime_ns,
        ctime_ns,
        node.mode,
        2 if node.is_directory else node.links,
        0,
        0,
        0,
        4096,
        0,
    )
