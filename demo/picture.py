"""Draw the picture of a run that is in the README, from the bars that the command draws: ``python demo/picture.py``."""
# ruff: noqa: INP001

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text
from twisted.internet.task import Clock

from realize.cli.display.bars import Bars
from realize.cli.display.options import DisplayOptions
from realize.cli.display.rows import Shape
from realize.mover.events import Finished, Found, How, Listed, Progressed, Started

PICTURE = Path(__file__).parent.parent / "docs" / "run.svg"
COLUMNS = 96
MIB = 1 << 20


def picture() -> str:
    """The picture: a run at its tenth second."""
    clock = Clock()
    bars = Bars(io.StringIO(), clock.seconds, DisplayOptions())
    begun = [
        Found(4127, 6120 * MIB),
        Listed(),
        Started(b"2026-11-27/night.mp4", 2048 * MIB, 1024 * MIB),
        Started(b"2026-11-28/morning.mp4", 1536 * MIB, 0),
    ]
    for event in begun:
        bars(event)
    for second in range(10):
        bars(Progressed(b"2026-11-27/night.mp4", 42 * MIB))
        bars(Progressed(b"2026-11-28/morning.mp4", 37 * MIB))
        for number in range(180):
            bars(Finished(b"%d/%d.jpg" % (second, number), MIB // 6, MIB // 6, How.CREATED, b"", removed=True))
        clock.advance(1)
        rows = bars.view(Shape(COLUMNS), height=24)
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
    console.print(Text("camera$ realize /store/camera nas::inbox", style="bold"))
    console.print(rows)
    return console.export_svg(title="realize", unique_id="realize")


if __name__ == "__main__":
    sys.stdout.write(f"{PICTURE}\n")
    PICTURE.write_text(picture())
