"""The display for programs: `realize.cli.display.json_lines`, as docs/scripting.md has it."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from realize.cli.display.json_lines import JsonLines
from realize.errors import Interrupted, NoSpace, RealizeError
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    NoRoom,
    Progressed,
    SourceStarted,
    Started,
)
from realize.runs.tally import Tally


def lines_for(*events: Event, error: RealizeError | None = None) -> list[dict[str, Any]]:
    """The objects written for these events and the end of the run."""
    out = io.StringIO()
    display = JsonLines(out)
    tally = Tally()
    for event in events:
        tally(event)
        display(event)
    display.close(tally, 1.5, error)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_line_is_an_object_with_an_event() -> None:
    """Programs can read line by line and tell the objects apart."""
    lines = lines_for(
        SourceStarted("/a", "/b"),
        Found(2, 10),
        Started(b"x", 10, 4),
        Progressed(b"x", 6),
        Finished(b"x", 10, 6, How.REPLACED, b"\xab" * 32, removed=True, holes=3),
        Failed(b"y", End.DESTINATION, NoSpace("y: full")),
        NoRoom(1, 10, None),
        HeldBack(b"z", 10**18),
    )

    assert ["source", "started", "finished", "failed", "no_room", "held_back", "summary"] == [
        line["event"] for line in lines
    ]
    assert {
        "event": "finished",
        "path": "x",
        "size": 10,
        "sent": 6,
        "holes": 3,
        "how": "replaced",
        "blake3": "ab" * 32,
        "removed": True,
    } == lines[2]
    assert {"event": "failed", "path": "y", "end": "destination", "error": "y: full", "code": "NO_SPACE"} == lines[3]
    assert {"event": "no_room", "files": 1, "bytes": 10, "missing_bytes": None} == lines[4]
    assert ({"event": "held_back", "path": "z", "mtime_ns": 10**18}, 1) == (lines[5], lines[6]["held_back"])
    assert (6, 3) == (lines[6]["sent_bytes"], lines[6]["hole_bytes"])
    assert 0 == lines[6]["compression_saved_bytes"]


def test_the_summary_counts_every_outcome_and_has_the_exit_code() -> None:
    """All outcomes are there, also those that did not occur."""
    (summary,) = lines_for(Finished(b"x", 10, 10, How.CREATED, b"", removed=True))[1:]

    assert {"created": 1, "replaced": 0, "already_there": 0, "skipped": 0, "gone": 0}.items() <= summary.items()
    assert (0, 1.5) == (summary["exit_code"], summary["seconds"])


def test_the_summary_names_both_ends() -> None:
    """Sources and destination are as they were resolved, or nothing if the run did not come that far."""
    out = io.StringIO()
    JsonLines(out).close(Tally(sources=["/a", "/\udcff"], destination="nas:9771::inbox"), 1.0, None)
    summary = json.loads(out.getvalue())
    (nothing,) = lines_for(error=Interrupted("interrupted"))

    assert (["/a", "/\N{REPLACEMENT CHARACTER}"], "nas:9771::inbox") == (summary["sources"], summary["destination"])
    assert ([], None) == (nothing["sources"], nothing["destination"])


def test_the_summary_says_what_ended_the_run() -> None:
    """A run that was ended has the error, its code, and the exit code that goes with it."""
    (summary,) = lines_for(error=Interrupted("interrupted"))

    assert (20, "interrupted", "INTERRUPTED") == (summary["exit_code"], summary["error"], summary["code"])


def test_a_name_that_is_not_utf_8_can_be_restored() -> None:
    """Names are bytes; where text cannot hold them, base64 does."""
    line = lines_for(Started(b"\xff", 1, 0))[0]

    assert b"\xff" == base64.b64decode(line["path_base64"])
    assert "\N{REPLACEMENT CHARACTER}" == line["path"]
