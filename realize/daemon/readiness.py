"""What a daemon tells its service manager as it lives: that it is ready, reloads or stops, and what it does.

The watchdog is fed by a timer of the reactor, so a reactor that hangs is noticed.
Work that takes long is done in threads, so nothing rightful keeps the reactor for longer than a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from realize.daemon.service_manager import ServiceManager

STATUS_INTERVAL_S: Final = 5.0
"""How often the service manager is told what the daemon does, if that has changed."""

_PINGS_PER_WATCHDOG_TIME: Final = 4
"""How often the watchdog is fed in the time after which it bites: twice would be enough for a reactor that is idle."""

STOP_MARGIN_S: Final = 5.0
"""How much longer the service manager is asked to wait for the end than it should take."""


class Readiness:
    """Tells ``manager`` how the daemon is; ``activity`` returns in one line what it does.

    ``clock`` is a reactor whose time is CLOCK_MONOTONIC.
    """

    def __init__(self, manager: ServiceManager, clock: IReactorTime, activity: Callable[[], str]) -> None:
        self._manager = manager
        self._clock = clock
        self._activity = activity
        self._unsent: tuple[str, ...] = ()
        """The state that could not be told yet."""
        self._told = ""
        """The status as it was told last."""
        self._reloads = 0
        self._is_outdated = False
        self._is_stopping = False
        self._showing = LoopingCall(self._show)
        self._feeding = LoopingCall(self._feed)
        self._showing.clock = self._feeding.clock = clock

    def ready(self) -> None:
        """The daemon listens, and all that its start does is done."""
        if self._manager.is_there and not self._is_stopping:
            self._tell_state("READY=1")
            self._showing.start(STATUS_INTERVAL_S)
            if self._manager.watchdog_s is not None:
                self._feeding.start(self._manager.watchdog_s / _PINGS_PER_WATCHDOG_TIME)

    def reloading(self) -> None:
        """A reload begins; there may be several at once."""
        self._reloads += 1
        if self._reloads == 1 and not self._is_stopping:
            self._tell_state("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.seconds() * 1e6)}")

    def reloaded(self, *, failed: bool) -> None:
        """It has ended; if it has ``failed``, the former configuration is in force."""
        self._reloads -= 1
        self._is_outdated = failed
        if not self._reloads and not self._is_stopping:
            self._tell_state("READY=1")
            self._show()

    def stopping(self, drain_s: float, seconds: float) -> None:
        """The daemon lets what runs finish for ``drain_s``, and after ``seconds`` it is certainly gone."""
        self._is_stopping = True
        self._told = f"Stops: transfers may go on for {drain_s:g} s"
        extension = f"EXTEND_TIMEOUT_USEC={int((seconds + STOP_MARGIN_S) * 1e6)}"
        self._tell_state("STOPPING=1", f"STATUS={self._told}", extension)

    def stop(self) -> None:
        """Tell nothing more."""
        self._is_stopping = True
        for each in (self._showing, self._feeding):
            if each.running:
                each.stop()

    def _tell_state(self, *assignments: str) -> None:
        """Tell a state, later if it must be; each makes the one before it, if that is still to be told, needless."""
        self._unsent = assignments if self._manager.tell(*assignments) else ()

    def _show(self) -> None:
        if self._unsent:
            self._tell_state(*self._unsent)
        if not self._is_stopping and (status := self._status()) != self._told:
            self._told = self._told if self._manager.tell(f"STATUS={status}") else status

    def _status(self) -> str:
        activity = self._activity()
        return f"The last reload failed, see the log; {activity}" if self._is_outdated else activity

    def _feed(self) -> None:
        self._manager.tell("WATCHDOG=1")
