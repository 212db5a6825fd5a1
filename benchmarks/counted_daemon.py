"""A daemon that counts what is in its memory when it gets SIGUSR2: as ``twistd``, with a file for the answers before.

    python -m benchmarks.counted_daemon COUNTS --nodaemon --pidfile= realized --config FILE

Each answer replaces the one before: a JSON object with the number of ``timers``, of ``threads``, and of ``objects`` of
each class, which only counts those that the garbage collector knows, after it has run.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
from collections import Counter
from typing import Any

from twisted.scripts.twistd import run


def count_objects() -> dict[str, int]:
    """How many objects there are of each class."""
    gc.collect()
    return dict(Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects()))


def answer(file: str) -> None:
    """Count, and write it down."""
    # Twistd has chosen it by now.
    running: Any = sys.modules["twisted.internet.reactor"]
    timers = len(running.getDelayedCalls())
    counted = {"timers": timers, "threads": threading.active_count(), "objects": count_objects()}
    with open(f"{file}.new", "w", encoding="utf-8") as out:
        json.dump(counted, out)
    os.replace(f"{file}.new", file)


def main() -> None:
    """Be twistd."""
    file = sys.argv.pop(1)
    signal.signal(signal.SIGUSR2, lambda *_: answer(file))
    run()


if __name__ == "__main__":
    main()
