"""Measure how fast files move over a long link, compared with plain TCP over the same link, and with no distance.

    python -m benchmarks.distance [--quick] [--folder /dev/shm] [--round-trip 0.2] [--rates 125,625] [--pull]
        [--memory MIB] [--only large,small,status]

The link is `benchmarks.distant_link`, between the command and the daemon: rates are in MB/s, 0 for no limit.

large: one file of 2 GiB.
``plain`` is how long two sockets take for as many bytes, connecting included; ``one byte`` how long the same command
takes with a file of one byte: its start, and the round trips of any command.
``all`` is what plain TCP takes of the whole time of the command, ``net`` the same without that for one byte.
``net`` should be at least 0.9.

small: 10,000 files of 10 KiB, and the same without the distance; the time without that for one byte should be
1.3 times as long at most.

status: how long answers to ``status`` take over the same link, while a large file moves under a limit of 1 MiB/s;
99 of 100 should come within 250 ms and the round trip.

The daemon may let its peers make it hold MIB of memory, which a push over a fast link needs, by default what
`limits.memory` is by default; see docs/operations.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks import moving
from benchmarks.distant_link import distant
from benchmarks.machine import print_machine
from benchmarks.probe import Probe, ProbedSite
from benchmarks.procfs import Ran, cpu_seconds, peak_memory, run_watched
from benchmarks.tables import mebibytes, table, verdict
from tests.processes import ENVIRONMENT

MIB: Final = 1 << 20
SHARE: Final = 0.9
"""What a large file must reach of plain TCP."""

SMALL: Final = 1.3
"""How much longer small files may take than without the distance."""

ANSWER_S: Final = 0.25
"""Seconds that an answer may take beside the round trip."""


@frozen
class Link:
    """A link to measure, and how it is used."""

    round_trip: float
    rate: float | None
    pull: bool
    memory: int | None


def plain_seconds(link: Link, size: int) -> float:
    """How long two plain sockets take for so many bytes, connecting included."""
    listening = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        accepted, _ = listening.accept()
        with accepted:
            for _ in range(size // MIB):
                accepted.sendall(bytes(MIB))

    threading.Thread(target=send, daemon=True).start()
    with distant(listening.getsockname()[1], link.round_trip, link.rate) as port:
        started = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as end:
            left = size
            while left:
                left -= len(end.recv(MIB))
        took = time.perf_counter() - started
    listening.close()
    return took


def stage_large(folder: Path, size: int) -> None:
    """One file that does not compress."""
    folder.mkdir()
    piece = os.urandom(min(MIB, size))
    with (folder / "large").open("wb") as file:
        for number in range(max(1, size // MIB)):
            file.write((number.to_bytes(8) + piece[8:])[: len(piece)])


@contextlib.contextmanager
def far_site(where: str, link: Link | None) -> Iterator[ProbedSite]:
    """A site with a daemon, which its command reaches over the link."""
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=where))
    site = ProbedSite(folder)
    if link is not None and link.memory:
        site.write_daemon_config(f"[limits]\nmemory = {link.memory}\npeer_memory = {link.memory}\n")
    try:
        site.start()
        with contextlib.ExitStack() as stack:
            if link is not None:
                site.port = stack.enter_context(distant(site.port, link.round_trip, link.rate))
                site.write_command_config()
            yield site
    finally:
        site.stop()
        shutil.rmtree(folder)


@frozen
class Moved:
    """A command that has moved everything, and its daemon."""

    ran: Ran
    daemon_cpu: float
    daemon_peak: int


def ends(site: ProbedSite, *, pull: bool) -> tuple[Path, tuple[str, str]]:
    """Where the source is, and the arguments of a command that moves it."""
    if pull:
        return site.inbox / "source", ("hostb::inbox/source", str(site.folder / "target"))
    return site.folder / "source", (str(site.folder / "source"), "hostb::inbox")


def move(where: str, size: int | None, link: Link | None, *, pull: bool) -> Moved:
    """Move one file of ``size``, or the many small ones; over the link, if there is one."""
    with far_site(where, link) as site:
        source, arguments = ends(site, pull=pull)
        if size is None:
            moving.stage_small(source)
        else:
            stage_large(source, size)
        assert site.daemon is not None
        before = cpu_seconds(site.daemon.pid)
        environment = {**ENVIRONMENT, "REALIZE_CONFIG": str(site.folder / "realize.toml")}
        ran = run_watched(site.command("--quiet", *arguments), environment)
        if ran.code:
            raise SystemExit(ran.errors)
        return Moved(ran, cpu_seconds(site.daemon.pid) - before, peak_memory(site.daemon.pid))


def large(where: str, link: Link, size: int) -> list[str]:
    """A line of the table."""
    plain = plain_seconds(link, size)
    once = move(where, 1, link, pull=link.pull).ran.seconds
    far = move(where, size, link, pull=link.pull)
    net = plain / (far.ran.seconds - once)
    return [
        f"{size >> 20} MiB, {shown(link)}",
        f"{plain:.2f}",
        f"{once:.2f}",
        f"{far.ran.seconds:.2f}",
        f"{size / far.ran.seconds / 1e6:.0f}",
        f"{plain / far.ran.seconds:.2f}",
        f"{net:.2f}",
        "met" if net >= SHARE else "MISSED",
        f"{far.ran.cpu:.1f}",
        f"{far.daemon_cpu:.1f}",
        mebibytes(far.ran.peak),
        mebibytes(far.daemon_peak),
    ]


def small(where: str, link: Link) -> list[str]:
    """A line of the table."""
    near = move(where, None, None, pull=link.pull).ran.seconds
    near_once = move(where, 1, None, pull=link.pull).ran.seconds
    once = move(where, 1, link, pull=link.pull).ran.seconds
    far = move(where, None, link, pull=link.pull).ran.seconds
    net = (far - once) / (near - near_once)
    return [
        f"10,000 of 10 KiB, {shown(link)}",
        f"{near:.2f}",
        f"{near_once:.2f}",
        f"{far:.2f}",
        f"{once:.2f}",
        f"{far / near:.2f}",
        f"{net:.2f}",
        verdict(net, SMALL),
    ]


def status(where: str, link: Link) -> list[str]:
    """A line of the table."""
    with far_site(where, link) as site:
        source, arguments = ends(site, pull=link.pull)
        stage_large(source, 64 * MIB)
        command = site.spawn("--quiet", "--throttle", "1M", *arguments)
        time.sleep(2 + 10 * link.round_trip)
        probe = Probe(site, 0.05)
        time.sleep(10)
        waits = sorted(probe.finish())
        command.send_signal(signal.SIGINT)
        command.wait()
    p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))] - link.round_trip
    return [shown(link), f"{len(waits)}", f"{p99 * 1000:.0f}", verdict(p99, ANSWER_S)]


def shown(link: Link) -> str:
    """The link in words."""
    way = "pulled" if link.pull else "pushed"
    rate = "any rate" if link.rate is None else f"{link.rate / 1e6:.0f} MB/s"
    return f"{way}, {link.round_trip * 1000:.0f} ms, {rate}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a large file of 512 MiB instead of 2 GiB")
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--round-trip", type=float, default=0.2, metavar="SECONDS")
    parser.add_argument("--rates", default="125,625", metavar="MB/S")
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--memory", type=int, metavar="MIB")
    parser.add_argument("--only", default="large,small,status", help="parts  [default: all]")
    arguments = parser.parse_args()
    print_machine()
    size = 512 * MIB if arguments.quick else 2048 * MIB
    memory = arguments.memory and arguments.memory * MIB
    rates = [float(each) * 1e6 or None for each in arguments.rates.split(",")]
    links = [Link(arguments.round_trip, rate, arguments.pull, memory) for rate in rates]
    parts = arguments.only.split(",")
    if "large" in parts:
        head = ["", "s plain", "s one byte", "s", "MB/s", "all", "net", "", "CPU s", "daemon", "MiB", "daemon"]
        print(table(head, [large(arguments.folder, link, size) for link in links]), flush=True)
    if "small" in parts:
        head = ["", "s near", "one byte", "s far", "one byte", "all", "net", ""]
        print(table(head, [small(arguments.folder, link) for link in links]), flush=True)
    if "status" in parts:
        head = ["status", "answers", "ms beyond the round trip, 99 %", ""]
        print(table(head, [status(arguments.folder, link) for link in links]), flush=True)


if __name__ == "__main__":
    main()
