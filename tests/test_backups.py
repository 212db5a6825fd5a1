"""Backups: what is replaced is kept, durably, whatever dies, and is no data any more."""

import errno
import json
import os
import shutil
import time

import pytest
from twisted.internet.task import Clock

from realize.config import Config, DirectoryConfig, MoveConfig
from realize.daemon.expiry import FIRST_EXPIRY_S, Housekeeping
from realize.errors import AccessDenied, BadName, ConfigError, RealizeError, StorageError, UsageError, VersionMismatch
from realize.fs import syscalls
from realize.fs.names import BACKUP_MARK
from realize.fs.stamps import Present
from realize.keys import generate_identity
from realize.runs.move_options import MoveOptions
from realize.store.hooks import CommitHooks
from realize.store.local import backups, group_commit
from realize.store.local.backups import expire_backups
from realize.store.local.headroom import Headroom
from realize.store.local.link_policy import LinkPolicy
from realize.store.local.location import BackupPlace, Backups, locate
from realize.store.local.store import LocalStore, root_identity
from realize.store.local.walker import Walker
from realize.values import (
    Backup,
    Committed,
    Directory,
    Existing,
    Linked,
    Links,
    OnConflict,
    Stored,
    Symlink,
    Vacant,
)
from realize.wire import commands
from realize.wire.greeting import Greeting
from tests.local_stores import (  # noqa: F401 -- fixtures
    behind,
    every_method,
    opened,
    put,
    root,
)
from tests.loopback import Log
from tests.store_helpers import digest, failure, listed
from tests.test_daemon_metrics import directories_of
from tests.test_end_to_end import site  # noqa: F401 -- a fixture
from tests.test_remote_store import Served, served  # noqa: F401 -- a fixture

DAY_NS = 86_400 * 10**9
OWN = Backups(BackupPlace((b".backup",), own=True))
SIZES = pytest.mark.parametrize("large", [False, True], ids=["small", "large"])


async def serving(root, base=b"", **options):  # noqa: F811 -- a fixture
    """A store of a served directory that keeps backups."""
    return await opened(root, base, **{"root_identity": root_identity(root), "backups": OWN, **options})


async def replace(store, path, content, *, large=False):
    """Replace a file, or make it."""
    if not large:
        return await put(store, path, content)
    writer = await store.open_writer(path, len(content), OnConflict.REPLACE)
    await writer.write([content])
    return await writer.commit(digest(content), None)


@SIZES
async def test_what_is_replaced_is_kept(root, behind, large):  # noqa: F811 -- fixtures
    """Under its own path below the backup directory, then under numbered ones; what is new replaces as ever."""
    store = await serving(root)
    behind.plant(b"d/e/app.log", b"old")
    os.chmod(behind.at(b"d/e/app.log"), 0o640)

    for content, kept in ((b"new", b"app.log"), (b"newer", b"app.1.log"), (b"newest", b"app.2.log")):
        stored = await replace(store, b"d/e/app.log", content, large=large)
        assert isinstance(stored, Stored), stored
        assert (Committed.REPLACED, Backup(b"d/e/" + kept, own=True)) == (stored.how, stored.backup)
    assert (await replace(store, b"other", b"other", large=large)).backup is None

    there = b".backup/d/e/app"
    assert [b"old", b"new", b"newer"] == [behind.content(there + end) for end in (b".log", b".1.log", b".2.log")]
    assert (b"newest", b"other") == (behind.content(b"d/e/app.log"), behind.content(b"other"))
    assert behind.content(b".backup/other") is None
    assert 0o640 == os.stat(behind.at(there + b".log")).st_mode & 0o777
    assert {0o700} == {os.stat(behind.at(path + b"/x")[:-2]).st_mode & 0o777 for path in (b".backup", b".backup/d/e")}
    await store.close()


