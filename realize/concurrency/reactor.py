"""What both programs need of Twisted's reactor; whoever needs less takes one of the interfaces it is made of."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorCore, IReactorFDSet, IReactorThreads, IReactorTime


class IReadingReactor(IReactorTime, IReactorFDSet):
    """Keeps time, and watches descriptors."""


class IReactor(IReactorCore, IReadingReactor, IReactorThreads):
    """Runs and stops, keeps time, watches descriptors, and has threads and is told by them; those of Twisted do."""
