"""What a daemon tells its service manager, and when: `realize.daemon.readiness`, and a daemon under twistd."""

from __future__ import annotations

import signal

import pytest
from twisted.internet.task import Clock

from realize.daemon.readiness import STATUS_INTERVAL_S, STOP_MARGIN_S, Readiness
from realize.daemon.twistd_service import DRAIN_KILL_AFTER_S
from tests.notify_socket import NotifySocket
from tests.processes import Site, start_daemon, wait_for


class Manager:
    """A service manager in memory, which may be too busy to listen."""

    def __init__(self, watchdog_s=None):
        self.watchdog_s = watchdog_s
        self.is_there = True
        self.is_busy = False
        self.heard = []

    def tell(self, *assignments):
        """Hear it unless it is busy."""
        if not self.is_busy:
            self.heard.append(assignments)
        return self.is_busy


class World:
    """A daemon that does ``activity``, a clock, and who is told."""

    def __init__(self, watchdog_s=None):
        self.clock, self.manager = Clock(), Manager(watchdog_s)
        self.activity = "Serves"
        self.readiness = Readiness(self.manager, self.clock, lambda: self.activity)

    def heard(self):
        """What was heard since the last look."""
        heard, self.manager.heard = self.manager.heard, []
        return heard


@pytest.fixture
def world():
    """With a daemon that is not ready yet."""
    world = World()
    yield world
    world.readiness.stop()


def test_nothing_is_told_before_it_is_ready(world):
    """And then that, and what it does."""
    world.clock.advance(60)
    before = world.heard()

    world.readiness.ready()

    assert ([], [("READY=1",), ("STATUS=Serves",)]) == (before, world.heard())


def test_what_it_does_is_told_when_it_changes(world):
    """Once in some seconds at most."""
    world.readiness.ready()
    world.heard()
    for number in range(10):
        world.activity = f"Serves {number}"
        world.clock.advance(STATUS_INTERVAL_S / 10)
    changed = world.heard()
    world.clock.pump([STATUS_INTERVAL_S] * 10)

    assert [("STATUS=Serves 9",)] == changed
    assert [] == world.heard()


def test_a_reload_begins_and_ends(world):
    """When it begins is said by the clock that the service manager has."""
    world.clock.advance(7)
    world.readiness.ready()
    world.heard()

    world.readiness.reloading()
    world.readiness.reloaded(failed=False)

    assert [("RELOADING=1", "MONOTONIC_USEC=7000000"), ("READY=1",)] == world.heard()


def test_reloads_that_overlap_are_one(world):
    """It is ready again when all of them have ended."""
    world.readiness.ready()
    world.heard()

    world.readiness.reloading()
    world.readiness.reloading()
    world.readiness.reloaded(failed=False)
    between = world.heard()
    world.readiness.reloaded(failed=False)

    assert ([("RELOADING=1", "MONOTONIC_USEC=0")], [("READY=1",)]) == (between, world.heard())


def test_the_status_says_that_a_reload_failed(world):
    """Until one goes well; why is in the log, which not everybody may read."""
    world.readiness.ready()
    world.heard()

    world.readiness.reloading()
    world.readiness.reloaded(failed=True)
    failed = world.heard()
    world.readiness.reloading()
    world.readiness.reloaded(failed=False)

    assert ("STATUS=The last reload failed, see the log; Serves",) == failed[-1]
    assert ("STATUS=Serves",) == world.heard()[-1]


def test_it_asks_for_the_time_that_a_stop_takes(world):
    """``TimeoutStopSec`` of the unit may be shorter than the drain time of the configuration; nothing else follows."""
    world.readiness.ready()
    world.heard()

    world.readiness.stopping(600, 615)
    world.readiness.reloading()
    world.readiness.reloaded(failed=False)
    world.activity = "Serves less"
    world.clock.pump([STATUS_INTERVAL_S] * 3)

    extension = f"EXTEND_TIMEOUT_USEC={int((615 + STOP_MARGIN_S) * 1e6)}"
    assert [("STOPPING=1", "STATUS=Stops: transfers may go on for 600 s", extension)] == world.heard()


def test_a_daemon_that_stops_before_it_runs_is_never_ready(world):
    """As one does that gets the signal while it starts."""
    world.readiness.stopping(0, 15)
    world.readiness.ready()

    assert ["STOPPING=1"] == [first for first, *_ in world.heard()]


def test_a_state_is_told_again_to_a_manager_that_was_busy(world):
    """Without it the service manager would end the daemon; only the last state counts."""
    world.manager.is_busy = True
    world.readiness.ready()
    world.readiness.reloading()
    world.readiness.reloaded(failed=False)
    world.manager.is_busy = False
    world.clock.advance(STATUS_INTERVAL_S)

    assert [("READY=1",), ("STATUS=Serves",)] == world.heard()


