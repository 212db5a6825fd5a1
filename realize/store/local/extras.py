"""Owners, access control lists and extended attributes: reading them at a source, setting them at a destination.

For a thread; loaded only where they are asked for.

**The order.** Whoever gets a file must never, not for an instant, read it if the source did not let him.
While a file is given its attributes nobody but its owner has access: a partial has the mode of one, and a file that is
there already loses the permissions of others first.
Then come the extended attributes, the group and the owner, the access control lists, and last of all the permissions,
which our callers set.

**What cannot be kept** is an error that names it, and the file stays at its source, whose removal would destroy the
only copy of it; unless its sender says that it need not be kept (`realize.extras.Extras.lenient`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from attrs import evolve

from realize.errors import AclNotKept, NotKept, NotRegular, OwnerNotKept, RealizeError, SourceChanged, XattrNotKept
from realize.extras import Extras, FoundExtras, Owner, WantedExtras
from realize.fs import acls, principals, xattrs
from realize.fs.descriptors import release
from realize.fs.oserrors import Deed, reason, storage_error
from realize.fs.syscalls import fresh_fstat, fresh_stat, kind_of
from realize.fs.tree import Tree
from realize.store.local.acceptance import Acceptance
from realize.store.local.location import RootedLocation
from realize.store.local.partial_marks import RECEIVING, forget_given, note_given, refuse_ours
from realize.store.local.versions import READ_FLAGS, unchanged, version_of
from realize.units import display_name
from realize.values import (
    MAX_EXTRAS_BYTES,
    Preserve,
)

_KIND_ERRORS: Final[dict[Preserve, type[NotKept]]] = {
    Preserve.OWNER: OwnerNotKept,
    Preserve.ACL: AclNotKept,
    Preserve.XATTR: XattrNotKept,
}
_WHAT: Final = {
    Preserve.OWNER: "its owner cannot be kept",
    Preserve.ACL: "its access control list cannot be kept",
    Preserve.XATTR: "its extended attributes cannot be kept",
}
_CANNOT: Final = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EOPNOTSUPP,
        errno.ENOSYS,  # a file system in user space that knows no such call
        errno.EINVAL,
        errno.E2BIG,
        errno.ERANGE,
        errno.ENOSPC,  # ext4 has little room for them, however much there is for content; see `_is_full`
        errno.EOVERFLOW,
    }
)
"""Errors of calls that set something which the file system does not take, or which we may not set."""

ALL_PERMISSIONS: Final = 0o777

_LISTED_ACL: Final = acls.ACCESS.encode()

_SURELY_FITS_BYTES: Final = 512
"""What every file system takes that takes any of it; ext4, with blocks of 1 KiB, takes little more."""

_FULL_BYTES: Final = 1 << 20
"""A file system with less room than this is full: there may be none for an extended attribute."""

_CAP_CHOWN: Final = 1 << 0
_CAP_FOWNER: Final = 1 << 3


def _tells(name: bytes) -> bool:
    """Return whether an extended attribute of that name says more of a file than who owns it."""
    return name == _LISTED_ACL or xattrs.is_carried(name) or xattrs.is_lost(name)


class _NamesOf(NamedTuple):
    """The functions that know the names of users and groups."""

    user: acls.NameOf
    group: acls.NameOf


def _nobody(_: int) -> bytes:
    return b""


_NUMBERS: Final = _NamesOf(_nobody, _nobody)
_NOT_LISTED: Final = frozenset({Preserve.OWNER})


def not_kept(kind: Preserve, path: bytes, why: str) -> NotKept:
    """Return the error for a file of which something cannot be kept."""
    return _KIND_ERRORS[kind](f"{display_name(path)}: {_WHAT[kind]}: {why}")


@contextlib.contextmanager
def _kept(kind: Preserve, path: bytes, lenient: frozenset[Preserve], fd: int | None = None) -> Iterator[None]:
    """A context in which what cannot be kept is an error that says so, or, if that is ``lenient``, none.

    That the file system of ``fd`` is full is another error: there may be room for it later.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (error.errno not in _CANNOT or _is_full(error, fd)):
            raise
        if kind not in lenient:
            raise not_kept(kind, path, _why(error)) from error


