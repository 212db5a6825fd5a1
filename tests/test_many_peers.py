"""What a daemon does about one of very many peers costs no more for the others."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from realize.wire import server
from realize.wire.connection import Greeting
from realize.wire.server import MIN_READ_BYTES, PeerServerFactory, turn
from realize.wire.traffic import Traffic
from tests.loopback import Log


class Reading:
    """The turns of a connection; remembers what it was told."""

    def __init__(self):
        self.told = []

    @property
    def sharing(self):
        """The last that it was told."""
        return self.told[-1]

    @sharing.setter
    def sharing(self, connections):
        self.told.append(connections)


class Connection:
    """A connection that has said Hello."""

    goodbye = None
    bytes_received = bytes_sent = 0
    transport = None

    def __init__(self, name):
        self.name = name
        self.log = Log()
        self.reading = Reading()

    def traffic(self):
        """None so far."""
        return Traffic()


@pytest.fixture
def factory():
    """The accepting side, with nobody connected."""
    return PeerServerFactory(
        clock=Clock(), log=Log(), identities=[], greeting=Greeting("d"), known=dict, welcome=lambda *_: None
    )


def admitted(factory, *names):
    """Connections of those peers, one after the other."""
    connections = [Connection(name) for name in names]
    for each in connections:
        factory.joined(each, each.name)
    return connections


def test_who_comes_or_goes_is_nothing_to_the_connections_of_others(factory):
    """Only those of the same peer have smaller and larger turns by it."""
    first, second, other = admitted(factory, "camera", "camera", "nas")
    factory.left(second)

    assert ([1, 2, 1], [2], [1]) == (first.reading.told, second.reading.told, other.reading.told)
    assert {"camera": {first}, "nas": {other}} == factory.connections


def test_many_connections_read_less_at_once(factory, monkeypatch):
    """All of them, also those that were there before; but no less than is worth while."""
    reads = {}
    monkeypatch.setattr(server, "read_at_once", lambda transport, amount: reads.update({transport: amount}))
    connections = admitted(factory, *map(str, range(200)))
    for number, each in enumerate(connections):
        each.transport = number
    for each in connections[:180]:
        factory.left(each)

    assert {turn(20)} == {reads[number] for number in range(180, 200)}
    assert MIN_READ_BYTES == turn(1000)
