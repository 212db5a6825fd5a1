"""Directories of a daemon that are absent from the start, go, and come back."""

from __future__ import annotations

import json
import os

import pytest
from attrs import evolve, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from realize.config import Config, DirectoryConfig, PeerConfig, Right
from realize.daemon import availability, looks
from realize.daemon.availability import (
    ABSENT_LOOK_INTERVAL_S,
    LOOK_INTERVAL_S,
    SILENT_AFTER_S,
    Availability,
)
from realize.daemon.looks import SILENT, FoundDirectory, Missing, look
from realize.daemon.steering import Asker
from realize.errors import ConfigError, Unavailable
from realize.fs.mounts import mount_point_of
from realize.keys import generate_identity
from realize.store.client.store import RemoteStore
from realize.values import Compress
from realize.wire import commands
from realize.wire.client import connect, connecting_protocol
from realize.wire.connection import Greeting
from tests.loopback import Log
from tests.processes import Site, digests, plant, wait_for
from tests.test_embedded_daemon import service_of  # noqa: F401 -- a fixture
from tests.test_standing_moves import until

INBOX = DirectoryConfig("/mnt/usb/inbox")
DISK = FoundDirectory((8, 2), b"/mnt/usb")
GONE = Missing("No such file or directory")


@frozen
class Trial:
    """One directory, ``inbox``, and what is seen there."""

    clock: Clock = field(factory=Clock)
    log: Log = field(factory=Log)
    sights: list = field(factory=list)
    """What the next looks see; None is a look that does not end."""
    taken: list = field(factory=list)
    asked: list = field(factory=list)

    def availability(self, at_first, *, served=None):
        """Watching, after the look at the start has seen ``at_first``."""
        found = Availability(self.clock, self.log, self._look, lambda name, found: self.taken.append((name, found)))
        if served is None and isinstance(at_first, FoundDirectory):
            served = at_first
        found.watch({"inbox": INBOX}, {} if served is None else {"inbox": served}, {"inbox": at_first})
        return found

    def _look(self, _directory):
        self.asked.append(self.clock.seconds())
        sight = self.sights.pop(0)
        return Deferred() if sight is None else succeed(sight)

    def see(self, *sights):
        """Let the time pass that as many looks take."""
        self.sights.extend(sights)
        while self.sights:
            self.clock.advance(1.0)

    def told(self):
        """The events of the log."""
        return [event for _, event, _ in self.log.events]


def test_a_directory_that_comes_is_taken_up_within_seconds():
    """The log says when it is found missing, and when it comes, and nothing in between."""
    trial = Trial()
    availability = trial.availability(GONE)
    why = availability.why_refused("inbox")
    trial.see(GONE, GONE, DISK, DISK)

    assert "No such file or directory" == why
    assert availability.why_refused("inbox") is None
    assert [("inbox", DISK)] == trial.taken
    assert ["directory_absent", "directory_available"] == trial.told()
    assert [ABSENT_LOOK_INTERVAL_S * n for n in (1, 2, 3)] == trial.asked[:3]
    assert ABSENT_LOOK_INTERVAL_S * 3 + LOOK_INTERVAL_S >= trial.asked[3]


def test_a_directory_that_goes_and_comes_back_is_the_same():
    """It is refused meanwhile, and need not be taken up again."""
    trial = Trial()
    availability = trial.availability(DISK)
    trial.see(GONE)
    gone = availability.why_refused("inbox")
    trial.see(DISK)

    assert GONE.why == gone
    assert availability.why_refused("inbox") is None
    assert [] == trial.taken


@pytest.mark.parametrize(
    ("before", "after", "is_taken_up"),
    [
        (b"/mnt/usb", b"/mnt/usb", True),
        (b"/mnt", b"/mnt/usb", True),
        (b"/", b"/mnt/usb", True),
        (b"/", b"/", True),
        (b"/mnt/usb", b"/mnt", False),
        (b"/mnt/usb", b"/", False),
        (b"/mnt/usb", b"/mnt/usb2", False),
        (b"/mnt/usb", None, False),
        (None, b"/mnt/usb", False),
    ],
)
def test_the_mount_point_of_a_disk_that_is_gone_is_never_taken_up(before, after, is_taken_up):
    """Another directory in the place of one that was served is its disk only if that is mounted where it was."""
    trial = Trial()
    availability = trial.availability(FoundDirectory((8, 2), before))
    other = FoundDirectory((0, 77), after)
    trial.see(other)

    assert ([("inbox", other)] if is_taken_up else []) == trial.taken
    assert is_taken_up == (availability.why_refused("inbox") is None)
    assert is_taken_up == ("directory_absent" not in trial.told())


