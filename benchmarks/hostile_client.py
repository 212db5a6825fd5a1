"""A client that obeys no rules: it sends any boxes, as fast as they are accepted, and need not read the answers.

It uses plain sockets, so that nothing on its own side limits it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.serialization import Encoding

from realize.errors import ProtocolError
from realize.keys import load_identity
from realize.wire import commands, packing
from realize.wire.boxes import BoxParser, CreditBox, encode
from realize.wire.reading import AnyBox

WAIT: Final = 20.0
"""Seconds that an answer may take."""


def context_of(key: Path) -> ssl.SSLContext:
    """The TLS context of the owner of that key."""
    certificate = key.with_suffix(".crt")
    made: Any = load_identity(str(key)).certificate
    made = made.to_cryptography() if hasattr(made, "to_cryptography") else made
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate, key)
    return context


def as_bytes(value: object) -> bytes:
    """A value in AMP's encoding."""
    return value if isinstance(value, bytes) else str(value).encode()


def one_way(command: str, **arguments: object) -> bytes:
    """A command that asks for no answer."""
    given = {key.encode(): as_bytes(value) for key, value in arguments.items()}
    return encode({**given, b"_command": command.encode()})


class Client:
    """One connection that has said Hello."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        run: str = "",
        *,
        address: str = "127.0.0.1",
        capabilities: Sequence[str] = (commands.DELTAS,),
    ) -> None:
        """Connect, from that address."""
        raw = socket.create_connection(("127.0.0.1", port), WAIT, (address, 0))
        self._socket = context.wrap_socket(raw)
        self._parser = BoxParser()
        self._parsed: Iterator[AnyBox] = iter(())
        self._asked = 0
        self.closed = False
        self.credit: dict[int, int] = {}
        hello = {"major": commands.MAJOR, "minor": 0, "software": "hostile"}
        self.call("Hello", **hello, capabilities=packing.TEXTS.pack(capabilities), run=run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def box(self, command: str, **arguments: object) -> bytes:
        """A command that asks for an answer."""
        self._asked += 1
        return one_way(command, _ask=self._asked, **arguments)

    def send(self, content: bytes) -> None:
        """Send; blocks while the daemon does not accept it."""
        self._socket.sendall(content)

    def next_box(self) -> AnyBox:
        """The next bytes that arrive."""
        while True:
            for box in self._parsed:
                if isinstance(box, CreditBox):
                    self.credit[box.stream] = self.credit.get(box.stream, 0) + box.amount
                return box
            content = self._socket.recv(1 << 18)
            if not content:
                raise ConnectionError("closed")
            self._parsed = self._parser.feed(content)

    def call(self, command: str, **arguments: object) -> Mapping[bytes, bytes]:
        """Send a command and wait for the answer, which may be an error."""
        self.send(self.box(command, **arguments))
        tag = b"%d" % self._asked
        while True:
            box = self.next_box()
            if isinstance(box, dict) and tag in {box.get(b"_answer"), box.get(b"_error")}:
                return box

    def open_directory(self, name: str = "inbox", handle: int = 1, base: bytes = b"") -> None:
        """The directory that all commands are about."""
        answer = self.call("OpenDirectory", handle=handle, directory=name, base=base, salt=b"salt")
        if b"_error" in answer:
            raise ConnectionError(answer[b"_error_description"].decode())

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def reset(self) -> None:
        """Break the connection."""
        self.closed = True
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Flood:
    """A connection that sends what it is given until it is stopped, in a thread of its own."""

    def __init__(self, client: Client, content: Iterable[bytes], *, reads: bool) -> None:
        self._client = client
        self._content = content
        self.sent = 0
        self._threads = [threading.Thread(target=self._send, daemon=True)]
        if reads:
            self._threads.append(threading.Thread(target=self._read, daemon=True))
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for content in self._content:
                self._client.send(content)
                self.sent += len(content)

    def _read(self) -> None:
        # What is read from a socket that has just been closed is not decrypted.
        with contextlib.suppress(OSError, ValueError, ProtocolError):
            while True:
                self._client.next_box()

    def stop(self) -> None:
        """Close the connection without a Goodbye."""
        self._client.close()
        for thread in self._threads:
            thread.join(5.0)
