"""Parse and format rates, sizes and durations, and make file names safe to show.

This module owns both directions: every such value from a command line or a configuration file is parsed here, and every
such value or name that is shown to a person or written to a log is formatted here.
It is pure and imports only the errors.

Invariants: what a formatter writes, the parser of the same kind reads back; formatted names and texts contain no
control characters, no line breaks and nothing else that is invisible, so that no name can forge a line of output.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

MAX_SIZE_BYTES: Final = 1 << 62
"""The largest size that is accepted: far above any disk, and well within 64 bits."""

MAX_RATE_BPS: Final = 10 << 40
"""The highest rate that is accepted, in bytes (not bits) per second: 10 TiB/s."""

MAX_DURATION_S: Final = 36_500 * 86_400
"""The longest duration that is accepted: 36500 days, which every timer can handle."""


@frozen(eq=False, repr=False)
class Reserve(ByValue):
    """Space to keep free on a file system: a number of bytes, or a fraction of its size."""

    size: int = 0
    part: Fraction | int = 0

    def of(self, total: int) -> int:
        """The reserve in bytes on a file system of ``total`` bytes."""
        return max(self.size, int(self.part * total))

    def __bool__(self) -> bool:
        """Whether there is any space to keep free."""
        return bool(self.size or self.part)


NO_RESERVE: Final = Reserve()

_NUMBER: Final = r"(?:[0-9]{1,20}(?:\.[0-9]{1,20})?|\.[0-9]{1,20})"
# Compiled when something is parsed, which most runs have little of: together these are a hundredth of a short one.
# With re.ASCII, because the Kelvin sign would match a k otherwise.
_BYTES: Final = rf"(?ai)(?P<number>{_NUMBER}) ?(?:(?P<prefix>[kmgt])(?P<suffix>i?b)?|b)?(?P<second>/s|ps)?"
# Only with a small b, as is usual for networks: MBps is a rate in bytes.
_BITS: Final = rf"(?a)(?P<number>{_NUMBER}) ?(?P<prefix>[kKmMgGtT]?)(?P<binary>i?)(?:bps|b/s|(?i:bits?(?:ps|/s)?))"
_DURATION: Final = (
    rf"(?:(?P<d>{_NUMBER})d)?(?:(?P<h>{_NUMBER})h)?(?:(?P<m>{_NUMBER})m(?!s))?"
    rf"(?:(?P<s>{_NUMBER})s)?(?:(?P<ms>{_NUMBER})ms)?"
)
_DECIMALS: Final = 20
_PARTS_OF_ONE: Final = 10**_DECIMALS
_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB")
_SHORT_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTED_CHARS: Final = 80


def parse_rate(text: str) -> int | None:
    """The rate in bytes per second, at least 1; None for ``unlimited`` or its alias ``none``.

    k, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB are powers of 1000; a bare number is bytes.
    Case does not matter, and ``/s`` or ``ps`` may follow; rates in bits (``Mbps``, ``Mbit``) are refused.
    A fraction of a byte is dropped.
    Raises `UsageError` for anything else, including zero and negative numbers.
    """
    if text.strip().lower() in {"unlimited", "none"}:
        return None
    _refuse_bits(text)
    rate = _bytes(text, rate=True)
    if not rate:
        raise UsageError(
            f"{quoted(text)} is not a rate: write bytes per second above zero, such as 512k, 1.5MiB/s or 20MB, "
            "or unlimited"
        )
    return rate


def parse_size(text: str) -> int:
    """The size in bytes, 0 allowed; written as for `parse_rate`, but without ``/s``.  Raises `UsageError`."""
    size = _bytes(text, rate=False)
    if size is None:
        raise UsageError(f"{quoted(text)} is not a size: write bytes, such as 4096, 512k, 1.5MiB or 20MB")
    return size


def parse_reserve(text: str) -> Reserve:
    """A size as for `parse_size`, or a percentage of a file system, ``5%``.  Raises `UsageError`."""
    stripped = text.strip()
    if (number := stripped.removesuffix("%").rstrip()) != stripped and re.fullmatch(_NUMBER, number):
        # Loaded only where it is wanted: it is a hundredth of a short run.
        from fractions import Fraction

        if (part := Fraction(_parts(number), 100 * _PARTS_OF_ONE)) < 1:
            return Reserve(part=part)
        raise UsageError(f"{quoted(text)} is too much: less than 100% is allowed")
    size = _bytes(text, rate=False)
    if size is None:
        raise UsageError(f"{quoted(text)} is not a reserve: write bytes or a part of the disk, such as 10G or 5%")
    return Reserve(size)


def parse_duration(text: str, *, zero_allowed: bool = False) -> float:
    """The duration in seconds, above zero unless ``zero_allowed``, and at most `MAX_DURATION_S`.

    A bare number is seconds; otherwise days, hours, minutes, seconds and milliseconds in this order, each at most once:
    ``2d``, ``1h30m``, ``100ms``.
    Raises `UsageError` for anything else.
    """
    stripped = text.strip()
    length: int | None = None
    if re.fullmatch(_NUMBER, stripped):
        length = _parts(stripped) * 1_000
    elif stripped and (match := re.fullmatch(_DURATION, stripped)):
        length = sum(_parts(number) * _MILLISECONDS[unit] for unit, number in match.groupdict().items() if number)
    if length is None or (not length and not zero_allowed):
        above = "" if zero_allowed else " above zero"
        raise UsageError(f"{quoted(text)} is not a duration: write a time{above}, such as 90s, 5m, 1h30m, 2d or 100ms")
    if length > MAX_DURATION_S * 1_000 * _PARTS_OF_ONE:
        raise UsageError(f"{quoted(text)} is too long a duration: at most {format_duration(MAX_DURATION_S)} is allowed")
    return length / (1_000 * _PARTS_OF_ONE)


def format_size(size: int) -> str:
    """A number of bytes for people: ``512 B``, ``1.5 MiB``; rounded to a tenth of the unit."""
    if size < 1024:
        return f"{size} B"
    unit, names = 1024, iter(_UNITS)
    name = next(names)
    # Round before choosing the unit, otherwise a little less than 1 MiB would become 1024 KiB.
    while (tenths := (size * 20 + unit) // (2 * unit)) >= 10_240 and (larger := next(names, None)):
        unit, name = unit * 1024, larger
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} {name}" if tenth else f"{whole} {name}"


def format_rate(rate: float | None) -> str:
    """Bytes per second for people: ``1.5 MiB/s``, or ``unlimited`` for None."""
    return "unlimited" if rate is None else f"{format_size(round(rate))}/s"


def format_duration(seconds: float) -> str:
    """A finite number of seconds for people, to the millisecond: ``1h30m``, ``1m30s``, ``1.5s``, ``100ms``."""
    milliseconds = round(seconds * 1_000)
    if milliseconds < 0:
        return f"-{format_duration(-seconds)}"
    if 0 < milliseconds < 1_000:
        return f"{milliseconds}ms"
    whole, milliseconds = divmod(milliseconds, 1_000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count]
    if milliseconds:
        parts.append(f"{whole}.{milliseconds:03d}".rstrip("0") + "s")
    elif whole or not parts:
        parts.append(f"{whole}s")
    return "".join(parts)


def display_name(path: bytes) -> str:
    r"""A name from a disk or from the wire, for people and logs; every such name has to be formatted by this.

    Printable UTF-8 stays as it is.
    Everything that could break or forge a line, or that is invisible, is escaped with a backslash: ``\n``, ``\r``,
    ``\t``, ``\x1b`` for other ASCII controls, ``\xff`` for a byte that is not UTF-8, ``\u202e`` or ``\U000e0001`` for a
    character that is not printable (line separators, controls of writing direction, spaces of other widths, ...), and
    ``\\`` for a backslash.
    Different names are always shown differently.
    """
    return display_text(path.decode("utf-8", "surrogateescape"))


def display_text(text: str) -> str:
    """`display_name` for a text, such as an argument of the command line (invalid UTF-8 as surrogates, PEP 383)."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def quoted(text: str) -> str:
    """A text that is not ours, escaped, in quotes, and cut if it is long: for the texts of errors."""
    return f"'{display_text(text[:_QUOTED_CHARS])}…'" if len(text) > _QUOTED_CHARS else f"'{display_text(text)}'"


