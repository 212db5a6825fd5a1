"""Owners, access control lists and extended attributes of a directory of this machine."""

import errno
import io
import os
import stat
import struct
from pathlib import Path

import pytest
from attrs import evolve

from realize.errors import AclNotKept, Busy, NoSpace, NotRegular, OwnerNotKept, ProtocolError, XattrNotKept
from realize.extras import Extras, FoundExtras, Owner, WantedExtras
from realize.fs import acls, awaiting, principals, syscalls, tree, xattrs
from realize.fs.names import partial_name
from realize.store.local import extras as module
from realize.store.local import group_commit, links
from realize.store.local.acceptance import Acceptance
from realize.store.local.partial_marks import GIVEN, MARK
from realize.store.local.store import LocalStore
from realize.values import (
    EXTRAS,
    Attributes,
    Directory,
    Expected,
    Kind,
    Linked,
    OnConflict,
    Preserve,
    Stored,
    Symlink,
)
from tests.extras_contract import COLOUR, KEPT, OURS
from tests.local_stores import as_nobody, at_once, open_root
from tests.local_stores import opened as opened_at
from tests.store_helpers import digest, listed_files, small_file

__all__ = ["open_root"]

ROOT = os.geteuid() == 0
"""Whether files can be given away; where they cannot, the tests expect what becomes of that."""

NONE: frozenset[Preserve] = frozenset()
NO_ID = 0xFFFFFFFF


