"""Listening at all addresses, IPv4 and IPv6, and where there is no IPv6."""

from __future__ import annotations

import errno
import os
import socket
from types import SimpleNamespace

import pytest
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol

from realize.config.addresses import metrics_endpoint, port_of_every_address, server_endpoint
from realize.wire import every_address
from realize.wire.every_address import EveryAddress, server_endpoint_of, without_mapping
from tests.processes import Site


def answers(address, port):
    """Whether somebody accepts connections there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as connection:
        return connection.connect_ex((address, port)) == 0


async def listening(endpoint):
    """At which addresses of this machine that endpoint listens, and what it says of itself."""
    port = await endpoint.listen(Factory.forProtocol(Protocol))
    try:
        host = port.getHost()
        return [each for each in ("127.0.0.1", "::1") if answers(each, host.port)], host.host
    finally:
        await port.stopListening()


async def test_both_families_are_listened_at():
    """With one port, also a free one."""
    assert (["127.0.0.1", "::1"], "::") == await listening(server_endpoint_of(reactor, "*:0"))


async def test_an_endpoint_string_of_twisted_means_what_it_means_there():
    """Which is IPv4 alone for tcp:."""
    assert (["127.0.0.1"], "0.0.0.0") == await listening(server_endpoint_of(reactor, "tcp:0"))


class Fails(socket.socket):
    """A socket of a system without IPv6; ``at`` is where that shows, and ``how`` what the system says."""

    at, how = "", 0

    def __init__(self, family=-1, *rest, **options):
        if family == socket.AF_INET6 and self.at == "socket":
            raise OSError(self.how, os.strerror(self.how))
        super().__init__(family, *rest, **options)

    def bind(self, address):
        if self.family == socket.AF_INET6 and self.at == "bind":
            raise OSError(self.how, os.strerror(self.how))
        super().bind(address)


@pytest.mark.parametrize(("at", "how"), [("socket", errno.EAFNOSUPPORT), ("bind", errno.EADDRNOTAVAIL)])
async def test_without_ipv6_there_is_ipv4(monkeypatch, at, how):
    """Where the kernel, or the unit, has none."""
    monkeypatch.setattr(Fails, "at", at)
    monkeypatch.setattr(Fails, "how", how)
    monkeypatch.setattr(every_address, "socket", SimpleNamespace(**{**vars(socket), "socket": Fails}))
    port = await EveryAddress(reactor, 0).listen(Factory.forProtocol(Protocol))
    found = port.getHost()
    reached = answers("127.0.0.1", found.port)
    await port.stopListening()

    assert ("0.0.0.0", True) == (found.host, reached)


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
async def test_a_port_that_one_family_has_taken_is_not_taken(taken):
    """Half of the addresses would be a surprise."""
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other, pytest.raises(CannotListenError, match="in use"):
        await EveryAddress(reactor, other.getsockname()[1]).listen(Factory())


@pytest.mark.parametrize(
    ("text", "port"), [("*:9771", 9771), ("*:0", 0), ("*:", None), ("*:65536", None), ("*", None), ("tcp:1", None)]
)
def test_how_it_is_written(text, port):
    """With a port; it stays as it is in the configuration, and for metrics it is not made loopback."""
    assert port == port_of_every_address(text)
    if port is not None:
        assert text == server_endpoint(text) == metrics_endpoint(text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("x", "x")],
)
def test_an_address_of_ipv4_is_shown_as_such(address, shown):
    """However the socket is told it."""
    assert shown == without_mapping(address)


def test_a_daemon_is_reached_at_both(tmp_path):
    """By address, and by a name that has both; the log has the addresses as they are."""
    site = Site(tmp_path)
    config = tmp_path / "realized.toml"
    config.write_text(config.read_text().replace(f"tcp:{site.port}:interface=127.0.0.1", f"*:{site.port}"))
    site.start()
    command = (tmp_path / "realize.toml").read_text()
    reached = []
    for host in ("127.0.0.1", "[::1]", "localhost"):
        (tmp_path / "realize.toml").write_text(command.replace("127.0.0.1", host))
        reached.append(site.realize("check", "hostb::inbox").returncode)
    site.stop()

    assert [0, 0, 0] == reached
    accepted = [each["address"] for each in site.records() if each["event"] == "peer_accepted"]
    assert ["127.0.0.1", "::1"] == accepted[:2]
    assert accepted[2] in accepted[:2]
