"""Relying on a file that is there already: only if it is, was not touched, and is durable."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from realize.errors import BadName, Busy, RealizeError, StorageError
from realize.fs.tree import identity_of
from realize.store.local import existing as finals
from realize.store.local.location import Root, RootedLocation
from realize.store.local.versions import Clock
from realize.store.origin import note_origin
from realize.values import BLOCK_BYTES, Attributes, Existing, Expected, coarseness_ns
from tests.local_stores import PARTIAL, behind, open_files, opened, root
from tests.store_helpers import LARGE_CONTENT, block_digests, digest
from tests.test_removal import broken

__all__ = ["behind", "root"]

GIVEN = Attributes(1_500_000_000_000_000_000, 0o600)
FAULTS = [(OSError(errno.EIO, os.strerror(errno.EIO)), StorageError), (MemoryError(), Busy)]


async def settle(store, attributes=None):
    """Whether a store relies upon the file ``f``, asked as for a small file."""
    [answer] = await store.settle([Expected(b"f", len(LARGE_CONTENT), digest(LARGE_CONTENT), attributes)])
    return answer


async def match(store, attributes=None):
    """The same as for a large one."""
    matched = await store.match_final(b"f", len(LARGE_CONTENT), 0, block_digests(LARGE_CONTENT), attributes)
    return matched == len(LARGE_CONTENT)


WAYS = pytest.mark.parametrize("way", [settle, match])


async def outcome(asked):
    """What was answered, or the error."""
    try:
        return await asked
    except RealizeError as error:
        return error


@WAYS
@pytest.mark.parametrize("change", ["removed", "replaced", "renamed", "written", "touched"])
@pytest.mark.parametrize("when", ["fsync", "fchmod", "fresh_stat"])
async def test_what_happens_to_it_meanwhile(root, behind, monkeypatch, way, change, when):
    """A file that somebody removes, replaces or writes to while it is vouched for is not relied upon."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    module = finals if when == "fresh_stat" else os
    original = getattr(module, when)

    def meanwhile(*arguments):
        if when == "fsync":
            original(*arguments)
        monkeypatch.setattr(module, when, original)
        path = behind.at(b"f")
        if change == "removed":
            os.unlink(path)
        elif change == "replaced":
            behind.plant(b"f", LARGE_CONTENT)
        elif change == "renamed":
            os.rename(path, behind.at(b"g"))
        elif change == "written":
            with open(path, "r+b") as file:
                file.write(b"!")
        else:
            os.utime(path, ns=(7, 7))
        return None if when == "fsync" else original(*arguments)

    monkeypatch.setattr(module, when, meanwhile)

    assert await way(store) is False
    monkeypatch.undo()
    assert [] == open_files(root)


@WAYS
async def test_what_changes_after_it_was_compared_is_not_relied_upon(root, behind, monkeypatch, way):
    """Between the last byte that was read, and the look that renews its time."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    refuse = finals._refuse_written

    def meanwhile(path, *, written):
        monkeypatch.setattr(finals, "_refuse_written", refuse)
        os.utime(behind.at(b"f"), ns=(7, 7))
        refuse(path, written=written)

    monkeypatch.setattr(finals, "_refuse_written", meanwhile)

    assert await way(store) is False
    assert [] == open_files(root)


@WAYS
@pytest.mark.parametrize("number", sorted(finals._NOT_OURS))
@pytest.mark.parametrize("call", ["fchmod", "utime"])
async def test_what_is_not_ours_to_change_is_not_relied_upon(root, behind, monkeypatch, way, number, call):
    """It could not be made to look as if it had arrived now."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)

    def refuse(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)

    assert await way(store, GIVEN) is False


