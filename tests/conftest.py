"""What every test may rely on: no error, no timer and no open file is left behind unnoticed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher

# How long it takes to make up an example says how busy the machine is, and nothing of the code.
# `make soak` looks for much longer.
settings.register_profile("realize", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("realize")

_CLOSED_WITHIN_S: Final = 5.0
"""A thread that closes what was removed may not have come to it when a test ends."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have an option that tells where the time goes."""
    parser.addoption("--cpu", action="store_true", help="show what CPU the dearest files and tests took")


def pytest_configure(config: pytest.Config) -> None:
    """Count what CPU each test takes, if that is asked for."""
    if config.getoption("--cpu", default=False):  # none where this file is found late
        from tests import cpu

        config.pluginmanager.register(cpu)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while tests are found: hardly anything is, and to look for it took a third of the time."""
    gc.disable()
    result = yield
    gc.enable()
    return result


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the garbage collections that follow each test: they took 18 ms each."""
    _collect_and_freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Let go of what a test has put into its object: pytest keeps that.

    What stays behind a module for other reasons, as the modules that it loaded, is not looked at any more: with it
    a collection took 25 ms after 2,000 tests, and 1 ms without.
    """
    result = yield
    if isinstance(item, pytest.Function) and item.instance is not None:
        vars(item.instance).clear()
    if nextitem is None or nextitem.path != item.path:
        _collect_and_freeze()
    return result


def _collect_and_freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def warm_starts() -> None:
    """Let the programs start without loading all of their modules anew."""
    from tests import processes, warm

    processes.POPEN = warm.Popen


def left_open(before: dict[str, str]) -> dict[str, str]:
    """The descriptors that are open and were not, but for those of the reactor itself."""
    from twisted.internet import reactor

    from tests import warm
    from tests.faults import descriptors

    expected = {os.readlink(f"/proc/self/fd/{reader.fileno()}") for reader in reactor._internalReaders} | {os.devnull}
    expected |= warm.STARTER.held()
    ends_at = time.monotonic() + _CLOSED_WITHIN_S
    while True:
        left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what and what not in expected}
        if not left or time.monotonic() > ends_at:
            return left
        time.sleep(0.001)


@pytest.fixture
def hangups_end() -> Iterator[None]:
    """Let SIGHUP end what a test starts, also where the tests themselves run under nohup(1), which is inherited."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def failures_logged() -> Iterator[list[str]]:
    """The tracebacks of failures that are logged meanwhile, also by a Deferred as it is collected with its error."""
    tracebacks: list[str] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            tracebacks.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        yield tracebacks
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_frozen() -> Iterator[None]:
    """Fail the last test if what collections have left out since the end of a module has an unhandled error."""
    yield
    with failures_logged() as failures:
        gc.unfreeze()
    gc.freeze()  # to look at all of it takes half a second, and once is enough
    assert not failures, "\n".join(failures)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves an unhandled error in a Deferred, a delayed call in the reactor, or a descriptor open."""
    from twisted.internet import reactor

    # Not earlier: whoever measures what the tests run begins before anything of Realize is imported.
    from tests.faults import descriptors

    open_before = descriptors()
    before = set(reactor.getDelayedCalls())
    with failures_logged() as failures:
        yield
    still_open = left_open(open_before)
    left = [call for call in reactor.getDelayedCalls() if call not in before and call.active()]
    for call in left:
        call.cancel()
    assert not failures, "\n".join(failures)
    assert not left, f"delayed calls are left: {left}"
    assert not still_open, f"descriptors are open: {still_open}"


@pytest.fixture
def closes_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the files of logs that a test has started; the program never does, for the sake of its last words."""
    from realize.telemetry.logging.writing import Writer

    started: list[Writer] = []
    start = Writer.start

    def starting(writer: Writer) -> None:
        start(writer)
        if writer._path is not None:
            started.append(writer)

    monkeypatch.setattr(Writer, "start", starting)
    yield
    for writer in started:
        os.close(writer._fd)


@pytest.fixture
def records() -> Iterator[list[tuple[str, dict[str, object]]]]:
    """What Realize adds to Twisted's log in another program, as ``(event, fields)``."""
    seen: list[tuple[str, dict[str, object]]] = []

    def observe(event: LogEvent) -> None:
        if "realize_event" in event:
            seen.append((event["realize_event"], event["realize_fields"]))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)
