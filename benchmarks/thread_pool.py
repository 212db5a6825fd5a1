"""Measure what it costs to run jobs in threads: our pool compared with Twisted's.

    python -m benchmarks.thread_pool

For jobs of one short system call, one after the other and four at a time: microseconds of time and of CPU time for the
way to the thread and back, as the median of five rounds in which the two pools take turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool as TwistedPool

from benchmarks.machine import print_machine
from benchmarks.tables import table
from realize.concurrency.thread_pool import ThreadPool

WAYS = 10_000
THREADS = 4
ROUNDS = 5

Run = Callable[..., Deferred[Any]]


async def measure(run: Run, at_once: int) -> tuple[float, float]:
    """Microseconds of time and of CPU time."""

    async def work() -> None:
        for _ in range(WAYS // at_once):
            await run(os.getppid)

    time_before, cpu_before = time.perf_counter(), time.process_time()
    await gatherResults([Deferred.fromCoroutine(work()) for _ in range(at_once)])
    return (time.perf_counter() - time_before) / WAYS * 1e6, (time.process_time() - cpu_before) / WAYS * 1e6


async def main(reactor: Any) -> None:
    """Print a line for each pool and number."""
    print_machine()
    theirs, ours = TwistedPool(0, THREADS), ThreadPool(reactor, THREADS, "ours")
    theirs.start()
    pools: dict[str, Run] = {"Twisted's": partial(deferToThreadPool, reactor, theirs), "ours": ours.run}
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for at_once in (1, THREADS):
            for name, run in pools.items():
                found.setdefault((name, at_once), []).append(await measure(run, at_once))
    theirs.stop()
    ours.stop()
    lines = []
    for (name, at_once), measured in found.items():
        seconds, cpu = (median(column) for column in zip(*measured, strict=True))
        lines.append([name, str(at_once), f"{seconds:.1f}", f"{cpu:.1f}"])
    print(table(["pool", "at once", "us", "CPU us"], lines))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
