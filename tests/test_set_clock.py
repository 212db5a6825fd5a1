"""Somebody sets the wall clock while real programs run: their timers go on, and what goes by that clock follows it."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from realize.exit_codes import ExitCode
from tests import processes
from tests.processes import BUSY_S, ENVIRONMENT, Site, wait_for

HOUR_S = 3600
LIMIT_S = 5
FAKE_TIME = """
import os, time

def of_the_wall(real=time.time, file=os.environ["FAKE_CLOCK"]):
    with open(file) as ahead:
        return real() + float(ahead.read())

time.time = of_the_wall
"""
"""A `sitecustomize`, which Python loads before anything asks for the time: a file says how far its clock is ahead."""


class SetClock:
    """A wall clock that a test sets, for the programs that get its ``environment``."""

    def __init__(self, folder):
        (folder / "sitecustomize.py").write_text(FAKE_TIME)
        self._ahead = folder / "ahead"
        self.environment = {
            "PYTHONPATH": f"{folder}:{ENVIRONMENT['PYTHONPATH']}",
            "FAKE_CLOCK": str(self._ahead),
            "TZ": "UTC",
        }
        self.set_by(0.0)

    def set_by(self, seconds):
        """Set it so far ahead of the true time."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._ahead)


@pytest.fixture
def clock(tmp_path):
    """One that is right at first."""
    folder = tmp_path / "clock"
    folder.mkdir()
    return SetClock(folder)


@pytest.fixture
def site(tmp_path, clock):
    """A daemon and a command that go by it."""
    site = Site(tmp_path)
    site.start(environ=clock.environment)
    yield site
    site.stop()


def has(folder):
    """Bytes of the files, and partials, in a folder."""
    return sum(each.stat().st_size for each in folder.iterdir())


@pytest.mark.parametrize("set_by", [-HOUR_S, HOUR_S])
def test_throttle_and_time_limit_do_not_follow_it(site, clock, tmp_path, set_by):
    """The limit of the daemon goes on to let content through; the command ends in time, neither later nor sooner."""
    site.stop()
    site.write_daemon_config('[throttle.peers]\ntester = "2M"\n')
    site.start(environ=clock.environment)
    here = tmp_path / "here"
    here.mkdir()
    (site.inbox / "f").write_bytes(bytes(range(256)) * (64 << 12))
    command = site.command("--quiet", "--compress", "never", "--max-duration", f"{LIMIT_S}s", "hostb::inbox", here)
    began = time.monotonic()
    moving = processes.POPEN(
        command, env={**ENVIRONMENT, **clock.environment, "REALIZE_CONFIG": str(site.folder / "realize.toml")}
    )
    wait_for(lambda: has(here))

    clock.set_by(set_by)
    before = has(here)
    code = moving.wait(LIMIT_S + BUSY_S)
    took = time.monotonic() - began

    assert ExitCode.DEADLINE_REACHED == code
    assert LIMIT_S * 0.9 < took
    assert before + (1 << 20) < has(here)


@pytest.mark.soak
def test_a_peer_that_falls_silent_is_noticed(site, clock, tmp_path):
    """Pings and the patience with them do not follow it: after 45 s the command tells that its peer is silent."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "f").write_bytes(bytes(16 << 20))
    with (tmp_path / "said").open("wb") as said:
        moving = processes.POPEN(
            site.command("--json", "--compress", "never", "--throttle", "200k", here, "hostb::inbox"),
            env={**ENVIRONMENT, **clock.environment, "REALIZE_CONFIG": str(site.folder / "realize.toml")},
            stdout=said,
            stderr=subprocess.DEVNULL,
        )
    wait_for(lambda: has(site.inbox))
    try:
        site.daemon.send_signal(signal.SIGSTOP)
        clock.set_by(-HOUR_S)

        wait_for(lambda: b'"retrying"' in (tmp_path / "said").read_bytes(), 60 + BUSY_S)
    finally:
        site.daemon.send_signal(signal.SIGCONT)
        moving.kill()
        moving.wait()


@pytest.mark.soak
@pytest.mark.parametrize(("set_by", "due_in_s"), [(-HOUR_S, 70), (HOUR_S, 5)])
def test_a_move_by_the_clock_follows_it(clock, tmp_path, set_by, due_in_s):
    """Within a minute it goes by the time that the clock has now, however far away its turn was before."""
    due = time.strftime("%H:%M:%S", time.gmtime(time.time() + set_by + due_in_s))
    source, site = tmp_path / "source", Site(tmp_path)
    source.mkdir()
    (source / "f").write_bytes(b"content")
    site.write_daemon_config(
        f'[peers.itself]\nkey = "{site.keys["daemon"]}"\naddress = "127.0.0.1:{site.port}"\n'
        'dirs = { inbox = ["create"] }\n'
        f'[moves.daily]\nfrom = "{source}"\nto = "itself::inbox"\nwhen = "{due}"\njitter = 0\n'
    )
    site.start(environ=clock.environment)
    try:
        clock.set_by(set_by)
        wait_for((site.inbox / "f").exists, 60 + due_in_s + BUSY_S)
    finally:
        site.stop()
