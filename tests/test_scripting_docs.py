"""The JSON of `docs/scripting.md`, and of the reports in `docs/protocol.md`: its fields are those that are written."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from realize.cli.commands.ls_run import fields
from realize.cli.display.json_lines import JsonLines
from realize.daemon.move_reports import moves_text, short_rows
from realize.errors import NoSpace, RealizeError
from realize.mover import events
from realize.mover.events import Action, End, Event, How
from realize.mover.interfaces import Arrived
from realize.moves.status import FileUnderWay, LimitChange, MoveStatus, Phase, RunNow, RunResult
from realize.runs.check_findings import Finding, Result
from realize.runs.tally import Tally
from realize.throttle.tree import Scope
from realize.values import Entry, Kind, Preserve
from realize.wire.commands import Direction
from realize.wire.throttling import as_row
from tests.pages import page, quoted, rows, section
from tests.test_manifest import Disk, made
from tests.test_status import Connection, Trial, transfer

SCRIPTING, PROTOCOL = page("scripting.md"), page("protocol.md")
NAME = b"\xff"
"""A name that is not UTF-8, so that its exact bytes are told too."""

EVENTS: list[Event] = [
    events.SourceStarted("/a", "/b"),
    events.Planned(NAME, 1, Action.SEND, NAME, NAME),
    events.Started(NAME, 2, 1),
    events.Finished(NAME, 2, 1, How.RENAMED, b"\xab", removed=True, stored_as=NAME, target=NAME, backup=NAME),
    events.Failed(NAME, End.SOURCE, NoSpace("full")),
    events.Postponed(NAME, End.SOURCE, NoSpace("full")),
    events.Left(NAME, "a device"),
    events.HeldBack(NAME, 1),
    events.Pruned(NAME, removed=True),
    events.PartialGone(NAME, 1, expired=True),
    events.NoRoom(1, 1, None),
    events.OlderDestination(),
    events.NoHardLinks(End.SOURCE),
    events.NotCompressed("nas"),
    events.NotPreserved(NAME, Preserve.ACL, "no such lists there"),
    events.Retrying(RealizeError("lost"), 1.0),
    events.Stopped(NAME, 2, 1),
    events.Unknown(NAME, 2, 1, None),
]
STATUS = MoveStatus(
    name="night",
    sources=("/a",),
    destination="nas::inbox",
    when="settled",
    phase=Phase.RUNNING,
    running=RunNow(run="1", began=1.0, in_flight=[FileUnderWay(path="x", size=2, done=1)]),
    last_run=RunResult(run="0", began=0.0, ended=1.0),
    up_change=LimitChange(at=1.0, bps=None),
)


def table(text: str) -> dict[str, set[str]]:
    """What the rows of a part of a page begin with, each with all that stands between backquotes in the row."""
    return {name: set(quoted(" ".join(row))) for row in rows(text) for name in quoted(row[0])}


def below(title: str) -> str:
    """What stands below a heading of the third level of the section on JSON."""
    _, found, rest = section(SCRIPTING, "JSON").partition(f"\n### {title}\n")
    assert found
    return rest.partition("\n### ")[0]


def plain(names: dict[str, Any]) -> set[str]:
    """The fields, but those that *path* stands for, and that go with others."""
    return {name.removesuffix("_base64") for name in names} - {"event", "path"}


def written(*, error: RealizeError | None = None) -> list[dict[str, Any]]:
    """What `realize --json` writes of a run in which everything happens."""
    out = io.StringIO()
    lines, tally = JsonLines(out), Tally()
    for event in EVENTS:
        lines(event)
        tally(event)
    lines.tick()
    lines.close(tally, 1.0, error)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_event_has_a_row_with_its_fields():
    """Also those that are told once a second, and at the end; a row for what is never written is none."""
    listed = table(below("`move` and `copy`"))
    happened = {each["event"]: each for each in written()}

    assert set(happened) == set(listed)
    for name, record in happened.items():
        if name not in {"summary", "postponed"}:
            assert set() == plain(record) - listed[name], name
    assert plain(happened["postponed"]) == plain(happened["failed"])


def test_no_event_is_forgotten():
    """What the mover can say is in the list above, or too frequent to be written one by one."""
    frequent = {events.Found, events.Listed, events.Progressed, events.UnderWay}

    assert set(Event.__args__) - frequent == {type(each) for each in EVENTS}


def test_the_summary():
    """Its table has each field once, those of an error too."""
    [*_, summary] = written(error=NoSpace("full"))

    assert plain(summary) == set(table(below("The summary")))


@pytest.mark.parametrize("kind", Kind)
def test_entries(kind):
    """`ls` says of an entry what its section has."""
    record = fields(Entry(NAME, kind, 1, 1, "note")) if kind in {Kind.FILE, Kind.PARTIAL, Kind.LEFT} else {}

    assert plain(record) <= set(quoted(below("`ls`")))
    assert not record or record["state"] in quoted(below("`ls`"))


def test_steps():
    """`check` says of a step what its section has, and each result."""
    words = set(quoted(below("`check`")))

    assert plain(json.loads(Finding("name", Result.OK, "found").as_json())) <= words
    assert {result.name.lower() for result in Result} <= words


def test_the_report_of_a_daemon():
    """`status` has each field of it, and of the rows of its lists."""
    trial = Trial(Connection(1, "camera", files=[transfer(1)]))
    report = {**trial.report(), "moves": short_rows([STATUS], 1.0)}
    listed = table(below("`status`"))

    assert {*report, "truncated", "in_all"} == set(listed)
    for key in ("keys", "connections", "transfers", "moves"):
        assert {key, *report[key][0]} <= listed[key], key


def test_the_report_of_moves():
    """The protocol has each field of a standing move, and of what it contains."""
    report = json.loads(moves_text([STATUS], 1.0))
    [move] = report["moves"]
    listed = table(section(PROTOCOL, "Standing moves"))

    assert set(report) <= set(quoted(below("`moves`, `throttle` and `reload`")))
    assert set() == set(move) - set(listed)
    for key in ("backlog", "running", "last_run", "totals", "up_change"):
        assert set() == set(move[key]) - listed[key], key
    assert set() == set(move["running"]["in_flight"][0]) - listed["running"]


def test_the_report_of_limits():
    """The protocol has each field of a limit."""
    row = as_row(Scope.SERVICE, "", "", Direction.SEND, None)

    assert set() == {*row, "yours"} - set(table(section(PROTOCOL, "Limits")))


def test_lines_of_the_manifest():
    """`docs/manifest.md` has each field, and a row for each event."""
    disk = Disk()
    manifest = made(disk)
    file = Arrived(NAME, 3, b"", How.RENAMED, stored_as=NAME, target=NAME, backup=NAME, linked_to=NAME)
    for record in (manifest.durable, manifest.removed, manifest.unknown):
        record("src", [file])
        disk.groups[-1][2].callback(None)
    text = page("manifest.md")
    lines = [line for group, _, _ in disk.groups for line in group]

    assert {line["event"] for line in lines} == set(table(section(text, "Events")))
    assert set() == {name for line in lines for name in plain(line)} - set(table(section(text, "Fields")))
