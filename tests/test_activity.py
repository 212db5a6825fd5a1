"""The line that says what a daemon does: `realize.daemon.activity`."""

from __future__ import annotations

import pytest

from realize.daemon.activity import activity_line
from realize.moves.status import MoveStatus, Phase


def move(name, phase):
    """A standing move that does that."""
    return MoveStatus(name=name, sources=(), destination="", when="settled", phase=phase, error="/secret: no")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((3, 3, 12, 4), "Serves 3 directories to 12 peers; 4 connections"),
        ((1, 1, 1, 1), "Serves 1 directory to 1 peer; 1 connection"),
        ((2, 3, 0, 0), "Serves 2 of 3 directories to 0 peers; 0 connections"),
        ((0, 1, 1, 0), "Serves 0 of 1 directory to 1 peer; 0 connections"),
        ((0, 0, 2, 0), "Serves 0 directories to 2 peers; 0 connections"),
    ],
)
def test_what_is_served(numbers, expected):
    """To how many, and how many are there."""
    served, directories, peers, connections = numbers

    line = activity_line(served=served, directories=directories, peers=peers, connections=connections, moves=())

    assert expected == line


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ("i", "1 move"),
        ("irr", "3 moves, 2 running"),
        ("rpf", "3 moves, 1 running, 1 paused, failing: m2"),
        ("fffff", "5 moves, failing: m0, m1, m2, 2 more"),
        ("sifs", "4 moves, failing: m2, stuck: m0, m3"),
    ],
)
def test_how_moves_fare(phases, expected):
    """Those that fail, or have stuck files, are named, a few at most, and nothing of files is."""
    by_letter = {phase.value[0]: phase for phase in Phase}
    moves = [move(f"m{number}", by_letter[letter]) for number, letter in enumerate(phases)]

    serving = activity_line(served=1, directories=1, peers=1, connections=0, moves=moves)
    only_moving = activity_line(served=0, directories=0, peers=1, connections=0, moves=moves)

    assert f"Serves 1 directory to 1 peer; 0 connections; {expected}" == serving
    assert expected == only_moving