def linux_acl(*entries):
    """A list as Linux keeps it."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


READ_BY_BIN = linux_acl((1, 6, NO_ID), (2, 4, 2), (4, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID))
SHUT = linux_acl((1, 6, NO_ID), (2, 6, 2), (4, 0, NO_ID), (0x10, 6, NO_ID), (0x20, 0, NO_ID))
"""A list that lets somebody in, and the group of the file not."""

DAEMON = Owner(1, 1, b"daemon", b"daemon")


def with_extras(**fields):
    """Attributes of a file, private to its owner and group, with these extras."""
    return Attributes(1_000_000_000, 0o640, Extras(**fields))


async def put(store, attributes, path=b"f", content=b"1"):
    """The outcome of a small file."""
    [outcome] = await store.put_small([small_file(path, content, attributes)], OnConflict.REPLACE)
    return outcome


async def read(store, path=b"f", wanted=EXTRAS, **options):
    """What a store tells of a file, or its error."""
    [found] = await store.read_extras([path], wanted, **{"lenient": NONE, **options})
    return found.extras if isinstance(found, FoundExtras) else found


def names_of(path):
    """The names of the extended attributes of a file."""
    return os.listxattr(path)


@pytest.fixture
def place(open_root):
    """A directory that others may enter."""
    return Path(os.fsdecode(open_root))


async def opened(place, **options):
    """A store there."""
    return await opened_at(os.fsencode(place), **options)


def refuse_owners(monkeypatch):
    """Fail when anything is given an owner; a sync only looks whether the file system still takes changes."""
    monkeypatch.setattr(os, "fchown", lambda _fd, *owner: owner == (-1, -1) or pytest.fail(f"fchown {owner}"))


@pytest.fixture
def strangers(monkeypatch):
    """Nobody has a name, or a number, but those that are put there."""
    known = {}
    monkeypatch.setattr(principals, "user_name", lambda number: known.get(number, b""))
    monkeypatch.setattr(principals, "group_name", lambda number: known.get(number, b""))
    by_name = lambda name: next((number for number, each in known.items() if each == name), None)  # noqa: E731
    monkeypatch.setattr(principals, "user_number", by_name)
    monkeypatch.setattr(principals, "group_number", by_name)
    return known


# What travels.


def test_lists_travel_with_names():
    """Numbers of users and groups are those of another machine; the rest of a list is the same everywhere."""
    form = acls.portable(READ_BY_BIN, lambda number: b"user%d" % number, lambda number: b"group%d" % number)

    assert READ_BY_BIN == acls.kept(form, lambda number, name: number, lambda number, name: number)
    moved = acls.kept(form, lambda number, name: {b"user2": 77}[name], lambda number, name: 0)
    assert linux_acl((1, 6, NO_ID), (2, 4, 77), (4, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID)) == moved


@pytest.mark.parametrize(
    "form", [b"\1", b"\1\7\0\0\0\0\1", b"\3\7\0\0\0\0\0", b"\1\x08\0\0\0\0\0", b"\1\7\0\0\0\0\0" * 257]
)
def test_what_is_no_list(form):
    """It is refused before anything is set."""
    with pytest.raises(ProtocolError):
        acls.kept(form, lambda number, name: 0, lambda number, name: 0)


@pytest.mark.parametrize("kept", [b"", b"\1\0\0\0", READ_BY_BIN + b"\0", linux_acl(*[(2, 7, 5)] * 257)])
def test_lists_that_do_not_travel(kept):
    """Of another version, damaged, or endless."""
    with pytest.raises(ValueError, match="access control list"):
        acls.portable(kept, lambda number: b"", lambda number: b"")


@pytest.mark.parametrize(
    ("name", "carried", "lost"),
    [
        (b"user.colour", True, False),
        (b"user.realizes", True, False),
        (b"user.realize.origin", False, False),
        (b"user.realize.partial", False, False),
        (b"user.overlay.opaque", False, False),
        (b"user.containers.override_stat", False, False),
        (b"user.DOSATTRIB", False, True),
        (b"user.", False, True),
        (b"security.capability", False, True),
        (b"security.selinux", False, False),
        (b"trusted.overlay.opaque", False, False),
        (b"trusted.md5", False, True),
        (b"system.posix_acl_access", False, False),
    ],
)
def test_which_extended_attributes_travel(name, carried, lost):
    """Those of users, but none that programs keep for themselves; what would be missed is told apart."""
    assert (carried, lost) == (xattrs.is_carried(name), xattrs.is_lost(name))


@pytest.mark.parametrize(
    "form",
    [
        b"\x13user.realize.origin\0\1x",
        b"\x13security.capability\0\1x",
        b"\x0dtrusted.other\0\1x",
        b"\x17system.posix_acl_access\0\1x",
        b"\6user.x\0\2x",
        b"\6user",
        b"\6user.x",
        b"\7user.\0x\0\0",
        b"\0\0\0",
    ],
)
async def test_no_peer_sets_what_is_not_carried_over(place, form):
    """Nor anything before it in the same list: the file does not arrive."""
    store = await opened(place)

    outcome = await put(store, with_extras(xattrs=COLOUR + form))

    assert isinstance(outcome, ProtocolError)
    assert [] == os.listdir(place)


# Setting.


async def test_an_owner_is_found_by_name(place, strangers):
    """The number is that of the name here, whatever it was there; who may not give files away cannot keep it."""
    store = await opened(place)
    strangers[2] = b"daemon"

    outcome = await put(store, with_extras(owner=DAEMON))

    if not ROOT:
        assert isinstance(outcome, OwnerNotKept)
        return
    status = os.stat(place / "f")
    assert (2, 2, 0o640) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    assert [] == names_of(place / "f")
    assert Owner(2, 2, b"daemon", b"daemon") == (await read(store)).owner


@pytest.mark.parametrize(
    ("owner", "numeric", "known", "why"),
    [
        (Owner(1, 1, b"kim", b"staff"), False, {}, "there is no user kim here"),
        (Owner(1, 0, b"", b"root"), False, {1: b"lee", 0: b"root"}, "user 1 has no name at the source"),
        (Owner(1, 1, b"", b""), False, {}, None),
        (Owner(1, 1, b"kim", b"staff"), True, {1: b"lee"}, None),
    ],
)
async def test_who_an_owner_is_here(place, strangers, owner, numeric, known, why):
    """Nobody gets a file because his number is that of somebody else elsewhere, unless numbers are asked for."""
    store = await opened(place)
    strangers.update(known)
    attributes = with_extras(owner=owner, numeric=numeric)

    outcome, [foreseen] = await put(store, attributes), await store.foresee([b"f"], [attributes.extras])

    if why is None:
        assert isinstance(outcome, Stored if ROOT else OwnerNotKept)
        assert ROOT == (foreseen is None)
    else:
        assert [OwnerNotKept] * 2 == [type(outcome), type(foreseen)]
        assert why in str(outcome)
        assert not (place / "f").exists()


async def test_what_need_not_be_kept_is_left_out(place, strangers):
    """The file arrives, with all that can be kept."""
    store = await opened(place)
    attributes = with_extras(owner=DAEMON, xattrs=COLOUR, lenient=frozenset({Preserve.OWNER}))

    outcome = await put(store, attributes)

    assert isinstance(outcome, Stored)
    assert b"red" == os.getxattr(place / "f", "user.colour")
    assert os.geteuid() == os.stat(place / "f").st_uid


async def test_without_the_capability_nothing_is_given_away(place):
    """Nor does anything arrive; what is ours already may stay so."""
    os.chmod(place, 0o777)
    store = await opened(place, run_in_thread=as_nobody)
    daemon = with_extras(owner=DAEMON, numeric=True)

    outcome, [foreseen] = await put(store, daemon), await store.foresee([b"f"], [daemon.extras])

    assert [OwnerNotKept] * 2 == [type(outcome), type(foreseen)]
    assert [] == os.listdir(place)


async def test_an_owner_that_the_file_system_ignores_is_not_kept(place, monkeypatch):
    """Such as vfat with "quiet", or NTFS by FUSE: they take a new owner without an error, and keep the old one."""
    store = await opened(place)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(module, "_may_give_away", lambda: True)

    outcomes = []
    for owner in (Owner(12345, os.getegid()), Owner(os.geteuid(), 12345)):
        extras = Extras(owner, numeric=True)
        outcomes.append(await put(store, with_extras(owner=owner, numeric=True)))
        outcomes += await store.put_links([Symlink(b"l", b"x", 7, extras)], OnConflict.FAIL)

    assert [OwnerNotKept] * 4 == [type(each) for each in outcomes]
    assert "keeps no owners" in str(outcomes[0])


async def test_an_owner_that_could_not_be_undone_is_not_set(place, monkeypatch):
    """Who may give a file away, and not set its mode any more, takes it back: its mark would stay for good."""
    store = await opened(place)
    given = []
    monkeypatch.setattr(os, "fchown", lambda _fd, *owner: given.append(owner))
    monkeypatch.setattr(module, "_refuse_other_owner", lambda *_: None)
    plain = os.fchmod

    def fchmod(fd, mode):
        if given:
            raise PermissionError(errno.EPERM, "no")
        plain(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    outcome = await put(store, with_extras(owner=Owner(12345, os.getegid()), numeric=True))

    assert isinstance(outcome, OwnerNotKept)
    assert [(12345, -1), (os.geteuid(), os.getegid())] == given


async def test_a_partial_is_private_until_it_has_its_lists(place, monkeypatch):
    """Extended attributes, group, owner, list, mode: at each step nobody but the owner has access."""
    store = await opened(place)
    steps = []

    def noting(name, real):
        def call(fd, *arguments):
            steps.append((name, stat.S_IMODE(os.fstat(fd).st_mode), arguments))
            return real(fd, *arguments) if real is not None else None

        return call

    monkeypatch.setattr(os, "fchown", noting("fchown", None))
    monkeypatch.setattr(module, "_refuse_other_owner", lambda *_: None)
    monkeypatch.setattr(os, "setxattr", noting("setxattr", os.setxattr))
    monkeypatch.setattr(os, "fchmod", noting("fchmod", os.fchmod))
    acl = acls.portable(READ_BY_BIN, lambda _: b"", lambda _: b"")
    gid = os.getegid() + 1

    await put(store, with_extras(owner=Owner(12345, gid), acl=acl, xattrs=COLOUR, numeric=True))

    private = MARK | 0o600
    assert [
        ("setxattr", private, (GIVEN, b"1")),
        ("setxattr", private, (b"user.colour", b"red")),
        ("fchown", private, (-1, gid)),
        ("fchown", private, (12345, -1)),
        ("fchmod", private, (private,)),
        ("setxattr", private, (acls.ACCESS, READ_BY_BIN)),
    ] == steps[:6]
    # The sync changes nothing of the directory, twice.
    assert [("fchmod", MARK | 0o640), ("fchmod", 0o640), *[("fchown", -1)] * 2] == [
        (name, more[0]) for name, _, more in steps[6:]
    ]
    assert READ_BY_BIN == os.getxattr(place / "f", acls.ACCESS)


async def test_no_list_of_the_directory_lets_others_in(place):
    """A file that has no list at its source has none here, whatever the directory gives to what is made in it."""
    default = linux_acl((1, 7, NO_ID), (2, 7, 2), (4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 5, NO_ID))
    os.setxattr(place, acls.DEFAULT, default)
    store = await opened(place)

    await put(store, with_extras(acl=b""), b"kept")
    await put(store, Attributes(1, 0o640), b"plain")

    assert [] == names_of(place / "kept")
    assert [acls.ACCESS] == names_of(place / "plain")


async def test_lists_are_read_and_set(place):
    """Of files, and both kinds of directories."""
    (place / "d").mkdir()
    os.setxattr(place / "d", acls.DEFAULT, READ_BY_BIN)
    (place / "f").touch()
    os.setxattr(place / "f", acls.ACCESS, READ_BY_BIN)
    store = await opened(place)
    file, directory = await read(store), await read(store, b"d")

    await put(store, Attributes(1, 0o640, file), b"copy")
    copied = Directory(b"e", 0o755, 5, directory)
    await store.make_directories([copied])
    done = await store.set_directories([copied])

    assert ([True], b"") == (done, directory.acl)
    assert READ_BY_BIN == os.getxattr(place / "copy", acls.ACCESS)
    assert READ_BY_BIN == os.getxattr(place / "e", acls.DEFAULT)


async def test_a_final_file_is_never_more_open_in_between(place, monkeypatch):
    """One with the same content that is open to others loses that before it gets another list."""
    path = place / "f"
    path.write_bytes(b"1")
    path.chmod(0o644)
    store = await opened(place)
    modes = []
    setting = module._set_acl
    monkeypatch.setattr(
        module,
        "_set_acl",
        lambda fd, *more, **named: modes.append(stat.S_IMODE(os.fstat(fd).st_mode)) or setting(fd, *more, **named),
    )
    acl = acls.portable(READ_BY_BIN, lambda _: b"", lambda _: b"")
    kept = with_extras(acl=acl, numeric=True)

    settled = await store.settle([Expected(b"f", 1, digest(b"1"), kept)])

    assert ([True], [0o600]) == (settled, modes)
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("entries", "most"),
    [
        ([(1, 6), (4, 0), (0x20, 4)], 0o707),
        ([(1, 6), (2, 6), (4, 0), (0x10, 6), (0x20, 0)], 0o706),
        ([(1, 6), (2, 0), (4, 4), (0x10, 4), (0x20, 4)], 0o700),
        ([(1, 6), (2, 6), (4, 4), (0x10, 6), (0x20, 4)], 0o746),
        ([(1, 6), (4, 7), (8, 7), (0x10, 5), (0x20, 5)], 0o755),
    ],
)
def test_what_others_may_without_a_list(entries, most):
    """At most, on top of what the mode allows; its bits of the group are the mask of a list."""
    linux = linux_acl(*((tag, permissions, 2 if tag in {2, 8} else NO_ID) for tag, permissions in entries))

    assert most == acls.most_without(acls.portable(linux, lambda _: b"", lambda _: b""))


@pytest.mark.parametrize("accepted", [frozenset(), EXTRAS], ids=["not accepted", "nobody has the name"])
async def test_who_a_list_kept_out_stays_out_without_it(place, strangers, accepted):
    """A list that need not be kept, and cannot be: without it its mask would be what the group may do."""
    default = linux_acl((1, 7, NO_ID), (2, 7, 2), (4, 7, NO_ID), (0x10, 7, NO_ID), (0x20, 0, NO_ID))
    (place / "there").write_bytes(b"1")
    os.setxattr(place, acls.DEFAULT, default)
    store = await opened(place, acceptance=Acceptance(accepted))
    extras = Extras(acl=acls.portable(SHUT, lambda _: b"kim", lambda _: b""), lenient=EXTRAS)
    kept = Attributes(1_000_000_000, 0o660, extras)
    directory = Directory(b"d", 0o770, 1, extras)

    await put(store, kept, b"small")
    writer = await store.open_writer(b"large", 1, OnConflict.FAIL)
    await writer.write([b"1"])
    await writer.commit(digest(b"1"), kept)
    await store.settle([Expected(b"there", 1, digest(b"1"), kept)])
    await store.make_directories([directory])
    early = stat.S_IMODE((place / "d").stat().st_mode)
    await store.set_directories([directory])

    modes = {name: stat.S_IMODE((place / name).stat().st_mode) for name in ("small", "large", "there", "d")}
    assert (0o700, {"small": 0o600, "large": 0o600, "there": 0o600, "d": 0o700}) == (early, modes)


async def test_a_final_file_keeps_its_mode_if_something_cannot_be_kept(place, strangers):
    """It is as it was, and its source stays."""
    path = place / "f"
    path.write_bytes(b"1")
    path.chmod(0o644)
    store = await opened(place)
    acl = acls.portable(READ_BY_BIN, lambda _: b"kim", lambda _: b"")

    settled = await store.settle([Expected(b"f", 1, digest(b"1"), with_extras(acl=acl))])

    assert [AclNotKept] == [type(each) for each in settled]
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("free", [0, 1 << 30], ids=["full", "not full"])
async def test_a_full_file_system_is_not_one_that_has_no_room_for_attributes(place, monkeypatch, free):
    """What does not fit now may fit later, so a run that can do without goes on to insist on it."""
    store = await opened(place)
    setting, room = os.setxattr, os.statvfs(place)

    def setxattr(fd, name, value):
        if name == b"user.colour":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        setting(fd, name, value)

    monkeypatch.setattr(os, "setxattr", setxattr)
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result([*room[:4], free // room.f_frsize, *room[5:]]))

    strict = await put(store, with_extras(xattrs=COLOUR))
    lenient = await put(store, with_extras(xattrs=COLOUR, lenient=EXTRAS))

    assert ((NoSpace, NoSpace) if not free else (XattrNotKept, Stored)) == (type(strict), type(lenient))


async def test_attributes_are_tried_where_the_file_will_be(place, monkeypatch):
    """Another file system, with other room for them, may be mounted below the directory that is served."""
    (place / "d").mkdir()
    store = await opened(place)
    opening, tried = os.open, []

    def noting(path, flags, *mode, dir_fd=None):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            tried.append(os.fstat(dir_fd).st_ino)
        return opening(path, flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noting)
    large = Extras(xattrs=b"\x06user.a" + (700).to_bytes(2, "big") + bytes(700))

    await store.foresee([b"f", b"d/f", b"d/e/f"], [large] * 3)

    top, below = (os.stat(each).st_ino for each in (place, place / "d"))
    assert [top, below, below] == tried


@pytest.mark.parametrize("lenient", [NONE, EXTRAS], ids=["strict", "lenient"])
async def test_attributes_that_are_too_large_are_foreseen(place, monkeypatch, lenient):
    """Not only when all of a large file has been sent; nothing is left of the trial."""
    store = await opened(place)
    setting = os.setxattr

    def setxattr(fd, name, value):
        if len(value) > 4000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        setting(fd, name, value)

    monkeypatch.setattr(os, "setxattr", setxattr)
    large = b"\x06user.a" + (5000).to_bytes(2, "big") + bytes(5000)

    [foreseen, small] = await store.foresee(
        [b"d/f", b"g"], [Extras(xattrs=large, default_acl=b"", lenient=lenient), Extras(xattrs=COLOUR)]
    )

    assert (type(None) if lenient else XattrNotKept, None) == (type(foreseen), small)
    assert lenient or "the file system keeps less with a file" in str(foreseen)
    assert [] == os.listdir(place)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
async def test_what_the_file_system_does_not_know_is_not_kept(place, monkeypatch, number):
    """Calls that there are none of there, as in many file systems in user space, are no fault of the disk."""
    store = await opened(place)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(module, "_may_give_away", lambda: True)
    owner = Owner(12345, 12345)

    outcome = await put(store, with_extras(owner=owner, numeric=True))
    lenient = await put(store, with_extras(owner=owner, numeric=True, lenient=EXTRAS))

    assert (OwnerNotKept, Stored) == (type(outcome), type(lenient))


@pytest.mark.parametrize("returns", [True, False], ids=["given back", "not given back"])
async def test_a_final_file_gets_its_owner_back_before_its_permissions(place, strangers, monkeypatch, returns):
    """Else a new owner and group would have what was meant for others; what has no way back stays private."""
    path = place / "f"
    path.write_bytes(b"1")
    path.chmod(0o664)
    ours = (os.geteuid(), os.getegid())
    chown = os.fchown

    def fchown(fd, *owner):
        if owner == ours and not returns:
            raise PermissionError(errno.EPERM, "no")
        chown(fd, *owner)

    store = await opened(place)
    monkeypatch.setattr(os, "fchown", fchown)
    acl = acls.portable(READ_BY_BIN, lambda _: b"kim", lambda _: b"")

    [settled] = await store.settle([Expected(b"f", 1, digest(b"1"), with_extras(owner=Owner(12345, 12345), acl=acl))])

    status = path.stat()
    assert isinstance(settled, AclNotKept if ROOT else OwnerNotKept)
    if returns or not ROOT:
        assert (*ours, 0o664) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    else:
        assert (12345, 0o600) == (status.st_uid, stat.S_IMODE(status.st_mode))


@pytest.mark.parametrize("leaves", [frozenset(), frozenset({Preserve.MODE})], ids=["mode", "no mode"])
async def test_what_is_given_away_loses_its_set_uid_bit(place, leaves):
    """Else a file that is there already would become a program of its new owner."""
    path = place / "f"
    path.write_bytes(b"1")
    path.chmod(0o6755)
    store = await opened(place)
    owner = Owner(12345, 12345) if ROOT else Owner(os.geteuid(), os.getegid())

    settled = await store.settle(
        [Expected(b"f", 1, digest(b"1"), with_extras(owner=owner, numeric=True, leaves=leaves))]
    )

    status = path.stat()
    assert ([True], owner.uid) == (settled, status.st_uid)
    assert (0o755 if leaves else 0o640) == stat.S_IMODE(status.st_mode)


async def test_extended_attributes_are_replaced_but_not_those_of_programs(place):
    """What the source does not have goes; notes of ours, and of others, stay."""
    path = place / "f"
    path.write_bytes(b"1")
    for name in ("user.old", "user.realize.origin", "user.containers.x"):
        os.setxattr(path, name, b"x")
    store = await opened(place)

    await store.settle([Expected(b"f", 1, digest(b"1"), with_extras(xattrs=COLOUR))])

    assert {"user.colour", "user.realize.origin", "user.containers.x"} == set(names_of(path))
    assert COLOUR == (await read(store)).xattrs


async def test_attributes_that_the_file_system_ignores_are_not_kept(place, monkeypatch):
    """Such as one in user space that takes them without an error, and has none afterwards."""
    store = await opened(place)
    monkeypatch.setattr(os, "setxattr", lambda *_: None)
    acl = acls.portable(READ_BY_BIN, lambda _: b"", lambda _: b"")

    outcomes = [
        await put(store, with_extras(xattrs=COLOUR)),
        await put(store, with_extras(acl=acl, numeric=True)),
    ]

    assert [XattrNotKept, AclNotKept] == [type(each) for each in outcomes]
    assert all("the file system keeps no" in str(each) for each in outcomes)


async def test_mode_and_time_may_stay_behind(place):
    """Each by itself: then a file has them like any new one."""
    store = await opened(place)
    kept = Attributes(1_000_000_000, 0o400)

    await put(store, evolve(kept, extras=Extras(leaves=frozenset({Preserve.TIMES}))), b"mode")
    await put(store, evolve(kept, extras=Extras(leaves=frozenset({Preserve.MODE}))), b"time")

    mode, time = os.stat(place / "mode"), os.stat(place / "time")
    assert (0o400, True) == (stat.S_IMODE(mode.st_mode), mode.st_mtime > 1e9)
    assert (True, 1_000_000_000) == (stat.S_IMODE(time.st_mode) & 0o600 == 0o600, time.st_mtime_ns)


@pytest.mark.parametrize("leaves", [{Preserve.MODE}, {Preserve.TIMES}, {Preserve.MODE, Preserve.TIMES}])
async def test_mode_and_time_of_a_directory_may_stay_behind(place, leaves):
    """The same for one that is there: it keeps them, also if it is given something else."""
    (place / "d").mkdir(mode=0o711)
    os.utime(place / "d", ns=(7, 7))
    store = await opened(place)
    extras = Extras(
        acl=acls.portable(READ_BY_BIN, lambda _: b"", lambda _: b""), numeric=True, leaves=frozenset(leaves)
    )

    await store.set_directories([Directory(b"d", 0o750, 9, evolve(extras, acl=b""))])
    plain = os.stat(place / "d")
    await store.set_directories([Directory(b"d", 0o750, 9, extras)])

    expected = 0o711 if Preserve.MODE in leaves else 0o750, 7 if Preserve.TIMES in leaves else 9
    assert expected == (stat.S_IMODE(plain.st_mode), plain.st_mtime_ns)
    assert expected == (stat.S_IMODE(os.stat(place / "d").st_mode), os.stat(place / "d").st_mtime_ns)


# Symlinks.


@pytest.mark.parametrize("there", ["nothing", "the same", "another"])
async def test_a_symlink_gets_its_owner(place, strangers, there):
    """However it came to be there; nothing is made if it cannot have that."""
    strangers[2] = b"daemon"
    if there != "nothing":
        os.symlink("x" if there == "the same" else "y", place / "l")
    store = await opened(place)
    # Who reads one waits until its time has passed, so this run begins later.
    await store.read_links([b"l"])
    await store.open(b"salt")
    link = Symlink(b"l", b"x", 7, Extras(DAEMON))

    [tried] = await store.put_links([link], OnConflict.REPLACE, trial=True)
    [outcome] = await store.put_links([link], OnConflict.REPLACE)
    found = (place / "l").lstat() if ROOT else None

    if found is None:
        assert [OwnerNotKept] * 2 == [type(tried), type(outcome)]
        return
    assert (tried, "x") == (outcome, os.readlink(place / "l"))
    assert (2, 2, 7) == (found.st_uid, found.st_gid, found.st_mtime_ns)
    assert ["l"] == os.listdir(place)


@pytest.mark.parametrize("lenient", [frozenset(), EXTRAS], ids=["strict", "lenient"])
@pytest.mark.parametrize("accepted", [frozenset(), EXTRAS], ids=["refused", "accepted"])
async def test_a_symlink_whose_owner_cannot_be_kept(place, strangers, accepted, lenient):
    """It is not made, unless its owner need not be kept."""
    store = await opened(place, acceptance=Acceptance(accepted))

    [outcome] = await store.put_links([Symlink(b"l", b"x", 7, Extras(DAEMON, lenient=lenient))], OnConflict.FAIL)

    assert (Linked.CREATED if lenient else OwnerNotKept) == (outcome if lenient else type(outcome))
    assert ["l"] * bool(lenient) == os.listdir(place)


async def test_who_may_only_create_gives_no_symlink_away(place, monkeypatch):
    """One that is there keeps its owner; its source stays, unless that does not matter."""
    os.symlink("x", place / "l")
    store = await opened(place, changes_all=False)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(module, "_may_give_away", lambda: True)
    extras = Extras(Owner(54322, os.getegid()), numeric=True)

    outcomes = []
    for lenient in (frozenset(), EXTRAS):
        link = Symlink(b"l", b"x", 7, evolve(extras, lenient=lenient))
        outcomes += await store.put_links([link], OnConflict.FAIL)

    assert (OwnerNotKept, Linked.ALREADY_THERE) == (type(outcomes[0]), outcomes[1])


@pytest.mark.parametrize("instead", ["a file", "a link"])
async def test_nothing_that_takes_the_place_of_a_symlink_gets_its_owner(place, monkeypatch, instead):
    """Who may write to the directory could else have a file given to himself that is not his."""
    store = await opened(place)
    given = []

    def replace(*_):
        os.unlink(place / "l")
        if instead == "a file":
            (place / "l").touch()
        else:
            os.symlink("elsewhere", place / "l")

    monkeypatch.setattr(links, "_set_time", replace)
    monkeypatch.setattr(os, "chown", lambda *arguments, **_: given.append(arguments))
    monkeypatch.setattr(module, "_may_give_away", lambda: True)

    [outcome] = await store.put_links(
        [Symlink(b"l", b"x", 7, Extras(Owner(12345, 12345), numeric=True))], OnConflict.FAIL
    )

    assert (Busy, []) == (type(outcome), given)


async def test_a_symlink_that_has_its_owner_is_not_opened(place, monkeypatch):
    """As all have that are moved by their owner."""
    store = await opened(place)
    monkeypatch.delattr(os, "chown")
    monkeypatch.setattr(os, "readlink", None)

    assert [Linked.CREATED] == await store.put_links([Symlink(b"l", b"x", 7, Extras(OURS))], OnConflict.FAIL)


# Reading.


async def test_the_owner_of_a_symlink_comes_with_its_target(place, monkeypatch):
    """If it is at hand; it has nothing else."""
    os.symlink("x", place / "l")
    store = await opened(place)
    told = await read(store, b"l", frozenset({Preserve.OWNER}))
    wanted = WantedExtras(frozenset({Preserve.OWNER}))
    [found] = await store.read_links([b"l"], wanted=wanted)
    monkeypatch.setattr(principals, "user_name", principals._Remembered(lambda _: b"kim"))
    [bare] = await store.read_links([b"l"], wanted=wanted)

    assert Extras(OURS) == told == found.link.extras
    assert bare.link.extras is None


async def test_what_would_be_lost_is_told(place, monkeypatch):
    """A file with an attribute that is not carried over, or with too many, stays, unless it need not be kept."""
    (place / "f").touch()
    store = await opened(place)
    monkeypatch.setattr(xattrs, "listed", lambda _fd: [b"security.capability"])
    capable = await read(store)
    monkeypatch.setattr(xattrs, "listed", lambda _fd: [b"user.x"])
    monkeypatch.setattr(xattrs, "value_of", lambda _fd, _name: bytes(50_000))
    large = await read(store, wanted=frozenset({Preserve.XATTR}))
    lenient = await read(store, wanted=frozenset({Preserve.XATTR}), lenient=EXTRAS)

    assert [XattrNotKept, XattrNotKept, Extras()] == [type(capable), type(large), lenient]
    assert "security.capability" in str(capable)


@pytest.mark.parametrize("nfs", [True, False])
async def test_lists_of_another_kind_are_told(place, monkeypatch, nfs):
    """NFS version 4 has lists of its own, where there are no POSIX ones; elsewhere without them there is just none."""
    (place / "f").touch()
    store = await opened(place)

    def getxattr(_fd, name):
        if name == acls.NFS4 and nfs:
            return b"list"
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "getxattr", getxattr)
    found = await read(store, wanted=frozenset({Preserve.ACL}))

    assert isinstance(found, AclNotKept) if nfs else found == Extras(acl=b"")


@pytest.mark.parametrize("name", ["f", "link"])
@pytest.mark.parametrize("who", ["unmapped_user", "unmapped_group"])
async def test_an_owner_without_a_number_here_is_not_taken_for_nobody(place, monkeypatch, name, who):
    """In a user namespace, such as that of a container, all whom it does not know show as one number."""
    (place / "f").touch()
    os.symlink("f", place / "link")
    monkeypatch.setattr(principals, who, lambda: os.geteuid() if "user" in who else os.getegid())
    store = await opened(place)

    strict, lenient = await read(store, name.encode()), await read(store, name.encode(), lenient=EXTRAS)

    assert (OwnerNotKept, None) == (type(strict), lenient.owner)
    assert "no number in this user namespace" in str(strict)


@pytest.mark.parametrize(
    ("numbers", "unmapped"), [("0 0 4294967295\n", None), ("0 1000 1\n1 100000 65536\n", 65534), ("nonsense", None)]
)
def test_who_is_unmapped(tmp_path, monkeypatch, numbers, unmapped):
    """Nobody in the namespace of the machine; else whoever has the number that the kernel keeps for them."""
    files = {"/proc/self/uid_map": numbers, "/proc/sys/kernel/overflowuid": "65534\n"}
    monkeypatch.setattr("builtins.open", lambda path, encoding: io.StringIO(files[path]))

    assert unmapped == principals._unmapped("uid")


async def test_extras_of_a_symlink_are_its_owner(place):
    """It is not followed, and has nothing else."""
    os.symlink("/etc/passwd", place / "l")
    os.mkfifo(place / "fifo")
    store = await opened(place)

    found, fifo = await read(store, b"l"), await read(store, b"fifo")

    assert Extras(OURS) == found
    assert isinstance(fifo, NotRegular)


async def test_many_extras_are_told_in_parts(place):
    """As many as a value of the protocol holds; whoever wants the rest asks again."""
    for number in range(40):
        (place / str(number)).touch()
        os.setxattr(place / str(number), "user.x", bytes(3000))
    store = await opened(place)

    found = await store.read_extras([b"%d" % number for number in range(40)], EXTRAS, lenient=NONE)

    assert 0 < len(found) < 40
    assert sum(each.extras.size for each in found) <= 60_000


# What a directory accepts.


async def came(store, *paths, **wanted):
    """What came along with the content of files."""
    asked = WantedExtras(**{"kinds": EXTRAS, **wanted})
    return [each.file.attributes.extras for each in await store.read_small(paths, wanted=asked)]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("kinds", [{kind} for kind in EXTRAS] + [EXTRAS])
async def test_what_is_wanted_comes_with_the_content(place, monkeypatch, kinds, listed):
    """It is what is told when it is asked for, whether the file system names lists or not."""
    monkeypatch.setattr(tree, "lists_acls", lambda _: listed)
    for name in ("plain", "listed", "coloured", "again"):
        (place / name).touch()
    os.setxattr(place / "listed", acls.ACCESS, READ_BY_BIN)
    os.setxattr(place / "coloured", "user.colour", b"red")
    store = await opened(place)
    paths = [b"plain", b"listed", b"coloured", b"again"]
    asked = [await read(store, path, frozenset(kinds)) for path in paths]

    assert asked == await came(store, *paths, kinds=frozenset(kinds))


async def test_nobody_is_asked_for_names_while_content_is_read(place, monkeypatch):
    """A directory service may take long, so what is not known comes later, by itself."""
    (place / "f").touch()
    os.setxattr(place / "f", acls.ACCESS, READ_BY_BIN)
    monkeypatch.setattr(principals, "user_name", principals._Remembered(lambda _: b"kim"))
    monkeypatch.setattr(principals, "group_name", principals._Remembered(lambda _: b"staff"))
    store = await opened(place)

    before = await came(store, b"f")
    numbers = await came(store, b"f", numeric=True)
    told = await read(store)

    assert [None] == before
    assert Owner(os.geteuid(), os.getegid()) == numbers[0].owner
    assert [told] == await came(store, b"f")


async def test_what_cannot_be_kept_does_not_come_along(place, monkeypatch):
    """Whoever asks for it is told why; what the run does not insist on, or leaves, it tells with all of it."""
    for name in ("f", "g"):
        (place / name).touch()
    store = await opened(place)
    told = await read(store, b"g")
    plain = xattrs.listed
    odd = os.stat(place / "f").st_ino
    named = lambda fd: [b"trusted.odd"] if os.fstat(fd).st_ino == odd else plain(fd)  # noqa: E731
    monkeypatch.setattr(xattrs, "listed", named)
    lenient, leaves = frozenset({Preserve.XATTR}), frozenset({Preserve.TIMES})

    assert [None, told] == await came(store, b"f", b"g")
    meant = evolve(told, lenient=lenient, leaves=leaves)
    assert [meant, meant] == await came(store, b"f", b"g", lenient=lenient, leaves=leaves)


async def test_no_more_comes_along_than_memory_should_hold(place, monkeypatch):
    """As one answer about them."""
    paths = [b"%d" % number for number in range(4)]
    for path in paths:
        (place / path.decode()).touch()
        os.setxattr(place / path.decode(), "user.colour", b"red")
    store = await opened(place)
    one = await read(store, paths[0])
    monkeypatch.setattr(module, "MAX_EXTRAS_BYTES", 2 * one.size)

    assert [one, one, None, None] == await came(store, *paths)


async def test_a_directory_takes_what_it_accepts(place):
    """Anything else is an error, whichever way it comes, unless it need not be kept."""
    acceptance = Acceptance(frozenset({Preserve.OWNER}))
    store = await opened(place, acceptance=acceptance)
    (place / "there").write_bytes(b"1")
    writer = await store.open_writer(b"large", 1, OnConflict.FAIL)
    await writer.write([b"1"])
    directory = Directory(b"d", 0o755, 1, KEPT.extras)

    answers = [
        await put(store, KEPT),
        *await store.settle([Expected(b"there", 1, digest(b"1"), KEPT)]),
        *await store.foresee([b"f"], [KEPT.extras]),
        *await store.make_directories([evolve(directory, extras=None)]),
        *await store.set_directories([directory]),
    ]
    with pytest.raises(AclNotKept):
        await store.match_final(b"there", 1, 0, [digest(b"1")], KEPT)
    with pytest.raises(AclNotKept):
        await writer.commit(digest(b"1"), KEPT)
    lenient = await put(store, evolve(KEPT, extras=evolve(KEPT.extras, lenient=EXTRAS)))

    assert [AclNotKept, AclNotKept, AclNotKept, type(None), AclNotKept] == [type(each) for each in answers]
    assert isinstance(lenient, Stored)
    assert {"there", "d", "f"} == set(os.listdir(place))
    assert [] == names_of(place / "f")


# After a crash.


def leave_given(directory, uid):
    """What a crash leaves between the change of the owner and the rename."""
    path = os.path.join(os.fsencode(directory), partial_name(b"f"))
    with open(path, "wb") as file:
        file.write(b"half")
        os.fchmod(file.fileno(), MARK | 0o600)
        os.setxattr(path, GIVEN, b"1")
        if ROOT:
            os.fchown(file.fileno(), uid, uid)
    return path


@pytest.mark.parametrize("noted", [True, False])
async def test_a_partial_that_was_given_away_is_told_by_its_note(place, noted):
    """It is neither listed nor gone on with, for its owner may have it open; without the note it is anybody's file."""
    path = leave_given(place, 1)
    if not noted:
        os.removexattr(path, GIVEN)
    store = await opened(place)
    seen = [entry for entry in await listed_files(store.walk(partials=True)) if entry.kind is Kind.PARTIAL]

    writer = await store.open_writer(b"f", 4, OnConflict.FAIL)
    have = writer.have
    await writer.write([b"full"])
    await writer.commit(digest(b"full"), None)

    ours = noted or not ROOT
    assert (ours, 0 if ROOT else 4) == (bool(seen), have)
    assert {b"f"} | (set() if ours else {os.path.basename(path)}) == set(os.listdir(os.fsencode(place)))
    assert b"full" == (place / "f").read_bytes()


