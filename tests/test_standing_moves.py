"""Standing moves of a daemon, between two daemons in this process: real files, events, connections and clocks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import deferLater

from realize.clocks import since_boot_s
from realize.config import Config, DirectoryConfig, MoveConfig, PeerConfig, Right, ThrottleConfig
from realize.daemon import RealizedService
from realize.errors import ConfigError, Conflict, NotFound, UsageError
from realize.keys import generate_identity
from realize.mover import jobs as mover_jobs
from realize.mover import run as mover_run
from realize.moves import feed, one_run
from realize.moves.after_program import AfterOutcome
from realize.moves.one_run import OneRun
from realize.moves.status import MoveStatus, Phase, RunResult
from realize.schedule.timetable import parse_timetable
from realize.store.local import store
from realize.store.local.location import RootedLocation
from realize.throttle.tree import Scope
from realize.values import OnConflict
from realize.watch import jobs as watch_jobs
from realize.watch import source_watch
from realize.wire.commands import Direction
from tests.processes import free_port

PATIENCE_S = 30.0
"""After so long, what is waited for will not happen."""

SETTLE_S = 0.1


async def until(holds: Callable[[], object], what: str = "it") -> None:
    """Wait until something holds."""
    given_up = reactor.seconds() + PATIENCE_S  # type: ignore[attr-defined]
    while not holds():
        assert reactor.seconds() < given_up, f"{what} did not happen"  # type: ignore[attr-defined]
        await deferLater(reactor, 0.01)


def files(directory: Path) -> dict[str, str]:
    """What is in a directory, by path: the content of each file, but for those that go meanwhile."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):
                found[str(path.relative_to(directory))] = path.read_text()
    return found


class Two:
    """A machine that produces files, ``cam``, and one that takes them, ``nas``, each with a daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out, self.inbox = folder / "out", folder / "inbox"
        self.out.mkdir()
        self.inbox.mkdir()
        self.keys = {"cam": generate_identity(), "nas": generate_identity()}
        self.port = free_port()
        self.services: dict[str, RealizedService] = {}

    def nas_config(self, *rights: Right) -> Config:
        """Of the machine that takes files."""
        peer = PeerConfig(self.keys["cam"].public_key, rights={"inbox": set(rights or {Right.CREATE})})
        return Config(
            key=self.keys["nas"],
            listen=[f"127.0.0.1:{self.port}"],
            directories={"inbox": DirectoryConfig(self.inbox)},
            peers={"cam": peer},
            drain_s=0,
        )

    def cam_config(self, *, state: bool = False, **move: Any) -> Config:
        """Of the machine that produces files, with one move."""
        given = {"sources": [str(self.out)], "destination": "nas::inbox", "settle_s": SETTLE_S, **move}
        return Config(
            key=self.keys["cam"],
            listen=[],
            peers={"nas": PeerConfig(self.keys["nas"].public_key, f"127.0.0.1:{self.port}")},
            moves={"out": MoveConfig(**given)},
            state=str(self.folder / "state") if state else None,
            drain_s=0,
        )

    def start(self, name: str, config: Config) -> RealizedService:
        """Start one of the daemons."""
        service = self.services[name] = RealizedService(config, reactor)
        service.startService()
        return service

    async def stop(self, name: str) -> None:
        """Stop one of the daemons."""
        await self.services.pop(name).stopService()

    async def stop_all(self) -> None:
        """Stop those that run."""
        for name in list(self.services):
            await self.stop(name)

    def status(self) -> MoveStatus:
        """What the daemon that moves knows of its only move."""
        [status] = self.services["cam"].moves.statuses()
        return status

    async def moving(self, **move: Any) -> None:
        """Start both, and wait until the source is watched."""
        self.start("nas", self.nas_config())
        self.start("cam", self.cam_config(**move))
        await until(self.services["cam"].moves.statuses, "loading")
        await until(lambda: set(self.status().watching.values()) <= {"events"}, "watching")

    async def settled(self) -> None:
        """Wait until nothing is known that is not moved."""
        await until(lambda: self.status().backlog.files == 0, "moving everything")


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait five seconds for the end of each run."""
    monkeypatch.setattr(feed, "LINGER_S", 0.5)


