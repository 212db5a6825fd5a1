"""Keys, configurations, logs, manifests and states are no data, wherever they lie."""

from __future__ import annotations

import errno
import os
import re
import threading

import pytest
from attrs import evolve

from realize.config import DirectoryConfig
from realize.daemon import looks
from realize.errors import BadName
from realize.fs import mounts
from realize.fs.own_files import OwnFiles, is_own
from realize.fs.tree import identity_of
from realize.store.local import location
from realize.store.local.link_policy import LinkPolicy
from realize.store.local.location import BackupPlace, Backups, locate
from realize.store.local.looks import Looking
from realize.store.local.store import LocalStore, root_identity
from realize.values import (
    Directory,
    Entry,
    Existing,
    Kind,
    Linked,
    Links,
    OnConflict,
    Siblings,
    Sized,
    Stored,
    Symlink,
    Vacant,
)
from tests.link_contract import link
from tests.link_contract import put as put_links
from tests.local_stores import SALT, at_once, behind, every_method, opened, put, root
from tests.processes import COMMAND, ENVIRONMENT, Site, run_program, start_daemon, wait_for
from tests.store_helpers import failure, listed, small_file

__all__ = ["behind", "root"]


def identity(path):
    """The identity of a directory."""
    return identity_of(os.stat(path))


@pytest.fixture
def own(monkeypatch):
    """What is ours in this test."""
    known = OwnFiles()
    monkeypatch.setattr(location, "OWN_FILES", known)
    return known


