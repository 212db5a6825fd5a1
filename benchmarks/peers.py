"""Measure a daemon with very many peers: what they cost while idle, and what they notice of each other while active.

    python -m benchmarks.peers [--peers 1000] [--active 200] [--files 20] [--size 65536] [--seconds 30]

Each peer has a key of its own, and one standing connection that sends nothing but pings; those of some hundred peers
are in one process (`benchmarks.crowd`), so that there is memory and CPU left for the daemon.
The active ones have `realize.api` put files into the daemon over a second connection, all at once.
A prober asks for ``status`` every 50 ms meanwhile (`benchmarks.probe`).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.machine import print_machine
from benchmarks.probe import Probe, ProbedSite
from benchmarks.procfs import cpu_seconds, peak_memory, resident_memory, wake_ups
from benchmarks.tables import mebibytes
from realize.keys import generate_identity, write_identity
from tests.processes import ENVIRONMENT, ROOT, free_port, wait_for

PROCESSES: Final = 4
"""Processes that the peers are in."""

PROBE_INTERVAL_S: Final = 0.05


class CrowdedSite(ProbedSite):
    """A site whose daemon knows very many peers, and serves metrics."""

    def __init__(self, folder: Path, peers: int) -> None:
        """Make their keys, in the folder ``keys``."""
        self.metrics_port = free_port()
        (folder / "keys").mkdir()
        self.known = []
        for number in range(peers):
            identity = generate_identity()
            write_identity(str(folder / "keys" / f"p{number:05}.key"), identity)
            self.known.append(identity.public_key.base64)
        self.reloads = 0
        super().__init__(folder)

    def write_daemon_config(self, extra: str = "") -> None:
        """Add them."""
        crowd = "".join(
            f'[peers.p{number:05}]\nkey = "{key}"\ndirs = {{ inbox = ["create"] }}\n'
            for number, key in enumerate(self.known)
        )
        super().write_daemon_config(extra + crowd)
        file = self.folder / "realized.toml"
        file.write_text(f'metrics = "127.0.0.1:{self.metrics_port}"\ncontrol = "control"\n' + file.read_text())

    def daemon_pid(self) -> int:
        """The process of the daemon."""
        assert self.daemon is not None
        return self.daemon.pid


class Crowd:
    """The processes with the peers, from the outside."""

    def __init__(self, site: CrowdedSite, processes: int) -> None:
        """Start them; they connect when `connect` is called."""
        count = len(site.known)
        bounds = [count * number // processes for number in range(processes + 1)]
        program = [sys.executable, "-m", "benchmarks.crowd"]
        program += [str(site.folder / "keys"), site.keys["daemon"], str(site.port)]
        self._processes = [
            subprocess.Popen(
                [*program, str(first), str(last)],
                env=ENVIRONMENT,
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for first, last in pairwise(bounds)
        ]
        self._hear("ready")

    def connect(self) -> float:
        """Connect all; the seconds until all are."""
        return self._tell("connect", "connected")

    def move(self, folders: Sequence[Path]) -> float:
        """Let as many peers as there are folders move these, evenly from all processes; the seconds until all have."""
        for number, process in enumerate(self._processes):
            assert process.stdin is not None
            mine = folders[number :: len(self._processes)]
            process.stdin.write(" ".join(["move", *map(str, mine)]) + "\n")
        return self._tell("", "moved")

    def leave(self) -> None:
        """Let all leave."""
        for process in self._processes:
            process.communicate()

    def _tell(self, told: str, answer: str) -> float:
        began = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{told}\n")
            process.stdin.flush()
        self._hear(answer)
        return time.perf_counter() - began

    def _hear(self, answer: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            if (heard := process.stdout.readline().strip()) != answer:
                raise SystemExit(f"a process with peers said {heard!r} where {answer!r} was expected")


def scraped(port: int, path: str) -> tuple[float, int]:
    """How many seconds a page of the metrics port took, and its size."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        size = len(answer.read())
    return time.perf_counter() - began, size


def stage(folder: Path, count: int, files: int, size: int) -> list[Path]:
    """A folder with files for each active peer, in folders named after it so that no two of a name arrive."""
    content = os.urandom(size)
    folders = [folder / f"active{number:04}" for number in range(count)]
    for each in folders:
        (each / each.name).mkdir(parents=True)
        for number in range(files):
            (each / each.name / f"f{number:04}").write_bytes(content)
    return folders


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def probing(site: CrowdedSite, waits: list[float]) -> Iterator[None]:
    """Ask for ``status`` meanwhile; adds to ``waits``, in seconds."""
    probe = Probe(site, PROBE_INTERVAL_S)
    try:
        yield
    finally:
        waits += probe.finish()