@pytest.mark.parametrize("owner", [OURS, DAEMON], ids=["ours", "given away"])
async def test_a_partial_that_cannot_be_committed_is_ours_again(place, owner):
    """With nothing that it was given: the next file of that name may come from somebody else.

    One that belongs to somebody else by now, who may have opened it to write to it, is nobody's to go on with.
    """
    store = await opened(place)
    writer = await store.open_writer(b"f", 4, OnConflict.FAIL)
    await writer.write([b"1234"])
    (place / "f").touch()

    with pytest.raises(Exception, match="exists already" if ROOT or owner is OURS else "cannot be kept"):
        await writer.commit(digest(b"1234"), with_extras(owner=owner, acl=b"", xattrs=COLOUR, numeric=True))

    if owner is DAEMON:
        assert ["f"] == os.listdir(place)
        return
    path = os.path.join(os.fsencode(place), partial_name(b"f"))
    status = os.stat(path)
    assert (os.geteuid(), MARK | 0o600) == (status.st_uid, stat.S_IMODE(status.st_mode))
    assert [] == names_of(path)


async def test_a_partial_does_not_pass_on_what_a_killed_run_gave_it(place):
    """The next run may bring nothing of it: it goes on with the content alone."""
    path = leave_given(place, os.geteuid())
    os.setxattr(path, "user.colour", b"red")
    store = await opened(place)

    writer = await store.open_writer(b"f", 4, OnConflict.FAIL)
    have = writer.have
    await writer.match([digest(b"half")], 4)
    await writer.commit(digest(b"half"), Attributes(1, 0o640))

    assert (4, []) == (have, names_of(place / "f"))


