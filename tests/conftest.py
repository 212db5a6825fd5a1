"""What every test may rely on: no error and no timer is left behind unnoticed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher

# How long it takes to make up an example says how busy the machine is, and nothing of the code.
# `make soak` looks for much longer.
settings.register_profile("realize", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("realize")


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the garbage collections that follow each test: they took 18 ms each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves an unhandled error in a Deferred, or a delayed call in the reactor."""
    from twisted.internet import reactor

    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    before = set(reactor.getDelayedCalls())
    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    left = [call for call in reactor.getDelayedCalls() if call not in before and call.active()]
    for call in left:
        call.cancel()
    assert not failures, "\n".join(event["log_failure"].getTraceback() for event in failures)
    assert not left, f"delayed calls are left: {left}"