def waits_shown(waits: Sequence[float]) -> str:
    """The usual and the longest wait."""
    ordered = sorted(waits)
    return f"median {ordered[len(ordered) // 2] * 1000:.0f} ms, worst {ordered[-1] * 1000:.0f} ms of {len(ordered)}"


def measured(site: CrowdedSite, arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What was measured, one thing after the other."""
    began = time.perf_counter()
    site.start()
    yield "start until it listens", f"{time.perf_counter() - began:.2f} s"
    pid = site.daemon_pid()
    alone = resident_memory(pid)
    yield "memory, nobody connected", f"{mebibytes(alone)} MiB"
    crowd = Crowd(site, PROCESSES)
    try:
        cpu = cpu_seconds(pid)
        seconds = crowd.connect()
        yield "all connect", f"{seconds:.2f} s, of which the daemon's CPU {cpu_seconds(pid) - cpu:.2f} s"
        time.sleep(20)  # until what it needs no more has been given back
        idle = resident_memory(pid)
        each = (idle - alone) / len(site.known) / 1024
        yield "memory, all connected and idle", f"{mebibytes(idle)} MiB, {each:.0f} KiB each"
        yield "descriptors", str(descriptors(pid))
        cpu, woken = cpu_seconds(pid), wake_ups(pid)
        time.sleep(arguments.seconds)
        used = (cpu_seconds(pid) - cpu) / arguments.seconds
        yield (
            "CPU, idle",
            f"{used:.2%} of a core, woken {(wake_ups(pid) - woken) / arguments.seconds:.0f} times a second",
        )
        began = time.perf_counter()
        answer = site.realize("status", "hostb")
        told = "" if answer.returncode == 0 else answer.stderr.strip()
        yield "realize status", f"{time.perf_counter() - began:.2f} s, {len(answer.stdout) >> 10} KiB {told}"
        for path in ("/metrics", "/still"):
            seconds, size = scraped(site.metrics_port, path)
            yield path, f"{seconds * 1000:.0f} ms, {size >> 10} KiB"
        waits: list[float] = []
        with probing(site, waits):
            time.sleep(3)
        yield "status over a connection", waits_shown(waits)
        waits = []
        with probing(site, waits):
            time.sleep(1)
            began = time.perf_counter()
            site.write_daemon_config('[peers.another]\nkey = "' + generate_identity().public_key.base64 + '"\n')
            os.kill(pid, signal.SIGHUP)
            wait_for(lambda: any(each["event"] == "reloaded" for each in site.records()))
            seconds = time.perf_counter() - began
        yield "a reload with one peer more", f"{seconds:.2f} s; status {waits_shown(waits)}"
        if arguments.active:
            folders = stage(site.folder / "active", arguments.active, arguments.files, arguments.size)
            waits, cpu = [], cpu_seconds(pid)
            with probing(site, waits):
                seconds = crowd.move(folders)
            files = arguments.active * arguments.files
            yield f"{arguments.active} peers put {files} files", f"{seconds:.2f} s, CPU {cpu_seconds(pid) - cpu:.2f} s"
            yield "status meanwhile", waits_shown(waits)
            yield "memory, peak so far", f"{mebibytes(peak_memory(pid))} MiB"
            arrived = sum(len(names) for _, _, names in os.walk(site.inbox))
            if arrived != files:
                yield "WRONG", f"{arrived} of {files} files arrived"
    finally:
        crowd.leave()
    time.sleep(25)
    yield "memory, all have gone", f"{mebibytes(resident_memory(pid))} MiB"
    yield "descriptors", str(descriptors(pid))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--files", type=int, default=20, help="files of each active peer  [default: 20]")
    parser.add_argument("--size", type=int, default=1 << 16, help="bytes of each file  [default: 65536]")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the idle ones are observed")
    parser.add_argument("--folder", default="/dev/shm")
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="realize-bench-", dir=arguments.folder) as folder:
        site = CrowdedSite(Path(folder), arguments.peers)
        try:
            for line in measured(site, arguments):
                print(f"{line[0]:<32}{line[1]}", flush=True)
        finally:
            site.stop()


if __name__ == "__main__":
    main()