@WAYS
@pytest.mark.parametrize("call", ["fchmod", "utime", "fsync", "pread"])
@pytest.mark.parametrize(("fault", "kind"), FAULTS)
async def test_an_error_of_the_disk_is_no_answer(root, behind, monkeypatch, way, call, fault, kind):
    """Neither that it is there nor that it is not; it names the file, and nothing stays open."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)

    def fail(*_arguments, **_options):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        answer = await outcome(way(store, GIVEN))

    assert kind is type(answer)
    assert str(answer).startswith("f: ")
    assert [] == open_files(root)
    assert await way(store, GIVEN) is True


@WAYS
async def test_it_gets_time_and_mode_and_looks_new(root, behind, way):
    """Also one that was stamped in the present tick: it gets another change time than before."""
    behind.plant(b"f", LARGE_CONTENT)
    os.chmod(behind.at(b"f"), 0o640)
    store = await opened(root)
    before = os.stat(behind.at(b"f"))

    assert await way(store) is True
    kept = os.stat(behind.at(b"f"))
    assert await way(store, GIVEN) is True
    given = os.stat(behind.at(b"f"))

    assert (before.st_mode, before.st_mtime_ns) == (kept.st_mode, kept.st_mtime_ns)
    assert (0o600, GIVEN.mtime_ns) == (given.st_mode & 0o7777, given.st_mtime_ns)
    assert before.st_ctime_ns < kept.st_ctime_ns < given.st_ctime_ns


@pytest.mark.parametrize(("ahead_ns", "waits"), [(0, True), (10**12, False), (-(10**12), True)])
def test_waits_where_a_stamp_would_be_the_same(root, behind, monkeypatch, ahead_ns, waits):
    """By the clock of this machine, and if that is behind, as long as for what was stamped at this instant."""
    behind.plant(b"f", b"x")
    slept, changed = [], []
    monkeypatch.setattr(os, "fchmod", lambda _fd, mode: changed.append(mode))
    with open(behind.at(b"f"), "rb") as file:
        before = os.fstat(file.fileno())
        clock = Clock(now_ns=lambda: before.st_ctime_ns + ahead_ns, sleep=slept.append)
        finals._renew(file.fileno(), before, 0o640, clock)

    assert (waits, [0o640] * (2 if waits else 1)) == (bool(slept), changed)
    assert all(0 < each <= 2.1 for each in slept)


async def test_each_has_its_own_answer(root, behind, monkeypatch):
    """One that is there, others that are not, and one whose directory cannot be made durable; in order."""
    for path in (b"a/f", b"b/f", b"c/f"):
        behind.plant(path, b"x")
    behind.plant(b"other", b"y")
    os.symlink("other", behind.at(b"link"))
    store = await opened(root)
    asked = [b"a/f", b"no", b"b/f", b"../up", b"other", b"link", b"no/no", b"c/f"]
    fsync = os.fsync

    def failing(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(os, "open", broken(os.open, b"c", OSError(errno.EIO, "broken")))
    answers = await store.settle([Expected(path, 1, digest(b"x")) for path in asked])

    assert [True, False] == answers[:2]
    assert [StorageError, BadName] == [type(answer) for answer in answers[2:4]]
    assert [False, False, False] == answers[4:7]
    assert StorageError is type(answers[7])


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
async def test_each_is_described_by_itself(root, behind, monkeypatch, fault, kind):
    """What cannot be looked at, among others; and what has a name like that of a partial."""
    for name in (b"a", b"b", b"c"):
        behind.plant(name, name * 2)
    behind.plant_partial(b"f", b"123")
    behind.plant_partial(b"c", b"1")
    os.mkdir(behind.at(b"d"))
    store = await opened(root)
    monkeypatch.setattr(os, "stat", broken(os.stat, b"b", fault))
    asked = [b"a", b"b", b"no", b"no/x", b"no/y", b"../up", b"f", PARTIAL, b"d", b"c"]

    a, b, no, below, again, up, f, partial, d, c = await store.describe(asked)

    assert (2, None) == (a.final_size, a.partial_size)
    assert kind is type(b)
    assert [Existing()] * 3 == [no, below, again]
    assert BadName is type(up)
    assert Existing(partial_size=3) == f
    assert Existing(obstacle=finals.NOTE) == partial
    assert Existing(obstacle="directory") == d
    assert (2, 1) == (c.final_size, c.partial_size)


async def test_what_is_in_the_way_says_nothing_of_a_partial(root, behind):
    """Both are told: of a file that was begun before somebody put something else in its place."""
    behind.plant_partial(b"d", b"12")
    os.mkdir(behind.at(b"d"))
    store = await opened(root)

    assert [Existing(partial_size=2, obstacle="directory")] == await store.describe([b"d"])


@pytest.mark.parametrize("stamp_ns", [1_700_000_000_123_456_789, 1_700_000_000_000_000_000])
def test_what_was_stamped_since_then_is_recent(root, behind, monkeypatch, stamp_ns):
    """To the nanosecond where the file system keeps them, else for as long as its stamps may be late."""
    behind.plant(b"f", b"content")
    os.utime(behind.at(b"f"), ns=(5, 6))
    shown = SimpleNamespace(
        **{name: getattr(os.stat(behind.at(b"f")), name) for name in ("st_mode", "st_size", "st_mtime_ns", "st_uid")},
        st_dev=1,
        st_ino=2,
        st_ctime_ns=stamp_ns,
    )
    monkeypatch.setattr(finals, "_fresh_status", lambda _fd, name: shown if name == b"f" else None)
    location = RootedLocation(Root(os.fsencode(root), identity_of(os.stat(root))), ())
    since = [stamp_ns, stamp_ns + coarseness_ns(stamp_ns), stamp_ns + coarseness_ns(stamp_ns) + 1]

    answers = [finals.describe_batch(location, [b"f"], b"salt", lambda at=at: at, None)[0] for at in since]

    assert [True, True, False] == [answer.recent for answer in answers]
    assert {(7, 6, stamp_ns)} == {(answer.final_size, answer.mtime_ns, answer.ctime_ns) for answer in answers}


async def test_a_missing_directory_is_looked_for_once(root, monkeypatch):
    """However many of its files are asked for."""
    store = await opened(root)
    opening, asked = os.open, []
    monkeypatch.setattr(os, "open", lambda path, *args, **how: asked.append(path) or opening(path, *args, **how))

    assert [Existing()] * 3 == await store.describe([b"no/a", b"no/b", b"no/c"])
    assert 1 == asked.count(b"no")


async def test_a_symlink_to_nothing_is_in_the_way(root, behind):
    """It is looked at itself, not what it leads to."""
    os.symlink("nothing", behind.at(b"f"))
    store = await opened(root)

    assert [Existing(obstacle="symlink")] == await store.describe([b"f"])


async def test_what_goes_while_it_is_described_is_not_there(root, behind, monkeypatch):
    """Between the first look and the one that counts."""
    behind.plant(b"f", b"x")
    store = await opened(root)
    fresh = finals.fresh_stat

    def gone(name, fd):
        os.unlink(behind.at(name))
        return fresh(name, fd)

    monkeypatch.setattr(finals, "fresh_stat", gone)

    assert [Existing()] == await store.describe([b"f"])


async def test_a_comparison_that_begins_anew_forgets_the_one_before(root, behind):
    """Also for an origin that may not read, which is answered by what it asks from the beginning on."""
    origin = b"origin" * 6
    behind.plant(b"f", LARGE_CONTENT)
    with open(behind.at(b"f"), "rb") as file:
        note_origin(file.fileno(), origin, digest(LARGE_CONTENT))
    store = await opened(root, origin=origin)
    digests = block_digests(LARGE_CONTENT)

    first = await store.match_final(b"f", len(LARGE_CONTENT), 0, digests[:1])
    assert (BLOCK_BYTES, len(LARGE_CONTENT)) == (
        first,
        await store.match_final(b"f", len(LARGE_CONTENT), 0, digests),
    )


async def test_few_comparisons_are_remembered(root, behind, monkeypatch):
    """Who begins many and ends none costs little memory; the last ones can be gone on with."""
    monkeypatch.setattr(finals, "_MAX_COMPARISONS", 2)
    for name in (b"a", b"b", b"c"):
        behind.plant(name, LARGE_CONTENT)
    store = await opened(root)
    digests = block_digests(LARGE_CONTENT)
    for name in (b"a", b"b", b"c"):
        assert BLOCK_BYTES == await store.match_final(name, len(LARGE_CONTENT), 0, digests[:1])

    ends = [await store.match_final(name, len(LARGE_CONTENT), BLOCK_BYTES, digests[1:]) for name in (b"a", b"b", b"c")]

    assert [0, len(LARGE_CONTENT) - BLOCK_BYTES, len(LARGE_CONTENT) - BLOCK_BYTES] == ends


@pytest.mark.parametrize(("offset", "digests"), [(BLOCK_BYTES, slice(1, None)), (2 * BLOCK_BYTES, slice(2, None))])
async def test_a_comparison_goes_on_where_it_has_ended(root, behind, offset, digests):
    """Nowhere else: what was left out may be different."""
    behind.plant(b"f", b"!" + LARGE_CONTENT[1:])
    store = await opened(root)
    every = block_digests(LARGE_CONTENT)

    assert 0 == await store.match_final(b"f", len(LARGE_CONTENT), 0, every[:1])
    assert 0 == await store.match_final(b"f", len(LARGE_CONTENT), offset, every[digests])


async def test_what_was_open_for_writing_when_its_comparison_began_is_not_relied_upon(root, behind):
    """What was stored through a mapping need not show, also if that program has ended before the comparison does."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    digests = block_digests(LARGE_CONTENT)
    with behind.writing(b"f"):
        assert BLOCK_BYTES == await store.match_final(b"f", len(LARGE_CONTENT), 0, digests[:1])
    assert BLOCK_BYTES == await store.match_final(b"f", len(LARGE_CONTENT), BLOCK_BYTES, digests[1:2])

    answer = await outcome(store.match_final(b"f", len(LARGE_CONTENT), 2 * BLOCK_BYTES, digests[2:]))

    assert Busy is type(answer)


@WAYS
@pytest.mark.parametrize("call", ["digest_of", "matching", "fsync"])
async def test_what_is_opened_for_writing_while_it_is_compared(root, behind, monkeypatch, way, call):
    """From whatever instant on a program has it open, it is not relied upon."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)
    module = os if call == "fsync" else finals
    original, writers = getattr(module, call), []

    def opening(*arguments):
        result = original(*arguments)
        if not writers:
            writers.append(open(behind.at(b"f"), "r+b"))  # noqa: SIM115 -- closed below
        return result

    monkeypatch.setattr(module, call, opening)
    answer = await outcome(way(store))
    for each in writers:
        each.close()

    assert (Busy if writers else bool) is type(answer)


@pytest.mark.parametrize("size", [len(LARGE_CONTENT) - 1, len(LARGE_CONTENT) + 1])
async def test_another_size_is_another_file(root, behind, size):
    """Longer or shorter, whatever the beginning."""
    behind.plant(b"f", LARGE_CONTENT)
    store = await opened(root)

    assert [False] == await store.settle([Expected(b"f", size, digest(LARGE_CONTENT[:size]))])
    assert 0 == await store.match_final(b"f", size, 0, block_digests(LARGE_CONTENT[:size]))
