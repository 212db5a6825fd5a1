"""The daemon's signal handlers; those that were installed before are restored at the end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that stop the daemon in order (the first two through the reactor); a second one of them stops it at once."""


class SignalHandlers:
    """The signal handlers of one daemon; to be used in the main thread."""

    def __init__(self) -> None:
        self._former: dict[int, Any] = {}

    def on(self, number: int, action: Callable[[], object]) -> None:
        """Call ``action`` at that signal.

        It interrupts the main thread anywhere, so it must do next to nothing.
        """

        def received(_number: int, _frame: FrameType | None) -> None:
            action()

        former = signal.signal(number, received)
        self._former.setdefault(number, signal.SIG_DFL if former is None else former)

    def restore(self) -> None:
        """Restore the handlers that were there before."""
        while self._former:
            signal.signal(*self._former.popitem())
