"""What both programs need of Twisted's reactor; whoever needs less takes one of the interfaces it is made of."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorCore, IReactorThreads, IReactorTime


class IReactor(IReactorCore, IReactorTime, IReactorThreads):
    """Runs and stops, keeps time, and has threads and is told by them; the reactors of Twisted provide all of it."""
