"""System calls that Python does not offer, made through libc.

Everything here raises `OSError` like the functions of `os` do.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import threading
from typing import Final, NamedTuple, TypeAlias

_libc: Final = ctypes.CDLL(None, use_errno=True)

_RENAME_NOREPLACE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_STATX: Final = _UNSUPPORTED | {errno.EPERM}
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

BTRFS: Final = 0x9123683E
"""What `file_system` says of btrfs."""

_NO_MODES: Final = frozenset(
    {
        0x4D44,  # FAT
        0x2011BAB0,  # exFAT
        0x7366746E,  # NTFS, by ntfs3
        0x5346544E,  # NTFS, by the older driver
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB 2 and 3
        0x517B,  # SMB
    }
)
_FUSE: Final = 0x65735546
_9P: Final = 0x01021997
_OLD_CONTENT: Final = frozenset({_FUSE, _9P})

_WHOLE_SYNC: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        BTRFS,
        0xF2F52010,  # F2FS
        0x01021994,  # tmpfs
    }
)


def _declare(name: str, *arguments: type) -> ctypes._NamedFuncPointer:
    function = getattr(_libc, name)
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_syncfs: Final = _declare("syncfs", ctypes.c_int)
_renameat2: Final = (
    _declare("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if hasattr(_libc, "renameat2")
    else None
)
_fstatfs: Final = _declare("fstatfs", ctypes.c_int, ctypes.c_void_p)
_sync_file_range: Final = _declare("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


_statx: Final = (
    _declare("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    if hasattr(_libc, "statx")
    else None
)
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_FORCE_SYNC: Final = 0x2000
_STATX_BASIC_STATS: Final = 0x7FF
_STATX: Final = struct.Struct("=16xII4xH2xQQ48xqI4xqI4x8xII")  # of 256 bytes: see struct statx in statx(2)
_STATX_BTIME: Final = 0x800
_STATX_BIRTH: Final = struct.Struct("=I76xqI")


class _Buffers(threading.local):
    """Each thread's room for an answer of statx(2)."""

    def __init__(self) -> None:
        self.answer = ctypes.create_string_buffer(256)


_buffers: Final = _Buffers()


_F_SETSIG: Final = 10  # fcntl(2); Python has no name for it
_SIGURG: Final = int(signal.SIGURG)
_REMOTE_LEASES: Final = frozenset(
    {
        0x6969,  # NFS: without a delegation of the server it answers EAGAIN, too
        0x517B,  # SMB, CIFS and SMB 2: the same without a lease of the server
        0xFF534D42,
        0xFE534D42,
    }
)
_RENAMES: Final = _REMOTE_LEASES | _OLD_CONTENT


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


HAVE_SYNCFS: Final = _kernel() >= (5, 8)
"""Older kernels do not tell syncfs(2) about failed writes, see its man page."""


def syncfs(fd: int) -> None:
    """Make everything on the file system of ``fd`` durable.

    Fails if any write to that file system has failed since ``fd`` was opened.
    """
    if _syncfs(fd):
        _raise_errno()


def syncs_as_a_whole(fd: int) -> bool:
    """Whether `syncfs` may stand for an fsync of every file on the file system of ``fd``.

    Only file systems known to write data, metadata and a device flush for it: FUSE, for one, does not pass it on.
    """
    return HAVE_SYNCFS and file_system(fd) in _WHOLE_SYNC


def keeps_modes(fd: int) -> bool:
    """Whether the file system of ``fd`` is not known to make up the modes that it shows."""
    return file_system(fd) not in _NO_MODES


def may_keep_old_content(fd: int) -> bool:
    """Whether the file system of ``fd`` may go on to give content from its cache when the file has another status.

    FUSE does if it is told to keep what it has when a file is opened, and only the content changes, not the size.
    """
    return file_system(fd) in _OLD_CONTENT


def renames_what_is_open(fd: int) -> bool:
    """Whether the file system of ``fd`` may give a file that is removed another name for as long as it is open."""
    return file_system(fd) in _RENAMES


def file_system(fd: int) -> int:
    """The number that statfs(2) gives the kind of file system that ``fd`` is on."""
    answer = (ctypes.c_long * 64)()
    if _fstatfs(fd, answer):
        _raise_errno()
    return answer[0] & 0xFFFFFFFF


