"""What Twisted and other libraries import and a plain command never uses: left out, a quarter of its start.

For each module of `LATER` there is one whose names are there, and load the real module as soon as one of them is used:
called, asked for an attribute, a base of a class or in ``isinstance``. So nothing is missing, and nothing behaves in
another way; no exception is imported from them by name, which ``except`` would not take before it is raised.
What is not loaded ten seconds after the start is loaded then (`load_all`), see `realize.concurrency.loading_ahead`.

`twisted.internet.defer` imports three names of `asyncio`: two for annotations, and one that it calls, `iscoroutine`.
There is a stand-in while that is loaded; who imports `asyncio` later gets the real one.
Nothing else sees it: it is there for the time of one import, in the main thread, before anything runs.
Another version of Twisted may do more with those names, so `EXAMINED` has those in which somebody has looked, and with
any other one `asyncio` is loaded: `tests/test_stand_ins.py` says what to look for.

All this is for our own commands alone, never for `realize.api` or the daemon, which are guests in a program of somebody
else.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Coroutine
from importlib import import_module
from types import CoroutineType, GeneratorType, ModuleType
from typing import Any, Final

from realize.cli.late_patterns import compile_when_used

EXAMINED: Final = ("26.10.0",)
"""Versions of Twisted whose `twisted.internet.defer` was examined."""

LATER: Final = (
    "cryptography.hazmat.primitives.serialization.ssh",  # of its package, for keys of OpenSSH
    "decimal",  # of `twisted.protocols.amp`, for arguments of that kind
    "email.utils",  # of `cryptography.x509`, for the addresses in certificates
    "hashlib",  # of `cryptography.x509` and `hmac`; it loads libcrypto, and `cryptography` has one of its own
    "hmac",  # of `secrets` and `cryptography`; the same
    "http.cookiejar",  # of `twisted.python.compat`, for old programs
    "ipaddress",  # of `cryptography.x509` and `urllib.parse`, for addresses in certificates and URLs
    "pickle",  # of `twisted.python.reflect` and `twisted.plugin`
    "textwrap",  # of `traceback`, for groups of exceptions
    "tokenize",  # of `inspect` and `linecache`, to read source code
    "twisted.internet.process",  # of the reactor, for child processes
    "twisted.internet.ssl",  # of the reactor and of endpoints, for TLS with names of hosts; see `realize.wire.tls`
    "twisted.internet.stdio",  # of endpoints
    "twisted.internet.udp",  # of the reactor
    "twisted.internet.unix",  # of the reactor, for the control socket of a daemon
    "twisted.protocols._sni",  # of endpoints, for servers
    "twisted.python.modules",  # of `twisted.plugin`, to look for plug-ins
)
"""Modules that are loaded when they are used; no packages, whose other modules could not be loaded then."""

_OF_VARIABLES: Final = ("__typing_", "__parameters__")
"""What `typing` asks of whatever stands between brackets, to find variables; a class is none, and is not asked."""

_LEAVING: Final = threading.Lock()


def stand_in() -> None:
    """Let them be loaded when they are used; what is loaded already is left alone."""
    for name in LATER:
        if name not in sys.modules:
            sys.modules[name] = _Later(name)
    compile_when_used()


def load_twisted() -> None:
    """Load what of Twisted imports `asyncio`, without that."""
    stand_in()

    from twisted import __version__

    if __version__ in EXAMINED and not {"asyncio", "twisted.internet.defer"} & sys.modules.keys():
        sys.modules["asyncio"] = _asyncio()
        try:
            import_module("twisted.internet.defer")
        finally:
            del sys.modules["asyncio"]


def load_all() -> None:
    """Load what was left out and is not loaded yet."""
    for module in list(sys.modules.values()):
        if isinstance(module, _Later):
            _loaded(module)


class _Later(ModuleType):
    """A module that is loaded when something in it is used, in whichever thread."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) in {self, None}:
            return _LateName(self, name)
        return getattr(_loaded(self), name)  # waits for the thread that loads it


class _LateName:
    """What a module calls by that name, which is a function or a class."""

    def __init__(self, module: _Later, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        return getattr(_loaded(self._module), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_OF_VARIABLES):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __mro_entries__(self, _: tuple[object, ...]) -> tuple[Any, ...]:
        return (self._real(),)


def _loaded(module: _Later) -> ModuleType:
    with _LEAVING:
        if sys.modules.get(module.__name__) is module:
            del sys.modules[module.__name__]
    return import_module(module.__name__)


def _asyncio() -> Any:
    module: Any = ModuleType("asyncio")
    module.AbstractEventLoop = module.Future = Any
    module.iscoroutine = _is_coroutine
    return module


def _is_coroutine(value: object) -> bool:
    """Whether it is one for `asyncio` of Python 3.11; later versions do without generators, which Twisted adds."""
    return isinstance(value, CoroutineType | GeneratorType | Coroutine)
