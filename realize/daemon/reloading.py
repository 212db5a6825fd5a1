"""A reload that somebody at the control socket asks for, and what is told of how it went.

The service reads no file, so whoever runs it says how to reload; without that, nobody can ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import Factory, frozen
from twisted.internet.defer import Deferred
from twisted.protocols import amp

from realize.by_value import ByValue
from realize.daemon.steering import SteeringResponders
from realize.errors import Busy, UsageError
from realize.logger import Logger
from realize.wire.commands import Reload
from realize.wire.reports import MAX_REPORT_BYTES, dumped
from realize.wire.responding import Responder

MAX_PROBLEM_CHARS: Final = 1_000
"""The longest line about what is wrong with a configuration; what is longer is cut."""


@frozen(kw_only=True, eq=False, repr=False)
class Reloaded(ByValue):
    """How a reload went.

    ``errors`` are lines that say what is wrong; then the former configuration is in force, and nothing has changed.
    ``changes`` says what is in force now and was not before, by key; ``restart_needed`` has keys that differ in the
    file, and need a restart.
    """

    changes: Mapping[str, str] = Factory(dict)
    restart_needed: Sequence[str] = ()
    errors: Sequence[str] = ()

    def as_text(self) -> str:
        """The report of `realize.wire.commands.Reload`, as JSON; it says so if not all of it fits."""
        if self.errors:
            lines = [each[:MAX_PROBLEM_CHARS] for each in self.errors]
            return dumped(lines, MAX_REPORT_BYTES, lambda kept: {"errors": kept, "truncated": len(kept) < len(lines)})
        rows = [{"key": key, "change": change} for key, change in self.changes.items()]

        def around(kept: list[Any]) -> Mapping[str, Any]:
            restart_needed = list(self.restart_needed)
            return {"changes": kept, "restart_needed": restart_needed, "truncated": len(kept) < len(rows)}

        return dumped(rows, MAX_REPORT_BYTES, around)


class ReloadResponder(amp.CommandLocator):
    """Answers a ``user`` who asks for a reload; ``reload`` fires when that is done, and is None if there is no way."""

    def __init__(
        self, user: str, reload: Callable[[], Deferred[Reloaded]] | None, log: Logger, is_running: Callable[[], bool]
    ) -> None:
        self._user = user
        self._reload = reload
        self._log = log
        self._is_running = is_running

    @Reload.responder
    def _answer_reload(self) -> Deferred[dict[str, Any]]:
        if self._reload is None:
            raise UsageError(
                "this daemon is part of another program, and only that program can change its configuration"
            )
        if not self._is_running():
            raise Busy("the daemon is shutting down, and does not reload its configuration")
        self._log.info("reload_requested", peer=self._user)
        return self._reload().addCallback(lambda reloaded: {"report": reloaded.as_text()})


@frozen(eq=False, repr=False)
class ControlResponders(ByValue):
    """Answers a user at the control socket; see `realize.wire.responding.Served`."""

    steering: SteeringResponders
    reload: ReloadResponder

    def locateResponder(self, name: bytes) -> Responder | None:
        """See `realize.wire.responding.Served`."""
        found: Responder | None = self.steering.locateResponder(name)
        return found or self.reload.locateResponder(name)

    def transfers(self) -> list[dict[str, Any]]:
        """See `realize.wire.responding.Served`."""
        return self.steering.transfers()

    def failed(self, box: Mapping[bytes, bytes]) -> None:
        """See `realize.wire.responding.Served`."""
        self.steering.failed(box)
