"""`realize.cli.stand_ins`: what Twisted would load for nothing."""

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Coroutine
from importlib.util import find_spec
from pathlib import Path

import pytest
import twisted
from twisted.internet import defer

from realize.cli.stand_ins import EXAMINED, LATER, _is_coroutine
from tests.pages import ROOT
from tests.processes import ENVIRONMENT, printed

EXAMINED_HERE = twisted.__version__ in EXAMINED
"""Any other Twisted, such as the newest one on a fresh machine, loads `asyncio` itself: there is no stand-in for it."""


def run(code):
    """What a new process prints that has loaded Twisted without what it does not need."""
    start = "import sys, threading\nfrom realize.cli.stand_ins import load_twisted\nload_twisted()\n"
    return printed(start + textwrap.dedent(code))


def test_the_real_modules_are_there_for_who_uses_them():
    """Before that, none is loaded; cookies may be asked for by any number of threads at once."""
    assert [str(not EXAMINED_HERE), "False", "True", "{'CookieJar'}", "8", "True", "True"] == run(
        """
        import twisted.python.compat
        from twisted.internet.defer import Deferred, succeed

        async def two():
            return await succeed(2)

        got = []
        Deferred.fromCoroutine(two()).addCallback(got.append)
        print("asyncio" in sys.modules, "urllib.request" in sys.modules, got == [2])
        jars = []
        threads = [
            threading.Thread(target=lambda: jars.append(twisted.python.compat.cookielib.CookieJar())) for _ in range(8)
        ]
        sys.setswitchinterval(1e-6)
        [each.start() for each in threads]
        [each.join() for each in threads]
        import asyncio, http.cookiejar
        print({type(each).__name__ for each in jars}, len(jars))
        print(all(type(each) is http.cookiejar.CookieJar for each in jars))

        async def one():
            return 1

        print(asyncio.run(one()) == 1)
        """
    )


def test_a_name_is_as_good_as_what_it_stands_for():
    """It may be called, asked, be a base of a class, and tell what is of its kind; then the module is the real one."""
    assert ["False", "True", "True", "True", "True", "True", "True"] == run(
        """
        import twisted.internet.reactor
        from twisted.internet.endpoints import Certificate, CertificateOptions
        from secrets import compare_digest

        print("twisted.internet._sslverify" in sys.modules)

        class Options(CertificateOptions):
            pass

        print(Options.__mro__[1] is sys.modules["twisted.internet._sslverify"].OpenSSLCertificateOptions)
        print(isinstance(Options(), CertificateOptions), not isinstance(1, CertificateOptions))
        print(compare_digest("a", "a"))
        import hmac, twisted.internet.ssl
        print(hmac.__file__.endswith(".py"), twisted.internet.ssl.Certificate.loadPEM == Certificate.loadPEM)
        """
    )


def test_a_name_may_stand_between_brackets():
    """As a class may, and nothing is loaded for that; `typing` looks for variables there."""
    assert ["True", "True"] == run(
        """
        import ipaddress, typing
        from realize.cli.stand_ins import _Later

        kinds = typing.Union[ipaddress.IPv4Address, ipaddress.IPv6Address], typing.List[ipaddress.IPv4Address]
        print(type(sys.modules["ipaddress"]) is _Later)
        print(isinstance(ipaddress.ip_address("192.0.2.1"), typing.get_args(kinds[1])[0]))
        """
    )


@pytest.mark.parametrize("first", sorted(LATER))
def test_each_module_may_be_the_first_that_is_used(first):
    """Whatever it takes from others that are left out as well: functions, classes, and generic classes with a type."""
    assert ["True"] == run(
        f"""
        import twisted.internet.reactor, twisted.internet.endpoints, twisted.plugin, twisted.protocols.amp
        from realize.cli.stand_ins import _loaded

        module = sys.modules.get({first!r})
        loaded = _loaded(module) if module is not None else __import__({first!r}, fromlist=["x"])
        print(loaded.__name__ == {first!r})
        """
    )


