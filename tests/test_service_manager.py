"""What is told to systemd, and that it costs the daemon nothing: `realize.daemon.service_manager`."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from realize.daemon.service_manager import ServiceManager
from tests.notify_socket import NotifySocket


@pytest.mark.parametrize("kind", ["a path", "an abstract name"])
def test_what_is_told_arrives(tmp_path, kind):
    """In one datagram, at either kind of address."""
    address = str(tmp_path / "notify") if kind == "a path" else f"@realize-test-{os.getpid()}"
    with NotifySocket(address) as systemd:
        manager = ServiceManager.of_environment({"NOTIFY_SOCKET": address})

        busy = manager.tell("READY=1", "STATUS=Serves")

        assert not busy
        assert {"READY": "1", "STATUS": "Serves"} == systemd.wait_for("READY")


def test_it_is_nothing_for_what_the_daemon_starts(tmp_path):
    """A program that inherits the environment could speak for the daemon: all of it is taken out."""
    environ = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}

    manager = ServiceManager.of_environment(environ)

    assert ({"HOME": "/"}, True, 5.0) == (environ, manager.is_there, manager.watchdog_s)


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "5000000"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"},
    ],
)
def test_the_watchdog_may_be_for_nobody_or_another_one(environ):
    """Then nobody feeds it."""
    assert ServiceManager.of_environment(environ).watchdog_s is None


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_nobody_is_told_anything_at_no_address(address):
    """Or at one of a kind that we do not know."""
    manager = ServiceManager.of_environment({"NOTIFY_SOCKET": address})

    assert (False, False) == (manager.is_there, manager.tell("READY=1"))


def test_a_manager_that_is_gone_is_told_of_once(tmp_path):
    """Each time it goes; nothing is raised."""
    address, said = str(tmp_path / "notify"), []
    manager = ServiceManager.of_environment({"NOTIFY_SOCKET": address})
    manager.unreachable = said.append

    for _ in range(3):
        assert not manager.tell("READY=1")
    with NotifySocket(address):
        manager.tell("READY=1")
    manager.tell("READY=1")

    assert [os.strerror(errno.ENOENT), os.strerror(errno.ECONNREFUSED)] == said


def test_a_name_that_is_too_long_is_no_crash(tmp_path):
    """The error has no number then."""
    said = []
    manager = ServiceManager.of_environment({"NOTIFY_SOCKET": f"/{'n' * 200}"})
    manager.unreachable = said.append

    assert not manager.tell("READY=1")
    assert ["AF_UNIX path too long"] == said


def test_a_manager_that_does_not_listen_holds_nothing_up(tmp_path):
    """When its queue is full, it is to be told again."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
        busy.bind(address)
        manager = ServiceManager.of_environment({"NOTIFY_SOCKET": address})

        told = 0
        while not manager.tell("WATCHDOG=1"):
            told += 1
            assert told < 100_000

        busy.recv(100)
        assert not manager.tell("READY=1")
