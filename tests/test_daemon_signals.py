"""How signals end a daemon: a real one under twistd, with a transfer that would take minutes."""

import os
import signal
import socket
import subprocess

import pytest

from realize.process import SignalHandlers
from tests.processes import Site, wait_for


@pytest.fixture
def site(tmp_path):
    """A daemon that would wait for long, to which a command sends slowly."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(os.urandom(4 << 20))
    site = Site(tmp_path)
    site.start("--drain", "10m")
    with site.spawn(
        "--throttle-up", "10k", tmp_path / "source", "hostb::inbox", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command:
        wait_for(lambda: any(site.inbox.iterdir()))
        yield site
        command.kill()
    site.stop()


def refuses(site):
    """Whether nobody listens any more, which is how a drain begins."""
    try:
        socket.create_connection(("127.0.0.1", site.port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it stopped to listen just now: see again
    return False


def drain(site, number=signal.SIGTERM):
    """Tell the daemon to stop; it waits for the transfer."""
    site.daemon.send_signal(number)
    wait_for(lambda: refuses(site))
    assert site.daemon.poll() is None


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_ends_a_stopping_daemon_at_once(site, first, second):
    """It need not be the same one; there is no traceback, and the log says that it was no end in order."""
    drain(site, first)

    code = site.stop(second)

    said = site.log.read_text()
    [forced] = [record for record in site.records() if record["event"] == "stop_forced"]
    assert 1 == code
    assert forced["seconds"] >= 0
    assert [] == [word for word in ("Traceback", "ReactorNotRunning", '"stopped"') if word in said]


def test_a_stopping_daemon_has_nothing_to_reload(site):
    """SIGHUP kills it no more than one that serves."""
    drain(site)
    site.daemon.send_signal(signal.SIGHUP)

    code = site.stop(signal.SIGTERM)

    assert 1 == code
    assert ["stop_forced"] == [record["event"] for record in site.records() if record["event"].startswith("stop")]


def test_a_daemon_with_nothing_to_wait_for_stops_in_order(tmp_path):
    """SIGQUIT is no other signal than SIGTERM then, and dumps no core."""
    site = Site(tmp_path)
    site.start()

    assert 0 == site.stop(signal.SIGQUIT)
    assert "stopped" in {record["event"] for record in site.records()}


def test_what_was_set_before_comes_back():
    """A program may have more than a daemon in it."""
    before, seen = signal.getsignal(signal.SIGUSR2), []
    signals = SignalHandlers()
    signals.on(signal.SIGUSR2, lambda: seen.append(1))
    signals.on(signal.SIGUSR2, lambda: seen.append(2))
    signal.raise_signal(signal.SIGUSR2)
    signals.restore()
    signals.restore()

    assert ([2], before) == (seen, signal.getsignal(signal.SIGUSR2))