def test_no_name_that_is_left_out_is_an_exception():
    """``except`` would not take it. Nor is it anything else that is not called, or asked for something."""
    assert ["[]", "True"] == run(
        """
        import types
        import twisted.internet.reactor, twisted.internet.endpoints, twisted.internet.task, OpenSSL.SSL, secrets
        import cryptography.x509, twisted.protocols.tls, twisted.plugin
        from realize.cli.stand_ins import _LateName

        names = {
            (name._module.__name__, name._name)
            for module in list(sys.modules.values())
            for scope in [module, *(each for each in list(vars(module).values()) if isinstance(each, type))]
            for name in list(vars(scope).values())
            if type(name) is _LateName
        }
        kinds = {each: getattr(__import__(each[0], fromlist=[each[1]]), each[1]) for each in names}
        real = {each: kind._real() if type(kind) is _LateName else kind for each, kind in kinds.items()}
        print([each for each, kind in real.items() if isinstance(kind, type) and issubclass(kind, BaseException)])
        print(all(callable(kind) for kind in real.values()) and len(real) > 8)
        """
    )


def test_none_is_a_package():
    """Its other modules could not be loaded while it is left out."""
    assert [] == [name for name in LATER if find_spec(name).submodule_search_locations is not None]


def test_all_is_loaded_ahead():
    """Ten seconds after the start; then nothing is loaded late because it was left out."""
    assert ["True", "[]"] == run(
        """
        from realize.cli.stand_ins import LATER, _Later, load_all
        print(all(type(sys.modules[name]) is _Later for name in LATER))
        load_all()
        print([name for name in LATER if type(sys.modules[name]) is _Later])
        """
    )


def test_nobody_keeps_a_stand_in():
    """But for `twisted.internet.defer`, which has the names of asyncio: no other module that it loads has any."""
    assert ["twisted.internet.defer"] * EXAMINED_HERE == run(
        """
        names = {"AbstractEventLoop", "Future", "asyncio"}
        if "asyncio" not in sys.modules:
            print(*sorted(name for name, module in list(sys.modules.items()) if names & vars(module).keys()))
        """
    )


def test_what_is_loaded_already_is_left_alone():
    """In a program that uses asyncio, Twisted has the names of that."""
    code = "import asyncio, sys; from realize.cli.stand_ins import load_twisted; load_twisted()\n"
    code += "from twisted.internet import defer; print(defer.Future is asyncio.Future, 'http.cookiejar' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)

    assert "True True\n" == done.stdout


def test_the_twisted_that_we_ship_is_examined():
    """`make pins` takes the newest: see what it does with `asyncio` when it runs, with the next test, and add it."""
    pinned = re.search(r"(?m)^twisted==(\S+)", (ROOT / "release" / "pins.txt").read_text())

    assert pinned[1] in EXAMINED


def test_an_examined_twisted_uses_no_more_of_asyncio_than_the_stand_in_has():
    """Two names for annotations alone, and one that it calls."""
    tree = ast.parse(Path(defer.__file__).read_text())
    imported = {
        name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "asyncio"
        for name in node.names
    }
    annotations = [
        each
        for node in ast.walk(tree)
        for each in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if each is not None
    ]
    for_people = {name for each in annotations for name in ast.walk(each)}
    used = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in imported and node not in for_people
    }
    whole = any(isinstance(node, ast.Import) and "asyncio" in ast.unparse(node) for node in ast.walk(tree))

    stood_in_for = ({"AbstractEventLoop", "Future", "iscoroutine"}, {"iscoroutine"}, False)
    assert stood_in_for == (imported, used, whole) or not EXAMINED_HERE


async def coroutine():
    """One."""


def generator():
    """One."""
    yield


class Other(Coroutine):
    """A coroutine of a compiler's own kind."""

    def __await__(self):
        """Do nothing."""

    def send(self, value):
        """Do nothing."""

    def throw(self, *error):
        """Do nothing."""

    def close(self):
        """Do nothing."""


@pytest.mark.parametrize("make", [coroutine, generator, Other, list, lambda: coroutine, defer.Deferred])
def test_a_coroutine_is_what_it_is_for_asyncio(make):
    """For Twisted, which takes generators in any case."""
    value = make()
    try:
        expected = asyncio.iscoroutine(value) or inspect.isgenerator(value)
        assert expected == _is_coroutine(value)
    finally:
        if hasattr(value, "close"):
            value.close()
