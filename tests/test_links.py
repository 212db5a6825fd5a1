"""Symlinks in a directory of this machine: what is taken and given away, and what a symlink can never do."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from realize.errors import BadName, Conflict, LinkRefused, NoSpace
from realize.fs import names
from realize.fs.stamps import Present
from realize.store.local import links, new_names
from realize.store.local.expiry import expire_partials
from realize.store.local.headroom import Headroom
from realize.store.local.link_policy import LinkPolicy
from realize.store.local.partial_marks import NOTE
from realize.store.local.store import LocalStore, root_identity
from realize.units import Reserve
from realize.values import Kind, Linked, Links, OnConflict, Removal, Symlink
from tests.link_contract import link, put, read
from tests.local_stores import at_once, behind, opened, root
from tests.store_helpers import listed

__all__ = ["behind", "root"]

INSIDE, ANY, NONE = Links.INSIDE, Links.ANY, Links.NONE
ORIGIN = b"o" * 32

# Where a symlink may lead.

NAMES = ["a", "b", "c"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
targets = st.lists(st.sampled_from([*NAMES, "..", ".", ""]), min_size=1, max_size=5).map("/".join)
trees = st.lists(st.tuples(paths, targets), min_size=1, max_size=12)


class Below:
    """A directory some levels below another one; everything around it has the names that are in it."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="links-")
        self.root = os.path.join(self.top, "a", "b", "root")
        os.makedirs(self.root)
        for outside in (self.top, self.top + "/a", self.top + "/a/b"):
            for name in NAMES:
                os.makedirs(os.path.join(outside, name), exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.top)

    def put(self, tree, policy):
        """Make symlinks, each by itself as hostile peers would; returns those that were taken."""
        store = LocalStore(
            self.root,
            run_in_thread=at_once,
            root_identity=root_identity(self.root),
            link_policy=LinkPolicy(policy, policy),
        )
        answers = []

        async def run():
            await store.open(b"salt")
            for path, target in tree:
                answers.extend(await put(store, link(path, target)))

        Deferred.fromCoroutine(run())
        return [each for each, answer in zip(tree, answers, strict=True) if isinstance(answer, Linked)]

    def escapes(self):
        """Names, up to four deep, that the kernel resolves to something outside."""
        found, level = [], [""]
        for _ in range(4):
            level = [f"{above}/{name}" for above in level for name in NAMES]
            found += [path for path in level if self._is_outside(self.root + path)]
        return found

    def _is_outside(self, path):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            where = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return where != self.root and not where.startswith(self.root + "/")


CHAIN = [("b/c", ".."), ("a", "b/c/..")]
"""Each looks as if it stayed inside; together they do not."""


@given(trees)
@example(CHAIN)
@example([("a/b", ".."), ("c", "a/b/../..")])
@example([("a", "."), ("b", "a/../c")])
@example([("a/a/a", "../.."), ("b", "a/a/a/c")])
@example([("a/c", ".././../a"), ("b", "a/c/../../c")])
def test_nothing_leads_out_of_a_directory_through_symlinks_that_it_took(tree):
    """Whatever peers send, the kernel does not get out by it, by no chain of them."""
    with Below() as below:
        below.put(tree, INSIDE)

        assert [] == below.escapes()


def test_the_kernel_would_get_out():
    """The same symlinks lead outside where all are taken: the test above can fail."""
    with Below() as below:
        assert CHAIN == below.put(CHAIN, ANY)
        assert below.escapes()


@pytest.mark.parametrize(
    ("target", "depth", "outside"),
    [
        ("x", 0, False),
        ("..", 0, True),
        ("..", 1, False),
        ("../..", 1, True),
        ("../../x/y", 2, False),
        ("./.././/../x/", 2, False),
        ("x/..", 5, True),
        ("../x/../y", 5, True),
        ("/", 5, True),
        ("//x", 5, True),
        ("...", 0, False),
        ("..x/..y", 0, False),
    ],
)
def test_targets(target, depth, outside):
    """Each ``..`` is at the start, and has a directory to leave."""
    assert outside is names.leads_outside(target.encode(), depth)


async def test_a_target_is_judged_from_the_directory_that_is_served(root, behind):
    """Whatever part of it the peer has opened; for a user here, from the directory that the user named."""
    served = await opened(root, b"d", root_identity=root_identity(root))
    named = await opened(os.path.join(root, b"named"))

    assert [Linked.CREATED, LinkRefused] == await put(served, link("e/l", "../../x"), link("e/m", "../../../x"))
    assert [Linked.CREATED, LinkRefused] == await put(named, link("e/l", "../x"), link("e/m", "../../x"))
    assert (b"../../x", b"../x") == (behind.target(b"d/e/l"), behind.target(b"named/e/l"))


