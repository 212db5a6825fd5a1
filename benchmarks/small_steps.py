"""Measure what the store does for each small file, step by step: CPU time of one thread, without reactor or network.

    python -m benchmarks.small_steps [--folder /dev/shm] [--files 5000] [--size 10240] [--batch 100]

The steps are those of a move, in order.
Those of the source are walk, read and remove, those of the destination describe, write and commit; the pack steps
encode and decode the lists that are sent.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import maybeDeferred

from benchmarks.machine import print_machine
from realize.store.hooks import CommitHooks
from realize.store.local.existing import describe_batch
from realize.store.local.footprint import Footprint
from realize.store.local.group_commit import Prepared, commit_group
from realize.store.local.hard_links import HardLinks
from realize.store.local.headroom import Headroom
from realize.store.local.location import locate
from realize.store.local.removal import remove_batch
from realize.store.local.small_files import read_batch, write_batch
from realize.store.local.versions import Clock
from realize.store.local.walker import Walker
from realize.values import Entry, Fetched, OnConflict, Removal
from realize.wire import packing

T = TypeVar("T")


class Steps:
    """Times steps, and prints the CPU time that each took for a file."""

    def __init__(self, files: int) -> None:
        self._files = files

    def __call__(self, name: str, step: Callable[[], T]) -> T:
        """Take one step."""
        before, system = time.process_time(), os.times().system
        result = step()
        total, in_kernel = time.process_time() - before, os.times().system - system
        each, kernel = 1e6 * total / self._files, 1e6 * in_kernel / self._files
        print(f"{name:16} {each:6.1f} us, of which in the kernel {kernel:6.1f}")
        return result


def stage(folder: Path, files: int, size: int) -> None:
    """Files in directories of a hundred."""
    content = os.urandom(size + files)
    for number in range(files):
        directory = folder / f"d{number // 100:04}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06}").write_bytes(content[number : number + size])


def pages(walker: Walker) -> Iterator[Entry]:
    """All entries."""
    while page := walker.page():
        yield from page


def measure(base: Path, files: int, size: int, most: int) -> None:
    """All steps."""
    step = Steps(files)
    stage(base / "source", files, size)
    (base / "destination").mkdir()
    time.sleep(0.05)  # what was written in the present tick of the kernel's clock is not read yet
    source, destination = (locate(os.fsencode(base / name), b"", None) for name in ("source", "destination"))
    walker = Walker(source, salt=b"", partials=False, avoid=b"")
    paths = [entry.path for entry in step("walk", lambda: list(pages(walker)))]
    asked = [paths[first : first + most] for first in range(0, files, most)]
    found = step("describe", lambda: [describe_batch(destination, each, b"", time.time_ns, None) for each in asked])
    packed = step("pack found", lambda: [packing.FOUND.pack(each) for each in found])
    step("unpack found", lambda: [packing.FOUND.unpack(each) for each in packed])
    read = step("read", lambda: [_whole(read_batch(source, each, Clock(), removing=True)) for each in asked])
    heads = step("pack heads", lambda: [packing.SMALL_HEADS.pack([item.file for item in each]) for each in read])
    step("unpack heads", lambda: [packing.SMALL_HEADS.unpack(each) for each in heads])

    watch, headroom = CommitHooks(), Headroom(maybeDeferred)

    def write(batch: Sequence[Fetched]) -> list[Prepared]:
        files = [item.file for item in batch]
        return write_batch(destination, files, OnConflict.FAIL, b"", watch, headroom, None).prepared()

    written = step("write", lambda: [write(each) for each in read])
    step("commit", lambda: [commit_group(each, watch) for each in written])
    removals = [[Removal(item.file.path, item.version) for item in each] for each in read]
    step("remove", lambda: [remove_batch(source, each, HardLinks(), Footprint()) for each in removals])


def _whole(answers: Sequence[object]) -> list[Fetched]:
    return [answer for answer in answers if isinstance(answer, Fetched)]


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--size", type=int, default=10 * 1024)
    parser.add_argument("--batch", type=int, default=100)
    arguments = parser.parse_args()
    print_machine()
    base = Path(tempfile.mkdtemp(prefix="realize-steps-", dir=arguments.folder))
    try:
        measure(base, arguments.files, arguments.size, arguments.batch)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
