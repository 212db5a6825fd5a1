"""How many round trips a run waits for: over a long link they are most of its time.

The handshakes of TCP and TLS come before these, one each; the end of a connection takes none (`test_tls`).
"""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from realize.mover.run import Run, Side, TransferOptions
from realize.wire.commands import CAPABILITIES, PUT_DIRECTORIES
from realize.wire.greeting import Greeting
from tests.loopback import Wire
from tests.memory_store import MemoryStore
from tests.test_remote_store import Served

ROUND_TRIP_S = 10.0
"""So long that nothing else that a run waits for counts."""


PAGE_ENTRIES = 500
"""As a page of a directory on a disk."""


class FarWire(Wire):
    """Brings whatever is written half a round trip later."""

    def write(self, data):
        """Send."""
        if not self.closed and not self.disconnecting:
            self.clock.callLater(ROUND_TRIP_S / 2, self._arrive, data)

    def _arrive(self, data):
        if not self.other.closed:
            self.other.protocol.dataReceived(data)


class Far:
    """A run between a store here and one that is far away, with a daemon that ``lacks`` some capabilities.

    ``files`` has what the source holds.
    """

    def __init__(self, files, *, pull=False, lacks=()):
        capabilities = tuple(each for each in CAPABILITIES if each not in lacks)
        self.served = Served(Clock(), server_greeting=Greeting("server", capabilities))
        self.here, self.there = MemoryStore(page=PAGE_ENTRIES), MemoryStore(page=PAGE_ENTRIES)
        self.served.memory = self.there
        source = self.there if pull else self.here
        for path in files:
            source.plant(path, b"content of " + path)
        for wire in (self.served.client_wire, self.served.server_wire):
            wire.__class__ = FarWire
        remote = self.served.store()
        stores = (remote, self.here) if pull else (self.here, remote)
        self.run = Run(
            [Side(stores[0], "src")], Side(stores[1], "dst"), TransferOptions(), lambda _: None, self.served.clock
        )
        self.remote = remote

    def round_trips(self):
        """How many the run takes, with Hello."""
        clock, ended = self.served.clock, []
        greeted = self.served.client.hello()
        self.remote.open_ahead(self.run.salt)

        async def run():
            await greeted
            await self.run.start()

        Deferred.fromCoroutine(run()).addBoth(lambda result: ended.append((result, clock.seconds())))
        while not ended:
            clock.advance(min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds())
        [(result, seconds)] = ended
        assert None is result
        self.served.client_wire.cut()
        self.served.flush()
        return seconds / ROUND_TRIP_S


TREE = [b"d%d/e%d/f%d" % (number % 5, number % 7, number) for number in range(300)]


@pytest.mark.parametrize(
    ("files", "trips"),
    [
        pytest.param([b"f"], ["Hello, OpenDirectory", "Describe", "PutSmall"], id="one file"),
        pytest.param(
            TREE, ["Hello, OpenDirectory", "Describe", "PutSmall with directories", "SetDirectories"], id="a tree"
        ),
        pytest.param(
            [b"%04d/f" % number for number in range(1000)],
            ["Hello, OpenDirectory", "Describe", "PutSmall with directories", "SetDirectories"],
            id="a thousand directories",
        ),
    ],
)
def test_what_a_push_waits_for(files, trips):
    """Each of these needs the answers of those before it."""
    far = Far(files)

    assert len(trips) == far.round_trips()
    assert sorted(files) == sorted(far.there.files)
    assert {} == far.here.files


def test_an_older_daemon_is_asked_for_directories_first():
    """That takes a round trip more."""
    far = Far(TREE, lacks={PUT_DIRECTORIES})

    assert 5 == far.round_trips()
    assert sorted(TREE) == sorted(far.there.files)


@pytest.mark.parametrize("files", [[b"f"], TREE])
def test_what_a_pull_waits_for(files):
    """A tree takes as many as one file."""
    far = Far(files, pull=True)

    assert len(["Hello, OpenDirectory", "Walk", "ReadSmall", "Remove"]) == far.round_trips()
    assert sorted(files) == sorted(far.here.files)
    assert {} == far.there.files