@SIZES
@pytest.mark.parametrize("links", [True, False], ids=["link", "rename"])
async def test_whenever_it_is_cut_off_the_old_file_is_there(root, behind, monkeypatch, large, links):  # noqa: F811
    """Each call in turn is the last one; the next attempt makes no second backup."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    if not links:
        monkeypatch.setattr(os, "link", refused(errno.EPERM))
    for last in range(40):
        for path in os.listdir(root):
            shutil.rmtree(behind.at(path)) if os.path.isdir(behind.at(path)) else os.unlink(behind.at(path))
        behind.plant(b"d/f", b"old")
        store = await serving(root)
        with monkeypatch.context() as patched:
            left = cutting_off(patched, last)
            answer = await outcome(store, large)
        places = [behind.content(path) for path in (b"d/f", b".backup/d/f")]
        assert b"old" in places, last
        assert not links or places[0] is not None, last
        if not left:
            assert isinstance(answer, Stored)
            break
        if isinstance(answer, Stored):
            continue
        stored = await replace(store, b"d/f", b"new", large=large)
        assert isinstance(stored, Stored)
        assert b"new" == behind.content(b"d/f")
        kept = [behind.content(b".backup/d/" + name) for name in os.listdir(behind.at(b".backup/d"))]
        assert sorted(kept) == ([b"new", b"old"] if places[0] == b"new" else [b"old"])
        await store.close()
    assert last > 3
    await store.close()


@SIZES
async def test_an_old_backup_that_is_needed_again_is_not_removed_meanwhile(root, behind, monkeypatch, large):  # noqa: F811
    """A commit was cut off long ago; while it is tried again, a check for old backups removes those that it saw."""
    behind.plant(b"d/f", b"old")
    store = await serving(root)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refused(errno.EIO))
        assert isinstance(await outcome(store, large), StorageError)
    assert b"old" == behind.content(b".backup/d/f")
    sync = group_commit.fsync_directory

    def expired_meanwhile(fd):
        if behind.content(b"d/f") == b"old" and behind.content(b".backup/d/f") is not None:
            os.unlink(behind.at(b".backup/d/f"))
        sync(fd)

    monkeypatch.setattr(group_commit, "fsync_directory", expired_meanwhile)
    assert isinstance(await replace(store, b"d/f", b"new", large=large), Stored)

    assert (b"new", b"old") == (behind.content(b"d/f"), behind.content(b".backup/d/f.1"))
    await store.close()


async def outcome(store, large):
    """What a replacement comes to."""
    try:
        return await replace(store, b"d/f", b"new", large=large)
    except StorageError as error:
        return error


def refused(number):
    """A system call that is not there."""

    def fail(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    return fail


def cutting_off(patched, last):
    """Let all calls that name or sync fail after so many of them; returns a list that is empty if none has."""
    begun, failed = [], []

    def counted(call):
        def maybe(*arguments, **options):
            begun.append(call)
            if len(begun) > last:
                failed.append(call)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments, **options)

        return maybe

    for module, name in (
        (os, "link"),
        (os, "rename"),
        (backups, "rename_noreplace"),
        (backups, "fsync_directory"),
        (group_commit, "fsync_directory"),
    ):
        patched.setattr(module, name, counted(getattr(module, name)))
    return failed


@SIZES
async def test_the_backup_is_durable_before_the_new_file_takes_the_name(root, behind, monkeypatch, large):  # noqa: F811
    """Its directory, and all above it, are synced between the link and the rename."""
    store = await serving(root)
    behind.plant(b"d/f", b"old")
    done = []

    def noted(module, name, what):
        call = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, **options: done.append(what(*given)) or call(*given, **options)
        )

    noted(os, "link", lambda old, new: ("link", new))
    noted(os, "rename", lambda old, new: ("rename", new))
    noted(
        group_commit,
        "fsync_directory",
        lambda fd: ("sync", os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), root.decode())),
    )

    await replace(store, b"d/f", b"new", large=large)

    between = done[done.index(("link", b"f")) : done.index(("rename", b"f"))]
    assert [("link", b"f"), ("sync", ".backup/d"), ("sync", ".backup"), ("sync", ".")] == between
    await store.close()


async def test_what_is_kept_makes_no_room(root, behind, monkeypatch):  # noqa: F811 -- fixtures
    """The new file needs all of its size."""
    behind.plant(b"f", b"old" * 1000)
    promised, promise = [], Headroom.promise

    def noted(self, fd, device, *, replaced, **sizes):
        promised.append(replaced)
        return promise(self, fd, device, replaced=replaced, **sizes)

    monkeypatch.setattr(Headroom, "promise", noted)
    for store in (await opened(root), await opened(root, backup_dir=b".backup")):
        writer = await store.open_writer(b"f", 5000, OnConflict.REPLACE)
        await writer.abandon(keep=False)
        await store.close()

    assert [3000, 0] == promised


async def test_backups_are_no_data(root, behind):  # noqa: F811 -- fixtures
    """They are not listed, and no call may name them, under whatever name the directory has."""
    store = await serving(root)
    behind.plant(b"f", b"old")
    await put(store, b"f", b"secret")
    os.rename(behind.at(b".backup"), behind.at(b"alias"))
    alias = await opened(root)

    for each in (store, alias):
        for partials in (False, True):
            assert [b"f"] == [entry.path for entry in await listed(each.walk(partials=partials))]
    answers = [*await every_method(alias, b"alias/f"), *await every_method(alias, b"x/" + BACKUP_MARK)]
    answers += await alias.make_directories([Directory(b"alias/d", 0o755)])
    answers += await alias.prune([Vacant(b"alias/d", None)])
    assert {BadName} == {type(each) for each in answers}
    assert [False] == await alias.prune([Vacant(b"alias", None)])
    assert b"old" == behind.content(b"alias/f")
    error = await failure(opened(root, b"alias", root_identity=root_identity(root)))
    assert isinstance(error, BadName)
    await store.close()
    await alias.close()


async def test_backups_can_be_moved_back_by_whoever_names_their_directory(root, behind):  # noqa: F811 -- fixtures
    """A local source that is the backup directory itself is one like any other; only the mark stays."""
    store = await serving(root)
    behind.plant(b"d/f", b"old")
    await put(store, b"d/f", b"new")

    restoring = await opened(behind.at(b".backup/x")[:-2])

    assert [b"d", b"d/f"] == [entry.path for entry in await listed(restoring.walk())]
    await restoring.close()
    await store.close()


@pytest.mark.parametrize("inside", [b".backup", b".backup/d", b"link"])
async def test_nothing_is_put_where_backups_are(root, behind, inside):  # noqa: F811 -- fixtures
    """It would be removed as an old one; whoever names such a directory as a destination is refused."""
    store = await serving(root)
    behind.plant(b"d/f", b"old")
    await put(store, b"d/f", b"new")
    os.symlink(b".backup/d", behind.at(b"link"))
    before = behind.everything()

    into = await opened(behind.at(inside))

    writing = (
        into.put_small([], OnConflict.FAIL),
        into.open_writer(b"x", 3, OnConflict.FAIL),
        into.put_links([], OnConflict.FAIL),
        into.make_directories([]),
        into.try_write(),
    )
    assert {BadName} == {type(await failure(each)) for each in writing}
    assert before == behind.everything()
    await into.close()
    await store.close()


@pytest.mark.parametrize("what", ["file", "symlink", "in use"])
async def test_what_has_the_name_of_the_backup_directory_is_in_its_way(root, behind, what):  # noqa: F811 -- fixtures
    """Then nothing is replaced, and nothing that was there counts as a backup."""
    behind.plant(b"f", b"old")
    if what == "file":
        behind.plant(b".backup", b"theirs")
    elif what == "symlink":
        os.symlink(b"/tmp", behind.at(b".backup"))
    else:
        behind.plant(b".backup/theirs", b"theirs")
    store = await opened(root, backup_dir=b".backup")

    answer = await put(store, b"f", b"new")

    assert not isinstance(answer, Stored)
    assert b"old" == behind.content(b"f")
    assert what == "symlink" or b"theirs" in {behind.content(path) for path in (b".backup", b".backup/theirs")}
    assert what != "in use" or b".backup/theirs" in [entry.path for entry in await listed(store.walk())]
    await store.close()


async def test_the_place_of_the_daemon_comes_first(root, behind):  # noqa: F811 -- fixtures
    """No peer can have it otherwise; below a location, its place is at the top of the served directory."""
    behind.plant(b"d/f", b"old")
    store = await serving(root, b"d", backup_dir=b"theirs")

    stored = await put(store, b"f", b"new")

    assert (b"new", b"old") == (behind.content(b"d/f"), behind.content(b".backup/d/f"))
    assert (Backup(b"d/f", own=True), b"") == (stored.backup, stored.asked_backup)
    assert not os.path.exists(os.path.join(root, b"d/theirs"))
    await store.close()


async def test_the_place_that_is_asked_for_is_below_the_location(root, behind):  # noqa: F811 -- fixtures
    """With the paths that files have there."""
    behind.plant(b"d/e/f", b"old")
    store = await opened(root, b"d", root_identity=root_identity(root), backup_dir=b"old/2026")

    stored = await put(store, b"e/f", b"new")

    assert (b"new", b"old") == (behind.content(b"d/e/f"), behind.content(b"d/old/2026/e/f"))
    assert b"e/f" == stored.asked_backup
    await store.close()
    error = await failure(opened(root, backup_dir=b"../elsewhere"))
    assert isinstance(error, BadName)


async def test_old_backups_are_removed_and_nothing_else(root, behind):  # noqa: F811 -- fixtures
    """By how long ago they became backups, with directories that are empty then."""
    store = await serving(root)
    for path in (b"d/f", b"g"):
        behind.plant(path, b"old")
        os.utime(behind.at(path), (1, 1))
        await put(store, path, b"new")
    location = locate(root, b"", root_identity(root))
    place, now = BackupPlace((b".backup",)), time.time_ns()

    def expired(age_ns, place=place):
        return [each for step in expire_backups(location, place, DAY_NS, Present(now + age_ns)) for each in step]

    assert [] == expired(DAY_NS // 2)
    assert [] == expired(2 * DAY_NS, BackupPlace((b"d",)))
    assert [] == expired(2 * DAY_NS, BackupPlace((b"none",)))
    assert {(b"d/f", 3), (b"g", 3)} == set(expired(2 * DAY_NS))
    assert [b".backup", b".backup/" + BACKUP_MARK, b"d", b"d/f", b"g"] == behind.everything()
    assert (b"new", b"new") == (behind.content(b"d/f"), behind.content(b"g"))
    await store.close()


async def test_where_change_times_are_not_kept_backups_stay(root, behind, monkeypatch):  # noqa: F811 -- fixtures
    """On FAT, a file that was renamed looks as old as before."""
    store = await serving(root)
    behind.plant(b"f", b"old")
    await put(store, b"f", b"new")
    monkeypatch.setattr(syscalls, "file_system", lambda _fd: 0x4D44)

    location = locate(root, b"", root_identity(root))
    assert [] == list(
        expire_backups(location, BackupPlace((b".backup",)), DAY_NS, Present(time.time_ns() + 2 * DAY_NS))
    )
    assert b"old" == behind.content(b".backup/f")
    await store.close()


async def test_an_old_backup_directory_that_is_swapped_is_left_alone(root, behind, tmp_path):  # noqa: F811 -- fixtures
    """A link in its place leads nowhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / os.fsdecode(BACKUP_MARK)).touch()
    (tmp_path / "elsewhere" / "precious").touch()
    os.symlink(tmp_path / "elsewhere", behind.at(b".backup"))
    location = locate(root, b"", root_identity(root))

    with pytest.raises(BadName):
        list(expire_backups(location, BackupPlace((b".backup",)), DAY_NS, Present(time.time_ns() + 2 * DAY_NS)))

    assert (tmp_path / "elsewhere" / "precious").exists()


