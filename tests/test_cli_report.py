"""What `realize status` shows: `realize.cli.commands.status_run`."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.cli.display.limits import coming, limit_rows, with_what_comes
from realize.cli.display.report import readable, table
from realize.errors import ProtocolError
from realize.runs.reports import lowest, parse, parse_limits


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


def test_units_are_for_people() -> None:
    """Durations, rates and truths are not raw; what is not known is a dash, and only a limit can be unlimited."""
    rows = [
        {"waited": 3725.4, "lasts": None, "left": 42.0, "rate": None, "limit": None, "yours": True, "name": ""},
        {"waited": 0.2, "lasts": 60, "left": None, "send_rate": 2048, "rate": 0, "limit": 1024, "yours": False},
    ]

    assert [
        "",
        "limits:",
        "  waited  lasts  left  rate   limit      yours  name  send_rate",
        "  1h2m5s  -      42s   -      unlimited  yes    -     -",
        "  0s      1m     -     0 B/s  1 KiB/s    no     -     2 KiB/s",
    ] == list(readable({"limits": rows}))


def test_a_hostile_report_cannot_forge_lines() -> None:
    """Names and texts from the wire are escaped."""
    assert [r"version  1\nuptime 5"] == list(readable({"version": "1\nuptime 5"}))


@pytest.mark.parametrize(
    ("told", "shown"), [(r"a\\b\xff", r"a\\b\xff"), ("a\nb", r"a\nb"), ("a\u202eb", r"a\u202eb"), ("", "-")]
)
def test_a_path_is_shown_as_the_daemon_has_escaped_it(told, shown):
    """It is escaped once, as everywhere; what a daemon did not escape does not get through either."""
    assert [f"path  {shown}"] == list(readable({"path": told}))
    assert [f"error  {shown}"] == list(readable({"error": told}))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "1"])
def test_what_is_not_an_object_is_a_protocol_error(text: str) -> None:
    """A daemon that answers nonsense is named as the culprit, without a traceback."""
    with pytest.raises(ProtocolError):
        parse(text)


NOON = datetime(2026, 11, 28, 12).timestamp()
"""Of a Saturday, in the zone of the machine."""

HOSTILE = [
    "[" * 30_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    '{"a":' * 20 + "1" + "}" * 20,
    '{"uptime": NaN}',
    '{"uptime": -Infinity}',
    '{"uptime": 1e999}',
    '{"size": ' + "9" * 4_000 + "}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_a_report_of_a_bad_shape_ends_in_one_sentence(text: str) -> None:
    """Depth without end, and numbers that are none, are the daemon's fault, and no fault of ours."""
    with pytest.raises(ProtocolError, match="the daemon's report"):
        parse(text)
    with pytest.raises(ProtocolError, match="the daemon's report"):
        parse_limits(f"[{text}]")


@pytest.mark.parametrize("value", ["x", True, [1], [[]], {"a": []}, -5, 1.5, None, "x" * 50_000])
def test_values_of_any_type_are_shown(value: object) -> None:
    """Wherever a number is expected."""
    rows = [{"uptime": value, "limit": value, "size": value, "rate": value, "lasts": value, "scope": value}]

    assert list(readable({**rows[0], "connections": rows}))
    limits = parse_limits(json.dumps([{**rows[0], "changes_in": value, "changes_to": value, "timetable": value}]))
    assert limit_rows(limits, NOON)
    assert list(readable({"limits": [with_what_comes(row, NOON) for row in limits]}))


def test_what_is_shown_of_a_report_is_bounded() -> None:
    """One long cell among many rows, many columns, and control characters in the names of fields."""
    rows: list[dict[str, object]] = [{"a": "x" * 30_000}, *({"a": 1} for _ in range(3_000))]
    wide: list[dict[str, object]] = [{f"c{number}\x1b": 1} for number in range(3_000)]

    assert sum(map(len, readable({"rows": rows}))) < 1_000_000
    assert sum(map(len, readable({"rows": wide}))) < 3_000_000
    assert "\x1b" not in "".join(readable({"rows": wide}))