@pytest.mark.parametrize(
    ("policy", "inside", "outside"),
    [
        (NONE, LinkRefused, LinkRefused),
        (INSIDE, Linked.CREATED, LinkRefused),
        (ANY, Linked.CREATED, Linked.CREATED),
    ],
)
async def test_the_configuration_decides(root, behind, policy, inside, outside):
    """It says what comes, and what goes; a change holds for a store that is open."""
    changeable = LinkPolicy()
    store = await opened(root, link_policy=changeable)
    changeable.gives = changeable.takes = policy
    behind.plant_link(b"in", b"x")
    behind.plant_link(b"out", b"/etc/passwd")

    assert [inside, outside] == await put(store, link("l", "x"), link("m", "../x"))
    given_away = [found.link.path for found in await read(store, [b"in", b"out"])]
    assert [name for name, how in ((b"in", inside), (b"out", outside)) if how is Linked.CREATED] == given_away


@pytest.mark.parametrize("policy", [INSIDE, NONE])
async def test_a_refusal_gives_no_target_away(root, behind, policy):
    """A peer is told that a symlink leads outside, and not where: that says what is there."""
    store = await opened(root, link_policy=LinkPolicy(gives=policy))
    behind.plant_link(b"out", b"/home/alice/secret")

    [refused] = await store.read_links([b"out"])

    assert LinkRefused is type(refused)
    assert "secret" not in str(refused)


async def test_a_directory_above_may_be_no_symlink(root, behind):
    """Neither here nor anywhere else is one followed."""
    os.mkdir(os.path.join(root, b"d"))
    behind.plant_link(b"l", b"d")
    store = await opened(root)

    assert [BadName] == await put(store, link("l/new", "x"))
    assert [] == os.listdir(os.path.join(root, b"d"))


# Replacing.


async def begun(root, behind, path, target, **options):
    """A store whose run begins when that symlink has been there for a moment."""
    behind.plant_link(path, target)
    time.sleep(0.03)
    return await opened(root, **options)


@pytest.mark.parametrize("what", ["file", "symlink", "directory", "nothing"])
async def test_what_comes_at_the_last_moment_is_kept(root, behind, monkeypatch, what):
    """What has the name when the new symlink takes it gets it back; nothing of ours stays."""
    store = await begun(root, behind, b"l", b"old")
    exchange = links.rename_exchange
    path = os.path.join(root, b"l")

    def come_between(fd, temporary, name):
        monkeypatch.setattr(links, "rename_exchange", exchange)
        os.unlink(path)
        if what == "file":
            behind.plant(b"l", b"precious")
        elif what == "symlink":
            behind.plant_link(b"l", b"precious")
        elif what == "directory":
            os.mkdir(path)
        return exchange(fd, temporary, name)

    monkeypatch.setattr(links, "rename_exchange", come_between)
    expected = {"nothing": Linked.CREATED}.get(what, Conflict)

    assert [expected] == await put(store, link("l", "new"))
    assert [b"l"] == os.listdir(root)
    kept = {"file": behind.content(b"l"), "directory": os.path.isdir(path), "nothing": True}.get(
        what, behind.target(b"l")
    )
    assert kept in {b"precious", True}


@pytest.mark.parametrize("vanishes", [False, True])
async def test_a_file_that_was_displaced_gets_its_name_back(root, behind, monkeypatch, vanishes):
    """Even if ours was removed from under the name meanwhile."""
    store = await begun(root, behind, b"l", b"old")
    exchange, calls = links.rename_exchange, []

    def come_between(fd, temporary, name):
        calls.append(name)
        if len(calls) == 1:
            os.unlink(os.path.join(root, b"l"))
            behind.plant(b"l", b"precious")
        elif vanishes:
            os.unlink(os.path.join(root, b"l"))
        return exchange(fd, temporary, name)

    monkeypatch.setattr(links, "rename_exchange", come_between)

    assert [Conflict] == await put(store, link("l", "new"))
    assert ([b"l"], b"precious") == (os.listdir(root), behind.content(b"l"))


async def test_without_an_exchange_nothing_is_replaced(root, behind, monkeypatch):
    """A file system that cannot do it in one step could lose what came at the last moment."""
    store = await begun(root, behind, b"l", b"old")
    monkeypatch.setattr(links, "rename_exchange", lambda *_: False)

    assert [Conflict] == await put(store, link("l", "new"))
    assert ([b"l"], b"old") == (os.listdir(root), behind.target(b"l"))