def test_only_who_may_replace_may_say_where_backups_go():
    """And an older peer is not asked for what it would leave out without a word."""
    from realize.config import Right

    pair = Served(Clock(), {"inbox": frozenset({Right.CREATE, Right.READ})}).introduced()
    assert isinstance(pair.result(pair.store(backup_dir=b".backup").open(b"salt")), AccessDenied)
    pair.client.theirs = Greeting("older", (commands.DELTAS,))
    error = pair.result(pair.store(backup_dir=b".backup").open(b"salt"))
    assert isinstance(error, VersionMismatch)
    assert "cannot keep backups: upgrade it" in str(error)
    pair.client.close()
    pair.flush()


@pytest.mark.parametrize("place", ["", "/old", "../old", "a/../b", "a//b", "x" * 256])
def test_the_place_is_inside_the_directory(place):
    """What leads elsewhere is refused when it is configured, or asked for."""
    with pytest.raises(ConfigError):
        DirectoryConfig("/srv", backup=place)
    with pytest.raises(UsageError):
        MoveOptions(on_conflict=OnConflict.REPLACE, backup_dir=place)


def test_what_makes_no_sense_together_is_refused():
    """Backups are of what is replaced; an age is for a place."""
    with pytest.raises(UsageError, match="needs on_conflict replace"):
        MoveOptions(backup_dir=".backup")
    with pytest.raises(ConfigError, match="needs on_conflict = "):
        MoveConfig(sources=["/a"], destination="nas::inbox", backup_dir=".backup")
    with pytest.raises(ConfigError, match="backup does not say where"):
        DirectoryConfig("/srv", backup_max_age_s=1.0)
    config = Config(
        key=generate_identity(), directories={"d": DirectoryConfig("/srv", backup=".b", backup_max_age_s=9.0)}
    )
    assert ".b" == config.directories["d"].backup


