"""The socket of a service manager, as systemd gives one to a service of ``Type=notify``."""

from __future__ import annotations

import socket
import time
from typing import Self


class NotifySocket:
    """Hears what a process says; ``address`` is for its ``NOTIFY_SOCKET``, a path or behind ``@`` an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        """What each datagram said."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for(self, name: str, value: str | None = None, seconds: float = 20) -> dict[str, str]:
        """The next datagram that says that, such as ``READY=1``, or with that name at least.

        What was said already is heard however little time is left.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                said = self._socket.recv(1 << 16).decode()
            except (BlockingIOError, TimeoutError):
                break
            self.heard.append(dict(line.split("=", 1) for line in said.split("\n")))
            if name in self.heard[-1] and value in {None, self.heard[-1][name]}:
                return self.heard[-1]
        raise AssertionError(f"{name}={value} was not said: {self.heard}")

    def said(self) -> list[str]:
        """The states that were told so far, in order."""
        states = ("READY", "RELOADING", "STOPPING")
        return [name for each in self.heard for name in states if name in each]