@pytest_twisted.async_yield_fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """Two machines whose daemons are stopped when the test has ended."""
    machines = Two(tmp_path)
    yield machines
    await machines.stop_all()


async def test_files_are_moved_as_they_settle(two: Two) -> None:
    """Those that were there before, those in directories that are made later, and those that are renamed into place."""
    (two.out / "before").write_text("1")
    await two.moving()
    (two.out / "deep" / "er").mkdir(parents=True)
    (two.out / "deep" / "er" / "new").write_text("2")
    (two.out / "part").write_text("3")
    (two.out / "part").rename(two.out / "whole")
    await until(lambda: len(files(two.inbox)) == 3, "arrival")
    await two.settled()

    assert {"before": "1", "deep/er/new": "2", "whole": "3"} == files(two.inbox)
    assert {} == files(two.out)
    assert (two.out / "deep" / "er").is_dir()
    assert 3 == two.status().totals.moved_files


async def test_what_is_being_written_stays(two: Two) -> None:
    """Until its writer closes it, however long it pauses; others go meanwhile."""
    await two.moving()
    with (two.out / "slow").open("w") as slow:
        slow.write("1")
        slow.flush()
        for number in range(3):
            (two.out / f"{number}").write_text("x")
            await until(lambda number=number: (two.inbox / f"{number}").exists(), "arrival")
        during = files(two.inbox)
        slow.write("2")
    await until((two.inbox / "slow").exists, "arrival of what was written")

    assert {"0", "1", "2"} == during.keys()
    assert "12" == (two.inbox / "slow").read_text()


async def test_a_new_version_is_moved_again(two: Two) -> None:
    """A file that is written anew right after it was moved is no stranger's; it replaces the one before if it may."""
    two.start("nas", two.nas_config(Right.WRITE))
    two.start("cam", two.cam_config(on_conflict=OnConflict.REPLACE))
    for content in ("1", "2", "3"):
        (two.out / "log").write_text(content)
        await until(lambda content=content: files(two.inbox).get("log") == content, f"arrival of {content}")
        await until(lambda: not (two.out / "log").exists(), "removal")


async def test_a_new_version_is_kept_beside_the_one_before(two: Two) -> None:
    """If nothing else is configured: nothing that was there is destroyed unasked."""
    two.start("nas", two.nas_config(Right.CREATE))
    two.start("cam", two.cam_config())
    for content in ("1", "2", "3"):
        (two.out / "log").write_text(content)
        await until(lambda content=content: content in files(two.inbox).values(), f"arrival of {content}")
        await until(lambda: not (two.out / "log").exists(), "removal")

    assert {"log": "1", "log.1": "2", "log.2": "3"} == files(two.inbox)


async def first_run(two: Two) -> RunResult:
    """Move a file, and return what came of the run."""
    (two.out / "f").write_text("1")
    await two.moving()
    await until(lambda: two.status().last_run is not None, "a run")
    last = two.status().last_run
    assert last is not None
    return last


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_during_a_run_changes_no_duration(
    two: Two, monkeypatch: pytest.MonkeyPatch, set_by: float
) -> None:
    """Neither of the run nor in the sum of all; when it ended is what the clock shows then."""
    ahead = chain([0.0], repeat(set_by))
    monkeypatch.setattr(one_run, "time", SimpleNamespace(time=lambda: time.time() + next(ahead)))
    last = await first_run(two)

    assert 0.0 < last.ended - last.began < 60.0
    assert abs(last.ended - time.time() - set_by) < 60.0
    assert 0.0 < two.status().totals.run_seconds < 60.0


