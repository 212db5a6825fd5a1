"""A file that a peer has begun to send, and lets lie."""

from __future__ import annotations

import pytest

from realize.errors import Busy
from realize.store.server.streams import STREAM_IDLE_TIMEOUT_S
from realize.values import BLOCK_BYTES
from tests.test_served_streams import streaming

__all__ = ["streaming"]


def wait(streaming, seconds):
    """Let both ends live through it."""
    for _ in range(round(seconds / 5)):
        streaming.pair.clock.advance(5)
        streaming.pair.flush()


def match(streaming, served):
    """What the peer has of the partial is compared."""
    streaming.ask(served.match([b"d" * 32], BLOCK_BYTES))
    streaming.answer(0)


def offer(streaming, served):
    """Chunks are offered."""
    streaming.ask(served.offer([(4, bytes(16))]))
    streaming.answer([False])


def content(streaming, _served):
    """Content comes."""
    streaming.arrive(b"x")
    streaming.answer(None)


@pytest.mark.parametrize("comes", [match, offer, content])
def test_whatever_comes_keeps_a_stream_open(streaming, comes):
    """For as long again, at least; and no longer than twice that."""
    served = streaming.write(2 * BLOCK_BYTES, have=BLOCK_BYTES)
    wait(streaming, STREAM_IDLE_TIMEOUT_S - 5)
    comes(streaming, served)
    wait(streaming, STREAM_IDLE_TIMEOUT_S)
    open_still = "abandon" not in streaming.store.names()
    wait(streaming, STREAM_IDLE_TIMEOUT_S)

    assert open_still
    assert ("abandon", True) == streaming.store.asked[-1]
    [(error,)] = streaming.said.named("count_failed")
    assert isinstance(error, Busy)
    streaming.answer(BLOCK_BYTES)


def test_a_stream_that_was_put_aside_and_cannot_be_closed_is_told(streaming):
    """Nobody waits for that: it is in the log."""
    streaming.write(10)
    wait(streaming, STREAM_IDLE_TIMEOUT_S)
    before = streaming.pair.log.errors()
    streaming.answer(ZeroDivisionError("broken"))

    assert [] == before
    assert ["error"] == [level for level, *_ in streaming.pair.log.errors()]
