"""The states of a throttled transport, and what each event makes of them.

Pure: everything that changes a state is here, and nothing here sends or closes anything;
`realize.throttle.transport` does what belongs to a change.
Three things are independent of each other, so there are three machines: how bytes travel (`SendState`), how far the
application's wish to end the connection has been fulfilled (`CloseState`), and whether the transport below encrypts
(`TLSState`).
``docs/states.md`` draws them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class SendState(enum.Enum):
    """How the bytes of the application travel."""

    PASSING = "passing"
    """There is no limit: a write goes straight to the transport, which also drives the application's producer."""
    SHAPING = "shaping"
    """Writes wait in the backlog for grants; this layer stands between the producer and the transport."""
    CLOSED = "closed"
    """The connection was aborted or lost: writes are dropped. Final."""


def next_send_state(state: SendState, *, limited: bool, waiting: bool, holding: bool) -> SendState:
    """The state after limits, backlog or transport have changed; only closing leads to `SendState.CLOSED`.

    ``limited``: a limit applies.
    ``waiting``: bytes wait in the backlog; what is written now must not overtake them.
    ``holding``: the transport is full and the application has a producer, which this layer has paused and therefore has
    to resume.
    """
    if state is SendState.CLOSED:
        return state
    if limited or (state is SendState.SHAPING and (waiting or holding)):
        return SendState.SHAPING
    return SendState.PASSING


class CloseState(enum.Enum):
    """How far the application's wish to end the connection, or its sending half, has been fulfilled."""

    OPEN = "open"
    """No such wish."""
    HALF_CLOSING = "half closing"
    """``loseWriteConnection`` was called; the backlog or the producer is not done."""
    HALF_CLOSED = "half closed"
    """The sending half of the transport was told to close."""
    CLOSING = "closing"
    """``loseConnection`` was called; the backlog or the producer is not done."""
    CLOSED = "closed"
    """The transport was told to close, or to abort. Final."""


class TransportEvent(enum.Enum):
    """What may change a `CloseState`."""

    LOSE_WRITE = "loseWriteConnection"
    LOSE = "loseConnection"
    ABORT = "abortConnection"
    DRAINED = "drained"
    """Nothing waits in the backlog, and there is no producer."""


_NEXT: Final[Mapping[tuple[CloseState, TransportEvent], CloseState]] = {
    (CloseState.OPEN, TransportEvent.LOSE_WRITE): CloseState.HALF_CLOSING,
    (CloseState.HALF_CLOSING, TransportEvent.DRAINED): CloseState.HALF_CLOSED,
    (CloseState.OPEN, TransportEvent.LOSE): CloseState.CLOSING,
    (CloseState.HALF_CLOSING, TransportEvent.LOSE): CloseState.CLOSING,
    (CloseState.HALF_CLOSED, TransportEvent.LOSE): CloseState.CLOSING,
    (CloseState.CLOSING, TransportEvent.DRAINED): CloseState.CLOSED,
    **{(state, TransportEvent.ABORT): CloseState.CLOSED for state in CloseState},
}


def next_close_state(state: CloseState, event: TransportEvent) -> CloseState:
    """The state after ``event``; an event that is not in the table changes nothing."""
    return _NEXT.get((state, event), state)


class TLSState(enum.Enum):
    """Whether the transport below encrypts what it is given."""

    PLAIN = "plain"
    """It does not."""
    STARTING = "starting"
    """``startTLS`` was called, and bytes that were written before it, in plain, are not all sent."""
    SECURE = "secure"
    """It does, from the beginning or because it was told to; the handshake may be under way."""


def next_tls_state(state: TLSState, *, asked: bool, ahead: bool) -> TLSState:
    """The state after bytes were sent, or, if ``asked``, after ``startTLS`` was called.

    ``ahead``: bytes that were written before the call wait in the backlog.
    """
    if asked or state is TLSState.STARTING:
        return TLSState.STARTING if ahead else TLSState.SECURE
    return state
