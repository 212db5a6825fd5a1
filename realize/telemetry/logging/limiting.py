"""Events that others cause cannot flood the log: so many a minute of each kind, then a count of what was left out.

Kinds are told apart by the event and the peer; those of strangers, who have no name here, count together, however many
addresses they come from.
What is left out is told when its minute is over.

Invariants: the audit trail (`NEVER_LEFT_OUT`) passes always; the memory is bounded by the number of events and peers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import structlog
from attrs import define

from realize.telemetry.logging.rendering import Record

LIMIT_WINDOW_S: Final = 60.0
"""Seconds for which occurrences are counted together."""

MAX_PEER_EVENTS: Final = 60
"""Occurrences of one event in a window that are logged for one peer."""

MAX_UNAUTHENTICATED_EVENTS: Final = 10
"""Occurrences of one event in a window that are logged for all that are no peers, together."""

AUDIT: Final = frozenset(
    {
        "file_committed",
        "file_already_there",
        "file_removed",
        "directory_removed",
        "partial_expired",
        "file_moved",
        "file_copied",
        "file_held_back",
        "file_left",
        "file_not_taken",
        "file_failed",
        "file_unknown",
    }
)
"""The trail of what became of each file."""

NEVER_LEFT_OUT: Final = AUDIT | {"command", "records_left_out", "transfer_started"}
"""The audit trail, what debug is for, and what is said by the limit itself."""

Tell = Callable[[str, str, int], None]


@define
class _Window:
    ends: float
    said: int = 1
    left_out: int = 0


class Limiter:
    """The processor that leaves events out.

    ``tell`` is called with the event, the peer and how many were left out; ``counting`` when there begins to be
    something to tell, so that `sweep` is called in time.
    """

    def __init__(self, now: Callable[[], float], tell: Tell, counting: Callable[[], None]) -> None:
        self._now = now
        self._tell = tell
        self._counting = counting
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def __call__(self, _: Any, __: str, record: Record) -> Record:
        """The record, or `structlog.DropEvent`."""
        event = record["event"]
        if event in NEVER_LEFT_OUT:
            return record
        peer = record.get("peer", "")
        stranger = not peer and "address" in record
        key = (event, peer)
        now = self._now()
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends:
                self._windows[key] = _Window(now + LIMIT_WINDOW_S)
                former = 0 if window is None else window.left_out
            elif window.said < (MAX_UNAUTHENTICATED_EVENTS if stranger else MAX_PEER_EVENTS):
                window.said += 1
                return record
            else:
                window.left_out += 1
                former = -1
        if former > 0:
            self._tell(event, peer, former)
        elif former < 0:
            if window is not None and window.left_out == 1:
                self._counting()
            raise structlog.DropEvent
        return record

    def sweep(self, *, everything: bool = False) -> float | None:
        """Tell what was left out in windows that are over, or in all; in how many seconds there may be more to tell."""
        now = self._now()
        with self._lock:
            over = {key: each for key, each in self._windows.items() if everything or now >= each.ends}
            for key in over:
                del self._windows[key]
            ends = [each.ends for each in self._windows.values() if each.left_out]
        for (event, peer), window in over.items():
            if window.left_out:
                self._tell(event, peer, window.left_out)
        return max(0.0, min(ends) - now) if ends else None
