"""What systemd is told: datagrams to the socket that it names in the environment, as sd_notify(3) describes.

To tell something never blocks and never fails: a daemon that serves is worth more than a service manager that knows.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, Self

_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
"""What sendto(2) fails with where the same datagram may pass in a moment."""


class ServiceManager:
    """The service manager that started this process, if one did.

    ``address`` is that of its socket, None if nobody is to be told anything.
    ``watchdog_s`` is for how long it lets this process be silent; None for ever.
    ``unreachable`` is called with what is wrong when it cannot be told something, until it can again.
    """

    def __init__(
        self,
        address: bytes | None,
        watchdog_s: float | None = None,
        unreachable: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._address = address
        self.watchdog_s = None if address is None else watchdog_s
        self.unreachable = unreachable
        self._is_reached = True

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """The one that the environment names, from which that is removed: it is not for what this process starts."""
        address = environ.pop("NOTIFY_SOCKET", "")
        silence = environ.pop("WATCHDOG_USEC", "")
        process = environ.pop("WATCHDOG_PID", str(os.getpid()))
        is_watched = silence.isdecimal() and int(silence) > 0 and process == str(os.getpid())
        return cls(_parsed(address), int(silence) / 1e6 if is_watched else None)

    @property
    def is_there(self) -> bool:
        """Whether there is somebody to be told anything."""
        return self._address is not None

    def tell(self, *assignments: str) -> bool:
        """Tell it these, each as ``NAME=value``; returns whether to try again, because it is too busy to listen."""
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
                sending.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if error.errno in _FULL:
                return True
            if self._is_reached:
                self._is_reached = False
                self.unreachable(error.strerror or str(error))
        else:
            self._is_reached = True
        return False


def _parsed(text: str) -> bytes | None:
    """The address of a Unix socket: a path, or behind ``@`` an abstract name; None for anything else."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if os.path.isabs(text) else None