def _why(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    # The system's own words are about the device.
    return "the file system keeps less with a file" if error.errno == errno.ENOSPC else reason(error)


def _is_full(error: OSError, fd: int | None) -> bool:
    """Return whether an error says that there is no room on a file system, not just none for attributes of a file."""
    if error.errno != errno.ENOSPC or fd is None:
        return False
    room = os.fstatvfs(fd)
    # Of a file system that says nothing, all is zero.
    return room.f_blocks > 0 and room.f_bavail * room.f_frsize < _FULL_BYTES


# Reading.


def read_extras(
    location: RootedLocation,
    paths: Sequence[bytes],
    wanted: frozenset[Preserve],
    numeric: bool,  # noqa: FBT001 -- in a thread
    lenient: frozenset[Preserve],
) -> list[FoundExtras | RealizeError]:
    """Return what is ``wanted`` of these files, directories or symlinks, and the version that has it.

    The answer is about the first of them, at least one, which take `MAX_EXTRAS_BYTES` together; else about all.
    """
    asked = WantedExtras(wanted, numeric, lenient)
    names = _NUMBERS if numeric else _NamesOf(principals.user_name, principals.group_name)
    answers: list[FoundExtras | RealizeError] = []
    size = 0
    with location.tree() as tree:
        for path in paths:
            try:
                found = _read(location, tree, path, asked, names)
                size += found.extras.size
                if answers and size > MAX_EXTRAS_BYTES:
                    break
                answers.append(found)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path, Deed.READ))
    return answers


def _read(location: RootedLocation, tree: Tree, path: bytes, wanted: WantedExtras, names: _NamesOf) -> FoundExtras:
    directory, name = location.split(path)
    directory_fd = tree.directory(directory)
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return FoundExtras(_of_link(status, path, wanted, names), version_of(fresh_stat(name, directory_fd)))
    fd = os.open(name, READ_FLAGS, dir_fd=directory_fd)
    try:
        before = fresh_fstat(fd)
        status = os.fstat(fd)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise NotRegular(f"{display_name(path)}: is a {kind_of(status.st_mode)}")
        refuse_ours(directory_fd, name, status, path)
        extras = _extras(fd, status, path, wanted, names)
        # Files are moved out of a directory all the time.
        if not stat.S_ISDIR(status.st_mode) and not unchanged(before, fresh_fstat(fd)):
            raise SourceChanged(f"{display_name(path)}: changed while it was read")
    finally:
        release(fd)
    if extras.size > MAX_EXTRAS_BYTES:
        raise not_kept(Preserve.ACL, path, f"with all else it takes more than {MAX_EXTRAS_BYTES} bytes")
    return FoundExtras(extras, version_of(before))


def _extras(
    fd: int,
    status: os.stat_result,
    path: bytes,
    wanted: WantedExtras,
    names: _NamesOf,
    listed: Sequence[bytes] | None = None,
) -> Extras:
    """Read it of an open file; ``listed`` are the names of its extended attributes, its list among them, if known."""
    acl = default_acl = found = None
    if Preserve.ACL in wanted.kinds:
        with _kept(Preserve.ACL, path, wanted.lenient):
            acl = b"" if listed is not None and _LISTED_ACL not in listed else _acl(fd, acls.ACCESS, names)
            default_acl = _acl(fd, acls.DEFAULT, names) if stat.S_ISDIR(status.st_mode) else None
    if Preserve.XATTR in wanted.kinds:
        with _kept(Preserve.XATTR, path, wanted.lenient):
            if listed is None:
                listed = xattrs.listed(fd)
            found = xattrs.read(fd, listed)
            if (other := xattrs.lost(listed)) is not None and Preserve.XATTR not in wanted.lenient:
                raise ValueError(f"{display_name(other)} cannot be kept")
    return evolve(_of_link(status, path, wanted, names), acl=acl, default_acl=default_acl, xattrs=found)


def _of_link(status: os.stat_result, path: bytes, wanted: WantedExtras, names: _NamesOf) -> Extras:
    """Return what a symlink has, and any file has."""
    owner = None
    if Preserve.OWNER in wanted.kinds:
        with _kept(Preserve.OWNER, path, wanted.lenient):
            owner = _owner(status.st_uid, status.st_gid, names)
    return Extras(owner, numeric=wanted.numeric)


def _owner(uid: int, gid: int, names: _NamesOf) -> Owner:
    if uid == principals.unmapped_user() or gid == principals.unmapped_group():
        raise ValueError("it is somebody who has no number in this user namespace")
    return Owner(uid, gid, names.user(uid), names.group(gid))


def _acl(fd: int, name: str, names: _NamesOf) -> bytes:
    """Return the portable form of a list of an open file; empty if it has none."""
    try:
        found = os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in xattrs.NO_XATTR_ERRORS:
            raise
        unsupported = error.errno == errno.EOPNOTSUPP
    else:
        return acls.portable(found, names.user, names.group)
    if unsupported and name == acls.ACCESS and xattrs.value_of(fd, acls.NFS4) is not None:
        raise ValueError("it is one of NFS version 4, which cannot be kept")
    return b""


