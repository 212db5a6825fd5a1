"""Measure what it costs to know which files have settled.

    python -m benchmarks.watching [--files 100000] [--rate 2000] [--folder FOLDER]

A process makes files, each created, written and closed, 100 in a directory, at so many per second; they settle after
two seconds, and are taken and removed as a mover does.
CPU is that of the watching process, threads included, without what the removal takes.
``late`` is how long after its time a file was ready: that of its last change, plus the two seconds.
``memory`` is what the process has grown by while nothing was taken from as many files as may be known, and while one
third more came.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from benchmarks.machine import print_machine
from benchmarks.procfs import resident_memory
from benchmarks.tables import table
from realize.clocks import use_monotonic_clock
from realize.concurrency.thread_pool import ThreadPool
from realize.values import Kind
from realize.watch.events import DirectoryEvents
from realize.watch.settling import MAX_KNOWN_FILES
from realize.watch.source_watch import SourceWatch

SETTLE_S: Final = 2.0
FILES_PER_DIRECTORY: Final = 100

PRODUCER: Final = f"""
import os, sys, time
root, files, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
for number in range(files):
    directory = f"{{root}}/{{number // {FILES_PER_DIRECTORY}}}"
    if number % {FILES_PER_DIRECTORY} == 0:
        os.mkdir(directory)
    with open(f"{{directory}}/{{number:010}}", "wb") as file:
        file.write(b"x" * 100)
    ahead = began + number / rate - time.monotonic()
    if ahead > 0.01:
        time.sleep(ahead)
"""


class _Silent:
    """A logger for what nobody wants to know."""

    def bind(self, **_: object) -> _Silent:
        return self

    def debug(self, event: str, /, **_: object) -> None:
        pass

    def info(self, event: str, /, **_: object) -> None:
        pass

    def warning(self, event: str, /, **fields: object) -> None:
        print(event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        print(event, fields)


@define(eq=False)
class Consumer:
    """Removes what is ready."""

    root: bytes
    watch: SourceWatch
    files: int = 0
    removing_s: float = 0.0
    late_s: list[float] = field(factory=list)

    def take(self) -> None:
        """Take all that is ready."""
        while entries := self.watch.take(1000):
            now = time.time()
            self.late_s += [now - each.mtime_ns / 1e9 - SETTLE_S for each in entries if each.kind is Kind.FILE]
            for each in entries:
                if each.kind is Kind.FILE:
                    before = time.thread_time()
                    os.unlink(os.path.join(self.root, each.path))
                    self.removing_s += time.thread_time() - before
                    self.watch.moved(each.path)
                    self.files += 1


def produce(root: str, files: int, rate: float) -> subprocess.Popen[bytes]:
    """Start to make files."""
    return subprocess.Popen([sys.executable, "-c", PRODUCER, root, str(files), str(rate)])


async def flow(reactor: Any, folder: str, files: int, rate: float) -> list[list[str]]:
    """Files come and go."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        pool, watch = watching(reactor, root)
        consumer = Consumer(os.fsencode(root), watch)
        watch.on_ready = consumer.take
        watch.start()
        await deferLater(reactor, SETTLE_S, lambda: None)
        cpu, began_s = time.process_time(), time.monotonic()
        producer = produce(root, files, rate)
        while consumer.files < files:
            await deferLater(reactor, 0.2, lambda: None)
        producer.wait()
        took_s = time.monotonic() - began_s
        cpu = time.process_time() - cpu - consumer.removing_s
        await watch.stop()
        pool.stop()
    late_s = consumer.late_s
    return [
        ["files", f"{files:,}"],
        ["files per second", f"{files / took_s:,.0f}"],
        ["CPU us per file", f"{cpu / files * 1e6:.1f}"],
        ["of a core at 167 files/s", f"{cpu / files * 166.7:.2%}"],
        ["late, median, ms", f"{median(late_s) * 1e3:.0f}"],
        ["late, 99 %, ms", f"{quantiles(late_s, n=100)[98] * 1e3:.0f}"],
    ]


async def standstill(reactor: Any, folder: str) -> list[list[str]]:
    """Files come, and nobody takes them."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        pool, watch = watching(reactor, root)
        watch.start()
        await deferLater(reactor, SETTLE_S, lambda: None)
        before = resident_memory(os.getpid())
        lines = []
        for step, files in enumerate((MAX_KNOWN_FILES, MAX_KNOWN_FILES // 3)):
            os.mkdir(part := f"{root}/{step}")
            producer = produce(part, files, 1e9)
            while producer.poll() is None or watch.ready < MAX_KNOWN_FILES:
                await deferLater(reactor, 0.2, lambda: None)
            backlog = watch.backlog
            grown = (resident_memory(os.getpid()) - before) / 1e6
            more = " or more" if backlog.at_least else ""
            lines.append([f"MB of memory, {backlog.files:,}{more} files", f"{grown:.1f}"])
        await watch.stop()
        pool.stop()
    return lines


def watching(reactor: Any, root: str) -> tuple[ThreadPool, SourceWatch]:
    """A source, and the threads that it needs."""
    pool = ThreadPool(reactor, 2, "watch")
    watch = SourceWatch(
        os.fsencode(root),
        settle_s=SETTLE_S,
        accepts=lambda _: True,
        reactor=reactor,
        events=DirectoryEvents(reactor),
        run_in_thread=pool.run,
        log=_Silent(),
    )
    return pool, watch


async def main(reactor: Any, arguments: argparse.Namespace) -> None:
    """Print what was measured."""
    use_monotonic_clock(reactor)
    lines = await flow(reactor, arguments.folder, arguments.files, arguments.rate)
    lines += await standstill(reactor, arguments.folder)
    print(table(["", ""], lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2_000.0)
    parser.add_argument("--folder", default=None)
    chosen = parser.parse_args()
    print_machine()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, chosen)))
