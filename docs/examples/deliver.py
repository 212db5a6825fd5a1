"""A service that delivers what a directory collects to a daemon, every minute, and says what was delivered.

    python docs/examples/deliver.py /data/out nas::inbox

It uses the configuration of the command; SIGTERM and SIGINT end it in order.
"""

import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react

from realize.api import MoveOptions, RealizeError, events, move

PAUSE_S = 60.0
OPTIONS = MoveOptions(rules=[("exclude", "*.tmp")], min_age_s=1.0, up_bps=20 << 20, max_duration_s=3600.0)


def say(event: events.Event) -> None:
    """Say what was delivered, and what was not."""
    if isinstance(event, events.Finished) and event.removed:
        print("delivered", event.path.decode(errors="replace"), event.digest.hex(), flush=True)
    elif isinstance(event, events.Failed):
        print("failed", event.path.decode(errors="replace"), event.error, file=sys.stderr)


async def deliver(reactor: Any, source: str, destination: str) -> None:
    """Deliver again and again, until cancelled."""
    while True:
        try:
            summary = await move(reactor, source, destination, options=OPTIONS, on_event=say)
        except RealizeError as error:
            print("not delivered:", error, file=sys.stderr, flush=True)
        else:
            print(f"{summary.removed} files delivered, {summary.failed} failed", flush=True)
        await deferLater(reactor, PAUSE_S)


def main(reactor: Any, *words: str) -> Deferred[None]:
    """Deliver until a signal comes."""
    delivering = Deferred.fromCoroutine(deliver(reactor, *words))
    delivering.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def end() -> Deferred[None]:
        delivering.cancel()
        return delivering

    reactor.addSystemEventTrigger("before", "shutdown", end)
    return delivering


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    react(main, sys.argv[1:])