def test_a_place_is_known_from_every_directory_above_it(tmp_path):
    """Also if it does not exist yet, and by whichever links or mounts somebody comes to the directory."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    known = OwnFiles()
    known.add(str(tmp_path / "link" / "b" / "new" / "file"))

    assert {(b"a", b"b", b"new", b"file")} == known.below(identity(tmp_path))
    assert {(b"b", b"new", b"file")} == known.below(identity(tmp_path / "link"))
    assert {(b"new", b"file")} == known.below(identity(tmp_path / "a" / "b"))
    assert set() == known.below(identity("/proc"))


def test_a_link_counts_and_what_it_leads_to_as_well(tmp_path):
    """A configuration is often kept elsewhere."""
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    known = OwnFiles()
    known.add(str(tmp_path / "link"))

    assert {(b"real",), (b"link",)} == known.below(identity(tmp_path))


@pytest.mark.parametrize("path", ["a\0b", "", "/", "/proc/self/fd/none/x"])
def test_what_is_no_file_is_nothing(path):
    """Nor is it an error here: whoever opens it says what is wrong."""
    OwnFiles().add(path)


def test_all_below_a_place_is_in_it():
    """And nothing beside it, even if its name begins in the same way."""
    places = {(b"a", b"state")}

    assert is_own(places, (b"a", b"state"))
    assert is_own(places, (b"a", b"state", b"x", b"y"))
    assert not is_own(places, (b"a",))
    assert not is_own(places, (b"a", b"states"))
    assert not is_own(places, (b"state",))


async def stores(root):
    """Stores of a daemon and of a command, for the directory and for one below it."""
    return [
        (await opened(root, root_identity=root_identity(root)), b""),
        (await opened(root), b""),
        (await opened(root, b"a", root_identity=root_identity(root)), b"a/"),
        (await opened(root + b"/a"), b"a/"),
    ]


async def test_what_is_ours_cannot_be_named(behind, root, own):
    """Not read, replaced, compared, removed, or made a directory, by no store; what is beside it can."""
    for path in (b"a/key", b"a/state/move.json", b"a/keys"):
        behind.plant(path, b"secret")
    for path in (b"a/key", b"a/state"):
        own.add(os.fsdecode(root + b"/" + path))

    for store, base in await stores(root):
        for path in (b"a/key", b"a/state/move.json", b"a/state/new"):
            name = path.removeprefix(base)
            assert [BadName] * 8 == [type(answer) for answer in await every_method(store, name)]
        state = b"a/state".removeprefix(base)
        [made] = await store.make_directories([Directory(state + b"/deeper", 0o755)])
        [changed] = await store.set_directories([Directory(state, 0o700, 0)])
        [pruned] = await store.prune([Vacant(state, None)])
        assert [BadName] * 3 == [type(made), type(changed), type(pruned)]
        [beside] = await store.describe([b"a/keys".removeprefix(base)])
        assert isinstance(beside, Existing)
    assert [b"secret"] * 2 == [behind.content(path) for path in (b"a/key", b"a/state/move.json")]


async def test_what_is_ours_is_not_listed_for_peers(behind, root, own):
    """And users are told that it stays; a directory that holds nothing else is not removed as an empty one."""
    for path in (b"a/key", b"a/state/move.json", b"b"):
        behind.plant(path, b"secret")
    for path in (b"a/key", b"a/state"):
        own.add(os.fsdecode(root + b"/" + path))
    served, local, *_ = [store for store, _ in await stores(root)]

    assert [b"a", b"b"] == [entry.path for entry in await listed(served.walk())]
    told = [entry for entry in await listed(local.walk()) if entry.kind is Kind.LEFT]
    assert [Entry(path, Kind.LEFT, note="belongs to Realize itself") for path in (b"a/key", b"a/state")] == told
    assert [False] == await served.prune([Vacant(b"a", None)])
    assert b"secret" == behind.content(b"a/key")


async def test_what_is_ours_is_no_location(behind, root, own):
    """No source, and no destination, whether it is there or would be made."""
    behind.plant(b"key", b"secret")
    for name in (b"key", b"state"):
        own.add(os.fsdecode(root + b"/" + name))
    known = root_identity(root)

    for base in (b"key", b"state", b"state/deeper"):
        store = LocalStore(root, base, run_in_thread=at_once, root_identity=known)
        assert isinstance(await failure(store.open(SALT)), BadName)
    assert isinstance(await failure(LocalStore(root + b"/key", run_in_thread=at_once).open(SALT)), BadName)


async def test_what_is_ours_never_settles(behind, root, own):
    """A log that grows in a watched directory is nothing to a standing move."""
    behind.plant(b"log", b"line")
    own.add(os.fsdecode(root + b"/log"))

    [found] = Looking(locate(root, b"", None)).at([b"log"])

    assert found.entry is None


async def test_files_that_only_look_like_ours_are_moved(behind, root, own):
    """What decides is the place, not the name."""
    behind.plant(b"x/realize.key", b"data")
    own.add(os.fsdecode(root + b"/realize.key"))
    store = await opened(root)

    assert [b"x", b"x/realize.key"] == [entry.path for entry in await listed(store.walk())]
    assert isinstance(await put(store, b"realize.key", b"other"), BadName)


def test_a_command_leaves_its_own_files_where_they_are(tmp_path):
    """Its key, configuration and log, whether they lie in the source or in the destination."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    site = Site(home)
    (home / "realize.toml").write_text('key = "command.key"\n')
    (home / "data").write_text("data")
    before = (home / "command.key").read_bytes()

    left = site.realize("move", "--config", home / "realize.toml", "--log-file", home / "log", home, other)
    (other / "command.key").write_text("evil")
    back = site.realize("move", "--key", home / "command.key", other, home)

    assert (0, 1) == (left.returncode, back.returncode)
    assert 3 == left.stderr.count(": belongs to Realize itself")
    assert 1 == back.stderr.count("command.key: belongs to Realize itself")
    assert before == (home / "command.key").read_bytes()
    assert ["command.key"] == [path.name for path in other.rglob("*") if path.is_file()]
    assert {"data", "log", "realize.toml", "command.key"} <= set(os.listdir(home))


def test_a_command_spares_its_files_at_the_usual_places(tmp_path):
    """Though a move between local directories reads none of them."""
    usual = tmp_path / "home" / ".config" / "realize"
    usual.mkdir(parents=True)
    for name in ("realize.key", "realize.toml"):
        (usual / name).write_text("ours")

    done = run_program(
        [*COMMAND, "--quiet", tmp_path / "home", tmp_path / "out"],
        env={**ENVIRONMENT, "HOME": str(tmp_path / "home")},
        check=False,
    )

    assert 0 == done.returncode
    assert ["ours"] * 2 == [(usual / name).read_text() for name in ("realize.key", "realize.toml")]


