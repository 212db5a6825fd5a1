"""What the daemon does when it gets a signal; what somebody else had set comes back in the end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that stop the daemon in order, the first two by way of the reactor; another one of them stops it at once."""


class Signals:
    """The actions of one daemon; for the main thread."""

    def __init__(self) -> None:
        self._former: dict[int, Any] = {}

    def on(self, number: int, action: Callable[[], object]) -> None:
        """Call ``action``, which may do hardly anything: it is in the middle of something else."""

        def received(_number: int, _frame: FrameType | None) -> None:
            action()

        former = signal.signal(number, received)
        self._former.setdefault(number, signal.SIG_DFL if former is None else former)

    def restore(self) -> None:
        """Put back what was there before."""
        while self._former:
            signal.signal(*self._former.popitem())