class AtHand:
    """Tells what is ``wanted`` of files that somebody reads anyway, for one batch, without anything that takes time.

    What it does not tell is for `read_extras`: who has a number, where that is not known; what cannot be kept; and all
    beyond `MAX_EXTRAS_BYTES`.
    """

    def __init__(self, wanted: WantedExtras) -> None:
        self._wanted = wanted
        self._names_of = _NUMBERS if wanted.numeric else _NamesOf(principals.known_user, principals.known_group)
        self._room = MAX_EXTRAS_BYTES
        self._plain: dict[tuple[int, int], Extras] = {}
        """What files have that have only an owner, by that."""

    def of_file(self, tree: Tree, fd: int, status: os.stat_result, path: bytes) -> Extras | None:
        """Tell it of an open file, which has that status and is looked at once more afterwards."""
        try:
            listed = self._listed(tree, fd, status)
            if listed is not None and not any(map(_tells, listed)):
                return self._of_plain(status, path)
            extras = self._to_be_set(_extras(fd, status, path, self._wanted, self._names_of, listed))
        except (OSError, RealizeError, KeyError):
            return None
        self._room -= extras.size
        return extras if self._room >= 0 else None

    def of_link(self, status: os.stat_result, path: bytes) -> Extras | None:
        """Tell it of a symlink that has that status."""
        try:
            return self._of_plain(status, path)
        except (RealizeError, KeyError):
            return None

    def _listed(self, tree: Tree, fd: int, status: os.stat_result) -> list[bytes] | None:
        """Return the names of all that is to be read of it by its name; None if they do not tell."""
        kinds = self._wanted.kinds
        if Preserve.ACL in kinds and not tree.lists_acls(fd, status):
            return None
        return [] if kinds <= _NOT_LISTED else xattrs.listed(fd)

    def _of_plain(self, status: os.stat_result, path: bytes) -> Extras:
        owner = status.st_uid, status.st_gid
        found = self._plain.get(owner)
        if found is None:
            kinds = self._wanted.kinds
            found = self._plain[owner] = evolve(
                self._to_be_set(_of_link(status, path, self._wanted, self._names_of)),
                acl=b"" if Preserve.ACL in kinds else None,
                xattrs=b"" if Preserve.XATTR in kinds else None,
            )
        return found

    def _to_be_set(self, extras: Extras) -> Extras:
        return evolve(extras, lenient=self._wanted.lenient, leaves=self._wanted.leaves)


# Setting.


def foresee(
    location: RootedLocation, paths: Sequence[bytes], asked: Sequence[Extras], acceptance: Acceptance
) -> list[RealizeError | None]:
    """Return why something could not be kept of each of these files, as far as that shows without trying it."""
    answers: list[RealizeError | None] = []
    with location.tree() as tree:
        for path, extras in zip(paths, asked, strict=True):
            try:
                # Not at the top: another file system may be mounted further below.
                fd, _ = tree.nearest(location.split(path)[0])
                _foresee(fd, acceptance.extras(extras, path), path)
            except RealizeError as error:
                answers.append(error)
            except (OSError, MemoryError) as error:
                answers.append(storage_error(error, path))
            else:
                answers.append(None)
    return answers


def _foresee(fd: int, extras: Extras, path: bytes) -> None:
    with _kept(Preserve.OWNER, path, extras.lenient):
        uid, gid = _numbers(extras)
        if _is_of_others(uid, gid) and not _may_give_away():
            raise ValueError(os.strerror(errno.EPERM))
    with _kept(Preserve.ACL, path, extras.lenient):
        for form in (extras.acl, extras.default_acl):
            if form:
                acls.kept(form, *_here(numeric=extras.numeric))
    if extras.xattrs and not xattrs.supported(fd):
        with _kept(Preserve.XATTR, path, extras.lenient):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    if extras.size > _SURELY_FITS_BYTES:
        _try(fd, extras, path)


def _try(directory_fd: int, extras: Extras, path: bytes) -> None:
    """Give it to a file without a name, where there can be one; raises what it would raise in the end."""
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    except OSError:
        return
    try:
        _give(fd, os.fstat(fd), evolve(extras, default_acl=None), path)
    finally:
        release(fd)


def give_to_partial(
    fd: int, status: os.stat_result, extras: Extras, path: bytes, *, lists_acls: bool
) -> tuple[int, bool]:
    """Give a partial, which has that status and the mode of one, all but its mode and its time.

    Returns the permission bits that it may have at most: fewer, if it does not get its list, which need not be kept;
    and whether it was given anything: most files belong to whoever writes them, and have no more than that.
    ``lists_acls`` is as for `realize.fs.syscalls.lists_acls`.
    """
    if not extras.kinds or _has_all(fd, status, extras, lists_acls=lists_acls):
        return ALL_PERMISSIONS, False
    note_given(fd)
    return _give(fd, status, extras, path), True