OWN_OF_DAEMON = ("daemon.key", "realized.toml", "own.log", "state/night.json", "state/new.json", "moved.jsonl")


@pytest.fixture
def daemon(tmp_path, request):
    """A daemon whose own files are in the directory that it serves."""
    folder = tmp_path / "site"
    (folder / "source").mkdir(parents=True)
    (folder / "state").mkdir(mode=0o700)
    site = Site(folder, inbox=folder)
    site.write_daemon_config(
        '[logs]\nfile = "own.log"\n'
        '[moves.night]\nfrom = "source"\nto = "elsewhere"\nwhen = "every 1d"\nmanifest = "moved.jsonl"\n'
    )
    config = folder / "realized.toml"
    config.write_text('state = "state"\n' + config.read_text())
    log = folder / "own.log"
    request.addfinalizer(site.stop)
    site.daemon = start_daemon(config, tmp_path / "said")
    wait_for(lambda: log.exists() and "listening" in log.read_text())
    site.port = int(re.search(r'"port":(\d+)', log.read_text())[1])
    (folder / "moved.jsonl").write_text("ours")
    site.write_command_config()
    return site


def test_a_daemon_gives_nobody_its_own_files(daemon, tmp_path):
    """Its key, configuration, log, state, and the manifests of its moves are not shown, nor sent."""
    shown = daemon.realize("ls", "hostb::inbox").stdout
    got = [daemon.realize("copy", f"hostb::inbox/{name}", tmp_path / "got") for name in OWN_OF_DAEMON]

    assert "command.key" in shown
    assert [] == [name for name in OWN_OF_DAEMON if name.split("/")[0] in shown]
    assert [1] * len(got) == [each.returncode for each in got]
    assert all("belongs to Realize itself" in each.stderr for each in got)
    assert not (tmp_path / "got").exists()


def test_a_daemon_lets_nobody_replace_its_own_files(daemon, tmp_path):
    """Whoever may write to the directory would let others in, or pause its moves."""
    for name in (*OWN_OF_DAEMON, "other"):
        (tmp_path / "evil" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "evil" / name).write_text("evil")
    pushed = daemon.realize("copy", tmp_path / "evil", "hostb::inbox")

    assert 1 == pushed.returncode
    assert len(OWN_OF_DAEMON) == pushed.stderr.count(": belongs to Realize itself")
    evil = [name for name in os.listdir(daemon.folder) if (daemon.folder / name).is_file()]
    assert ["other"] == [name for name in evil if (daemon.folder / name).read_text() == "evil"]


@pytest.mark.parametrize("backup_dir", [b"state", b"state/deeper"])
async def test_backups_do_not_go_where_our_own_files_are(behind, root, own, backup_dir):
    """Else a peer would put a state of its making there: what it replaces, under the name that it had."""
    behind.plant(b"night.json", b"evil")
    own.add(os.fsdecode(root + b"/state"))
    known = root_identity(root)

    error = await failure(opened(root, root_identity=known, backup_dir=backup_dir))
    everywhere = await opened(root, root_identity=known, backups=Backups(BackupPlace((b"old",))))
    own.add(os.fsdecode(root + b"/old"))
    answer = await put(everywhere, b"night.json", b"new")

    assert isinstance(error, BadName)
    assert isinstance(answer, BadName)
    assert b"evil" == behind.content(b"night.json")
    assert not os.path.exists(root + b"/state")


@pytest.mark.parametrize("links", [True, False], ids=["link", "rename"])
async def test_a_backup_does_not_get_the_name_of_an_own_file(behind, root, own, monkeypatch, links):
    """A manifest that is made later, in a directory that is empty until then."""
    if not links:
        monkeypatch.setattr(os, "link", behind_no_links)
    behind.plant(b"moved.jsonl", b"evil")
    for name in (b"/old/moved.jsonl", b"/old/moved.1.jsonl"):
        own.add(os.fsdecode(root + name))
    store = await opened(root, root_identity=root_identity(root), backup_dir=b"old")

    for content in (b"new", b"newer"):
        assert isinstance(await put(store, b"moved.jsonl", content), Stored)

    kept = {name: behind.content(b"old/" + name) for name in os.listdir(root + b"/old") if name.startswith(b"moved")}
    assert {b"moved.2.jsonl": b"evil", b"moved.3.jsonl": b"new"} == kept


