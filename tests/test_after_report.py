"""What the program after a run is told: `realize.moves.after_report`."""

from __future__ import annotations

import json

from realize.errors import Busy, NoSpace
from realize.moves.after_report import MAX_NAMED_FILES, AfterReport
from realize.moves.status import RunResult

GOOD = RunResult(run="a1", began=1.0, ended=2.5, moved_files=3, moved_bytes=40, code="done")
BAD = RunResult(run="b2", began=3.0, ended=4.0, failed_files=2, error="full", code="failed")


def test_it_is_one_line_of_json():
    """Times are as in a manifest, paths and errors as in all our JSON."""
    content = AfterReport(
        "camera", BAD, [(b"a\xff", NoSpace("a: no space left")), (b"b", Busy("b: is open"))]
    ).to_json()

    assert 1 == content.count(b"\n")
    assert content.endswith(b"}\n")
    assert {
        "move": "camera",
        "runs": 1,
        "run": "b2",
        "began": "1970-01-01T00:00:03.000000Z",
        "ended": "1970-01-01T00:00:04.000000Z",
        "moved_files": 0,
        "moved_bytes": 0,
        "failed_files": 2,
        "code": "failed",
        "error": "full",
        "failed": [
            {"path": "a\ufffd", "path_base64": "Yf8=", "error": "a: no space left", "code": "NO_SPACE"},
            {"path": "b", "error": "b: is open", "code": "BUSY"},
        ],
    } == json.loads(content)


def test_runs_that_waited_are_told_together():
    """Counts are added up, the times are of the whole, and what failed stays, whichever run it was in."""
    both = [
        AfterReport("camera", one).followed_by(AfterReport("camera", two)) for one, two in ((GOOD, BAD), (BAD, GOOD))
    ]

    assert [2, 2] == [each.runs for each in both]
    assert ["b2", "a1"] == [each.result.run for each in both]
    assert [(1.0, 4.0), (3.0, 2.5)] == [(each.result.began, each.result.ended) for each in both]
    assert [(3, 40, 2), (3, 40, 2)] == [
        (each.result.moved_files, each.result.moved_bytes, each.result.failed_files) for each in both
    ]
    assert [("failed", "full"), ("failed", "full")] == [(each.result.code, each.result.error) for each in both]


def test_the_last_trouble_of_several_counts():
    """Two runs that failed for different reasons: the more recent one is told."""
    later = RunResult(run="c3", began=5.0, ended=6.0, failed_files=1, error="away", code="interrupted")

    assert "away" == AfterReport("camera", BAD).followed_by(AfterReport("camera", later)).result.error


def test_only_so_many_files_are_named():
    """The first ones are; the number of all of them is told in any case."""
    report = AfterReport("camera", BAD, [(b"%d" % number, Busy("open")) for number in range(70)])
    for _ in range(1_000):
        report = report.followed_by(AfterReport("camera", BAD, [(b"x" * 4_000, Busy("open"))] * 70))
    row = json.loads(report.to_json())

    assert MAX_NAMED_FILES == len(row["failed"])
    assert [str(number) for number in range(70)] == [each["path"] for each in row["failed"][:70]]
    assert (1_001, 2_002) == (row["runs"], row["failed_files"])
