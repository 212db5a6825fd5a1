"""Words of which there are only so many, as states and values of labels: pages and rules have those of the code.

`tests/test_phases.py` is about the states of a standing move, `tests/test_metrics_docs.py` about names of metrics.
"""

from __future__ import annotations

import enum
import json
import re

import pytest

from realize.daemon.metrics.counters import FAILURES, OK, REFUSALS
from realize.errors import BUSY_CODES, every_error
from realize.moves.after_program import AfterOutcome
from realize.moves.status import Phase
from realize.store.hooks import Saved, Sync
from realize.store.server.streams import Stage
from realize.store.transfer_state import ReadPhase, WritePhase
from realize.telemetry.metrics.run_metrics import FILE_RESULTS
from realize.throttle.states import SendState, TLSState
from realize.throttle.tree import Scope
from realize.values import Committed, HardLinked, Linked
from realize.watch import settling
from realize.wire.commands import Direction
from realize.wire.lifecycle import ConnectionState
from tests.pages import ROOT, page, quoted, rows, section

CODES = {error.wire_code.decode() for error in every_error()}
LABELS = {
    "alertstate": {"firing"},
    "direction": {each.value for each in Direction},
    "kind": {"content", "other", "busy", "lasting"},
    "outcome": {OK, "UNHANDLED", *CODES} | {each.value for each in AfterOutcome},
    "reason": {*REFUSALS, *(error.wire_code.decode() for error in FAILURES)},
    "result": {*FILE_RESULTS},
    "scope": {each.value for each in Scope},
    "state": {each.value for each in Phase},
    "how": {each.value for each in Saved},
}
"""What the values of labels can be that rules and the dashboard ask for."""


def part(text: str, heading: str) -> str:
    """What stands below a heading of any level, up to the next one of that level."""
    level = heading.partition(" ")[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no {heading}"
    return rest.partition(f"\n{level} ")[0]


@pytest.mark.parametrize(
    ("heading", "states"),
    [
        ("## A connection", ConnectionState),
        ("### A file that is written", WritePhase),
        ("### A file that is read", ReadPhase),
        ("### A stream on which a peer sends a file", Stage),
        ("## The throttled transport", SendState),
        ("## The throttled transport", TLSState),
        ("## A file that settles", settling._State),
    ],
)
def test_drawings_of_states(heading: str, states: type[enum.Enum]) -> None:
    """`docs/states.md` has each state of the code."""
    drawn = set(re.findall(r"\b[A-Z_]{4,}\b", part(page("states.md"), heading)))

    assert set() == {state.name for state in states} - drawn


def words_of(name: str, text: str) -> set[str]:
    """What stands between backquotes in the meaning of a metric."""
    [meaning] = [cells[3] for cells in rows(text) if len(cells) == 4 and quoted(cells[0]) == [name]]
    return set(quoted(meaning))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("realize_files_committed_total", {each.name.lower() for each in Committed} - {"skipped"}),
        ("realize_links_committed_total", {each.name.lower() for each in Linked} - {"skipped"}),
        (
            "realize_hard_links_committed_total",
            {each.name.lower() for each in HardLinked} & {"created", "already_there"},
        ),
        ("realize_sync_duration_seconds", {"what", *(each.value for each in Sync)}),
    ],
)
def test_values_of_labels(name: str, words: set[str]) -> None:
    """`docs/metrics.md` has each of them, and no other."""
    assert words == words_of(name, page("metrics.md"))


def test_codes_of_busy_files() -> None:
    """Two pages name them, and the line of a shell that leaves them out."""
    codes = {code.decode() for code in BUSY_CODES}
    text = section(page("scripting.md"), "Exit codes")
    [left_out] = re.findall(r"IN\(([^)]*)\)", text)

    assert codes == {word for word in quoted(text.partition("### Busy files")[2]) if word in CODES}
    assert codes == set(json.loads(f"[{left_out}]"))
    assert codes == words_of("realize_last_failures", page("run-metrics.md")) & CODES


def test_rules_and_dashboard_ask_for_values_that_there_are() -> None:
    """An alert about a word that nobody says would never fire."""
    rules = [(ROOT / "deploy" / "prometheus" / f"{name}.yml").read_text() for name in ("alerts", "recording")]
    panels = json.loads((ROOT / "deploy" / "grafana" / "realize.json").read_text())["panels"]
    asked = [*rules, *(target["expr"] for panel in panels for target in panel.get("targets", ()))]

    found = {
        (label, value)
        for text in asked
        for label, values in re.findall(r'\b(\w+)(?:=|!=|=~|!~)"([\w|]+)"', text)
        for value in values.split("|")
        if label in LABELS
    }

    assert {label for label, _ in found} >= {"kind", "outcome", "reason", "result", "scope", "state"}
    assert set() == {(label, value) for label, value in found if value not in LABELS[label]}
