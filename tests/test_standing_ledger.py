"""What the soak of standing moves is built upon: the ledger of what was made, `campaigns.ledger`."""

from __future__ import annotations

import os
import time

import pytest

from campaigns.hostile_producer import HostileProducer
from campaigns.ledger import FORGOTTEN, TWICE, Ledger
from campaigns.oracle import LOST
from tests.processes import wait_for


@pytest.fixture
def ledger(tmp_path):
    """A ledger of an empty source."""
    for name in ("source", "inbox"):
        (tmp_path / name).mkdir()
    return Ledger(tmp_path / "source", tmp_path / "inbox", 1.0)


def make(ledger, name="a", content=b"1"):
    """A file at the source that is complete."""
    (ledger.source / name).write_bytes(content)
    ledger.made(os.fsencode(name), content)


def move(ledger, name="a", to=None):
    """Move it without Realize."""
    (ledger.source / name).rename(ledger.destination / (to or name))


def kinds(faults):
    return [fault.kind for fault in faults]


def test_what_was_moved_is_taken_away_and_counted(ledger):
    """Once it is gone from the source, and not before."""
    make(ledger)
    (ledger.destination / "a").write_bytes(b"1")
    assert [] == ledger.look(time.monotonic())
    assert (1, True) == (ledger.waiting(time.monotonic()), (ledger.destination / "a").exists())

    (ledger.source / "a").unlink()

    assert [] == ledger.look(time.monotonic())
    assert (0, False) == (ledger.waiting(time.monotonic()), (ledger.destination / "a").exists())
    assert {"files": 1, "arrived": 1} == ledger.counts
    assert [] == ledger.final(time.monotonic())


@pytest.mark.parametrize("found", [None, b"", b"12"], ids=["nothing", "cut", "damaged"])
def test_it_finds_what_is_lost(ledger, found):
    """A content that is whole at neither end."""
    make(ledger)
    (ledger.source / "a").unlink()
    if found is not None:
        (ledger.destination / "a").write_bytes(found)

    assert LOST in kinds(ledger.look(time.monotonic()))


def test_it_finds_what_arrives_twice(ledger):
    """Also long after the first copy was taken away."""
    make(ledger)
    move(ledger)
    ledger.look(time.monotonic())
    (ledger.destination / "a").write_bytes(b"1")

    assert [TWICE] == kinds(ledger.look(time.monotonic()))


def test_two_names_are_two_copies_unless_it_was_renamed_late(ledger):
    """Who gives another name to what may be under way finds both; at once he does not."""
    make(ledger)
    ledger.contents[next(iter(ledger.contents))].since -= 2.0
    ledger.renamed(b"1", b"b")
    make(ledger, "c", b"3")
    ledger.renamed(b"3", b"d")
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"3"), ("d", b"3")):
        (ledger.destination / name).write_bytes(content)
    (ledger.source / "a").unlink()
    (ledger.source / "c").unlink()

    assert [TWICE] == kinds(ledger.look(time.monotonic()))
    assert 1 == ledger.counts["arrived under an earlier name as well"]


def test_what_a_producer_withdrew_may_be_anywhere(ledger):
    """Or nowhere."""
    make(ledger)
    ledger.replaced(b"1")
    (ledger.source / "a").unlink()

    assert [] == ledger.look(time.monotonic())
    assert 0 == ledger.waiting(time.monotonic())


def test_it_finds_what_is_left_at_the_end(ledger):
    """Files at the source, partials, contents that nobody made, and names that nothing had."""
    make(ledger, "a", b"1")
    make(ledger, "b", b"2")
    move(ledger, "b", to="c")
    (ledger.destination / ".x.part").write_bytes(b"x")
    (ledger.destination / "y").write_bytes(b"y")

    assert {FORGOTTEN, LOST, "partial left", "unknown content", "wrong name"} == set(kinds(ledger.final(0.0)))


@pytest.mark.soak
def test_a_producer_whose_files_nobody_moves_finds_all_of_them(ledger, tmp_path):
    """All works make files that are whole, under names that the ledger knows."""
    producer = HostileProducer(ledger, tmp_path / "spool", 1)
    wait_for(lambda: len(producer.counts) >= 9, 60)
    producer.stop()

    assert [] == producer.faults
    assert [] == ledger.look(time.monotonic())
    assert {FORGOTTEN} == set(kinds(ledger.final(time.monotonic())))
