"""``startTLS`` in the order of the writes: the transport is told when all bytes before it are sent.

What is written behind it waits behind a cut in the backlog, so that no piece holds bytes of both kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from realize.throttle.backlog import Backlog
from realize.throttle.states import TLSState, next_tls_state
from realize.throttle.tls_records import TLS_RECORD_OVERHEAD_BYTES


class TLSSwitch:
    """Whether the transport encrypts, and what is left to do before it is told to.

    ``switch`` is called with the function that tells it, once nothing of ``backlog`` is ahead of that.
    """

    __slots__ = ("_backlog", "_start", "_switch", "overhead", "state")

    def __init__(self, backlog: Backlog, switch: Callable[[Callable[[], None]], None]) -> None:
        self._backlog = backlog
        self._switch = switch
        self._start: Callable[[], None] | None = None
        self.state = TLSState.PLAIN
        self.overhead = 0
        """Bytes that the transport adds to each record of what it is given."""

    def is_secure(self) -> None:
        """Note that the transport encrypts."""
        self.state = TLSState.SECURE
        self.overhead = TLS_RECORD_OVERHEAD_BYTES

    def ask(self, start: Callable[[], None]) -> None:
        """Have ``start`` called behind all that waits; raises `RuntimeError` if an earlier one still does."""
        if self._start is not None:
            raise RuntimeError("startTLS was called before, and waits for what was written before that")
        self._start = start
        self._backlog.cut()
        self._go(asked=True)

    def sent(self) -> None:
        """Go on, because something of the backlog was sent."""
        if self._start is not None:
            self._go(asked=False)

    def forget(self) -> None:
        """Start nothing any more: the connection is closed."""
        self._start = None

    def _go(self, *, asked: bool) -> None:
        self.state = next_tls_state(self.state, asked=asked, ahead=self._backlog.ahead > 0)
        start = self._start
        if self.state is TLSState.SECURE and start is not None:
            self._start = None
            self.is_secure()
            self._switch(start)
