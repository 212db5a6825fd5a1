"""Limits that any program can change while it runs: one for all connections of an endpoint, or of several, by name.

``realize.throttle.limits`` has those of the process that have a name.
Rates are in bytes per second, None for no limit; bursts are in bytes.
Whatever is not valid is a `ValueError` with one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from twisted.internet.interfaces import IReactorTime

from realize.errors import UsageError
from realize.throttle.buckets import Bucket
from realize.throttle.rates import check_burst, check_rate, slice_of
from realize.throttle.scheduler import Flow, Scheduler
from realize.units import format_rate


class SharedLimit:
    """A limit on what all its connections together send; those that have something to send get equal shares.

    ``rate`` is in bytes per second, None for no limit; ``burst`` is in bytes, None for what the rate needs.
    Raises `ValueError` for a rate that there is not, or a burst that is too small for it.
    """

    def __init__(self, clock: IReactorTime, rate: float | None, burst: float | None = None) -> None:
        _check(rate, burst)
        self.clock = clock
        self._declared = (rate, burst)
        self._burst = burst
        self._root = Bucket(rate, burst)
        self._scheduler = Scheduler(clock, self._root)

    @property
    def rate(self) -> float | None:
        """The limit that holds now, in bytes per second."""
        return self._root.rate

    @property
    def burst(self) -> float:
        """Bytes that leave at once after a pause; infinite without a limit."""
        return self._root.burst

    @property
    def sent(self) -> int:
        """All bytes that were ever sent; under a limit, with what TLS inside of it adds to them."""
        self._scheduler.collect()
        return self._root.sent()

    @property
    def waiting(self) -> int:
        """Bytes that the limit holds back at the moment; not those that a slow network does."""
        return self._root.demand

    def set_rate(self, rate: float | None, burst: float | None = None) -> None:
        """Hold all connections, also those that are open, to ``rate`` bytes per second from now on; None lifts it.

        Without ``burst``, the one that was given before stays, or becomes as large as the new rate needs.
        Raises `ValueError`, and changes nothing, for a rate that there is not, or a burst that is too small for it.
        """
        _check(rate, burst)
        if burst is not None:
            self._burst = burst
        enough = self._burst if rate is None or self._burst is None else max(self._burst, slice_of(rate))
        self._scheduler.set_rate(self._root, rate, enough)

    def flow(self) -> Flow:
        """A place below the limit for one more connection."""
        return self._scheduler.flow(Bucket(parent=self._root))

    def check_same(self, name: str, clock: IReactorTime, rate: float | None, burst: float | None) -> None:
        """Raise `ValueError` unless ``rate`` and ``burst`` are what this limit was made with, on the same ``clock``."""
        if (rate, burst) != self._declared:
            raise ValueError(
                f"the limit {name!r} was given as {_given(*self._declared)}, and cannot be {_given(rate, burst)} too"
            )
        if clock is not self.clock:
            raise ValueError(f"the limit {name!r} belongs to another reactor")


class SharedLimits(Mapping[str, SharedLimit]):
    """The limits of a process that have a name: what is given the same name shares one limit.

    They stay for as long as the process, with what was set and counted, until they are forgotten.
    """

    def __init__(self) -> None:
        self._limits: dict[str, SharedLimit] = {}

    def __getitem__(self, name: str) -> SharedLimit:
        return self._limits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._limits))

    def __len__(self) -> int:
        return len(self._limits)

    def share(self, name: str, clock: IReactorTime, rate: float | None, burst: float | None = None) -> SharedLimit:
        """The limit of that name, made now if there is none.

        What was set at run time stays as it is: ``rate`` and ``burst`` are compared with those given at first.
        Raises `ValueError` if these are others, if the limit belongs to another reactor, or if they are not valid.
        """
        if not name.strip():
            raise ValueError("the name of a limit cannot be empty")
        found = self._limits.get(name)
        if found is None:
            found = self._limits[name] = SharedLimit(clock, rate, burst)
        else:
            found.check_same(name, clock, rate, burst)
        return found

    def forget(self, name: str) -> None:
        """Let the name be given to another limit; what uses this one goes on with it.  Raises `KeyError`."""
        del self._limits[name]


def _check(rate: float | None, burst: float | None) -> None:
    try:
        check_rate(rate)
        check_burst(burst, rate)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _given(rate: float | None, burst: float | None) -> str:
    return format_rate(rate) + ("" if burst is None else f" with a burst of {burst:.16g} bytes")
