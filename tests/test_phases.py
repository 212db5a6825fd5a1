"""The states of a standing move: whatever lists them has each, so none is forgotten when one is added."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from realize.daemon.page.wording import STATE_WORDS, tone_of
from realize.moves.status import MoveStatus, Phase
from tests.page_contents import moves_of
from tests.pages import ROOT, page, quoted, rows, section

DEPLOY = ROOT / "deploy"
WORDS = [phase.value for phase in Phase]
COLOURS = {"bad": r"(dark-)?red", "warn": "yellow", "busy": "blue", "calm": "green"}
"""How the dashboard shows what the page for people gives a tone."""


def panel_of_states():
    """The panel of the dashboard that shows them."""
    panels = json.loads((DEPLOY / "grafana" / "realize.json").read_text())["panels"]
    [panel] = [
        each for each in panels if any("realize_move_state" in target["expr"] for target in each.get("targets", ()))
    ]
    return panel


def row_of(name, text):
    """The words of the row of a table that has this name, as far as they are states."""
    [cells] = [cells for cells in rows(text) if quoted(cells[0]) == [name]]
    return [word for word in quoted(" ".join(cells[1:])) if word in WORDS]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("realize_move_state", page("metrics.md")),
        ("state", section(page("moves.md"), "Steering")),
        ("phase", page("protocol.md")),
    ],
)
def test_pages(name, listed):
    """Tables explain each of them once, `idle` perhaps in what is said of another one."""
    words = row_of(name, listed)

    assert set(WORDS) == set(words)
    assert len(WORDS) == len([word for word in words if word != "idle"]) + 1


def test_the_drawing():
    """It has each of them, and no other."""
    drawn = section(page("states.md"), "A standing move")

    assert {phase.name for phase in Phase} == set(re.findall(r"\b[A-Z]{4,}\b", drawn))


def test_the_dashboard():
    """It asks for each of them, and shows it by its own word, in the colour that the page for people has for it."""
    panel = panel_of_states()
    [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
    asked = re.findall(
        r'(\d+) \* realize_move_state\{instance=~"\$instance", state="(\w+)"\}', json.dumps(panel).replace('\\"', '"')
    )
    shown = {word: mapping["options"][number] for number, word in asked}
    tones = {move.phase: tone_of(move) for move in moves_of(["camera"])}

    assert WORDS == [word for _, word in asked] == [each["text"] for each in mapping["options"].values()]
    assert WORDS == [shown[word]["text"] for word in WORDS]
    assert len(WORDS) == len({each["color"] for each in shown.values()})
    assert [] == [
        phase for phase, tone in tones.items() if not re.fullmatch(COLOURS[tone], shown[phase.value]["color"])
    ]


def test_alerts():
    """They name states that there are."""
    named = [
        word
        for file in (DEPLOY / "prometheus").glob("*.yml")
        for word in re.findall(r'state="(\w+)"', file.read_text())
    ]

    assert "paused" in named
    assert set() == set(named) - {*WORDS, "firing"}


def test_the_page_for_people():
    """It has words for each of them."""
    assert list(Phase) == list(STATE_WORDS)


def test_the_picture_of_the_page():
    """Its moves are such as a daemon tells of: those with files that cannot be moved are stuck."""
    moves: list[MoveStatus] = runpy.run_path(str(ROOT / "demo" / "page.py"))["moves"]()

    assert {Phase.IDLE, Phase.RUNNING, Phase.STUCK, Phase.FAILING} == {move.phase for move in moves}
    assert [move.stuck_files > 0 for move in moves] == [move.phase is Phase.STUCK for move in moves]