def _has_all(fd: int, status: os.stat_result, extras: Extras, *, lists_acls: bool) -> bool:
    """Return whether a file surely has just what it is to be given, so that there is nothing to set."""
    if extras.acl or extras.xattrs or extras.default_acl is not None:
        return False
    try:
        uid, gid = _numbers(extras)
        if uid not in {None, status.st_uid} or gid not in {None, status.st_gid}:
            return False
        names = xattrs.listed(fd) if extras.xattrs is not None or (extras.acl is not None and lists_acls) else ()
        if extras.xattrs is not None and any(map(xattrs.is_carried, names)):
            return False
        if extras.acl is None:
            return True
        return _LISTED_ACL not in names if lists_acls else xattrs.value_of(fd, acls.ACCESS) is None
    except (OSError, ValueError):
        # Whoever sets it says what is wrong.
        return False


def give_to_final(fd: int, extras: Extras, path: bytes) -> int:
    """Give a file or a directory that is there already all but its mode and its time; returns the same.

    Where its access changes, it loses what others may do with it meanwhile: our caller sets the mode in any case.
    """
    if not extras.kinds:
        return ALL_PERMISSIONS
    status = os.fstat(fd)
    permissions = stat.S_IMODE(status.st_mode)
    narrowed = _changes_access(fd, status, extras)
    if narrowed:
        os.fchmod(fd, permissions & ~0o077)
    former = xattrs.value_of(fd, acls.ACCESS) if extras.acl is not None else None
    try:
        return _give(fd, status, extras, path)
    except BaseException:
        if narrowed:
            # In this order: what cannot be put back stays private, or its permissions would be those of other people.
            with contextlib.suppress(OSError):
                _put_back(fd, status, extras, former)
                os.fchmod(fd, permissions)
        raise


