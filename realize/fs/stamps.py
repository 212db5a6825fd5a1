"""Judging the age of file timestamps, although the clock that stamps files may be set at any time.

A stamp is the time of the wall clock, which an administrator, a time server or the end of a suspend may change at any
time, in either direction.
The monotonic clock cannot be set, but says nothing about stamps by itself.
So both are read together whenever a file is stamped or a stamp is judged here, and the difference between them is
remembered.

A change of the clock that is undone before the next reading goes unnoticed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve, frozen

from realize.by_value import ByValue

_CLOCK_REALTIME_COARSE: Final = 5  # clock_gettime(2); Python has no names for them
_CLOCK_MONOTONIC_COARSE: Final = 6

MAX_CLOCK_CHANGES: Final = 64
"""Settings of the clock that are remembered: the first one and the latest ones."""

Reading = tuple[int, int]
"""The monotonic clock, and the clock that stamps files, at one instant, in nanoseconds."""


def read_clocks() -> Reading:
    """Read both clocks of the kernel, as of its last tick.

    No file is stamped later with an earlier time than that; compared with the precise time of day, it could be, by up
    to a tick.
    """
    while True:
        monotonic_ns = time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE)
        stamp_ns = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        if time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE) == monotonic_ns:
            return monotonic_ns, stamp_ns


@frozen(eq=False, repr=False)
class _ClockSetting(ByValue):
    """From ``since_ns`` (monotonic) on, the wall clock was ahead of the monotonic one by at least ``ahead_ns``."""

    since_ns: int
    ahead_ns: int


@frozen(eq=False, repr=False)
class Present(ByValue):
    """An instant at which the clock that stamps files showed ``stamp_ns``.

    With the settings that it had during the ``running_ns`` before, it would have shown each of ``otherwise_ns``.
    """

    stamp_ns: int
    running_ns: int = 0
    otherwise_ns: Sequence[int] = ()

    def age_ns(self, stamp_ns: int) -> int:
        """Return the least age that a stamp can have; negative if it is later than this instant.

        If by any setting the file may have been stamped while we were running, it is no older than that setting says:
        otherwise setting the clock forward would make everything old at once.
        """
        ages = (now_ns - stamp_ns for now_ns in self.otherwise_ns)
        return min([self.stamp_ns - stamp_ns, *(age for age in ages if 0 <= age <= self.running_ns)])


class Stamps:
    """Knows the settings of the clock that stamps files since this was created; may be used by several threads."""

    def __init__(self, read: Callable[[], Reading] = read_clocks) -> None:
        self.read = read
        self._settings: list[_ClockSetting] = []
        """In order of time, and so of ``ahead_ns``: a setting that is not behind the next one is dropped."""
        self._lock = threading.Lock()
        self._began_ns = self.note()

    def note(self) -> int:
        """Read the clocks, because a file was just stamped or is about to be; return the monotonic time in ns."""
        with self._lock:
            return self._note()[0]

    def earliest_since(self, monotonic_ns: int) -> int:
        """Return the earliest stamp that any file stamped since that monotonic time can have.

        For a time before the first reading, the setting of that reading is assumed.
        """
        with self._lock:
            self._note()
            setting, *later = self._settings
            for each in later:
                if each.since_ns <= monotonic_ns:
                    setting = each
        return monotonic_ns + setting.ahead_ns

    def present(self) -> Present:
        """Return an instant, now, from which to judge the age of stamps."""
        with self._lock:
            monotonic_ns, stamp_ns = self._note()
            running_ns = monotonic_ns - self._began_ns
            return Present(stamp_ns, running_ns, [each.ahead_ns + monotonic_ns for each in self._settings])

    def _note(self) -> Reading:
        monotonic_ns, stamp_ns = self.read()
        setting = _ClockSetting(monotonic_ns, stamp_ns - monotonic_ns)
        while self._settings and self._settings[-1].ahead_ns >= setting.ahead_ns:
            setting = evolve(setting, since_ns=self._settings.pop().since_ns)
        self._settings.append(setting)
        if len(self._settings) > MAX_CLOCK_CHANGES:
            del self._settings[1]
        return monotonic_ns, stamp_ns


STAMPS: Final = Stamps()
"""Shared by the whole process."""
