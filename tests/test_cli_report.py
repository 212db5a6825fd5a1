"""What `realize status` shows: `realize.cli.report`."""

from __future__ import annotations

import pytest

from realize.cli.report import lowest, parse, parse_limits, readable
from realize.errors import ProtocolError


def test_a_report_is_shown_as_values_and_tables() -> None:
    """Single values come first, one a line; a list of objects is a table; an empty one says so."""
    report = {
        "version": "0.1.0",
        "uptime": 3700.2,
        "transfers": [{"peer": "camera", "path": "a b", "size": 2048, "reached": 1024}],
        "connections": [],
    }

    assert [
        "version  0.1.0",
        "uptime   1h1m40s",
        "",
        "transfers:",
        "  peer    path  size   reached",
        "  camera  a b   2 KiB  1 KiB",
        "",
        "connections: none",
    ] == list(readable(report))


def test_a_hostile_report_cannot_forge_lines() -> None:
    """Names and texts from the wire are escaped."""
    assert [r"version  1\nuptime 5"] == list(readable({"version": "1\nuptime 5"}))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "1"])
def test_what_is_not_an_object_is_a_protocol_error(text: str) -> None:
    """A daemon that answers nonsense is named as the culprit, without a traceback."""
    with pytest.raises(ProtocolError):
        parse(text)


def test_the_lowest_limit_that_is_ours_binds() -> None:
    """Limits of others, of the other direction, and what is no number do not count; without any there is none."""
    rows = [
        {"direction": "send", "limit": 300, "yours": True},
        {"direction": "send", "limit": 200},
        {"direction": "send", "limit": 100, "yours": False},
        {"direction": "receive", "limit": 50},
        {"direction": "send", "limit": None},
        {"direction": "send", "limit": "fast"},
        {},
    ]

    assert (200, 50, None) == (lowest(rows, "send"), lowest(rows, "receive"), lowest([], "send"))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_limits_that_are_none_are_the_peers_fault(text: str) -> None:
    """Whatever a daemon sends in their place is a declared error."""
    with pytest.raises(ProtocolError):
        parse_limits(text)