def test_the_watchdog_is_fed_in_time():
    """Four times as often as it wants, as long as the reactor runs."""
    world = World(watchdog_s=60.0)
    world.readiness.ready()
    world.heard()
    world.clock.pump([1] * 60)
    fed = world.heard()
    world.readiness.stopping(60, 75)
    world.clock.pump([1] * 60)
    world.readiness.stop()
    draining = world.heard()
    world.clock.pump([1] * 60)

    assert [("WATCHDOG=1",)] * 4 == fed == draining[1:]
    assert [] == world.heard()


def test_without_a_service_manager_no_timer_runs(world):
    """Nothing is asked for, and nothing told."""
    world.manager.is_there = False

    world.readiness.ready()

    assert ([], []) == (world.clock.getDelayedCalls(), world.heard())


def test_a_daemon_tells_systemd_of_its_life(tmp_path):
    """It listens when it says so; a reload, also one that fails, and its end are told."""
    site = Site(tmp_path)
    with NotifySocket(str(tmp_path / "notify")) as systemd:
        site.start(environ={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "2000000"})
        systemd.wait_for("READY", "1")
        assert 0 == site.realize("status", "hostb").returncode
        status = systemd.wait_for("STATUS")["STATUS"]
        systemd.wait_for("WATCHDOG", "1")
        site.daemon.send_signal(signal.SIGHUP)
        systemd.wait_for("RELOADING", "1")
        systemd.wait_for("READY", "1")
        site.write_daemon_config("nonsense = 1\n")
        site.daemon.send_signal(signal.SIGHUP)
        systemd.wait_for("READY", "1")
        failed = systemd.wait_for("STATUS")["STATUS"]
        code = site.stop()
        stopping = systemd.wait_for("STOPPING", "1")

    assert "Serves 1 directory to 1 peer; 0 connections" == status
    assert "The last reload failed, see the log; Serves 1 directory to 1 peer; 0 connections" == failed
    assert float(stopping["EXTEND_TIMEOUT_USEC"]) / 1e6 == 10 + DRAIN_KILL_AFTER_S + STOP_MARGIN_S
    assert ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"] == systemd.said()
    assert -signal.SIGTERM == code


def test_a_daemon_that_cannot_listen_is_not_ready(tmp_path):
    """The service manager learns of it by the exit code, and may try again."""
    site = Site(tmp_path)
    site.start()
    try:
        with NotifySocket(str(tmp_path / "notify")) as systemd:
            second = start_daemon(
                tmp_path / "realized.toml", tmp_path / "second.log", environ={"NOTIFY_SOCKET": systemd.address}
            )
            code = second.wait(30)
            with pytest.raises(AssertionError):
                systemd.wait_for("READY", seconds=0)
    finally:
        site.stop()

    assert 1 == code
    assert '"cannot_start"' in (tmp_path / "second.log").read_text()


def test_a_daemon_that_is_told_to_nobody_goes_on(tmp_path):
    """It says in its log that it could not tell."""
    site = Site(tmp_path)
    site.start(environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    wait_for(lambda: "service_manager_unreachable" in site.log.read_text())

    assert 0 == site.realize("status", "hostb").returncode
    assert -signal.SIGTERM == site.stop()


def test_a_daemon_that_the_watchdog_ends_says_what_it_did(tmp_path):
    """All threads, so that somebody can find out why it hung."""
    site = Site(tmp_path)
    with NotifySocket(str(tmp_path / "notify")) as systemd:
        site.start(environ={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "60000000"})
        systemd.wait_for("READY", "1")

        code = site.stop(signal.SIGABRT)

    assert -signal.SIGABRT == code
    assert "most recent call first" in site.log.read_text()


def test_a_program_after_a_move_cannot_speak_for_the_daemon(tmp_path):
    """Nothing of the service manager is in its environment, nor in that of the daemon."""
    site = Site(tmp_path)
    with NotifySocket(str(tmp_path / "notify")) as systemd:
        site.start(environ={"NOTIFY_SOCKET": systemd.address})
        systemd.wait_for("READY", "1")
        (site.folder / "out").mkdir()
        (site.folder / "out" / "file").write_bytes(b"content")
        program = site.folder / "after"
        program.write_text(f"#!/bin/sh\nenv > {site.folder}/seen.tmp && mv {site.folder}/seen.tmp {site.folder}/seen\n")
        program.chmod(0o755)
        site.write_daemon_config(
            f'[moves.away]\nfrom = "{site.folder}/out"\nto = "{site.folder}/in"\nsettle = 0\nafter = ["{program}"]\n'
        )
        site.daemon.send_signal(signal.SIGHUP)
        wait_for((site.folder / "seen").exists)
        site.stop()

    assert "REALIZE_MOVE=away" in (site.folder / "seen").read_text()
    assert "NOTIFY_SOCKET" not in (site.folder / "seen").read_text()
