"""System calls that Python does not offer, made through libc.

Like the functions of `os`, everything here raises `OSError`.
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
_RENAME_EXCHANGE: Final = 2
_SYNC_FILE_RANGE_WRITE: Final = 2
_SYNC_FILE_RANGE_WRITE_AND_WAIT: Final = 1 | 2 | 4
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NOT_OFFERED: Final = _UNSUPPORTED | {errno.EPERM}  # by the kernel, the file system or a filter of system calls
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""Errors of link(2) where there are no hard links, or no more of them for a file."""


BTRFS: Final = 0x9123683E
"""The number that `file_system` returns for btrfs."""

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
_NO_CHANGE_TIMES: Final = frozenset({0x4D44, 0x2011BAB0})  # FAT, exFAT
_FUSE: Final = 0x65735546
_9P: Final = 0x01021997
_OLD_CONTENT: Final = frozenset({_FUSE, _9P})

_LOCAL: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        BTRFS,
        0xF2F52010,  # F2FS
        0x01021994,  # tmpfs
    }
)
"""File systems whose files only this kernel changes, which syncfs(2) makes durable, and which list what they keep."""


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
    """A buffer for the result of statx(2), one per thread."""

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
"""On older kernels syncfs(2) does not report failed writes, see its man page."""


def syncfs(fd: int) -> None:
    """Make everything on the file system of ``fd`` durable.

    Raises `OSError` if any write to that file system has failed since ``fd`` was opened.
    """
    if _syncfs(fd):
        _raise_errno()


def syncs_as_a_whole(fd: int) -> bool:
    """Return whether `syncfs` may replace an fsync of every file on the file system of ``fd``.

    Only for file systems known to write data and metadata and to flush the device: FUSE, for one, does not pass it on.
    """
    return HAVE_SYNCFS and file_system(fd) in _LOCAL


def keeps_modes(fd: int) -> bool:
    """Return False if the file system of ``fd`` is known to make up the modes that it shows."""
    return file_system(fd) not in _NO_MODES


def may_keep_old_content(fd: int) -> bool:
    """Return whether the file system of ``fd`` may serve old content from its cache after the status has changed.

    FUSE does if its server lets it keep the cache when a file is opened, and the content changes but not the size.
    """
    return file_system(fd) in _OLD_CONTENT


def keeps_change_times(fd: int) -> bool:
    """Return whether the file system of ``fd`` remembers when a file was renamed."""
    return file_system(fd) not in _NO_CHANGE_TIMES


def renames_what_is_open(fd: int) -> bool:
    """Return whether the file system of ``fd`` may rename a file that is removed while it is open."""
    return file_system(fd) in _RENAMES


def always_fresh(fd: int) -> bool:
    """Return whether fstat(2) always says what is true now of the files on the file system of ``fd``.

    Elsewhere it may be up to some seconds old, since another machine, or a server in user space, changes them.
    """
    return file_system(fd) in _LOCAL


def lists_acls(fd: int) -> bool:
    """Return whether listxattr(2) names the access control list of each file that has one, where ``fd`` is."""
    return file_system(fd) in _LOCAL


def is_read_only(fd: int) -> bool:
    """Return whether nothing can be changed through the mount of ``fd``, whatever the permissions are."""
    return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def is_elsewhere(fd: int) -> bool:
    """Return whether the file system of ``fd`` is known to be one of another machine, or of a server in user space."""
    return file_system(fd) in _RENAMES


def file_system(fd: int) -> int:
    """Return the number that statfs(2) reports for the type of the file system of ``fd``."""
    answer = (ctypes.c_long * 64)()
    if _fstatfs(fd, answer):
        _raise_errno()
    return answer[0] & 0xFFFFFFFF


def link_open_file(fd: int, name: bytes, dirfd: int) -> None:
    """Give an open file, which may be open as a path only, another name; raises `FileExistsError` if that is taken."""
    os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=dirfd, follow_symlinks=True)


