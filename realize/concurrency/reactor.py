"""What both programs need of Twisted's reactor; whoever needs less takes one of the interfaces it is made of."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime


class IReactor(IReactorCore, IReactorTime, IReactorFromThreads):
    """Runs and stops, keeps time, and is told by threads; the reactors of Twisted provide all of it."""
