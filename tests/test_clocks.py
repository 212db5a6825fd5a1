"""The clock that timers run on."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from twisted.internet.epollreactor import EPollReactor

from realize.clocks import use_monotonic_clock
from realize.keys import generate_identity, write_identity
from tests.processes import ENVIRONMENT


@pytest.fixture
def reactor():
    """One that does not run."""
    reactor = EPollReactor()
    yield reactor
    reactor.waker.connectionLost(None)
    reactor._poller.close()


def test_timers_do_not_follow_the_wall_clock(reactor):
    """A timer that was pending, and one that is set later, are due after the same time as ever."""
    wall = [1e9]
    reactor.seconds = lambda: wall[0]
    pending = reactor.callLater(5.0, list)

    use_monotonic_clock(reactor)
    wall[0] -= 3600.0
    later = reactor.callLater(7.0, list)

    before = time.monotonic()
    for call, delay in ((pending, 5.0), (later, 7.0)):
        assert call.getTime() - before <= delay
        assert call.getTime() - time.monotonic() > delay - 5.0
    assert reactor.timeout() <= 5.0


def test_a_pending_timer_can_be_set_anew(reactor):
    """A reset reckons by the new clock as well."""
    reactor.seconds = lambda: 1e9
    pending = reactor.callLater(5.0, list)

    use_monotonic_clock(reactor)
    pending.reset(50.0)

    assert 0.0 < pending.getTime() - time.monotonic() <= 50.0


def test_the_command_runs_on_the_monotonic_clock():
    """With all that is timed by then."""
    program = """
import time
from realize.cli.runner import run

async def main(reactor):
    return all(each.seconds is time.monotonic for each in (reactor, *reactor.getDelayedCalls()))

print(run(main))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=True
    )

    assert "True\n" == done.stdout


def test_the_daemon_runs_on_the_monotonic_clock(tmp_path):
    """Making the service sets the clock; nothing is timed before."""
    key, config = tmp_path / "key", tmp_path / "realized.toml"
    write_identity(str(key), generate_identity())
    config.write_text(f'key = "{key}"\nlisten = ["tcp:0:interface=127.0.0.1"]\n[dirs.inbox]\npath = "{tmp_path}"\n')
    program = f"""
import time
from twisted.internet import reactor
from realize.daemon.tap import Options, makeService

options = Options()
options.parseOptions(["--config", {str(config)!r}])
makeService(options)
print(reactor.seconds is time.monotonic)
"""

    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
    )

    assert ("True\n", "") == (done.stdout, done.stderr)
