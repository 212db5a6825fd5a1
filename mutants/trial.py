"""Running tests with one fault in the code: in a process of its own, which has a copy of what all of them need.

Nothing of Realize may be imported before the fork, or the tests would see the code without the fault, and no reactor,
or the children would share its descriptors.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.machinery
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from types import CodeType
from typing import Final

from attrs import frozen

_SHARED: Final = (
    "attrs",
    "blake3",
    "cattrs",
    "click",
    "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "fastcdc",
    "hypothesis",
    "hypothesis.stateful",
    "OpenSSL.SSL",
    "oncalendar",
    "orjson",
    "pathspec",
    "prometheus_client",
    "pytest_twisted",
    "rich.console",
    "structlog",
    "twisted.internet.defer",
    "twisted.internet.task",
    "twisted.internet.testing",
    "twisted.protocols.amp",
    "twisted.protocols.tls",
    "twisted.trial.unittest",
    "xxhash",
)
_MOST_MEMORY: Final = 8 << 30


class Verdict(enum.Enum):
    """How the tests took a fault."""

    NOTICED = "noticed"
    HUNG = "noticed, by its time limit"
    SURVIVED = "survived"
    NOT_RUN = "no test runs the line"


@frozen
class Mutation:
    """A module with a fault: ``file`` is its path below the checkout."""

    file: str
    source: str
    tests: tuple[str, ...]
    limit_s: float


def prepare() -> None:
    """Import what all trials need."""
    for name in _SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    loaded = [name for name in sys.modules if name in {"realize", "twisted.internet.reactor"}]
    if loaded:
        raise RuntimeError(f"imported too early: {', '.join(loaded)}")


@frozen
class Running:
    """A trial that was started."""

    pid: int
    ends_at: float

    def poll(self) -> Verdict | None:
        """How it ended; None as long as it goes on."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._kill()  # what the tests have left running
            return Verdict.SURVIVED if os.waitstatus_to_exitcode(status) == 0 else Verdict.NOTICED
        if time.monotonic() < self.ends_at:
            return None
        self._kill()
        os.waitpid(self.pid, 0)
        return Verdict.HUNG

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def start(mutation: Mutation, checkout: Path, output: Path) -> Running:
    """Run its tests in another process, whose output goes to that file."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            _redirect(output)
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
            code = _run(mutation, checkout)
        except BaseException:  # noqa: BLE001 -- for the file
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return Running(pid, time.monotonic() + mutation.limit_s)


def _redirect(output: Path) -> None:
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, fd), (2, fd)):
        os.dup2(source, target)


def _run(mutation: Mutation, checkout: Path) -> int:
    import pytest

    os.chdir(checkout)
    target = str(checkout / mutation.file)
    code = compile(mutation.source, target, "exec", dont_inherit=True)
    as_written = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: importlib.machinery.SourceFileLoader, name: str) -> CodeType | None:
        return code if loader.path == target else as_written(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
    # Plugins among what all trials share were imported before pytest could rewrite their assertions, and need not be.
    quiet = ["-x", "-q", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*quiet, "-p", "no:cacheprovider", "-p", "no:xdist", *mutation.tests]))
