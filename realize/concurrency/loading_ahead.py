"""Modules that are not loaded at the start are loaded soon after it, when there is time.

Otherwise a process that has run for days would load them when it needs them, and find those of another version, or
none, if its packages were upgraded in the meantime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Final

from twisted.internet.interfaces import IReactorTime

LOAD_AFTER_S: Final = 10.0
"""By then, short runs have ended, and have not paid for it: it takes 0.1 to 0.3 s, in which nothing else is done."""


def load_ahead(
    clock: IReactorTime, modules: Iterable[str], also: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """Load these modules in `LOAD_AFTER_S`, in the thread of the reactor, and call ``also``, which loads others.

    Calling what is returned gives that up.
    """
    loading = clock.callLater(LOAD_AFTER_S, _load, modules, also)

    def give_up() -> None:
        if loading.active():
            loading.cancel()

    return give_up


def load_now(modules: Iterable[str]) -> None:
    """Load these modules, as far as they can be; one that is missing is reported by the code that needs it."""
    for each in modules:
        with contextlib.suppress(ImportError, OSError):
            import_module(each)


def _load(modules: Iterable[str], also: Callable[[], None]) -> None:
    load_now(modules)
    with contextlib.suppress(ImportError, OSError):
        also()
