"""A watched source with real events, real threads and real time."""

from __future__ import annotations

import os
import time

import pytest
from twisted.internet.task import deferLater

from realize.concurrency.thread_pool import ThreadPool
from realize.values import Kind
from realize.watch.events import DirectoryEvents
from realize.watch.source_watch import SourceWatch
from tests.test_source_watch import Producer
from tests.watching import Records, plant

SETTLE_S = 0.3
WITHIN_S = 30.0
"""For a machine that does much else."""


class Real:
    """A source, and a consumer that removes what is ready."""

    def __init__(self, path):
        from twisted.internet import reactor

        self.path = path
        self.reactor = reactor
        self.log = Records()
        self.pool = ThreadPool(reactor, 2, "watch")
        self.events = DirectoryEvents(reactor)
        self.taken = {}
        """When each was taken, by the time of day."""
        self.written = []
        """What was taken although somebody had it open."""
        self.open = list
        self.watch = SourceWatch(
            os.fsencode(path),
            settle_s=SETTLE_S,
            accepts=lambda _: True,
            reactor=reactor,
            events=self.events,
            run_in_thread=self.pool.run,
            log=self.log,
        )
        self.watch.on_ready = self.take

    def take(self):
        """Take what is ready, and remove it."""
        for entry in self.watch.take(1000):
            if entry.kind is Kind.DIRECTORY:
                continue
            path = self.path / os.fsdecode(entry.path)
            self.taken[os.fsdecode(entry.path)] = time.time()
            writing = {os.stat(file.fileno()).st_ino for file in self.open()}
            try:
                if path.stat().st_ino in writing:  # opened after it had settled, as the mover would find out
                    self.watch.failed(entry.path, first_delay_s=0.01)
                    continue
                path.unlink()
            except OSError:
                pass  # the producer was faster
            self.watch.moved(entry.path)

    async def until(self, what):
        """Wait until it is so."""
        ends_at = time.monotonic() + WITHIN_S
        while not what():
            assert time.monotonic() < ends_at
            await deferLater(self.reactor, 0.01)

    async def stop(self):
        """End."""
        await self.watch.stop()
        self.pool.stop()


@pytest.fixture
def source(tmp_path):
    """An empty directory."""
    path = tmp_path / "source"
    path.mkdir()
    return path


async def test_files_are_ready_once_they_have_settled(source):
    """Not earlier; a rename into place is the last change of a file that is old."""
    plant(source / "deep" / "old")
    os.utime(source / "deep" / "old", (0, 0))
    real = Real(source)
    real.watch.start()
    await real.until(lambda: real.taken)
    plant(source / "new" / "x.part")
    renamed = time.time()
    os.rename(source / "new" / "x.part", source / "new" / "x")
    await real.until(lambda: len(real.taken) == 2)
    await real.stop()

    assert ["deep/old", "new/x"] == list(real.taken)
    assert real.taken["new/x"] - renamed >= SETTLE_S - 0.02


async def test_whatever_a_producer_does_all_of_it_comes_out(source, tmp_path):
    """While threads work and events come as they please."""
    away = tmp_path / "away"
    away.mkdir()
    producer = Producer(source, away, 4711)
    real = Real(source)
    real.open = lambda: producer.open
    real.watch.start()
    for _ in range(1_000):
        producer.step()
        if producer.random.random() < 0.3:
            await deferLater(real.reactor, producer.random.choice([0, 0, 0.001, 0.02]))
    while producer.open:
        producer.open.pop().close()
    await real.until(lambda: not producer.files())
    await real.stop()

    assert [] == real.log.all


async def test_more_happens_than_the_kernel_tells(source):
    """All is found by another walk."""
    real = Real(source)
    real.watch.start()
    await real.until(lambda: len(real.watch._directories) == 1)
    with open("/proc/sys/fs/inotify/max_queued_events") as file:
        most = int(file.read())
    for number in range(most + 10):
        os.close(os.open(source / str(number % 100), os.O_WRONLY | os.O_CREAT))
    for number in range(100):
        os.rename(source / str(number), source / f"{number}.done")
        os.close(os.open(source / str(number % 100), os.O_WRONLY | os.O_CREAT))
    (source / "late").mkdir()
    plant(source / "late" / "file")
    await real.until(lambda: len(real.taken) == 201)
    await real.stop()

    assert [("warning", "watch_events_lost")] == [(level, event) for level, event, _ in real.log.all]