async def test_a_file_gets_its_group_again_from_the_run_after_one_that_was_killed(place):
    """The partial has that group already, and loses it before anything is written to it: see the test above."""
    group = 1 if ROOT else os.getegid()
    path = leave_given(place, os.geteuid())
    os.chown(path, -1, group)

    stored = await put(await opened(place), with_extras(owner=Owner(os.geteuid(), group), numeric=True))

    assert isinstance(stored, Stored)
    status = os.stat(place / "f")
    assert (os.geteuid(), group) == (status.st_uid, status.st_gid)


@pytest.mark.parametrize("decides", [True, False])
async def test_what_a_killed_run_gave_it_is_taken_back_as_far_as_a_new_file_has_it(place, decides):
    """Its group is that of its directory if this has the set-gid bit."""
    group, its = (1, 2) if ROOT else (os.getegid(), os.getegid())
    os.chown(place, -1, its)
    os.chmod(place, 0o2755 if decides else 0o755)
    path = leave_given(place, os.geteuid())
    os.chown(path, -1, group)

    stored = await put(await opened(place), Attributes(1, 0o640))

    assert isinstance(stored, Stored)
    assert (its if decides else os.getegid()) == os.stat(place / "f").st_gid


async def test_the_note_goes_with_the_commit(place, monkeypatch):
    """It is there when the file gets its name, and not any more when that is told."""
    store = await opened(place)
    seen = []
    renaming = group_commit.rename_noreplace

    def rename(fd, old, new):
        seen.append(os.listxattr(os.path.join(os.fsencode(place), old)))
        renaming(fd, old, new)

    monkeypatch.setattr(group_commit, "rename_noreplace", rename)
    await put(store, with_extras(xattrs=COLOUR))

    assert [{"user.colour", GIVEN}] == [set(each) for each in seen]
    assert ["user.colour"] == names_of(place / "f")


