"""Look for what grows in a daemon that has served very many short runs: simulates months.

    python -m benchmarks.ageing [--runs 100000] [--reports 10] [--processes 2] [--folder /dev/shm]

The runs are those of `benchmarks.short_runs`: they put a file, are cut, are not let in, and so on, from ever other
addresses.  Meanwhile the daemon moves by itself what has arrived, fails to move anything to a peer that is away, and
takes over a configuration in which some peers have other names and keys, ten times between two reports.
Each report is made when nobody is connected.  What grew from the second report to the last is shown at the end; the
first runs fill caches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.machine import print_machine
from benchmarks.procfs import resident_memory
from benchmarks.short_runs import Target, visit
from benchmarks.tables import table
from realize.keys import generate_identity, write_identity
from tests.processes import Site, free_port, wait_for

PEERS: Final = 6
"""Peers with which the runs are made; the first half may only create."""

GUESTS: Final = 10
"""Peers that never come, others in each generation of the configuration."""

RELOADS: Final = 10
"""Reloads between two reports."""

SETTLE_S: Final = 70.0
"""Seconds after which what is kept for a while only has gone: the log counts for a minute."""

MIN_GROWTH: Final = 20
"""Objects of a class that are more at the end than at the second report, at least, to be shown."""

CONFIG: Final = """
key = "daemon.key"
listen = ["tcp:{site.port}:interface=127.0.0.1"]
metrics = "127.0.0.1:{site.metrics_port}"
control = "control"
state = "state"
[dirs.inbox]
path = "{site.inbox}"
[moves.onwards]
from = ["{site.inbox}"]
to = "{site.folder}/archive"
when = "every 2s"
settle = "1s"
[moves.away]
from = ["{site.folder}/other"]
to = "away::inbox"
when = "every 1s"
[peers.away]
address = "127.0.0.1:1"
key = "{site.away}"
"""
"""What the daemon does; its other peers come and go."""


@frozen
class Report:
    """What there was of each thing at one time."""

    runs: int
    timers: int
    threads: int
    descriptors: int
    memory_bytes: int
    mappings: int
    state_files: int
    metrics_lines: int
    metrics_bytes: int
    objects: Mapping[str, int]

    def row(self) -> list[str]:
        """A line of the table."""
        return [
            f"{self.runs:,}",
            f"{self.memory_bytes / (1 << 20):.1f}",
            *(str(each) for each in (sum(self.objects.values()), self.timers, self.threads, self.descriptors)),
            *(str(each) for each in (self.mappings, self.state_files, self.metrics_lines, self.metrics_bytes >> 10)),
            "",
        ]


HEADS: Final = ("runs", "MiB", "objects", "timers", "threads", "fds", "maps", "state files", "series", "KiB", "")


def growth(before: Mapping[str, int], after: Mapping[str, int], most: int = MIN_GROWTH) -> list[tuple[str, int, int]]:
    """The classes of which there are more than ``most`` objects more: name, before and after; pure."""
    more = Counter(after)
    more.subtract(before)
    return [(name, before.get(name, 0), after[name]) for name, grown in more.most_common() if grown > most]


class AgeingSite(Site):
    """A site with standing moves, and many peers, of which some change with each reload."""

    def __init__(self, folder: Path) -> None:
        """Make the keys of the peers that come."""
        self.metrics_port = free_port()
        self.counts = folder / "counts"
        """Where the daemon writes what it has counted."""
        for name in ("archive", "other", "state", "unknown"):
            (folder / name).mkdir(mode=0o700)
        (folder / "other" / "file").write_bytes(b"stays")
        self.visitors: list[tuple[Path, str]] = []
        for number in range(PEERS):
            identity = generate_identity()
            write_identity(str(folder / f"peer{number}.key"), identity)
            self.visitors.append((folder / f"peer{number}.key", identity.public_key.base64))
        self.away = generate_identity().public_key.base64
        self.generation = 0
        self.program = [sys.executable, "-m", "benchmarks.counted_daemon", str(self.counts)]
        super().__init__(folder)

    @property
    def target(self) -> Target:
        """The daemon as the runs need it."""
        return Target(self.port, self.metrics_port, [key for key, _ in self.visitors], self.folder / "unknown")

    def write_daemon_config(self, extra: str = "") -> None:
        """The configuration of a generation: in each, half of the peers that come have another name."""
        peers = []
        for number, (_, key) in enumerate(self.visitors):
            rights = ["create"] if number < PEERS // 2 else ["read", "write", "remove"]
            name = f"peer{number}" if number % 2 else f"peer{number}of{self.generation}"
            peers.append(f'[peers.{name}]\nkey = "{key}"\ndirs = {{ inbox = {json.dumps(rights)} }}\n')
        for number in range(GUESTS):
            key = generate_identity().public_key.base64
            peers.append(f'[peers.guest{number}of{self.generation}]\nkey = "{key}"\n')
        (self.folder / "realized.toml").write_text(CONFIG.format(site=self) + "".join(peers) + extra)

    def next_generation(self) -> None:
        """Let the daemon take over another configuration."""
        assert self.daemon is not None
        self.generation += 1
        self.write_daemon_config()
        self.daemon.send_signal(signal.SIGHUP)

    def report(self, runs: int) -> Report:
        """What there is in the daemon now."""
        assert self.daemon is not None
        pid = self.daemon.pid
        self.counts.unlink(missing_ok=True)
        self.daemon.send_signal(signal.SIGUSR2)
        wait_for(self.counts.exists)
        counted = json.loads(self.counts.read_text())
        lines, size = scraped_lines(self.metrics_port)
        return Report(
            runs=runs,
            timers=counted["timers"],
            threads=counted["threads"],
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            memory_bytes=resident_memory(pid),
            mappings=len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            state_files=sum(len(names) for _, _, names in os.walk(self.folder / "state")),
            metrics_lines=lines,
            metrics_bytes=size,
            objects=counted["objects"],
        )


def scraped_lines(port: int) -> tuple[int, int]:
    """Lines and bytes of the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read()
    return text.count(b"\n"), len(text)


def aged(site: AgeingSite, runs: int, reports: int, workers: int, settle_s: float) -> Iterator[Report]:
    """Make the runs, and a report after each part of them, once all is quiet for ``settle_s`` seconds."""
    site.start()
    counts: Counter[str] = Counter()
    seeds = count()
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        for number in range(1, reports + 1):
            for _ in range(RELOADS):
                each = runs // reports // RELOADS // workers
                done = [pool.submit(visit, site.target, next(seeds), each) for _ in range(workers)]
                for one in done:
                    counts.update(one.result())
                site.next_generation()
            time.sleep(settle_s)
            yield site.report(runs * number // reports)
    print(", ".join(f"{name} {times}" for name, times in sorted(counts.items())), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds of quiet before each report")
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    print_machine()
    reports = []
    with tempfile.TemporaryDirectory(prefix="realize-bench-", dir=arguments.folder) as folder:
        site = AgeingSite(Path(folder))
        try:
            for each in aged(site, arguments.runs, arguments.reports, arguments.processes, arguments.settle):
                reports.append(each)
                print("  ".join(each.row()), flush=True)
        finally:
            site.stop()
    print(table(HEADS, [each.row() for each in reports], left=0))
    grown = growth(reports[min(1, len(reports) - 1)].objects, reports[-1].objects)
    print(table(["", "before", "after", ""], [[name, str(before), str(after), ""] for name, before, after in grown]))


if __name__ == "__main__":
    main()