def format_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address; `realize.config.addresses.parse_address` reads it."""
    return f"[{display_text(host)}]:{port}" if ":" in host else f"{display_text(host)}:{port}"


def _refuse_bits(text: str) -> None:
    """Raise `UsageError` if a rate is, most likely, meant in bits per second; the error has the same rate in bytes."""
    match = re.fullmatch(_BITS, text.strip())
    if match is None:
        return
    prefix = match["prefix"].lower()
    base = 1_024 if match["binary"] else 1_000
    rate = _parts(match["number"]) * base ** (1 + "kmgt".index(prefix) if prefix else 0) // (8 * _PARTS_OF_ONE)
    written = f"{rate // 1_000}kB" if rate and not rate % 1_000 else str(rate)
    raise UsageError(f"{quoted(text)} is a rate in bits, and Realize counts bytes: write {written} for the same rate")


def _bytes(text: str, *, rate: bool) -> int | None:
    match = re.fullmatch(_BYTES, text.strip())
    if match is None or (match["second"] and not rate):
        return None
    base = 1_000 if (match["suffix"] or "").lower() == "b" else 1_024
    power = 1 + "kmgt".index(match["prefix"].lower()) if match["prefix"] else 0
    amount: int = _parts(match["number"]) * base**power // _PARTS_OF_ONE
    most = MAX_RATE_BPS if rate else MAX_SIZE_BYTES
    if amount > most:
        raise UsageError(
            f"{quoted(text)} is too much: at most {format_rate(most) if rate else format_size(most)} is allowed"
        )
    return amount


def _parts(number: str) -> int:
    """The number as it is written, without rounding, in parts, of which `_PARTS_OF_ONE` are one."""
    whole, _, decimals = number.partition(".")
    return int((whole or "0") + decimals.ljust(_DECIMALS, "0"))


def _escaped(character: str) -> str:
    if short := _SHORT_ESCAPES.get(character):
        return short
    if character.isprintable():
        return character
    code = ord(character)
    # A surrogate stands for a byte that is not UTF-8; C1 controls in valid UTF-8 are shown as \u0080.
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