def _put_back(fd: int, status: os.stat_result, extras: Extras, former: bytes | None) -> None:
    """Give a file back its owner, its group and its list."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    if extras.acl is not None and xattrs.value_of(fd, acls.ACCESS) != former:
        if former is None:
            _set_acl(fd, acls.ACCESS, b"", numeric=True)
        else:
            os.setxattr(fd, acls.ACCESS, former)


def take_back(fd: int, directory_fd: int) -> None:
    """Make a partial of ours in a directory, which did not get its final name, one for us alone again."""
    with contextlib.suppress(OSError):
        os.fchown(fd, -1, _group_of_new(directory_fd))
        os.fchmod(fd, RECEIVING)
        _set_acl(fd, acls.ACCESS, b"", numeric=True)
        xattrs.replace(fd, b"")
        forget_given(fd)


def _group_of_new(directory_fd: int) -> int:
    """Return the group of a new file there: that of the directory if it has the set-gid bit."""
    status = os.fstat(directory_fd)
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def _give(fd: int, status: os.stat_result, extras: Extras, path: bytes) -> int:
    most = ALL_PERMISSIONS
    if extras.xattrs is not None:
        with _kept(Preserve.XATTR, path, extras.lenient, fd):
            xattrs.replace(fd, extras.xattrs)
    if extras.owner is not None:
        with _kept(Preserve.OWNER, path, extras.lenient, fd):
            _set_owner(fd, status, extras)
    if extras.acl is not None:
        kept = False
        with _kept(Preserve.ACL, path, extras.lenient, fd):
            _set_acl(fd, acls.ACCESS, extras.acl, numeric=extras.numeric)
            kept = True
        if not kept and extras.acl:
            most = acls.most_without(extras.acl)
            # Nor may one of the directory be opened by our mode.
            _set_acl(fd, acls.ACCESS, b"", numeric=True)
    if extras.default_acl is not None:
        with _kept(Preserve.ACL, path, extras.lenient, fd):
            _set_acl(fd, acls.DEFAULT, extras.default_acl, numeric=extras.numeric)
    return most


def _changes_access(fd: int, status: os.stat_result, extras: Extras) -> bool:
    if extras.acl is not None and (extras.acl or xattrs.value_of(fd, acls.ACCESS) is not None):
        return True
    try:
        uid, gid = _numbers(extras)
    except ValueError:
        return False  # nothing will be set
    return uid not in {None, status.st_uid} or gid not in {None, status.st_gid}


def _numbers(extras: Extras) -> tuple[int | None, int | None]:
    """Return the numbers of owner and group here; None for those that do not matter.

    Raises `ValueError` if nobody has that name here, unless owners need not be kept.
    """
    owner = extras.owner
    if owner is None:
        return None, None
    if extras.numeric:
        return owner.uid, owner.gid
    lenient = Preserve.OWNER in extras.lenient
    return (
        _number("user", owner.uid, owner.user, lenient=lenient),
        _number("group", owner.gid, owner.group, lenient=lenient),
    )


def _number(kind: str, number: int, name: bytes, *, lenient: bool = False) -> int | None:
    user = kind == "user"
    found = principals.number_here(
        number,
        name,
        principals.user_number if user else principals.group_number,
        principals.user_name if user else principals.group_name,
    )
    if found is None and not lenient:
        if name:
            raise ValueError(f"there is no {kind} {display_name(name)} here")
        raise ValueError(f"{kind} {number} has no name at the source, and that number belongs to somebody else here")
    return found


def _here(*, numeric: bool) -> tuple[acls.NumberOf, acls.NumberOf]:
    """The functions that find the numbers of the users and groups of a list; they raise `ValueError` for nobody."""
    if numeric:
        return _same_number, _same_number
    return partial(_listed_number, "user"), partial(_listed_number, "group")


def _same_number(number: int, _: bytes) -> int:
    return number


def _listed_number(kind: str, number: int, name: bytes) -> int:
    found = _number(kind, number, name)
    assert found is not None  # noqa: S101 -- for the type checker
    return found


def _set_owner(fd: int, status: os.stat_result, extras: Extras) -> None:
    """Set group and owner, in this order, since who is no longer the owner may not set the group.

    An owner who could not have its mode set any more is not set.
    """
    uid, gid = _numbers(extras)
    if gid is not None and gid != status.st_gid:
        os.fchown(fd, -1, gid)
        _refuse_other_owner(fd, None, gid)
    if uid is None or uid == status.st_uid:
        return
    os.fchown(fd, uid, -1)
    try:
        _refuse_other_owner(fd, uid, gid)
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode))
    except PermissionError:
        os.fchown(fd, status.st_uid, status.st_gid)
        raise


def _refuse_other_owner(fd: int, uid: int | None, gid: int | None) -> None:
    """Raise `PermissionError` if a file has another owner or group than it was given: some file systems ignore that."""
    now = os.fstat(fd)
    if uid not in {None, -1, now.st_uid} or gid not in {None, -1, now.st_gid}:
        raise PermissionError(errno.EPERM, "the file system keeps no owners")


def link_owner(extras: Extras, path: bytes) -> tuple[int, int] | None:
    """Return which owner and group a symlink gets, -1 for none; None if neither matters.

    Raises `NotKept` if it has to have one that nobody is here, or that we may not set.
    """
    with _kept(Preserve.OWNER, path, extras.lenient):
        uid, gid = _numbers(extras)
        if _is_of_others(uid, gid) and not _may_give_away():
            raise ValueError(os.strerror(errno.EPERM))
        if uid is not None or gid is not None:
            return (-1 if uid is None else uid), (-1 if gid is None else gid)
    return None


def set_link_owner(fd: int, owner: tuple[int, int], extras: Extras, path: bytes) -> None:
    """Give a symlink, open with O_PATH, its owner and its group."""
    with _kept(Preserve.OWNER, path, extras.lenient):
        # Through /proc: fchown(2) refuses such a descriptor.
        os.chown(f"/proc/self/fd/{fd}", *owner)
        _refuse_other_owner(fd, *owner)


def _is_of_others(uid: int | None, gid: int | None) -> bool:
    if uid not in {None, os.geteuid()}:
        return True
    return gid not in {None, os.getegid()} and gid not in os.getgroups()


def _set_acl(fd: int, name: str, form: bytes, *, numeric: bool) -> None:
    """Set a list, or, if that is empty, remove the one that the file may have from its directory."""
    if form:
        kept = acls.kept(form, *_here(numeric=numeric))
        os.setxattr(fd, name, kept)
        if len(kept) > acls.PLAIN_BYTES and xattrs.value_of(fd, name) is None:
            raise OSError(errno.EOPNOTSUPP, "the file system keeps no access control lists")
        return
    try:
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in xattrs.NO_XATTR_ERRORS:
            raise


def _may_give_away() -> bool:
    """Return whether this thread may give files away, and set their permissions afterwards."""
    needed = _CAP_CHOWN | _CAP_FOWNER
    with contextlib.suppress(OSError, ValueError), open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16) & needed == needed
    return os.geteuid() == 0