async def test_the_note_of_a_commit_that_was_killed_goes_when_the_file_is_relied_upon(place):
    """With the mark, which goes after it: a final file is no partial."""
    os.rename(leave_given(place, os.geteuid()), place / "f")
    store = await opened(place)

    assert [True] == await store.settle([Expected(b"f", 4, digest(b"half"))])
    assert [] == names_of(place / "f")
    assert not os.stat(place / "f").st_mode & MARK


def test_names_are_believed_for_a_while(monkeypatch):
    """And no more of them than there is room for: a peer names whom it likes."""
    asked, times = [], [0.0]
    monkeypatch.setattr(principals.time, "monotonic", lambda: times[0])
    ask = principals._Remembered(lambda question: asked.append(question) or 7)

    assert [7, 7] == [ask(b"kim"), ask(b"kim")]
    times[0] = 61.0
    ask(b"kim")
    assert [b"kim", b"kim"] == asked
    for number in range(3 * principals.MAX_REMEMBERED_ANSWERS):
        ask(b"%d" % number)
    assert len(ask._answers) <= principals.MAX_REMEMBERED_ANSWERS


async def test_a_file_that_has_all_of_it_already_is_not_noted(place, monkeypatch):
    """As most files that are moved as their owner: then nothing is set, and nothing has to be undone after a crash."""
    store = await opened(place)
    for name in ("setxattr", "removexattr"):
        monkeypatch.delattr(os, name)
    refuse_owners(monkeypatch)
    monkeypatch.setattr(awaiting, "unmark", lambda _fd: None)

    assert isinstance(await put(store, with_extras(owner=OURS, acl=b"", xattrs=b"")), Stored)
    assert isinstance(await put(store, with_extras(owner=OURS, numeric=True), b"g"), Stored)
    assert isinstance(await put(store, with_extras(acl=b""), b"h"), Stored)