LIMIT = {"scope": "peer", "name": "camera-in-the-garden", "peer": "camera-in-the-garden", "direction": "receive"}
DAILY = {**LIMIT, "limit": 20 << 20, "rate": 1705, "waited": 0.0, "lasts": 3600, "timetable": "08:00,512k 18:00,20M"}


def test_what_is_too_wide_stands_below_its_row() -> None:
    """Nothing is lost by that; a table that fits stays as it is, with a dash for what is not known."""
    row = with_what_comes({**DAILY, "changes_in": 6 * 3_600.0, "changes_to": 512 << 10, "yours": True}, NOON)
    plain = {**row, "then": "-", "timetable": None}

    assert [
        "",
        "limits:",
        "  scope  peer                  direction  limit     rate       waited  lasts  yours",
        "  peer   camera-in-the-garden  receive    20 MiB/s  1.7 KiB/s  0s      1h     yes",
        "      timetable 08:00,512k 18:00,20M  then 512 KiB/s at 18:00, in 6h",
        "  peer   camera-in-the-garden  receive    20 MiB/s  1.7 KiB/s  0s      1h     yes",
    ] == list(readable({"limits": [row, plain]}))
    assert list(table([{"name": "in", "error": ""}])) == ["  name  error", "  in    -"]


@given(
    names=st.lists(st.text("abc", min_size=1, max_size=24), min_size=1, max_size=3),
    texts=st.lists(st.text("xyz ", max_size=150), min_size=3, max_size=3),
)
def test_limits_fit_100_columns(names: list[str], texts: list[str]) -> None:
    """With names of up to 24 characters, whatever their timetables; what is below a row is not counted."""
    rows = [{**DAILY, "name": name, "peer": name, "timetable": text} for name, text in zip(names, texts, strict=False)]
    lines = [*readable({"limits": [with_what_comes(row, NOON) for row in rows]}), *table(limit_rows(rows, NOON))]

    assert 100 >= max(len(line) for line in lines if not line.startswith("      "))
    for name, text in zip(names, texts, strict=False):
        assert any(name in line for line in lines)
        assert not text.strip() or any(text.strip() in line for line in lines)


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


@pytest.mark.parametrize(
    ("seconds", "rate", "expected"),
    [
        (6 * 3_600.0, None, "unlimited at 18:00, in 6h"),
        (59.96, 512 << 10, "512 KiB/s at 12:01, in 1m"),
        (90.0, 1 << 20, "1 MiB/s at 12:01:30, in 1m30s"),
        (20 * 3_600, 1 << 20, "1 MiB/s at Sun 08:00, in 20h"),
        (0.0, None, "unlimited at 12:00, in 1s"),
        (None, None, "-"),
        ("soon", None, "-"),
        (60, "fast", "-"),
        (1e19, None, "unlimited in 115740740740740d17h46m40s"),
    ],
)
def test_the_next_change_of_a_limit_is_told(seconds: object, rate: object, expected: str) -> None:
    """When by the clock of whoever looks, with the day if it is another one, and how long that still is."""
    assert expected == coming({"changes_in": seconds, "changes_to": rate}, NOON)


def test_columns_for_changes_are_there_if_any_limit_changes() -> None:
    """An older daemon tells nothing of them, and most daemons have no timetable."""
    plain = {"scope": "service", "direction": "send", "limit": 1024}
    daily = {**plain, "timetable": "08:00,1k 18:00,unlimited", "changes_in": 60, "changes_to": None}

    assert ["scope", "peer", "direction", "limit", "now", "lasts"] == list(limit_rows([plain], NOON)[0])
    assert ["-", "unlimited at 12:01, in 1m"] == [row["then"] for row in limit_rows([plain, daily], NOON)]
    assert ["-", "08:00,1k 18:00,unlimited"] == [row["timetable"] for row in limit_rows([plain, daily], NOON)]
    assert plain == with_what_comes(plain, NOON)
    assert "unlimited at 12:01, in 1m" == with_what_comes(daily, NOON)["then"]
