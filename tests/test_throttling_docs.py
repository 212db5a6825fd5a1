"""`docs/throttling.md`: its timetables can be written so, its commands exist, and what outranks what is so."""

from __future__ import annotations

import re
import shlex

import pytest
from twisted.internet.task import Clock

from realize.cli.main import realize
from realize.errors import UsageError
from realize.schedule.timetable import parse_timetable
from realize.throttle.backpressure import MIN_QUEUE_BYTES, QUEUE_S
from realize.throttle.buckets import FAIR_QUANTUM_BYTES
from realize.throttle.lateness import MAX_CATCH_UP_S, MIN_CATCH_UP_S
from realize.throttle.producers import MAX_PAUSED_BYTES
from realize.throttle.rates import MAX_QUANTUM_S, MIN_QUANTUM_BYTES, QUANTUM_S
from realize.throttle.timetables import MAX_LOOK_INTERVAL_S
from realize.throttle.tls_records import TLS_RECORD_OVERHEAD_BYTES
from realize.throttle.tree import Scope, ThrottleTree
from tests.pages import page, quoted, rows, section

PAGE, ENDPOINTS = page("throttling.md"), page("endpoints.md")
EFFECTS = {row[0]: row[1] for row in rows(section(PAGE, "What outranks what"))}
PLAIN, TIMETABLE = 1_000, parse_timetable("00:00,2000 12:00,2000 18:00,2000")


def limited(limit, run_time, seconds=None):
    """Limits whose service had one in the configuration, and then one at run time; and their clock."""
    clock = Clock()
    tree = ThrottleTree(clock)
    tree.configure(service=limit)
    tree.set_rate(Scope.SERVICE, "", run_time, seconds)
    return tree, clock


def of_service(tree):
    """The limit that holds."""
    return tree.rate(Scope.SERVICE, "")


def test_timetables():
    """Those of the page."""
    examples = re.findall(r"^    (\S.*?) +#", section(PAGE, "Timetables"), flags=re.MULTILINE)

    assert [2, 3, 3] == [len(parse_timetable(each).changes) for each in examples]
    with pytest.raises(UsageError, match="each direction"):
        parse_timetable("08:00,512k:1M")


def test_commands():
    """Each command line of the page is one that the command takes."""
    lines = {each for each in quoted(PAGE) if each.startswith("realize throttle ")}
    filled = [each.replace("PEER", "nas").replace("RATE", "1M").replace(":NAME", ":camera") for each in sorted(lines)]

    for line in filled:
        realize.commands["throttle"].make_context("throttle", shlex.split(line)[2:], **realize.context_settings)

    assert 6 == len(lines)


def test_what_a_reload_does():
    """An edited entry holds at once; an unchanged rate changes nothing; a timetable holds again, but for `--for`."""
    assert "the new entry holds at once" in EFFECTS["a reload with a changed entry"]
    tree, _ = limited(PLAIN, 500, 100)
    tree.configure(service=3_000)
    assert 3_000 == of_service(tree)

    assert "stay" in EFFECTS["a reload with an unchanged rate"]
    tree, _ = limited(PLAIN, 500)
    tree.configure(service=PLAIN)
    assert 500 == of_service(tree)

    assert "holds again" in EFFECTS["a reload with an unchanged timetable"]
    tree, _ = limited(TIMETABLE, 500)
    tree.configure(service=TIMETABLE)
    assert 2_000 == of_service(tree)
    tree, clock = limited(TIMETABLE, 500, 100)
    tree.configure(service=TIMETABLE)
    assert 500 == of_service(tree)
    clock.advance(101)
    assert 2_000 == of_service(tree)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Bytes leave 3 ms' worth at a time", QUANTUM_S == 0.003),
        ("a slice is 1 KiB, or half a second's worth", (MIN_QUANTUM_BYTES, MAX_QUANTUM_S) == (1024, 0.5)),
        ("the 22 bytes that TLS adds to each record", TLS_RECORD_OVERHEAD_BYTES == 22),
        ("bounded: 3 ms", MIN_CATCH_UP_S == 0.003),
        ("up to 100 ms if timers are often late", MAX_CATCH_UP_S == 0.1),
        ("for at least 4 KiB", FAIR_QUANTUM_BYTES == 4096),
        ("holds back 50 ms of bytes", QUEUE_S == 0.05),
        ("or the machine slept, within a minute", MAX_LOOK_INTERVAL_S == 60.0),
    ],
)
def test_numbers(text, right):
    """They are those of the code."""
    assert right
    assert text in PAGE


def test_numbers_of_the_layer():
    """What an application sees of it."""
    assert (0.05, 512, 1 << 20) == (QUEUE_S, MIN_QUEUE_BYTES, MAX_PAUSED_BYTES)
    assert "when 50 ms of bytes wait (at least 512 bytes, at most 1 MiB)" in ENDPOINTS
    assert "may write 1 MiB, then is paused again" in ENDPOINTS