@pytest.mark.parametrize("way", ["push", "local", "own"])
def test_backups_of_the_command_and_of_the_daemon(site, tmp_path, way):  # noqa: F811 -- a fixture
    """Where it was asked for; with one of its own, the daemon takes that, whether it was asked for one or not.

    JSON, manifest and logs say where what was replaced is now, but nobody is told of the daemon's own.
    """
    source, target = tmp_path / "source", tmp_path / "target" if way == "local" else site.inbox
    if way == "own":
        site.stop()
        text = (site.folder / "realized.toml").read_text()
        text = text.replace("[peers", 'backup = ".own"\nbackup_max_age = "90d"\n[peers', 1)
        (site.folder / "realized.toml").write_text(text)
        site.start()
    for folder, content in ((source, b"new"), (target, b"old")):
        folder.mkdir(exist_ok=True)
        (folder / "small").write_bytes(content)
        (folder / "large").write_bytes(content * (1 << 20))
    time.sleep(0.05)
    asked = () if way == "own" else ("--backup-dir", "old/2026")
    manifest, log = tmp_path / "manifest", tmp_path / "log"
    record = ("--json", "--manifest", manifest, "--log-file", log, "--log-format", "json")

    done = site.realize(
        *record, "--on-conflict", "replace", *asked, source, target if way == "local" else "hostb::inbox"
    )

    said = {"small", "large"} if asked else {None}
    for lines, event in ((done.stdout, "finished"), (manifest.read_text(), "durable"), (log.read_text(), "file_moved")):
        records = [json.loads(line) for line in lines.splitlines()]
        assert said == {each.get("backup") for each in records if each["event"] == event}, event
    if way != "local":
        site.stop()
        assert {"small", "large"} == {each["backup"] for each in site.records() if each["event"] == "file_committed"}
        site.start()
    kept = target / (".own" if way == "own" else "old/2026")
    assert (0, 2) == (done.returncode, json.loads(done.stdout.splitlines()[-1])["replaced"])
    assert (b"old", b"old" * (1 << 20)) == ((kept / "small").read_bytes(), (kept / "large").read_bytes())
    assert (b"new", b"new" * (1 << 20)) == ((target / "small").read_bytes(), (target / "large").read_bytes())
    moved = site.realize("--json", target if way == "local" else "hostb::inbox", tmp_path / "further")
    assert 2 == json.loads(moved.stdout.splitlines()[-1])["removed"]
    assert {"small", "large"} == {path.name for path in (tmp_path / "further").rglob("*") if path.is_file()}
    assert b"old" == (kept / "small").read_bytes()


