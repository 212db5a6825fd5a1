"""Why nobody accepted a connection, in words.

The errors are those that Twisted made of each answer in a network namespace, for ICMP of every kind of `nft reject`.
"""

import errno

import pytest
import pytest_twisted
from twisted.internet import error as internet_errors
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from realize.errors import ConnectionFailed
from realize.keys import generate_identity
from realize.runs.check_findings import unreachable
from realize.wire.client import connect, connecting_protocol
from realize.wire.connection import Greeting
from realize.wire.pinned_endpoint import PinnedClientEndpoint
from realize.wire.reaching import ON_THE_WAY, Obstacle, in_words, obstacle
from tests.loopback import Log

IDENTITY = generate_identity()


def by_icmp():
    """What Twisted makes of a connection that an ICMP message has ended before it was made."""
    return internet_errors.ConnectError(string=Failure(internet_errors.ConnectionDone()))


def by_number(number):
    """What Twisted makes of an error number of connect(2)."""
    return internet_errors.getConnectError((number, "the kernel's text"))


@pytest.mark.parametrize(
    ("error", "found", "words"),
    [
        (by_icmp(), Obstacle.ON_THE_WAY, ON_THE_WAY),
        (by_number(errno.ECONNREFUSED), Obstacle.REFUSED, "Connection refused"),
        (by_number(errno.EHOSTUNREACH), Obstacle.NO_WAY, "No route to host"),
        (by_number(errno.ENETUNREACH), Obstacle.NO_WAY, "Network is unreachable"),
        (
            by_number(errno.EACCES),
            Obstacle.HERE,
            "refused by this machine, by a firewall or a route: Permission denied",
        ),
        (by_number(errno.EPERM), Obstacle.HERE, "Operation not permitted"),
        (by_number(errno.ETIMEDOUT), Obstacle.SILENCE, "no answer"),
        (by_number(errno.EADDRNOTAVAIL), Obstacle.OTHER, "Cannot assign requested address"),
        (internet_errors.TimeoutError(), Obstacle.SILENCE, "no answer"),
        (internet_errors.ConnectError(), Obstacle.OTHER, "An error occurred while connecting"),
    ],
)
def test_each_obstacle_has_its_words(error, found, words):
    """On one line, and without what Twisted says about its own insides."""
    assert found is obstacle(error)
    assert words in in_words(error)
    assert "\n" not in in_words(error)
    assert "Failure" not in in_words(error)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("ours", [True, False], ids=["the command's", "any application's"])
async def test_a_firewall_that_rejects_is_said_to(ours):
    """One sentence, for the command as for applications with an endpoint of ours; and `check` says where to look."""
    reactor = MemoryReactorClock()
    if ours:
        make = connecting_protocol(clock=reactor, log=Log(), greeting=Greeting("client"))
        connecting = connect(reactor, "192.0.2.1", 9771, [IDENTITY], [IDENTITY.public_key], make_protocol=make)
    else:
        endpoint = PinnedClientEndpoint(reactor, "192.0.2.1", 9771, IDENTITY, IDENTITY.public_key)
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
    reactor.advance(0)
    factory = reactor.tcpClients[0][2]
    factory.clientConnectionFailed(reactor.connectors[0], Failure(by_icmp()))
    reactor.advance(30)

    with pytest.raises(ConnectionFailed) as caught:
        await connecting

    assert f"192.0.2.1:9771 cannot be reached: {ON_THE_WAY}" == str(caught.value)
    if ours:
        assert "allow the port" in unreachable(caught.value).mend[0]