def rename_noreplace(dirfd: int, old: bytes, new: bytes, new_dirfd: int | None = None) -> None:
    """Rename within a directory, or into ``new_dirfd``; raises `FileExistsError` if anything has the new name.

    On a file system without RENAME_NOREPLACE we use link(2) and unlink(2), which is as safe.
    On one that has no hard links either, we look before we rename, and a file that gets the name in the microseconds
    between the two is replaced.
    """
    there = dirfd if new_dirfd is None else new_dirfd
    if _renameat2 is not None:
        if not _renameat2(dirfd, old, there, new, _RENAME_NOREPLACE):
            return
        if ctypes.get_errno() not in _UNSUPPORTED:
            _raise_errno()
    try:
        os.link(old, new, src_dir_fd=dirfd, dst_dir_fd=there, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _look_and_rename(dirfd, old, there, new)
    else:
        os.unlink(old, dir_fd=dirfd)


def rename_exchange(dirfd: int, one: bytes, other: bytes) -> bool:
    """Let two names in a directory refer to each other's files, at once; return False if that is not supported."""
    if _renameat2 is None:
        return False
    if not _renameat2(dirfd, one, dirfd, other, _RENAME_EXCHANGE):
        return True
    if ctypes.get_errno() not in _UNSUPPORTED:
        _raise_errno()
    return False


class RawStatus(NamedTuple):
    """The useful part of `os.stat_result`, as the file system itself reports it at this moment."""

    st_nlink: int
    st_uid: int
    st_mode: int
    st_ino: int
    st_size: int
    st_ctime_ns: int
    st_mtime_ns: int
    st_dev: int


FileStatus: TypeAlias = RawStatus | os.stat_result
"""The status of a file, by statx(2) or by stat(2)."""


def fresh_stat(name: bytes, dirfd: int) -> FileStatus:
    """Return the status of a name in a directory, bypassing attribute caches and not following symlinks.

    On a network file system, or one in user space, stat(2) may return what was true some seconds ago; so does this
    where statx(2) is not available.
    """
    found = _look(dirfd, name, _AT_SYMLINK_NOFOLLOW)
    return os.stat(name, dir_fd=dirfd, follow_symlinks=False) if found is None else found


def fresh_fstat(fd: int) -> FileStatus:
    """As `fresh_stat`, for an open file."""
    found = _look(fd, b"", _AT_EMPTY_PATH)
    return os.fstat(fd) if found is None else found


def birth_ns(fd: int, name: bytes = b"") -> int:
    """Return the birth time of ``fd``, or of ``name`` in that directory, in ns since the epoch; 0 if unknown."""
    answer = _buffers.answer
    flags = _AT_SYMLINK_NOFOLLOW if name else _AT_EMPTY_PATH
    if _statx is None or _statx(fd, name, flags, _STATX_BTIME, answer):
        return 0
    known, seconds, nanoseconds = _STATX_BIRTH.unpack_from(answer)
    return seconds * 1_000_000_000 + nanoseconds if known & _STATX_BTIME else 0


def _look(fd: int, name: bytes, flags: int) -> RawStatus | None:
    """Call statx(2); return None if the kernel, the C library or a system call filter does not allow it."""
    if _statx is None:
        return None
    answer = _buffers.answer
    if _statx(fd, name, flags | _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, answer):
        if ctypes.get_errno() in _NOT_OFFERED:
            return None
        _raise_errno()
    links, uid, mode, inode, size, ctime, ctime_ns, mtime, mtime_ns, major, minor = _STATX.unpack_from(answer)
    ctime_ns += ctime * 1_000_000_000
    mtime_ns += mtime * 1_000_000_000
    return RawStatus(links, uid, mode, inode, size, ctime_ns, mtime_ns, os.makedev(major, minor))


def is_open_for_writing(fd: int, *, closing: bool = False) -> bool:
    """Return whether a process on this machine has the file open for writing, or mapped writable.

    The kernel refuses a read lease on such a file; one that is granted is given back at once, or, with ``closing``,
    when the caller closes ``fd``, which it must do in a moment.
    While we hold it, a process that opens the file for writing waits, and we get a signal, SIGURG, which is ignored by
    default.
    Also returns False where this cannot be known: a lease needs the owner of the file or CAP_LEASE, and a file system
    that supports leases.
    """
    try:
        fcntl.fcntl(fd, _F_SETSIG, _SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE)  # F_RDLCK is 0; to pass that takes Python as long as the rest
        if not closing:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)  # EAGAIN: an opener has waited so long that it was revoked
    except OSError as error:
        return error.errno == errno.EAGAIN and file_system(fd) not in _REMOTE_LEASES
    return False


def has_lease(fd: int) -> bool:
    """Return whether ``fd`` has a read lease that no opener waits for."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to start writing a range to disk, so that a later fsync has less to wait for; only a hint."""
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def drop_cache(fd: int) -> None:
    """Have what is read of an open file from now on come from its disk, not from the page cache.

    What is not written yet is written first; raises `OSError` if that fails, or has failed and nobody was told.
    Nothing is flushed, so the disk may have it in a cache of its own.
    The page cache keeps what a process has mapped.
    """
    if _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE_AND_WAIT) and ctypes.get_errno() not in _NOT_OFFERED:
        _raise_errno()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def fsync_directory(fd: int) -> None:
    """Make the names in a directory durable; ignored where the file system does not support it."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def kind_of(mode: int) -> str:
    """Return the type of a file in words for users; empty for a regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "unknown thing")


def read_umask() -> int:
    """Return the umask of this process, if possible without changing it for an instant."""
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


def _look_and_rename(dirfd: int, old: bytes, new_dirfd: int, new: bytes) -> None:
    try:
        os.stat(new, dir_fd=new_dirfd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=dirfd, dst_dir_fd=new_dirfd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