def test_existing_is_described_as_ever(served):  # noqa: F811 -- a fixture
    """A handle with a place for backups is one like any other."""
    store = served.opened(backup_dir=b".backup")
    served.memory.plant(b"f", b"1")

    [found] = served.result(store.describe([b"f"]))

    assert isinstance(found, Existing)
    assert 1 == found.final_size


def test_a_daemon_removes_its_old_backups(tmp_path):
    """With the check for old partials; those of a directory that says no age stay."""
    clock, log = Clock(), Log()
    for max_age_s, stays in ((0.01, False), (None, True), (86_400.0, True)):
        directory = DirectoryConfig(str(tmp_path), backup=".backup", backup_max_age_s=max_age_s)
        directories = directories_of({"inbox": directory}, lambda _: CommitHooks())
        (tmp_path / ".backup" / "d").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".backup" / os.fsdecode(BACKUP_MARK)).touch()
        (tmp_path / ".backup" / "d" / "f").write_bytes(b"old")
        (tmp_path / "f").write_bytes(b"data")
        time.sleep(0.03)
        housekeeping = Housekeeping(clock, log)

        housekeeping.start(directories, 7 * 86_400.0)
        clock.advance(FIRST_EXPIRY_S)
        housekeeping.stop()

        assert stays is (tmp_path / ".backup" / "d" / "f").exists()
        assert (tmp_path / "f").exists()
    assert [{"dir": "inbox", "path": "d/f", "size": 3}] == log.named("backup_expired")