@pytest.mark.parametrize("after", [False, True], ids=["before the exchange", "after it"])
async def test_what_a_crash_leaves_is_ours(root, behind, monkeypatch, after):
    """It is neither moved nor kept for ever, and the symlink has its old target or its new one."""
    long = "l" * 240
    store = await begun(root, behind, long.encode(), b"old")
    exchange = links.rename_exchange

    def crash(fd, temporary, name):
        if after:
            exchange(fd, temporary, name)
        raise KeyboardInterrupt

    monkeypatch.setattr(links, "rename_exchange", crash)
    monkeypatch.setattr(links, "_discard", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        await put(store, link(long, "new"))
    monkeypatch.undo()

    assert (b"new" if after else b"old") == behind.target(long.encode())
    [left, kept] = sorted(await listed(store.walk(links=True)), key=lambda entry: entry.kind.value)
    assert (Kind.LEFT, NOTE, Kind.LINK, long.encode()) == (left.kind, left.note, kept.kind, kept.path)
    [refused] = await store.read_links([left.path])
    assert NOTE in str(refused)
    steps = expire_partials(root, 10**9, Present(time.time_ns() + 10**12))
    assert [left.path] == [path for step in steps for path, _ in step.removed]
    assert [long.encode()] == os.listdir(root)


async def test_nobody_gets_such_a_name(root):
    """A symlink that is sent under a name of ours would be taken for abandoned one day."""
    store = await opened(root)

    ours = names.temporary_link_name(b"l").decode()
    assert [BadName, Linked.CREATED] == await put(store, link(ours, "x"), link(".l.realize-0123456789abcdef.part", "x"))
    assert names.is_temporary_link(ours.encode())


# Whom it comes from, and how much there is room for.


async def test_a_peer_that_may_not_read_cannot_try_targets(root, behind):
    """It is told that a symlink is there already only if it knows the time as well, to the nanosecond."""
    store = await opened(root, origin=ORIGIN)
    # An older one would be replaced.
    behind.plant_link(b"theirs", b"secret")
    mine = link("mine", "x", 1_234_567_890_123_456_789)

    assert [Linked.CREATED, Conflict] == await put(store, mine, link("theirs", "secret"))
    assert [Linked.ALREADY_THERE] == await put(store, mine, policy=OnConflict.FAIL)
    assert [Conflict, Conflict] == await put(
        store, Symlink(b"mine", b"x", None), Symlink(b"theirs", b"secret", None), policy=OnConflict.FAIL
    )


async def test_symlinks_keep_the_reserve(root):
    """They take space, too."""
    store = await opened(root, headroom=Headroom(at_once, reserve=Reserve(size=1 << 60)))

    assert [NoSpace] == await put(store, link("l", "x"))


async def test_a_full_disk_is_an_error_of_the_symlink(root, monkeypatch):
    """And the directory that was made for it is removed again."""
    store = await opened(root)

    def symlink(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "symlink", symlink)
    assert [NoSpace] == await put(store, link("d/l", "x"))
    assert [] == os.listdir(root)


async def test_what_is_not_durable_is_not_there(root, monkeypatch):
    """Nobody is told that a symlink arrived if the directory could not be made durable."""
    store = await opened(root)
    monkeypatch.setattr(new_names, "sync_directories", lambda *_, **__: {(): NoSpace("no")})

    assert [NoSpace] == await put(store, link("l", "x"))


@pytest.mark.parametrize(("count", "target"), [(1, "x" * 60), (20, "x")])
async def test_long_targets_and_many_symlinks_are_made_durable_as_a_whole(root, monkeypatch, count, target):
    """An fsync of their directory may not reach them."""
    store, asked = await opened(root), []
    sync = new_names.sync_directories
    monkeypatch.setattr(
        new_names, "sync_directories", lambda *args, whole: [asked.append(whole), sync(*args, whole=whole)][1]
    )
    await put(store, *(link(f"l{number}", target) for number in range(count)))

    assert [True] == asked


async def test_names_of_one_symlink(root, behind):
    """A symlink that has two names is moved, name by name, like a file."""
    behind.plant_link(b"l", b"x")
    os.link(behind.at(b"l"), behind.at(b"m"), follow_symlinks=False)
    store = await opened(root)
    found = await read(store, [b"l", b"m"])

    assert [None, None] == await store.remove([Removal(each.link.path, each.version) for each in found])
    assert [] == os.listdir(root)


@pytest.mark.parametrize("changes_all", [True, False], ids=["write", "create"])
async def test_only_who_may_change_files_changes_the_time_of_a_symlink(root, behind, changes_all):
    """One that is there already counts as arrived for anybody who may read."""
    behind.plant_link(b"l", b"target")
    before = os.stat(root + b"/l", follow_symlinks=False).st_mtime_ns
    store = await opened(root, changes_all=changes_all)

    [answer] = await store.put_links([Symlink(b"l", b"target", 10**9)], OnConflict.FAIL)

    after = os.stat(root + b"/l", follow_symlinks=False).st_mtime_ns
    assert (Linked.ALREADY_THERE, 10**9 if changes_all else before) == (answer, after)
