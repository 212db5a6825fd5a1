"""Read what /proc says about processes, and run a command to its end while observing it so.

Memory is in bytes; a peak is ``VmHWM``, which the kernel keeps since the start of the process.
CPU time is in seconds, user and system time together.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

LOOK: Final = 0.02
"""Seconds between two samples of a running command; growth after the last sample is missing from the peak."""


def field(pid: int, name: str) -> int:
    """A number in /proc/PID/status, unconverted; 0 if the process or the field does not exist."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return _field(text, name)


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def peak_memory(pid: int) -> int:
    """The peak of resident memory, in bytes."""
    return field(pid, "VmHWM") << 10


def resident_memory(pid: int) -> int:
    """The resident memory now, in bytes."""
    return field(pid, "VmRSS") << 10


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in seconds, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def tree_at_a_glance(pid: int) -> list[int]:
    """The same for a fortieth of the CPU time; processes that others end meanwhile may hide some.

    Where the kernel does not say what the children of a thread are, it is only the process itself.
    """
    found = [pid]
    for each in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{each}/task"):
                found += map(int, Path(f"/proc/{each}/task/{thread}/children").read_text().split())
    return found


def cpu_seconds_of_tree(pid: int) -> float:
    """CPU time of a process and its descendants so far, in seconds, with those that have ended and were waited for."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU time in seconds that the machine has spent since it started, of all processors and for whatever."""
    return busy_ticks(Path("/proc/stat").read_text()) / os.sysconf("SC_CLK_TCK")


def busy_ticks(text: str) -> int:
    """The ticks in /proc/stat that were neither idle, nor waiting for a disk, nor given to other machines."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, text.split(maxsplit=8)[1:8])
    return user + nice + system + irq + softirq


def loopback_bytes() -> int:
    """How many bytes the loopback device has carried."""
    return received_bytes(Path("/proc/net/dev").read_text(), "lo")


def received_bytes(text: str, device: str) -> int:
    """What a network device has received according to /proc/net/dev."""
    for line in text.splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == device:
            return int(counters.split()[0])
    raise ValueError(f"there is no device {device}")


def wake_ups(pid: int) -> int:
    """How often the threads of a process have gone to sleep, and so been woken up: voluntary context switches."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
        total += _field(text, "voluntary_ctxt_switches")
    return total


@frozen
class Ran:
    """A command that has ended."""

    seconds: float
    code: int
    cpu: float
    peak: int
    errors: str
    """The output on stderr."""


def run_watched(
    argv: Sequence[str], environment: Mapping[str, str] | None = None, *, look: Callable[[int], object] = lambda _: None
) -> Ran:
    """Run a command to its end, start-up included in its time.

    ``look`` is called with its process id now and then meanwhile.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        peak = 0
        ended = select.poll()
        descriptor = os.pidfd_open(process.pid)
        ended.register(descriptor, select.POLLIN)
        while not ended.poll(LOOK * 1000):
            peak = max(peak, peak_memory(process.pid))
            look(process.pid)
        seconds = time.perf_counter() - started
        os.close(descriptor)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    return Ran(seconds, process.returncode, usage.ru_utime + usage.ru_stime, peak, text)