async def test_a_reload_changes_the_place_for_who_is_connected(root, behind):  # noqa: F811 -- fixtures
    """Without a place nothing is kept; with one, from the next file on."""
    place = Backups()
    store = await serving(root, backups=place)
    behind.plant(b"f", b"1")

    await put(store, b"f", b"2")
    place.place = OWN.place
    await put(store, b"f", b"3")

    assert [b"3", b"2"] == [behind.content(path) for path in (b"f", b".backup/f")]
    await store.close()


@pytest.mark.parametrize("links", [True, False], ids=["link", "rename"])
async def test_a_symlink_that_is_replaced_is_kept_as_well(root, behind, monkeypatch, links):  # noqa: F811 -- fixtures
    """By the daemon, whatever a peer asks for; one that is old enough is removed like a file."""
    behind.plant_link(b"d/now", b"2025")
    monkeypatch.setattr(LocalStore, "_earliest_ns", lambda _: time.time_ns() + DAY_NS)  # as in a run that begins later
    store = await serving(root, link_policy=LinkPolicy(Links.INSIDE, Links.INSIDE))
    if not links:
        monkeypatch.setattr(os, "link", refused(errno.EPERM))

    for target in (b"2026", b"2027"):
        answers = await store.put_links([Symlink(b"d/now", target, None)], OnConflict.REPLACE)
        assert [Linked.REPLACED] == answers

    kept = [behind.target(b".backup/d/" + name) for name in (b"now", b"now.1")]
    assert (b"2027", [b"2025", b"2026"]) == (behind.target(b"d/now"), kept)
    present = Present(time.time_ns() + 2 * DAY_NS)
    removed = [each for page in expire_backups(store._location, OWN.place, DAY_NS, present) for each in page]
    assert {b"d/now", b"d/now.1"} == {path for path, _ in removed}


async def test_without_a_backup_no_symlink_is_replaced(root, behind, monkeypatch):  # noqa: F811 -- fixtures
    """Something else is where it would go."""
    behind.plant_link(b"now", b"2025")
    behind.plant(b".backup", b"a file")
    store = await opened(root, backup_dir=b".backup")
    monkeypatch.setattr(LocalStore, "_earliest_ns", lambda _: time.time_ns() + DAY_NS)

    [answer] = await store.put_links([Symlink(b"now", b"2026", None)], OnConflict.REPLACE)

    assert isinstance(answer, RealizeError)
    assert b"2025" == behind.target(b"now")


def test_a_walk_asks_each_directory_once_whether_it_holds_backups(tmp_path, monkeypatch):
    """Only one that does is asked again, so that it can be passed over without a word."""
    for name in ("a/b", "c", "kept"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "kept" / ".realize-backups").touch()
    stat, asked = os.stat, []

    def counted(path, *given, **options):
        if os.path.basename(os.fsencode(path)) == b".realize-backups":
            asked.append(path)
        return stat(path, *given, **options)

    monkeypatch.setattr(os, "stat", counted)
    walking = Walker(locate(os.fsencode(tmp_path), b"", None), salt=b"", partials=False, avoid=b"")
    found = [entry.path for entry in walking.page(100)]

    assert ([b"a", b"a/b", b"c"], 5) == (found, len(asked))
