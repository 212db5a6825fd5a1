"""Rates, sizes, durations and shown names: `realize.units`."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realize.errors import UsageError
from realize.units import (
    MAX_DURATION_S,
    MAX_RATE_BPS,
    MAX_SIZE_BYTES,
    Reserve,
    display_name,
    display_text,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_reserve,
    parse_size,
    quoted,
)

SIZES = st.integers(0, MAX_SIZE_BYTES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("4096", 4096),
        ("512B", 512),
        ("512k", 512 << 10),
        ("1M", 1 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("1KiB", 1 << 10),
        ("1.5MiB/s", 3 << 19),
        ("1.5 MiB/s", 3 << 19),
        (".5M", 1 << 19),
        ("1kB", 1000),
        ("1kb", 1000),
        ("20MB", 20_000_000),
        ("3GBps", 3_000_000_000),
        ("1TB", 10**12),
        ("10MB/s", 10_000_000),
        ("1k/s", 1024),
        ("1kps", 1024),
        ("100ps", 100),
        (" 1m ", 1 << 20),
        ("1MIB/S", 1 << 20),
        ("0.1k", 102),
        ("1.9", 1),
        ("unlimited", None),
        ("UNLIMITED", None),
        ("none", None),
    ],
)
def test_rate(text, expected):
    """Units k and KiB are powers of 1024, kB of 1000; bare numbers are bytes; case and a trailing /s do not matter."""
    actual = parse_rate(text)

    assert expected == actual


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("10Mbps", "1250kB"),
        ("10 mbps", "1250kB"),
        ("100Mbit", "12500kB"),
        ("100Mbit/s", "12500kB"),
        ("100MBIT", "12500kB"),
        ("1Gb/s", "125000kB"),
        ("1Gbps", "125000kB"),
        ("8kibit", "1024"),
        ("9600bps", "1200"),
        ("56kbits", "7kB"),
        ("1.5Mbitps", "187500"),
        ("1Tbit", "125000000kB"),
    ],
)
def test_rate_in_bits(text, right):
    """What network people write is not read as eight times as much, but answered with the right form."""
    with pytest.raises(UsageError) as caught:
        parse_rate(text)

    assert f"'{text}' is a rate in bits, and Realize counts bytes: write {right} for the same rate" == str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "0k",
        "0.0001",
        "-1",
        "-1M",
        "+1M",
        "1e6",
        "inf",
        "nan",
        "1_000",
        "1,5M",
        "1.M",
        "0x10",
        "fast",
        "M",
        "1Mi",
        "1iB",
        "1X",
        "1P",
        "1M/h",
        "1M/s/s",
        "1  M",
        "1\nM",
        "1\N{KELVIN SIGN}",
        "\N{ARABIC-INDIC DIGIT ONE}M",
        "9" * 5000,
        "unlimited/s",
    ],
)
def test_rate_nonsense(text):
    """Zero, negative numbers and nonsense are usage errors that show the text and say what is allowed."""
    with pytest.raises(UsageError) as caught:
        parse_rate(text)

    assert f"{quoted(text)} is not a rate: write " in str(caught.value)


@pytest.mark.parametrize("text", ["99999999999T", "4611686018427387905"])
def test_absurd_sizes(text):
    """A size that no 64-bit counter could work with is refused."""
    with pytest.raises(UsageError, match=r"is too much: at most 4194304 TiB is allowed"):
        parse_size(text)


@pytest.mark.parametrize("text", ["11T", "10995116277761"])
def test_absurd_rates(text):
    """A rate above 10 TiB/s is refused; exactly that is allowed."""
    with pytest.raises(UsageError, match=r"is too much: at most 10 TiB/s is allowed"):
        parse_rate(text)

    assert 10 << 40 == parse_rate("10T")


def test_size():
    """A size is written like a rate, may be zero, and has no time in it."""
    assert 0 == parse_size("0")
    assert 3 << 19 == parse_size("1.5 MiB")
    for text in ("1M/s", "unlimited", "-1", ""):
        with pytest.raises(UsageError, match="is not a size: write bytes"):
            parse_size(text)


@pytest.mark.parametrize(
    ("text", "reserve", "expected"),
    [
        ("0", 0, Reserve()),
        ("10G", 10 << 30, Reserve(10 << 30)),
        ("4096", 4096, Reserve(4096)),
        ("5%", 50_000, Reserve(part=Fraction(1, 20))),
        (" 0.5 % ", 5_000, Reserve(part=Fraction(1, 200))),
        ("0%", 0, Reserve()),
    ],
)
def test_reserve(text, reserve, expected):
    """A reserve is a size, or a part of the whole; nothing is false."""
    assert expected == parse_reserve(text)
    assert reserve == expected.of(1_000_000)
    assert bool(reserve) is bool(expected)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("100%", "too much"),
        ("%", "not a reserve"),
        ("-5%", "not a reserve"),
        ("", "not a reserve"),
        ("5/s", "not"),
    ],
)
def test_bad_reserves(text, error):
    """Nobody can reserve everything, or less than nothing."""
    with pytest.raises(UsageError, match=error):
        parse_reserve(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90.0),
        ("0.5", 0.5),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("100ms", 0.1),
        ("1m100ms", 60.1),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5400.0),
        (" 5m ", 300.0),
        ("36500d", float(MAX_DURATION_S)),
    ],
)
def test_duration(text, expected):
    """A bare number is seconds; otherwise days to milliseconds, largest first."""
    actual = parse_duration(text)

    assert expected == actual


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "inf", "nan", "1e3", "5x", "h", "30m1h", "1h1h", "1h 30m", "1h30", "5 m", "5M", "1\n2"],
)
def test_duration_nonsense(text):
    """What is no duration is a usage error, whether or not zero would be allowed."""
    for zero_allowed in (False, True):
        with pytest.raises(UsageError) as caught:
            parse_duration(text, zero_allowed=zero_allowed)

        assert f"{quoted(text)} is not a duration: write " in str(caught.value)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "0.0"])
def test_zero_duration(text):
    """Zero is refused unless the caller allows it."""
    with pytest.raises(UsageError, match="above zero"):
        parse_duration(text)

    assert 0.0 == parse_duration(text, zero_allowed=True)


@pytest.mark.parametrize("text", ["36501d", "9" * 20, "9" * 20 + "d"])
def test_endless_duration(text):
    """A duration that timers could not hold is refused."""
    with pytest.raises(UsageError, match="is too long a duration: at most 36500d is allowed"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3 << 19, "1.5 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        ((1 << 20) - 60, "1023.9 KiB"),
        (5_000_000, "4.8 MiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_format_size(size, expected):
    """A size is shown in the largest unit that it fills, rounded to a tenth."""
    actual = format_size(size)

    assert expected == actual


def test_format_rate():
    """A rate is a size per second; no limit has a word; a measured rate may be fractional."""
    assert "1.5 MiB/s" == format_rate(3 << 19)
    assert "10 B/s" == format_rate(10.2)
    assert "unlimited" == format_rate(None)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.1, "100ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (172_800, "2d"),
        (86_400.25, "1d0.25s"),
        (-90, "-1m30s"),
    ],
)
def test_format_duration(seconds, expected):
    """A duration is shown in days, hours, minutes and seconds, to the millisecond, without what is zero."""
    actual = format_duration(seconds)

    assert expected == actual


@given(SIZES)
def test_shown_sizes_can_be_typed(size):
    """What is shown for a size or rate reads back within the rounding, and is then shown the same."""
    shown = format_size(size)
    read = parse_size(shown)

    assert shown == format_size(read)
    assert abs(read - size) <= max(1, size // 20)
    if 0 < read <= MAX_RATE_BPS:
        assert read == parse_rate(format_rate(size))


@given(st.integers(1, MAX_DURATION_S * 1000))
def test_shown_durations_can_be_typed(milliseconds):
    """What is shown for a duration reads back as exactly that many milliseconds."""
    seconds = milliseconds / 1000

    assert seconds == parse_duration(format_duration(seconds))


@given(st.text() | st.from_regex(r"[0-9.]{1,25} ?[kmgtKMGT]?[iI]?[bB]?(/s|ps)?"))
def test_any_rate_parses_or_is_refused(text):
    """Whatever is typed, the answer is a positive number, no limit, or a usage error."""
    try:
        rate = parse_rate(text)
    except UsageError:
        return

    assert rate is None or 0 < rate <= MAX_SIZE_BYTES


@given(st.text() | st.from_regex(r"([0-9.]{1,25}(d|h|m|s|ms)?){1,5}"))
def test_any_duration_parses_or_is_refused(text):
    """Whatever is typed, the answer is a positive number of seconds or a usage error."""
    try:
        seconds = parse_duration(text)
    except UsageError:
        return

    assert 0 < seconds <= MAX_DURATION_S


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("Grüße 漢字 🎞".encode(), "Grüße 漢字 🎞"),
        (b"a\nb\r\t", r"a\nb\r\t"),
        (b"\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"a\\n", r"a\\n"),
        ("\x85\u2028\u2029".encode(), r"\u0085\u2028\u2029"),
        ("\u202e\u2066\ufeff\u00a0".encode(), r"\u202e\u2066\ufeff\u00a0"),
        ("\U000e0001".encode(), r"\U000e0001"),
        (b"\xed\xb2\x80", r"\xed\xb2\x80"),
    ],
)
def test_display_name(name, expected):
    """Printable UTF-8 is shown as it is, anything else as an escape."""
    actual = display_name(name)

    assert expected == actual


NAMES = st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode("utf-8"))


@given(NAMES)
@example("\u2028\u202e\x85".encode())
def test_shown_names_cannot_forge_lines(name):
    """A shown name is one line without controls, invisible characters or bytes that no terminal could print."""
    shown = display_name(name)

    assert [] == [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert len(shown.splitlines()) <= 1
    assert shown.encode("utf-8").decode("utf-8") == shown


@given(NAMES)
def test_shown_names_are_unambiguous(name):
    """The name on disk can be recovered from what is shown, so different names are shown differently."""

    def original(match: re.Match[str]) -> bytes:
        escape = match[0]
        if escape[0] != "\\":
            return escape.encode("utf-8")
        if escape[1] == "x":
            return bytes.fromhex(escape[2:])
        if escape[1] in "uU":
            return bytes.fromhex(escape[2:].zfill(8)).decode("utf-32-be").encode("utf-8")
        return {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}[escape[1]]

    escapes = re.compile(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|\\[nrt\\]|[^\\]", re.DOTALL)
    actual = b"".join(original(match) for match in escapes.finditer(display_name(name)))

    assert name == actual


@given(NAMES, NAMES)
@example(b"\\n", b"\n")
@example(b"\\xff", b"\xff")
@example(b"\x80", "\x80".encode())
def test_different_names_are_shown_differently(one, other):
    """Two names are shown alike only if they are the same name."""
    assert (one == other) == (display_name(one) == display_name(other))


def test_quoted():
    """A text in an error is escaped and cut, so that an error stays one short line."""
    assert r"'a\nb'" == quoted("a\nb")
    assert f"'{'x' * 80}…'" == quoted("x" * 500)
    assert r"\xff" == display_text("\udcff")
