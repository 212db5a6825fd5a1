"""Measure what each step of TLS costs for a MiB of content, in one process, without any network.

    python -m benchmarks.tls_steps [--mebibytes 512]

``encrypt`` is one write of a MiB, ``fetch`` gets the result from OpenSSL, ``give`` passes it to OpenSSL on the other
side, ``decrypt`` reads it into one buffer (`realize.wire.tls_bulk`), and ``recv`` does the same record by record, as
pyOpenSSL does.
The figure is the CPU time of the thread, the minimum of five rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from benchmarks.machine import print_machine
from realize.keys import generate_identity
from realize.wire.tls import AcceptingTLS, ConnectingTLS
from realize.wire.tls_bulk import BulkTLSFactory, decrypt

MIB = 1 << 20


@implementer(IHandshakeListener)
class Silent(Protocol):
    """An application that does nothing."""

    def handshakeCompleted(self) -> None:
        """Nothing."""


class Wire:
    """A transport that collects what is written."""

    disconnecting = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.sent.append(data)


def connected() -> tuple[SSL.Connection, SSL.Connection]:
    """Both sides of a TLS connection after the handshake, set up as ours are."""
    near, far, clock = generate_identity(), generate_identity(), Clock()
    ends = []
    for tls, client in (
        (ConnectingTLS([near], [far.public_key], "there"), True),
        (AcceptingTLS([far], near.public_key.__eq__, lambda *_: None), False),
    ):
        protocol = BulkTLSFactory(tls, client, Factory.forProtocol(Silent), clock).buildProtocol(None)
        wire = Wire()
        ends.append((protocol, wire))
    for protocol, wire in reversed(ends):
        protocol.makeConnection(wire)
    for _ in range(4):
        for (protocol, _), (_, wire) in (ends, ends[::-1]):
            data, wire.sent = b"".join(wire.sent), []
            if data:
                protocol.dataReceived(data)
    return ends[0][0].getHandle(), ends[1][0].getHandle()


def measure(mebibytes: int) -> dict[str, float]:
    """The time of each step for a MiB, in milliseconds."""
    sender, receiver = connected()
    content = os.urandom(MIB)
    spent = dict.fromkeys(("encrypt", "fetch", "give", "decrypt", "recv"), 0.0)

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        spent[name] += time.thread_time() - began

    for number in range(2 * mebibytes):
        with step("encrypt"):
            sender.send(content)
        with step("fetch"):
            data = sender.bio_read(MIB + MIB // 100)
        with step("give"):
            receiver.bio_write(data)
        if number % 2:
            with step("decrypt"):
                while decrypt(receiver):
                    pass
        else:
            with step("recv"), suppress(SSL.WantReadError):
                while receiver.recv(1 << 15):
                    pass
    often = {"encrypt": 2, "fetch": 2, "give": 2}
    return {name: seconds * 1000 / mebibytes / often.get(name, 1) for name, seconds in spent.items()}


def main() -> None:
    """Print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=512)
    arguments = parser.parse_args()
    print_machine()
    rounds = [measure(arguments.mebibytes // 5 or 1) for _ in range(5)]
    for name in rounds[0]:
        print(f"{name:8} {min(each[name] for each in rounds):.3f} ms")


if __name__ == "__main__":
    main()