def rename_noreplace(dirfd: int, old: bytes, new: bytes) -> None:
    """Rename within a directory; `FileExistsError` if the new name is taken, whatever it is.

    A file system without RENAME_NOREPLACE gets link and unlink, which is as safe.
    One without hard links as well gets a look before the rename, and a name that appears in the microseconds between
    the two is replaced.
    """
    if _renameat2 is not None:
        if not _renameat2(dirfd, old, dirfd, new, _RENAME_NOREPLACE):
            return
        if ctypes.get_errno() not in _UNSUPPORTED:
            _raise_errno()
    try:
        os.link(old, new, src_dir_fd=dirfd, dst_dir_fd=dirfd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _look_and_rename(dirfd, old, new)
    else:
        os.unlink(old, dir_fd=dirfd)


class RawStatus(NamedTuple):
    """What `os.stat_result` has of use, as the file system itself says it at this moment."""

    st_nlink: int
    st_uid: int
    st_mode: int
    st_ino: int
    st_size: int
    st_ctime_ns: int
    st_mtime_ns: int
    st_dev: int


FileStatus: TypeAlias = RawStatus | os.stat_result
"""What a file is, asked one way or the other."""


def fresh_stat(name: bytes, dirfd: int) -> FileStatus:
    """The status of a name below a directory, no symlink followed, from no cache of attributes.

    stat(2) on a network file system, or one in user space, may tell what was true some seconds ago.
    Where statx(2) is not to be had, so does this.
    """
    found = _look(dirfd, name, _AT_SYMLINK_NOFOLLOW)
    return os.stat(name, dir_fd=dirfd, follow_symlinks=False) if found is None else found


def fresh_fstat(fd: int) -> FileStatus:
    """The same for an open file."""
    found = _look(fd, b"", _AT_EMPTY_PATH)
    return os.fstat(fd) if found is None else found


def birth_ns(fd: int, name: bytes = b"") -> int:
    """When an open file or directory was made, or that of a name below it; 0 if that cannot be known."""
    answer = _buffers.answer
    flags = _AT_SYMLINK_NOFOLLOW if name else _AT_EMPTY_PATH
    if _statx is None or _statx(fd, name, flags, _STATX_BTIME, answer):
        return 0
    known, seconds, nanoseconds = _STATX_BIRTH.unpack_from(answer)
    return seconds * 1_000_000_000 + nanoseconds if known & _STATX_BTIME else 0


def _look(fd: int, name: bytes, flags: int) -> RawStatus | None:
    """What statx(2) says; None if the kernel, the C library or a filter of system calls does not offer it."""
    if _statx is None:
        return None
    answer = _buffers.answer
    if _statx(fd, name, flags | _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, answer):
        if ctypes.get_errno() in _NO_STATX:
            return None
        _raise_errno()
    links, uid, mode, inode, size, ctime, ctime_ns, mtime, mtime_ns, major, minor = _STATX.unpack_from(answer)
    ctime_ns += ctime * 1_000_000_000
    mtime_ns += mtime * 1_000_000_000
    return RawStatus(links, uid, mode, inode, size, ctime_ns, mtime_ns, os.makedev(major, minor))


def is_open_for_writing(fd: int) -> bool:
    """Whether anybody on this machine has the file open for writing, or mapped to be written to.

    The kernel tells those who ask for a read lease, which is given back at once: while it is held, whoever opens the
    file for writing waits, and its holder gets a signal, here one that is ignored unless somebody wants it.
    False also where that cannot be known: a lease needs the owner of the file or CAP_LEASE, and a file system that has
    them.
    """
    try:
        fcntl.fcntl(fd, _F_SETSIG, _SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)  # EAGAIN: somebody has waited for it so long that it is gone
    except OSError as error:
        return error.errno == errno.EAGAIN and file_system(fd) not in _REMOTE_LEASES
    return False


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin to write a range, so that a later fsync has less to wait for; a hint only."""
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def fsync_directory(fd: int) -> None:
    """Make the names in a directory durable; a file system that cannot do that for a directory is let be."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def kind_of(mode: int) -> str:
    """What a file is, in a word for people; empty for a regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "unknown thing")


def read_umask() -> int:
    """The umask of this process, if possible without changing it for an instant."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_KINDS: Final = {
    stat.S_IFREG: "",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}


def _look_and_rename(dirfd: int, old: bytes, new: bytes) -> None:
    try:
        os.stat(new, dir_fd=dirfd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=dirfd, dst_dir_fd=dirfd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
