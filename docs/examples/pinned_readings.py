"""The service of ``readings.py`` for those whose public keys are named, over TLS 1.3; everybody else is turned away.

    python docs/examples/pinned_readings.py tcp:8124:interface=127.0.0.1 server.key client.pub...

The client is that of ``readings.py``, with another endpoint string:

    python docs/examples/readings.py read realize:127.0.0.1:8124:key=client.key:peer=server.pub
"""

import sys
from typing import Any

from readings import Readings, serve
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from realize.keys import load_identity, read_public_key
from realize.wire.pinned_endpoint import pinned_server_factory
from realize.wire.tls import peer_public_key


class PinnedReadings(Readings):
    """Sends readings to a reader whose key is known: it is connected only then."""

    def connectionMade(self) -> None:
        """Say who it is, and begin."""
        print(f"{peer_public_key(self.transport).fingerprint} reads", flush=True)
        super().connectionMade()


async def main(reactor: Any, endpoint: str = "", key: str = "", *readers: str) -> None:
    """Do what the command line says."""
    if not readers:
        raise SystemExit(__doc__)
    known = {read_public_key(reader) for reader in readers}
    readings = Factory.forProtocol(PinnedReadings)
    await serve(reactor, endpoint, pinned_server_factory(load_identity(key), known.__contains__, readings, reactor))


if __name__ == "__main__":
    # The log says who was turned away.
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, sys.argv[1:])
