"""Keep others from flooding the log: each kind of event is logged a limited number of times a minute.

A kind is an event name together with a peer.
Unauthenticated connections have no peer; their events count together, from however many addresses they come.
When the minute is over, one record tells how many were left out.

Invariants: the audit log and the rest of `NEVER_LEFT_OUT` always pass; memory is bounded by the number of event names
times the number of peers, and does not grow with those that came before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog
from attrs import define

from realize.by_value import ByValue
from realize.telemetry.logging.rendering import Record

LIMIT_WINDOW_S: Final = 60.0
"""The window in which occurrences are counted together."""

MAX_PEER_EVENTS: Final = 60
"""Occurrences of one event that are logged in a window for each peer."""

MAX_UNAUTHENTICATED_EVENTS: Final = 10
"""Occurrences of one event that are logged in a window for all unauthenticated connections together."""

AUDIT: Final = frozenset(
    {
        "file_committed",
        "file_linked",
        "file_already_there",
        "link_committed",
        "file_removed",
        "directory_removed",
        "partial_expired",
        "partial_freed",
        "backup_expired",
        "file_moved",
        "file_copied",
        "link_moved",
        "link_copied",
        "file_held_back",
        "file_left",
        "file_not_taken",
        "file_failed",
        "file_unknown",
    }
)
"""The audit log: the events that tell what became of each file and symlink."""

NEVER_LEFT_OUT: Final = AUDIT | {"after_program_said", "command", "records_left_out", "transfer_started"}
"""The audit log, the events of the debug level, what has a limit of its own, and the report of the limiter itself."""

MIN_WINDOWS: Final = 256
"""Windows up to which nobody looks for those that are over."""

Tell = Callable[[str, str, int], None]


@define(repr=False)
class _Window(ByValue):
    ends: float
    logged: int = 1
    left_out: int = 0


class Limiter:
    """A structlog processor that drops events beyond the limits.

    ``tell`` is called with the event, the peer and how many were left out.
    ``counting`` is called when the first event of a window is left out, so that `sweep` gets called in time.
    """

    def __init__(self, now: Callable[[], float], tell: Tell, counting: Callable[[], None]) -> None:
        self._now = now
        self._tell = tell
        self._counting = counting
        self._windows: dict[tuple[str, str], _Window] = {}
        self._tidy_at = MIN_WINDOWS
        """The number of windows at which those that are over are looked for."""
        self._lock = threading.Lock()

    def __call__(self, _: object, __: str, record: Record) -> Record:
        """Return the record, or raise `structlog.DropEvent`."""
        event = record["event"]
        if event in NEVER_LEFT_OUT:
            return record
        peer = record.get("peer", "")
        unauthenticated = not peer and "address" in record
        key = (event, peer)
        now = self._now()
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends:
                self._windows[key] = _Window(now + LIMIT_WINDOW_S)
                former = 0 if window is None else window.left_out
                if len(self._windows) >= self._tidy_at:
                    self._tidy(now)
            elif window.logged < (MAX_UNAUTHENTICATED_EVENTS if unauthenticated else MAX_PEER_EVENTS):
                window.logged += 1
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

    def _tidy(self, now: float) -> None:
        """Forget windows that are over and have nothing to tell; whoever holds the lock calls it, ever more rarely."""
        self._windows = {key: each for key, each in self._windows.items() if now < each.ends or each.left_out}
        self._tidy_at = max(MIN_WINDOWS, 2 * len(self._windows))

    def sweep(self, *, everything: bool = False) -> float | None:
        """Tell what was left out in the windows that are over, or in all of them.

        Returns in how many seconds the next window with something to tell is over, or None if there is none.
        """
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