async def test_a_run_lasts_while_the_machine_is_suspended(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """It began when it began; the reactor's clock stands still meanwhile."""
    asleep = chain([0.0], repeat(3600.0))
    slept = chain([0.0], repeat(3600.0))
    monkeypatch.setattr(one_run, "time", SimpleNamespace(time=lambda: time.time() + next(asleep)))
    monkeypatch.setattr(one_run, "since_boot_s", lambda: since_boot_s() + next(slept))
    last = await first_run(two)

    assert 3600.0 < last.ended - last.began < 3660.0
    assert abs(last.began - time.time()) < 60.0


async def test_a_far_end_that_is_away_is_waited_for(two: Two, records: list[tuple[str, dict[str, object]]]) -> None:
    """What has come meanwhile is moved when it is back; the log says once that it was away, and that it is back."""
    two.start("cam", two.cam_config())
    (two.out / "a").write_text("1")
    await until(lambda: two.services["cam"].moves.statuses() and two.status().phase is Phase.FAILING, "failing")
    (two.out / "b").write_text("2")
    await until(lambda: two.status().backlog.files == 2, "backlog")
    failing = two.status()
    two.start("nas", two.nas_config())
    await until(lambda: len(files(two.inbox)) == 2, "arrival")
    await until(lambda: two.status().phase is Phase.IDLE, "rest")

    assert "cannot be reached" in failing.error
    assert failing.failing_since is not None
    assert failing.next_run is not None
    told = [event for event, _ in records if event in {"move_failing", "move_recovered", "run_failed", "retrying"}]
    assert ["move_failing", "move_recovered"] == told
    assert two.status().last_success is not None


async def test_a_right_that_is_withdrawn_stops_nothing_else(two: Two) -> None:
    """The move waits, nothing is lost, and it goes on when the right is back."""
    await two.moving()
    peer = two.nas_config().peers["cam"]
    await two.services["nas"].reload(evolve(two.nas_config(), peers={"cam": evolve(peer, rights={})}))
    (two.out / "a").write_text("1")
    await until(lambda: two.status().phase is Phase.FAILING, "failing")
    failing = two.status()
    await two.services["nas"].reload(two.nas_config())
    await until(lambda: files(two.inbox) == {"a": "1"}, "arrival")

    assert {"denied": failing.totals.failures["denied"]} == failing.totals.failures


async def test_a_file_that_cannot_be_moved_holds_up_no_other(two: Two) -> None:
    """It is tried again after its own delay, and moved once nothing is in its way."""
    (two.inbox / "taken").write_text("another")
    await two.moving(on_conflict=OnConflict.FAIL)
    (two.out / "taken").write_text("mine")
    await until(lambda: two.status().failed_files == 1, "failure")
    (two.out / "free").write_text("1")
    await until((two.inbox / "free").exists, "arrival of the other")
    await until(lambda: two.status().phase is Phase.STUCK, "a rest with a file that cannot be moved")
    failing = two.status()
    (two.inbox / "taken").unlink()
    await until(lambda: files(two.inbox) == {"free": "1", "taken": "mine"}, "arrival")
    await until(lambda: two.status().failed_files == 0, "forgiveness")
    await until(lambda: two.status().phase is Phase.IDLE, "rest")

    assert "taken" in failing.file_error
    assert failing.totals.failures["conflict"] >= 1


async def test_by_the_clock_files_of_a_peer_are_fetched(two: Two) -> None:
    """Each second, into a directory of this machine, which is made if it is missing."""
    two.start("nas", two.nas_config(Right.READ, Right.REMOVE))
    home = two.folder / "home"
    config = two.cam_config(sources=["nas::inbox"], destination=str(home), when="every 1s", jitter_s=0.0, settle_s=0.0)
    two.start("cam", config)
    for name in ("a", "b"):
        (two.inbox / name).write_text(name)
        await until(lambda name=name: (home / name).exists(), "arrival")
    await until(lambda: not files(two.inbox), "removal")

    assert {"a": "a", "b": "b"} == files(home)


async def test_sources_and_destination_may_be_of_this_machine(two: Two) -> None:
    """Several sources, into one directory, without any peer."""
    more = two.folder / "more"
    more.mkdir()
    two.start("cam", two.cam_config(sources=[str(two.out), str(more)], destination=str(two.inbox)))
    for number in range(5):
        (two.out / f"a{number}").write_text("1")
        (more / f"b{number}").write_text("2")
        await until(lambda number=number: (two.inbox / f"b{number}").exists(), "arrival")
    await until(lambda: not files(two.out) and not files(more), "removal")

    assert 10 == len(files(two.inbox))


async def test_a_source_that_is_missing_holds_up_no_other(two: Two) -> None:
    """It is taken up when it comes."""
    late = two.folder / "late"
    two.start("cam", two.cam_config(sources=[str(late), str(two.out)], destination=str(two.inbox)))
    (two.out / "a").write_text("1")
    await until((two.inbox / "a").exists, "arrival")
    missing = two.status().watching[str(late)]
    late.mkdir()
    (late / "b").write_text("2")
    await until((two.inbox / "b").exists, "arrival from the late one")

    assert "absent" == missing


class Disk:
    """A source whose disk can be made to hang: then whatever works there waits, in its thread, from the next read on.

    Whoever looks whether the source is there waits only after that: else it may be absent before anything is read.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answers = threading.Event()
        self._answers.set()
        self._path = os.fsencode(path)
        self.reads = 0
        """How often files were to be read since it hangs."""
        read_batch, locate = store.read_batch, source_watch.locate_source

        def read(where: RootedLocation, *more: Any) -> Any:
            if where.root.path == self._path:
                self.reads += 1
                self._answers.wait(3 * PATIENCE_S)
            return read_batch(where, *more)

        def found(where: bytes) -> Any:
            if where == self._path and self.reads:
                self._answers.wait(3 * PATIENCE_S)
            return locate(where)

        monkeypatch.setattr(store, "read_batch", read)
        monkeypatch.setattr(source_watch, "locate_source", found)

    def hang(self) -> None:
        """Answer no more."""
        self._answers.clear()
        self.reads = 0

    def answer(self) -> None:
        """Answer again."""
        self._answers.set()


@pytest.fixture
def disk(two: Two, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """That of the first source, and nobody who waits for it for long."""
    monkeypatch.setattr(source_watch, "CHECK_S", 0.1)
    monkeypatch.setattr(watch_jobs, "HANGS_AFTER_S", 0.5)
    monkeypatch.setattr(mover_jobs, "CANCEL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(one_run, "PATIENCE_S", 0.5)
    disk = Disk(two.out, monkeypatch)
    yield disk
    disk.answer()


async def test_a_disk_that_hangs_in_a_run_holds_up_no_other_source(two: Two, disk: Disk) -> None:
    """The run that waits for it is given up, and others move what settles elsewhere; its files go when it answers."""
    more = two.folder / "more"
    more.mkdir()
    await two.moving(sources=[str(two.out), str(more)])
    disk.hang()
    (two.out / "a").write_text("1")
    await until(lambda: disk.reads, "hanging")
    await until(lambda: two.status().watching[str(two.out)] == "absent", "noticing")
    (more / "b").write_text("2")
    await until((two.inbox / "b").exists, "arrival from the other source")
    await until(lambda: not (more / "b").exists(), "removal at the other source")
    meanwhile = files(two.out)
    disk.answer()
    await until((two.inbox / "a").exists, "arrival when it answers")
    await two.settled()

    assert {"a": "1"} == meanwhile
    assert {"a": "1", "b": "2"} == files(two.inbox)
    assert {} == files(two.out) | files(more)


async def test_pausing_ends_a_run_that_hangs(two: Two, disk: Disk) -> None:
    """It does not wait for the disk, and resuming goes on as if nothing had been."""
    await two.moving()
    disk.hang()
    (two.out / "a").write_text("1")
    await until(lambda: disk.reads, "hanging")
    two.services["cam"].moves.pause("out")
    await until(lambda: two.status().running is None, "the end of the run")
    two.services["cam"].moves.resume("out")
    disk.answer()
    await until((two.inbox / "a").exists, "arrival")
    await two.settled()

    assert {"a": "1"} == files(two.inbox)
    assert {} == files(two.out)


async def test_a_reload_adds_changes_and_removes_moves(two: Two) -> None:
    """What is gone moves nothing more, and what is new begins; a bad entry changes nothing at all."""
    await two.moving()
    cam = two.services["cam"]
    config = two.cam_config()
    bad = evolve(config, moves={"out": evolve(config.moves["out"], when="now and then")})
    with pytest.raises(ConfigError, match=r"moves\.out\.when"):
        await cam.reload(bad)
    (two.out / "a.tmp").write_text("1")
    await until((two.inbox / "a.tmp").exists, "arrival after a bad reload")
    await cam.reload(two.cam_config(exclude=["*.tmp"]))
    (two.out / "b.tmp").write_text("2")
    (two.out / "b").write_text("2")
    await until((two.inbox / "b").exists, "arrival of what is not excluded")
    await cam.reload(evolve(config, moves={"other": evolve(config.moves["out"], exclude=["b.tmp"])}))
    (two.out / "c").write_text("3")
    await until(lambda: (two.inbox / "c").exists() and not (two.out / "c").exists(), "the new move")

    assert ["other"] == [status.name for status in cam.moves.statuses()]
    assert {"b.tmp": "2"} == files(two.out)


async def test_a_key_that_is_taken_out_ends_what_goes_on_with_it(two: Two) -> None:
    """A file on its way to whoever has that key does not arrive, and no other begins; with the key back, all go on."""
    (two.out / "a").write_bytes(os.urandom(8 << 20))
    two.start("nas", two.nas_config())
    config = two.cam_config(throttle="1M")
    cam = two.start("cam", config)
    await until(lambda: [*two.inbox.glob(".a*")], "beginning")
    other = PeerConfig(generate_identity().public_key, config.peers["nas"].address)
    await cam.reload(evolve(config, peers={"nas": other}))
    (two.out / "b").write_text("b")
    await until(lambda: two.status().phase is Phase.FAILING, "failing")
    during, arrived = two.status().error, files_of(two.inbox)
    known = two.keys["nas"].public_key
    both = PeerConfig(keys=[known, other.pins[0]], address=other.address)
    await cam.reload(evolve(two.cam_config(), peers={"nas": both}))
    cam.moves.run("out")
    await until(lambda: not files_of(two.out), "moving everything")

    assert f"shows the key {known.fingerprint} instead of {other.pins[0].fingerprint}" in during
    assert set() == arrived
    assert {"a", "b"} == files_of(two.inbox)


async def test_a_move_stays_paused_over_a_restart(two: Two) -> None:
    """With a state directory; resumed, it moves what has come meanwhile."""
    await two.moving(state=True)
    moves = two.services["cam"].moves
    with pytest.raises(NotFound, match="there is no move 'tape'"):
        moves.pause("tape")
    moves.pause("out")
    await two.stop("cam")
    (two.out / "a").write_text("1")
    two.start("cam", two.cam_config(state=True))
    await until(two.services["cam"].moves.statuses, "loading")
    await until(lambda: two.status().backlog.files == 1, "backlog")
    paused = two.status().phase
    with pytest.raises(Conflict, match="resume it first"):
        two.services["cam"].moves.run("out")
    two.services["cam"].moves.resume("out")
    await until(lambda: files(two.inbox) == {"a": "1"}, "arrival")

    assert Phase.PAUSED is paused


async def test_a_run_that_is_asked_for_waits_for_nothing(two: Two) -> None:
    """Neither for the clock nor for a delay."""
    two.start("nas", two.nas_config())
    two.start("cam", two.cam_config(when="Mon 04:00", settle_s=0.0))
    (two.out / "a").write_text("1")
    await until(two.services["cam"].moves.statuses, "loading")
    next_run = two.status().next_run
    two.services["cam"].moves.run("out")
    await until(lambda: files(two.inbox) == {"a": "1"}, "arrival")

    assert next_run is not None


async def test_a_program_is_told_of_what_was_moved(two: Two) -> None:
    """On its standard input, after the run."""
    told = two.folder / "told"
    program = two.folder / "program"
    program.write_text(f"#!/bin/sh\ncat >> {told}\n")
    program.chmod(0o700)
    await two.moving(after=[str(program)])
    # Every way to end is counted from the start, so that the first is an increase.
    assert {outcome.value: 0 for outcome in AfterOutcome} == two.status().totals.after
    (two.out / "a").write_text("1")
    await until(lambda: told.exists() and told.read_text(), "telling")
    await until(lambda: two.status().totals.after.get("ok") == 1, "its end")

    assert '"moved_files": 1' in told.read_text().replace('":', '": ').replace("  ", " ")


async def test_a_daemon_that_stops_leaves_nothing_of_its_moves(two: Two) -> None:
    """While a run goes on: no timer, thread or descriptor; what had not arrived is moved by the next daemon."""
    await two.moving()
    for number in range(200):
        (two.out / f"{number}").write_bytes(os.urandom(10_000))
    await until(lambda: two.inbox.is_dir() and any(two.inbox.iterdir()), "a first arrival")
    await two.stop("cam")
    there, here = files_of(two.inbox), files_of(two.out)
    two.start("cam", two.cam_config())
    await until(lambda: len(files_of(two.inbox)) == 200 and not files_of(two.out), "arrival of the rest")

    assert 200 <= len(there) + len(here)


def files_of(directory: Path) -> set[str]:
    """The names of the files in a directory, but for partials."""
    return {path.name for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")}


async def test_empty_directories_go_when_they_are_to(two: Two) -> None:
    """After a run that is asked for, or once an hour; what is open for writing stays, and its directory with it."""
    two.start("nas", two.nas_config())
    two.start("cam", two.cam_config(prune_age_s=0.0))
    await until(two.services["cam"].moves.statuses, "loading")
    for name in ("gone", "kept"):
        (two.out / name).mkdir()
    with (two.out / "kept" / "slow").open("w"):
        (two.out / "gone" / "a").write_text("1")
        await until((two.inbox / "gone" / "a").exists, "arrival")
        await until(lambda: not (two.out / "gone" / "a").exists(), "removal")
        before = (two.out / "gone").is_dir()
        two.services["cam"].moves.run("out")
        await until(lambda: not (two.out / "gone").exists(), "removal of the directory")

        assert before
        assert (two.out / "kept" / "slow").exists()
        assert not (two.inbox / "kept").exists()


async def test_a_move_that_comes_back_waits_for_the_end_of_the_former_one(two: Two) -> None:
    """Removed and added again by two reloads at once, it does not run twice."""
    await two.moving()
    cam = two.services["cam"]
    for number in range(100):
        (two.out / f"{number}").write_bytes(os.urandom(10_000))
    await until(lambda: any(two.inbox.iterdir()), "a first arrival")
    other = evolve(two.cam_config().moves["out"], sources=[str(two.folder / "none")])
    gone = cam.reload(evolve(two.cam_config(), moves={"other": other}))
    back = cam.reload(two.cam_config())
    await gone
    await back
    await until(lambda: len(files_of(two.inbox)) == 100 and not files_of(two.out), "arrival of all")
    await until(lambda: ["out"] == [status.name for status in cam.moves.statuses()], "its coming back")


async def test_nothing_is_remembered_of_a_move_that_was_removed_while_it_ran(two: Two) -> None:
    """The run that ends then is not remembered either, nor is it known to a move of that name that comes later."""
    await two.moving(state=True)
    cam, config = two.services["cam"], two.cam_config(state=True)
    (two.out / "file").write_text("1")
    await until(lambda: two.status().phase is Phase.RUNNING, "a run")
    other = evolve(config.moves["out"], sources=[str(two.folder / "none")])
    await cam.reload(evolve(config, moves={"other": other}))
    await two.stop("cam")

    assert [] == [name for name in os.listdir(two.folder / "state") if name.startswith("out")]


async def test_a_fault_of_ours_in_a_run_forgets_no_file(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trouble as any other: told, and tried again, with the files that were in flight."""
    session, broken, logged = OneRun._session, list[OneRun](), list[str]()
    monkeypatch.setattr(one_run, "_twisted", SimpleNamespace(failure=logged.append))

    async def breaking(run: OneRun) -> None:
        if broken:
            await session(run)
        else:
            broken.append(run)
            await run._feeds[0].next_page()
            raise ZeroDivisionError

    monkeypatch.setattr(OneRun, "_session", breaking)
    (two.out / "a").write_text("1")
    await two.moving()
    await until(lambda: two.status().error_code == "internal", "trouble")
    await until((two.inbox / "a").exists, "arrival")
    await until(lambda: two.status().phase is Phase.IDLE, "rest")

    assert 1 == two.status().totals.failures["internal"] == len(logged)


async def test_what_a_move_sends_keeps_to_the_limits_of_the_daemon(two: Two) -> None:
    """To that of the service and that of the peer, beside its own; the peer learns nothing of them."""
    two.start("nas", two.nas_config())
    limited = ThrottleConfig(service_bps=100_000, peers_bps={"nas": parse_timetable("00:00,50k")}, connection_bps=10)
    cam = two.start("cam", evolve(two.cam_config(throttle_up="1M"), throttle=limited))
    (two.out / "a").write_bytes(os.urandom(100_000))
    began = reactor.seconds()  # type: ignore[attr-defined]
    await until(lambda: cam.moves.statuses() and two.status().running, "a run")
    await until((two.inbox / "a").exists, "arrival")
    took = reactor.seconds() - began  # type: ignore[attr-defined]

    # 100,000 bytes at 51,200 a second.
    assert took > 1.8


async def test_a_move_may_be_limited_while_it_runs(two: Two) -> None:
    """By the name of its connection, as `realize throttle` does it; what it receives is not for that."""
    two.start("nas", two.nas_config())
    cam = two.start("cam", two.cam_config(throttle_up="20k"))
    (two.out / "a").write_bytes(os.urandom(400_000))
    await until(lambda: cam.moves.statuses() and two.status().running, "a run")
    throttling = cam._throttling

    def rows() -> dict[str, object]:
        return {row["name"]: row["limit"] for row in throttling.report("", is_admin=True) if row["peer"] == "nas"}

    await until(lambda: rows().get("out1") == 20 << 10, "the limit of the connection")
    # By then the peer has asked for it, too, which would replace what is set here.
    await until(lambda: two.status().running is not None and two.status().running.in_flight, "sending")
    with pytest.raises(UsageError, match="throttle_down"):
        throttling.set("uid 0", "", Scope.CONNECTION, "out1", Direction.BOTH, 1 << 20, None, is_admin=True)
    throttling.set("uid 0", "0", Scope.CONNECTION, "out1", Direction.SEND, None, None, is_admin=True)
    lifted = rows()
    await until((two.inbox / "a").exists, "arrival")

    assert {"nas": None, "out1": None} == lifted
    await until(lambda: two.status().running is None or "out1" not in rows(), "the end of the run")


async def test_by_the_clock_a_disk_that_hangs_holds_up_no_other_source_of_its_run(
    two: Two, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next source begins beside it; the run goes on until the disk answers, and no other run begins meanwhile."""
    monkeypatch.setattr(mover_run, "SOURCE_IDLE_S", 0.2)
    more = two.folder / "more"
    more.mkdir()
    (two.out / "a").write_text("1")
    (more / "b").write_text("2")
    disk.hang()
    await two.moving(sources=[str(two.out), str(more)], when="every 1h", settle_s=0.0)
    two.services["cam"].moves.run("out")
    await until((two.inbox / "b").exists, "arrival from the other source")
    await until(lambda: not (more / "b").exists(), "removal at the other source")
    running = two.status().running is not None
    disk.answer()
    await until((two.inbox / "a").exists, "arrival when it answers")
    await until(lambda: two.status().running is None, "the end of the run")

    assert running
    assert {"a": "1", "b": "2"} == files(two.inbox)