@pytest.mark.parametrize("listed", [True, False])
async def test_what_a_partial_has_from_its_directory_is_taken_off(place, monkeypatch, listed):
    """Whether the file system names lists among extended attributes or not."""
    os.setxattr(place, acls.DEFAULT, READ_BY_BIN)
    monkeypatch.setattr(tree, "lists_acls", lambda _: listed)
    if not listed:
        plain = os.listxattr
        monkeypatch.setattr(os, "listxattr", lambda fd: [each for each in plain(fd) if each.startswith("user.")])
    store = await opened(place)

    await put(store, with_extras(owner=OURS, acl=b"", xattrs=b""))

    with pytest.raises(OSError, match="No data"):
        os.getxattr(place / "f", acls.ACCESS)


@pytest.mark.parametrize("kept", [None, READ_BY_BIN])
def test_a_file_system_that_lists_lists_names_them(place, kept):
    """So whoever has the names of all extended attributes need not ask for a list that is not among them."""
    (place / "f").touch()
    if kept is not None:
        os.setxattr(place / "f", acls.ACCESS, kept)
    fd = os.open(place / "f", os.O_RDONLY)
    try:
        if not syscalls.lists_acls(fd):
            pytest.skip("this file system is not known to list them")
        assert (kept is not None) == (acls.ACCESS.encode() in xattrs.listed(fd))
    finally:
        os.close(fd)


async def test_nothing_more_is_asked_of_the_system_without_them(place, monkeypatch):
    """A file that is moved as ever costs no call for extended attributes or owners."""
    store = LocalStore(os.fsencode(place), run_in_thread=at_once)
    await store.open(b"salt")
    for name in ("getxattr", "setxattr", "listxattr", "removexattr"):
        monkeypatch.delattr(os, name)
    refuse_owners(monkeypatch)

    assert isinstance(await put(store, Attributes(1, 0o600)), Stored)
