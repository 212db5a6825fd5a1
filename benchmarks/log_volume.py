"""Measure how large the logs of both programs become, by level and format, and the manifest.

    python -m benchmarks.log_volume [--folder /dev/shm] [--files 10000]

The command moves files of 100 bytes, with names such as `2026-11-28/camera-3/img_00042.jpg`, into a daemon; both log to
files of their own.
Sizes are MB (millions of bytes) per 100,000 files, as they are and after gzip, which logrotate uses.
The lines for the start and for connections are in them, too: some KB, whatever the number of files.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
from pathlib import Path

from benchmarks.machine import print_machine
from benchmarks.tables import table
from tests.processes import Site, start_daemon

PER_FILES = 100_000
KINDS = (
    ("info", "json"),
    ("info", "logfmt"),
    ("info", "systemd"),
    ("info", "console"),
    ("warning", "json"),
    ("debug", "json"),
)


def stage(folder: Path, files: int) -> None:
    """Make the files, 100 in a directory."""
    for number in range(files):
        directory = folder / "2026-11-28" / f"camera-{number // 100}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        (directory / f"img_{number:05}.jpg").write_bytes(b"%0100d" % number)


def measure(level: str, form: str, files: int, place: str) -> list[bytes]:
    """What the daemon and the command have logged, and the manifest, of one run."""
    folder = Path(tempfile.mkdtemp(prefix="realize-bench-", dir=place))
    try:
        site = Site(folder)
        stage(folder / "source", files)
        # The port is told by a line in JSON, at info; the second daemon has the same, and the command waits for it.
        site.start()
        site.stop()
        written = [folder / name for name in ("by-daemon.log", "by-command.log", "moved.jsonl")]
        of_daemon, of_command, manifest = map(str, written)
        logging = ("--log-level", level, "--log-format", form)
        site.daemon = start_daemon(folder / "realized.toml", site.log, *logging, "--log-file", of_daemon)
        try:
            moved = site.realize(
                *("--quiet", *logging, "--log-file", of_command, "--manifest", manifest),
                *(str(folder / "source"), "hostb::inbox"),
                timeout=600,
            )
        finally:
            site.stop()
        if moved.returncode:
            raise SystemExit(moved.stderr)
        return [each.read_bytes() for each in written]
    finally:
        shutil.rmtree(folder)


def megabytes(size: int, files: int) -> str:
    """Bytes for some files as MB for `PER_FILES`."""
    return f"{size * PER_FILES / files / 1e6:.1f}"


def row(what: str, written: bytes, files: int) -> list[str]:
    """A line of the table."""
    return [what, megabytes(len(written), files), megabytes(len(gzip.compress(written)), files), ""]


def main() -> None:
    """Print a table with a line for each kind of log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--files", type=int, default=10_000)
    arguments = parser.parse_args()
    print_machine()
    lines = []
    for level, form in KINDS:
        of_daemon, of_command, manifest = measure(level, form, arguments.files, arguments.folder)
        lines.append(row(f"daemon, {level}, {form}", of_daemon, arguments.files))
        lines.append(row(f"command, {level}, {form}", of_command, arguments.files))
    lines.append(row("manifest", manifest, arguments.files))
    print(table([f"MB per {PER_FILES:,} files", "plain", "gzip", ""], lines))


if __name__ == "__main__":
    main()
