"""Troubles of a standing move: one record when each begins, and one when it ends."""

from __future__ import annotations

import pytest

from realize.errors import ConnectionFailed, NoSpace, SourceChanged
from realize.moves.episodes import MAX_TOLD_FILES, Episodes

LOST = ConnectionFailed("nas is away")
FULL = NoSpace("no space")


class Records:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, dict[str, object]]] = []

    def bind(self, **_: object) -> Records:
        """Itself."""
        return self

    def _log(self, event: str, /, **fields: object) -> None:
        self.kept.append((event, fields))

    debug = info = warning = error = _log


class Troubles:
    """Episodes with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log = Records()
        self.episodes = Episodes(self.log, lambda: self.now)


@pytest.fixture
def troubles() -> Troubles:
    """No trouble yet."""
    return Troubles()


def test_trouble_is_told_when_it_begins_and_when_it_ends(troubles: Troubles) -> None:
    """However often it is met in between."""
    for _ in range(2_000):
        troubles.episodes.failed(LOST)
    troubles.now += 7 * 86_400
    troubles.episodes.last((), ())

    assert [
        ("move_failing", {"code": "connection", "error": "nas is away"}),
        ("move_recovered", {"code": "connection", "seconds": 604_800.0, "attempts": 2_000}),
    ] == troubles.log.kept


def test_each_kind_of_trouble_lasts_for_itself(troubles: Troubles) -> None:
    """One ends while the other goes on."""
    troubles.episodes.failed(LOST)
    troubles.episodes.failed(FULL)
    troubles.episodes.last({"no_space"}, ())

    assert ["move_failing", "move_failing", "move_recovered"] == [event for event, _ in troubles.log.kept]


def test_trouble_with_files_is_not_trouble_of_the_move(troubles: Troubles) -> None:
    """They are told by the words for the states of a move, and end one without the other."""
    troubles.episodes.stuck(FULL)
    troubles.episodes.failed(FULL)
    troubles.now += 1
    troubles.episodes.last({"no_space"}, ())
    troubles.now += 1
    troubles.episodes.last((), {"no_space"})

    assert [("move_stuck", None), ("move_failing", None), ("move_recovered", 1.0), ("move_recovered", 2.0)] == [
        (event, fields.get("seconds")) for event, fields in troubles.log.kept
    ]


def test_files_that_others_use_are_no_trouble(troubles: Troubles) -> None:
    """However many they are, though not all of them are named."""
    named = sum(troubles.episodes.may_name(SourceChanged("a: is open")) for _ in range(10 * MAX_TOLD_FILES))

    assert MAX_TOLD_FILES == named
    assert [] == troubles.log.kept


def test_trouble_from_before_a_restart_began_then(troubles: Troubles) -> None:
    """Its end tells how long it took in all."""
    troubles.episodes.failed(LOST, since=40.0)
    troubles.episodes.last((), ())

    assert 60.0 == troubles.log.kept[-1][1]["seconds"]


def test_not_every_file_of_a_long_trouble_is_named(troubles: Troubles) -> None:
    """A disk that is full for ten million files must not fill that of the log: what is not named is one trouble."""
    named = sum(troubles.episodes.may_name(FULL) for _ in range(10 * MAX_TOLD_FILES))
    of_another_kind = troubles.episodes.may_name(LOST)
    troubles.episodes.last((), ())

    assert MAX_TOLD_FILES == named
    assert of_another_kind
    assert ["move_stuck", "move_recovered"] == [event for event, _ in troubles.log.kept]
    assert troubles.episodes.may_name(FULL)
