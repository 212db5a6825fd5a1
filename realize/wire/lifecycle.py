"""The life of a connection, as states that follow each other; `docs/states.md` draws them.

A connection never goes back to an earlier state, but may leave some out.
So what comes late, a timer or a second reason to end, changes nothing.

Whether Hello is over is not one of them: it must still be known while the connection ends, since until then nothing
else is answered.
`PeerProtocol.theirs` tells.
"""

from __future__ import annotations

from enum import IntEnum


class ConnectionState(IntEnum):
    """How far a connection has come."""

    CONNECTING = 0
    """There is no transport yet."""
    OPEN = 1
    """Commands, credit and content go both ways."""
    CLOSING = 2
    """The transport is to close. Neither side begins anything new; what is under way goes on for a limited time."""
    DISCONNECTED = 3
    """The transport is gone. What it had delivered is still read, as far as there is memory for it."""
    ABORTED = 4
    """We gave up, and the transport is about to say that it is gone."""
    LOST = 5
    """Over: everybody who waits is told why."""

    @property
    def active(self) -> bool:
        """Whether boxes are sent and read."""
        return ConnectionState.OPEN <= self < ConnectionState.ABORTED

    def then(self, later: ConnectionState) -> ConnectionState:
        """The state after an event that leads to ``later``: this one if the connection has come further already."""
        return max(self, later)