def behind_no_links(*_arguments, **_options):
    """As where there are no hard links."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


async def test_no_number_leads_to_an_own_file(behind, root, own):
    """Neither one that a peer asks for, nor one that is free; and nobody learns the size of what has it."""
    behind.plant(b"moved.jsonl", b"data")
    behind.plant(b"moved.2.jsonl", b"ours")
    for name in (b"/moved.1.jsonl", b"/moved.2.jsonl"):
        own.add(os.fsdecode(root + name))
    store = await opened(root, root_identity=root_identity(root))

    [siblings] = await store.siblings([Sized(b"moved.jsonl", 4)])
    file = small_file(b"moved.jsonl", b"evil")
    [asked] = await store.put_small([evolve(file, number=1)], OnConflict.RENAME)
    [free] = await store.put_small([file], OnConflict.RENAME)

    assert Siblings(3) == siblings
    assert isinstance(asked, BadName)
    assert 3 == free.number
    assert not os.path.exists(root + b"/moved.1.jsonl")


async def test_no_symlink_stands_above_an_own_file(behind, root, own):
    """We would follow it to where others may read and write."""
    own.add(os.fsdecode(root + b"/out/deep/moved.jsonl"))
    policy = LinkPolicy(Links.INSIDE, Links.INSIDE)
    store = await opened(root, root_identity=root_identity(root), link_policy=policy)
    links = [Symlink(path, b"inbox", None) for path in (b"out", b"out/deep", b"out/other")]

    for trial in (True, False):
        answers = await store.put_links(links, OnConflict.FAIL, trial=trial)
        assert [BadName, BadName, Linked] == [type(answer) for answer in answers]


async def test_what_becomes_ours_is_ours_at_once(behind, root, own):
    """A reload names another manifest while peers are connected."""
    behind.plant(b"moved.jsonl", b"ours")
    store = await opened(root, root_identity=root_identity(root))

    own.add(os.fsdecode(root + b"/moved.jsonl"))

    [described] = await store.describe([b"moved.jsonl"])
    assert isinstance(described, BadName)


def test_a_place_is_known_wherever_it_is_mounted(tmp_path, monkeypatch):
    """Below a directory that is served, another one may be mounted that has files of ours."""
    for name in ("conf", "box/inside"):
        (tmp_path / name).mkdir(parents=True)
    root, point = str(tmp_path / "conf").encode(), str(tmp_path / "box" / "inside").encode()
    mountinfo = b"1 0 8:1 / / rw - ext4 x rw\n2 1 8:1 %b %b rw - ext4 x rw\n" % (root, point)
    monkeypatch.setattr(mounts, "read_mountinfo", lambda: mountinfo)
    known = OwnFiles()
    known.add(str(tmp_path / "conf" / "key"), mounts=True)

    assert {(b"inside", b"key")} == known.below(identity(tmp_path / "box"))


def test_what_is_in_a_directory_that_comes_later_is_known_then(tmp_path, monkeypatch):
    """Its disk may be mounted long after the daemon has started."""
    known = OwnFiles()
    monkeypatch.setattr(looks, "OWN_FILES", known)
    disk = tmp_path / "disk"
    for path in (disk / "moved.jsonl", tmp_path / "beside"):
        known.add(str(path))
    disk.mkdir()
    told = threading.Event()

    class Reactor:
        def callFromThread(self, *_):
            told.set()

    looks.look_later(Reactor(), DirectoryConfig(str(disk)))

    assert told.wait(30)
    assert {(b"moved.jsonl",)} == known.below(identity(disk))


async def test_no_symlink_leads_us_elsewhere(behind, root, own):
    """A log or manifest whose directory is not there yet would be made where a peer may read it."""
    own.add(os.fsdecode(root) + "/log/moves/m.jsonl")
    behind.plant(b"public/f", b"")
    store = await opened(root, root_identity=root_identity(root))

    assert [BadName] * 3 == await put_links(
        store, *(link(name, "public") for name in ("log", "log/moves", "log/moves/m.jsonl"))
    )
    assert [Linked.CREATED] * 2 == await put_links(store, link("log/other", "x"), link("logs", "x"))
