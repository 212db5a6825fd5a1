"""Draw the picture of the page that is in the docs: ``python demo/page.py``; it needs Debian's chromium.

With a folder as its argument, the pages and pictures of all widths and schemes go there instead, to be looked at.
"""
# ruff: noqa: INP001, S311, S603

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC
from pathlib import Path

from realize import __version__
from realize.daemon.page.contents import Contents, ShownChange, ShownLimit, ShownTransfer
from realize.daemon.page.history import HISTORY_SAMPLES
from realize.daemon.page.rendering import render
from realize.daemon.page.withholding import without_names
from realize.daemon.page.wording import all_that_waits, headline, urgency
from realize.moves.status import FileUnderWay, KnownBacklog, MoveStatus, Phase, RunNow, RunResult

PICTURE = Path(__file__).parent.parent / "docs" / "page.png"
MIB = 1 << 20
NOW = 1_796_007_793.0
"""A Monday morning at three."""

HOUR = 3600.0


def busy(seed: int, peak: float, *, share: float = 0.6) -> list[float]:
    """An hour of rates: bursts, and nothing in between."""
    rng = random.Random(seed)
    phase = rng.random() * 7
    return [
        max(0.0, peak * (math.sin(n / 11 + phase) + 2 * share - 1) / (2 * share) * rng.uniform(0.8, 1))
        for n in range(HISTORY_SAMPLES)
    ]


def moves() -> list[MoveStatus]:
    """Some standing moves: one that fails, one with files that cannot be moved, one that moves, and quiet ones."""
    camera = MoveStatus(
        name="camera",
        sources=("/store/camera",),
        destination="nas::inbox/cam1",
        when="settled",
        phase=Phase.FAILING,
        watching={"/store/camera": "events"},
        backlog=KnownBacklog(files=1204, size=3277 * MIB, oldest=NOW - 3.2 * HOUR),
        last_run=RunResult(run="r", began=NOW - 400, ended=NOW - 390, error="nas: Connection refused", code="failed"),
        last_success=NOW - 3.2 * HOUR,
        next_run=NOW + 3,
        failing_since=NOW - 3.1 * HOUR,
        error="nas: Connection refused",
        error_code="connection",
    )
    microscope = MoveStatus(
        name="microscope",
        sources=("/store/microscope",),
        destination="archive::raw",
        when="settled",
        phase=Phase.STUCK,
        backlog=KnownBacklog(files=2, size=18 * MIB, oldest=NOW - 1.5 * HOUR),
        last_run=RunResult(
            run="r", began=NOW - 800, ended=NOW - 790, moved_files=41, moved_bytes=612 * MIB, failed_files=2
        ),
        last_success=NOW - 1.6 * HOUR,
        next_run=NOW + 1210,
        failed_files=2,
        file_error="the destination has another file of the same name",
        file_error_code="conflict",
    )
    sequencer = MoveStatus(
        name="sequencer",
        sources=("/store/runs",),
        destination="archive::sequencer",
        when="settled",
        phase=Phase.RUNNING,
        backlog=KnownBacklog(files=18, size=41_200 * MIB, oldest=NOW - 1840),
        running=RunNow(
            run="r",
            began=NOW - 1790,
            moved_files=212,
            moved_bytes=9800 * MIB,
            rate_bps=48.2 * MIB,
            in_flight=(FileUnderWay(path="/store/runs/a", size=6144 * MIB, done=3860 * MIB),),
        ),
        last_success=NOW - 5400,
    )
    quiet = [
        MoveStatus(
            name=name,
            sources=(f"/store/{name}",),
            destination=to,
            when=when,
            phase=Phase.IDLE,
            backlog=backlog,
            last_success=NOW - since,
            next_run=upcoming,
        )
        for name, to, when, backlog, since, upcoming in (
            ("door", "nas::door", "settled", KnownBacklog(files=3, size=2 * MIB, oldest=NOW - 6), 41, None),
            ("logs", "archive::logs", "every 10m", KnownBacklog(), 214, NOW + 386),
            ("nightly", "archive::nightly", "02:30", KnownBacklog(), 1630, NOW + 23.5 * HOUR),
            ("weather", "nas::weather", "settled", KnownBacklog(), 2.2 * HOUR, None),
        )
    ]
    return [camera, microscope, sequencer, *quiet]


def contents() -> Contents:
    """What the picture shows."""
    every = moves()
    return Contents(
        now=NOW,
        host="lab-07",
        version=__version__,
        uptime_s=12.3 * 24 * HOUR,
        headline=headline(every, is_ending=False, is_busy=True),
        moves=[without_names(move) for move in sorted(every, key=urgency)],
        waiting=all_that_waits(every),
        peers={"archive": 1, "plotter": 2},
        transfers=[
            ShownTransfer(name="", about="move sequencer", size=6144 * MIB, done=3860 * MIB, rate_bps=48.2 * MIB),
            ShownTransfer(name="", about="from plotter into drop", size=940 * MIB, done=112 * MIB, rate_bps=1.9 * MIB),
        ],
        limits=[
            ShownLimit(
                about="all peers together",
                sending_bps=20 * MIB,
                changes=[ShownChange(NOW + 4.95 * HOUR, "sending", MIB)],
            ),
            ShownLimit(about="peer plotter", sending_bps=4 * MIB, receiving_bps=2 * MIB),
            ShownLimit(about="move nightly", sending_bps=MIB // 2),
        ],
        moved_by_all=busy(5, 61 * MIB, share=0.8),
        sent=busy(1, 21 * MIB),
        received=busy(2, 3 * MIB, share=0.4),
        moved={
            "camera": [rate if n < 20 else 0.0 for n, rate in enumerate(busy(3, 9 * MIB))],
            "microscope": busy(4, 2 * MIB, share=0.3),
            "sequencer": busy(5, 52 * MIB, share=0.8),
            "door": busy(6, 300_000, share=0.35),
            "logs": busy(7, 20_000, share=0.2),
            "nightly": [0.0] * 98 + [MIB / 2] * 22 + [0.0] * 60,
            "weather": [0.0] * HISTORY_SAMPLES,
        },
        zone=UTC,
    )


def photograph(page: Path, picture: Path, width: int, height: int, *, dark: bool) -> None:
    """Have chromium draw a page."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                shutil.which("chromium") or sys.exit("chromium is not installed"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--screenshot={picture}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def draw(folder: Path) -> None:
    """Put the page, and its pictures, into a folder."""
    page = folder / "page.html"
    page.write_bytes(render(contents()))
    for width, height in ((360, 1500), (1280, 1400)):
        for scheme in ("light", "dark"):
            photograph(page, folder / f"{width}-{scheme}.png", width, height, dark=scheme == "dark")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as given:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else given)
        draw(folder)
        if len(sys.argv) == 1:
            photograph(folder / "page.html", PICTURE, 1000, 700, dark=False)
            sys.stdout.write(f"{PICTURE}\n")
