"""How old what a stamp tells of can be, although somebody may set the clock that files are stamped with.

A stamp is the wall clock's time, which an administrator, a time server or the end of a suspend may change at any time,
in either direction.
The monotonic clock cannot be set, but says nothing about a stamp by itself.
So both are read together whenever something is stamped or judged here, and by how much one is ahead of the other is
remembered.

What is done to the clock and undone between two readings is not seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, evolve, field, frozen

_CLOCK_REALTIME_COARSE: Final = 5  # clock_gettime(2); Python has no names for them
_CLOCK_MONOTONIC_COARSE: Final = 6

MAX_CLOCK_CHANGES: Final = 64
"""Settings of the clock that are remembered; beyond that, all but the first and the last ones are forgotten."""

Reading = tuple[int, int]
"""What the monotonic clock and the one that stamps files show at one instant, in nanoseconds."""


def read_clocks() -> Reading:
    """Both clocks of the kernel, as of its last tick.

    What is stamped later has no earlier stamp than that, as it may have by the time of day, by a tick.
    """
    while True:
        monotonic_ns = time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE)
        stamp_ns = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        if time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE) == monotonic_ns:
            return monotonic_ns, stamp_ns


@frozen
class _Setting:
    """From ``since_ns`` (monotonic) on the wall clock was ahead of the monotonic one by ``ahead_ns``, or more."""

    since_ns: int
    ahead_ns: int


@frozen
class Present:
    """An instant at which the clock that stamps files showed ``stamp_ns``.

    By the settings that the clock had during the ``running_ns`` before, it would have shown each of ``otherwise_ns``.
    """

    stamp_ns: int
    running_ns: int = 0
    otherwise_ns: Sequence[int] = ()

    def age_ns(self, stamp_ns: int) -> int:
        """How long ago something was stamped, at least; negative if that was after this instant.

        What may have been stamped while we were running, by any setting, is not older than that makes it, lest a clock
        that is set forward makes all old at once.
        """
        ages = (now_ns - stamp_ns for now_ns in self.otherwise_ns)
        return min([self.stamp_ns - stamp_ns, *(age for age in ages if 0 <= age <= self.running_ns)])


@define(eq=False)
class Stamps:
    """What is known of the clock that stamps files, since this was made; may be used by several threads."""

    read: Callable[[], Reading] = read_clocks
    _settings: list[_Setting] = field(factory=list, init=False)
    """The later, the further ahead."""
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _began_ns: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Take the first reading."""
        self._began_ns = self.note()

    def note(self) -> int:
        """Read the clocks, because something was just stamped, or will be; the monotonic time."""
        with self._lock:
            return self._note()[0]

    def earliest_since(self, monotonic_ns: int) -> int:
        """The earliest stamp of anything that was stamped since that monotonic time.

        Of a time before the first reading no more is known than that reading tells.
        """
        with self._lock:
            self._note()
            setting, *later = self._settings
            for each in later:
                if each.since_ns <= monotonic_ns:
                    setting = each
        return monotonic_ns + setting.ahead_ns

    def present(self) -> Present:
        """What judges how old stamps are by now."""
        with self._lock:
            monotonic_ns, stamp_ns = self._note()
            running_ns = monotonic_ns - self._began_ns
            return Present(stamp_ns, running_ns, [each.ahead_ns + monotonic_ns for each in self._settings])

    def _note(self) -> Reading:
        monotonic_ns, stamp_ns = self.read()
        setting = _Setting(monotonic_ns, stamp_ns - monotonic_ns)
        while self._settings and self._settings[-1].ahead_ns >= setting.ahead_ns:
            setting = evolve(setting, since_ns=self._settings.pop().since_ns)
        self._settings.append(setting)
        if len(self._settings) > MAX_CLOCK_CHANGES:
            del self._settings[1]
        return monotonic_ns, stamp_ns


STAMPS: Final = Stamps()
"""For all that this process does."""
