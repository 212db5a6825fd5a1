"""What Twisted imports from the standard library and a command never uses: left out, a twelfth of its start.

* `twisted.python.compat` has a name for `http.cookiejar`, for old programs. A stand-in is there until somebody uses it.
* `twisted.internet.defer` imports three names of `asyncio`: two for annotations, and `asyncio.iscoroutine`, which it
  calls. A stand-in has them while that module is loaded; who imports `asyncio` later gets the real one.

Nothing else sees them: they are there for the time of one import, in the main thread, before anything runs. This is for
our own commands alone, never for `realize.api` or the daemon, which are guests in a program of somebody else.
Another version of Twisted may do more with those names, so `EXAMINED` has those in which somebody has looked, and with
any other one `asyncio` is loaded: `tests/test_stand_ins.py` says what to look for.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Coroutine
from types import CoroutineType, GeneratorType, ModuleType
from typing import Any, Final

EXAMINED: Final = ("26.10.0",)
"""Versions of Twisted whose `twisted.internet.defer` was examined."""

_COOKIES: Final = "http.cookiejar"
_LEAVING: Final = threading.Lock()


def stand_in() -> None:
    """Load Twisted without them; to be called before anything of it is loaded, else it does nothing."""
    if any(name in sys.modules for name in ("asyncio", _COOKIES, "twisted.python.compat", "twisted.internet.defer")):
        return
    package: Any = importlib.import_module("http")
    package.cookiejar = sys.modules[_COOKIES] = _Later(_COOKIES)

    from twisted import __version__

    if __version__ in EXAMINED:
        sys.modules["asyncio"] = _asyncio()
        try:
            importlib.import_module("twisted.internet.defer")
        finally:
            del sys.modules["asyncio"]


class _Later(ModuleType):
    """A module that is loaded when something in it is asked for, in whichever thread."""

    def __getattr__(self, name: str) -> Any:
        with _LEAVING:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _asyncio() -> Any:
    module: Any = ModuleType("asyncio")
    module.AbstractEventLoop = module.Future = Any
    module.iscoroutine = _is_coroutine
    return module


def _is_coroutine(value: object) -> bool:
    """Whether it is one for `asyncio` of Python 3.11; later versions do without generators, which Twisted adds."""
    return isinstance(value, CoroutineType | GeneratorType | Coroutine)
