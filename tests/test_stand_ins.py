"""`realize.cli.stand_ins`: what Twisted would load for nothing."""

import ast
import asyncio
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Coroutine
from pathlib import Path

import pytest
import twisted
from twisted.internet import defer

from realize.cli.stand_ins import EXAMINED, _is_coroutine
from tests.processes import ENVIRONMENT


def run(code):
    """What a new process prints that has loaded Twisted without what it does not need."""
    start = "import sys, threading\nfrom realize.cli.stand_ins import stand_in\nstand_in()\n"
    done = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_the_real_modules_are_there_for_who_uses_them():
    """Before that, neither is loaded; cookies may be asked for by any number of threads at once."""
    assert ["False", "False", "True", "1", "True", "True"] == run(
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
            threading.Thread(target=lambda: jars.append(twisted.python.compat.cookielib.CookieJar)) for _ in range(8)
        ]
        sys.setswitchinterval(1e-6)
        [each.start() for each in threads]
        [each.join() for each in threads]
        import asyncio, http.cookiejar
        print(len({id(http.cookiejar.CookieJar), *map(id, jars)}), len(jars) == 8)

        async def one():
            return 1

        print(asyncio.run(one()) == 1)
        """
    )


def test_nobody_keeps_a_stand_in():
    """But for `twisted.internet.defer`, which has the names of asyncio: no other module that it loads has any."""
    assert ["twisted.internet.defer"] == run(
        """
        names = {"AbstractEventLoop", "Future", "asyncio"}
        print(*sorted(name for name, module in list(sys.modules.items()) if names & vars(module).keys()))
        """
    )


def test_what_is_loaded_already_is_left_alone():
    """In a program that uses asyncio, Twisted has the names of that."""
    code = "import asyncio, sys; from realize.cli.stand_ins import stand_in; stand_in()\n"
    code += "from twisted.internet import defer; print(defer.Future is asyncio.Future, 'http.cookiejar' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)

    assert "True True\n" == done.stdout


def test_twisted_uses_no_more_of_asyncio_than_the_stand_in_has():
    """If this fails, Twisted is another one: see what it does with `asyncio` when it runs, then add the version."""
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

    assert {"AbstractEventLoop", "Future", "iscoroutine"} == imported
    assert {"iscoroutine"} == used
    assert not any(isinstance(node, ast.Import) and "asyncio" in ast.unparse(node) for node in ast.walk(tree))
    assert twisted.__version__ in EXAMINED


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
