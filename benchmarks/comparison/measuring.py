"""Measure one move: set it up, run it, look at both sides, and look at what came of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import define, frozen

from benchmarks.comparison.keeper import Ended, Kept
from benchmarks.comparison.results import Case, Run
from benchmarks.comparison.tool import Place, Tool
from benchmarks.comparison.verification import faults
from benchmarks.comparison.workloads import Master
from benchmarks.distant_link import distant
from benchmarks.ports import wait_until_listening
from benchmarks.procfs import busy_seconds, cpu_seconds_of_tree, loopback_bytes
from tests.processes import ENVIRONMENT

LOOK_S: Final = 0.1
"""Seconds between two looks at the memory of both sides."""

LEAVE_S: Final = 3.0
"""Seconds to wait for the processes of a connection at a server to end: their CPU time is known only then."""

KERNEL: Final = 2
"""The process whose children are the kernel's own threads; those that write to disks work for the tools."""

WARM: Final = 1.1
"""How much memory is touched before a run, as a part of what is moved."""

WARM_MORE_BYTES: Final = 128 << 20

SAID: Final = 300
"""How many characters of what a failed command says last are kept."""


@frozen
class Conditions:
    """What is the same for all runs of a case."""

    case: Case
    master: Master
    folder: Path
    """On the file system to measure on."""
    limit: float
    """Seconds after which a command is given up."""


@define
class Side:
    """The processes of one end."""

    kept: list[Kept]
    peak: int = 0

    def look(self) -> None:
        """Note how much memory they have now, if it is the most."""
        self.peak = max(self.peak, sum(each.memory for each in self.kept))

    @property
    def cpu(self) -> float:
        """CPU time in seconds so far."""
        return sum(each.cpu for each in self.kept)

    @property
    def processes(self) -> int:
        """How many there are now."""
        return sum(len(each.processes) for each in self.kept)


def measure(tool: Tool, conditions: Conditions, session: str, number: int) -> Run:
    """One run of a tool, in round ``number``."""
    case = conditions.case
    conditions.folder.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="run-", dir=conditions.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="realize-benchmark-")))
        place = Place(base / "source", base / "destination", scratch, case.jobs)
        conditions.master.stage(place.source, place.destination, tool.half(place))
        environment = {**ENVIRONMENT, "HOME": str(scratch), "LC_ALL": "C.UTF-8", **tool.environment(place)}
        destination = Side([])

        def keep(argv: Sequence[object]) -> Kept:
            kept = Kept([str(each) for each in argv], environment, scratch, scratch / "log")
            stack.callback(kept.stop)
            return kept

        def start(argv: Sequence[object], port: int) -> None:
            destination.kept.append(keep(argv))
            destination.kept[-1].go()
            wait_until_listening(port)

        port = tool.serve(place, start)
        if case.round_trip or case.rate:
            port = stack.enter_context(distant(port, case.round_trip, case.rate / 8 or None))
        command = keep(tool.command(place, port))
        warm_up(sum(conditions.master.sizes()))
        sync_file_system(base)
        result = _observed(command, destination, conditions.limit)
        settled = sync_file_system(base) if case.fs == "disk" else 0.0
        what = result.ended or Ended(conditions.limit, -1)
        wrong = faults(conditions.master.new, place.destination, place.source) if result.ended else ["took too long"]
        if what.code > 0:
            wrong.append((scratch / "log").read_text(errors="replace")[-SAID:])
        hops = 2 if case.round_trip or case.rate else 1
        return Run(
            session=session,
            case=case,
            tool=tool.name,
            round=number,
            seconds=round(what.seconds, 4),
            settled=round(settled, 3),
            cpu_source=round(result.cpu_source, 2),
            cpu_destination=round(result.cpu_destination, 2),
            memory_source=result.memory_source,
            memory_destination=result.memory_destination,
            wire=result.wire // hops,
            foreign=round(result.foreign, 2),
            code=result.ended.code if result.ended else None,
            faults=wrong,
        )


@frozen
class Observed:
    """What both sides took."""

    ended: Ended | None
    cpu_source: float
    cpu_destination: float
    memory_source: int
    memory_destination: int
    wire: int
    foreign: float


def _observed(command: Kept, destination: Side, limit: float) -> Observed:
    source, servers = Side([command]), destination.processes
    before = (source.cpu, destination.cpu, loopback_bytes(), busy_seconds(), _ours())
    with _looking(source, destination):
        command.go()
        ended = command.wait(limit)
    deadline = time.monotonic() + LEAVE_S
    while (destination.processes > servers or source.processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    after = (source.cpu if ended else before[0], destination.cpu, loopback_bytes(), busy_seconds(), _ours())
    cpu_source, cpu_destination, wire, busy, ours = (new - old for new, old in zip(after, before, strict=True))
    return Observed(
        ended=ended,
        cpu_source=cpu_source,
        cpu_destination=cpu_destination,
        memory_source=source.peak,
        memory_destination=destination.peak,
        wire=int(wire),
        foreign=max(0.0, busy - cpu_source - cpu_destination - ours),
    )


def _ours() -> float:
    """CPU time in seconds of this process itself, and of the kernel's threads."""
    times = os.times()
    kernel = cpu_seconds_of_tree(KERNEL) if Path(f"/proc/{KERNEL}/stat").exists() else 0.0
    return times.user + times.system + kernel


@contextlib.contextmanager
def _looking(*sides: Side) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_S):
            for side in sides:
                side.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def warm_up(payload: int) -> None:
    """Touch as much memory as a run will need, and give it back.

    A virtual machine may hand its free memory to its host, and then has to get it again page by page, which can double
    the time of whoever comes first.
    """
    size = int(payload * WARM) + WARM_MORE_BYTES
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def sync_file_system(folder: Path) -> float:
    """Have the file system of a folder write all it has; returns how many seconds that took."""
    started = time.monotonic()
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
    return time.monotonic() - started


def kind_of_file_system(folder: Path) -> str:
    """Such as ``tmpfs``."""
    asked: Mapping[str, str] = {**ENVIRONMENT, "LC_ALL": "C"}
    argv = ["stat", "--file-system", "--format=%T", str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=asked).stdout.strip()