def test_a_disk_is_compared_with_what_was_taken_up_last():
    """After it was mounted anew, it may be yet another one, and the mount point is refused still."""
    trial = Trial()
    availability = trial.availability(DISK)
    again = evolve(DISK, identity=(8, 3))
    trial.see(GONE, again, FoundDirectory((0, 77), b"/"))

    assert [("inbox", again)] == trial.taken
    assert "another directory is in its place" in availability.why_refused("inbox")


def test_a_disk_that_hangs_has_one_look_under_way():
    """It is said once, and what was served is not refused: the disk may answer at any moment."""
    trial = Trial()
    availability = trial.availability(DISK)
    trial.see(None)
    trial.clock.pump([1.0] * 200)

    assert 1 == len(trial.asked)
    assert availability.why_refused("inbox") is None
    assert [{"name": "inbox", "available": True, "absent": 200.0 - SILENT_AFTER_S, "error": SILENT.why}] == [
        {**row, "absent": row["absent"] // 10 * 10} for row in availability.rows(["inbox"])
    ]
    assert [("error", "directory_hangs", {"dir": "inbox", "served": True})] == trial.log.events


def test_two_names_of_one_path_are_both_looked_at():
    """What is seen of one says nothing of the other: it is taken up by its own name."""
    trial = Trial()
    looking = []
    availability = Availability(
        trial.clock,
        trial.log,
        lambda _: looking.append(Deferred()) or looking[-1],
        lambda name, found: trial.taken.append((name, found)),
    )
    names = ("inbox", "outbox")
    availability.watch({name: evolve(INBOX) for name in names}, {}, dict.fromkeys(names, GONE))
    trial.clock.advance(ABSENT_LOOK_INTERVAL_S)
    for each in looking:
        each.callback(DISK)

    assert [(name, DISK) for name in names] == trial.taken
    assert [None, None] == [availability.why_refused(name) for name in names]


def test_a_disk_that_never_answered_is_refused():
    """Nobody knows what is there."""
    availability = Trial().availability(SILENT)

    assert "its disk does not answer" == availability.why_refused("inbox")


def test_what_another_service_has_is_left_to_it():
    """And looked at again; no path is told to peers."""
    trial = Trial()

    def refuse(*_):
        raise ConfigError("dirs.inbox.path: another service in this process serves /secret")

    availability = trial.availability(GONE)
    availability.take_up = refuse
    trial.see(DISK)
    why = availability.why_refused("inbox")
    availability.take_up = lambda *_: None
    trial.see(DISK)

    assert "another service in the same process serves it" == why
    assert availability.why_refused("inbox") is None


def test_a_look_that_ends_late_counts_no_more():
    """After a reload the name may mean another directory; after the end nobody asks."""
    trial, late = Trial(), Deferred()
    availability = trial.availability(DISK)
    availability.look = lambda _: late
    trial.clock.advance(LOOK_INTERVAL_S)
    moved = DirectoryConfig("/srv/inbox")
    availability.watch({"inbox": moved}, {"inbox": DISK}, {"inbox": DISK})
    late.callback(GONE)
    availability.stop()

    assert availability.why_refused("inbox") is None
    assert [] == trial.clock.getDelayedCalls()


def test_a_look_finds_directory_and_mount_point(tmp_path):
    """What is no directory, or is not below the mount point that is asked for, is missing."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    mount = mount_point_of(fd)
    os.close(fd)
    status = (tmp_path / "inbox").stat()
    there = DirectoryConfig(tmp_path / "inbox")

    found = FoundDirectory((status.st_dev, status.st_ino), mount)
    assert os.path.ismount(mount)
    assert found == look(there) == look(evolve(there, mount=os.fsdecode(mount)))
    assert Missing("its file system is not mounted") == look(evolve(there, mount=str(tmp_path)))
    assert GONE == look(DirectoryConfig(tmp_path / "absent"))
    assert Missing("Not a directory") == look(DirectoryConfig(tmp_path / "file"))


@pytest.fixture
def config(tmp_path):
    """Two directories, of which one is absent."""
    (tmp_path / "good").mkdir()
    names = ("good", "bad")
    peer = PeerConfig(generate_identity().public_key, rights={name: {Right.READ} for name in names})
    return Config(
        key=generate_identity(),
        listen=["127.0.0.1:0"],
        directories={name: DirectoryConfig(tmp_path / name) for name in names},
        peers={"camera": peer},
        drain_s=0,
    )


def is_served(service, name):
    """Whether a peer can open that directory."""
    try:
        service._make_store("camera", service.config.peers["camera"].rights, name, b"", None, b"")
    except Unavailable as error:
        assert f"directory {name} is not there now: " in str(error)
        return False
    return True


async def test_a_reload_tells_new_peers_whether_content_is_compressed(service_of, config, tmp_path):  # noqa: F811
    """Who connects afterwards is told; who is connected keeps what was agreed."""
    service = service_of(config)
    service.startService()
    before = service._factory.greeting.capabilities
    await service.reload(evolve(service.config, compress=Compress.NEVER))

    assert {commands.ZSTD} == set(before) - set(service._factory.greeting.capabilities)


async def test_the_others_are_served(service_of, config, tmp_path):  # noqa: F811
    """At the start, after a reload, and when one goes; each is served when it comes."""
    service = service_of(config)
    service.startService()
    at_start = [is_served(service, name) for name in ("good", "bad")]
    restart_needed = await service.reload(config)
    after_reload = [is_served(service, name) for name in ("good", "bad")]
    (tmp_path / "bad").mkdir()
    await until(lambda: is_served(service, "bad"))
    (tmp_path / "good").rmdir()
    await service.reload(config)
    gone = [is_served(service, name) for name in ("good", "bad")]
    rows = service._report(Asker(name="camera", is_admin=False))["directories"]

    assert [True, False] == at_start == after_reload
    assert () == restart_needed
    assert [False, True] == gone
    assert [("bad", True), ("good", False)] == [(row["name"], row["available"]) for row in rows]


async def test_a_peer_is_told_of_no_directory_to_which_it_has_no_right(service_of, config):  # noqa: F811
    """Neither where the configuration names it without a right, nor once the peer is not known any more."""
    known = config.peers["camera"]
    peer = evolve(known, rights={"good": {Right.READ}, "bad": set()})
    service = service_of(evolve(config, peers={"camera": peer}))
    service.startService()
    reports = [service._report(Asker(name=name, is_admin=False))["directories"] for name in ("camera", "gone")]

    assert [["good"], []] == [[row["name"] for row in rows] for rows in reports]


async def test_a_reload_takes_no_mount_point_for_the_disk(service_of, config, tmp_path, monkeypatch):  # noqa: F811
    """The disk of a directory is gone, and somebody reloads for another reason."""
    mounts = [b"/mnt/usb"]
    monkeypatch.setattr(looks, "mount_point_of", lambda _: mounts[0])
    (tmp_path / "bad").mkdir()
    service = service_of(config)
    service.startService()
    (tmp_path / "good").rename(tmp_path / "disk")
    (tmp_path / "good").mkdir()
    mounts[0] = b"/"
    await service.reload(config)
    unmounted = is_served(service, "good")
    mounts[0] = b"/mnt/usb"
    await service.reload(config)

    assert not unmounted
    assert is_served(service, "good")


async def test_a_directory_that_is_renamed_is_still_known(service_of, config, tmp_path, monkeypatch):  # noqa: F811
    """Its disk is gone, and a reload gives another name to its path: that is the mount point all the same."""
    mounts, looked = [b"/mnt/usb"], []
    monkeypatch.setattr(looks, "mount_point_of", lambda fd: looked.append(fd) or mounts[0])
    monkeypatch.setattr(availability, "ABSENT_LOOK_INTERVAL_S", 0.01)
    service = service_of(config)
    service.startService()
    (tmp_path / "good").rename(tmp_path / "disk")
    (tmp_path / "good").mkdir()
    mounts[0] = b"/"
    rights = evolve(config.peers["camera"], rights={"new": {Right.READ}})
    new = evolve(config, directories={"new": config.directories["good"]}, peers={"camera": rights})
    await service.reload(new)
    unmounted = is_served(service, "new")
    looked.clear()
    await until(lambda: len(looked) > 2)
    later = is_served(service, "new")
    mounts[0] = b"/mnt/usb"
    await service.reload(new)

    assert [False, False] == [unmounted, later]
    assert is_served(service, "new")


async def test_who_writes_to_a_mount_point_is_stopped_by_a_reload(service_of, config, tmp_path):  # noqa: F811
    """The daemon started without the disk; then its operator says where that is mounted, and nothing is yet."""
    camera = generate_identity()
    peer = PeerConfig(camera.public_key, rights={"good": {Right.WRITE}})
    service = service_of(evolve(config, peers={"camera": peer}))
    service.startService()
    make = connecting_protocol(clock=reactor, log=Log(), greeting=Greeting("client"))
    port = service.addresses[0].port
    pins = [service._identities[0].public_key]
    protocol = await connect(reactor, "127.0.0.1", port, [camera], pins, make_protocol=make)
    store = RemoteStore(protocol, "good", b"")
    await store.open(b"salt" * 4)
    mounted = DirectoryConfig(tmp_path / "good", mount=str(tmp_path / "good"))
    await service.reload(evolve(service.config, directories={**config.directories, "good": mounted}))
    served = is_served(service, "good")
    left = [each.ending() for each in service._factory]
    protocol.close()
    await protocol.when_lost()

    assert not served
    assert None not in left


def until_retrying(moving):
    """The event by which a command says that it waits."""
    return next(line for line in iter(moving.stdout.readline, b"") if b'"retrying"' in line)


def test_a_move_waits_for_a_directory_that_is_absent(tmp_path):
    """Like for a machine that is away: it says why, and goes on when the directory comes; its peer's others go on."""
    site = Site(tmp_path)
    site.inbox.rmdir()
    sent = plant(tmp_path / "source", 7, small=20, large=0)
    site.start()
    checked = site.realize("check", "hostb::inbox")
    asked = site.realize("status", "hostb", "--json")
    listed = site.realize("ls", "hostb::inbox")
    with site.spawn("--json", tmp_path / "source", "hostb::inbox", stdout=-1) as moving:
        retrying = until_retrying(moving)
        site.inbox.mkdir()
        moving.stdout.read()
    code = moving.returncode
    site.stop()

    sentence = "directory inbox is not there now: No such file or directory"
    assert 3 == checked.returncode
    assert f"FAIL  directory      {sentence}" in checked.stdout
    assert "the daemon notices by itself" in checked.stdout
    assert '"available": false' in asked.stdout
    assert 1 == listed.returncode
    assert sentence in listed.stderr
    assert b"UNAVAILABLE" in retrying
    assert 0 == code
    assert sent == digests(site.inbox)
    assert {} == digests(tmp_path / "source")


def test_a_directory_that_goes_in_the_middle_loses_no_file(tmp_path):
    """The move waits, and all arrives below the directory that comes back."""
    site = Site(tmp_path)
    site.start()
    sent = plant(tmp_path / "source", 8, small=40, large=3)
    with site.spawn("--json", "--throttle", "3M", tmp_path / "source", "hostb::inbox", stdout=-1) as moving:
        wait_for(lambda: any(site.inbox.iterdir()))
        site.inbox.rename(tmp_path / "elsewhere")
        until_retrying(moving)
        (tmp_path / "elsewhere").rename(site.inbox)
        moving.stdout.read()
    code = moving.returncode
    site.stop()

    assert 0 == code
    assert sent == digests(site.inbox)
    assert {} == digests(tmp_path / "source")


def test_of_several_sources_the_one_that_is_absent_comes_last(tmp_path):
    """It keeps no other from being moved, and is waited for."""
    site = Site(tmp_path)
    config = tmp_path / "realized.toml"
    rights = json.dumps(site.rights)
    config.write_text(
        config.read_text().replace("dirs = {", f"dirs = {{ outbox = {rights},")
        + f"[dirs.outbox]\npath = {json.dumps(str(tmp_path / 'outbox'))}\n"
    )
    first = plant(site.inbox, 9, small=5, large=0)
    site.start()
    with site.spawn("--json", "hostb::outbox", "hostb::inbox", tmp_path / "into", stdout=-1) as moving:
        until_retrying(moving)
        arrived = digests(tmp_path / "into")
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "other").write_bytes(b"content")
        second = digests(tmp_path / "later")
        (tmp_path / "later").rename(tmp_path / "outbox")
        moving.stdout.read()
    code = moving.returncode
    site.stop()

    assert first == arrived
    assert 0 == code
    assert {**first, **second} == digests(tmp_path / "into")
    assert {} == digests(site.inbox) == digests(tmp_path / "outbox")
