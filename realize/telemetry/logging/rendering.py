r"""Turn an event into its line, in each of the log formats; pure.

Invariants: an event is one line; only in ``console`` and ``systemd``, and only for a traceback, indented lines follow.
No value can end the line, or begin or forge a field: characters that are not printable are escaped by
`realize.units.display_text`, and where the format itself has no quotes, values with blanks, quotes or ``=`` are quoted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import orjson
import structlog

from realize.units import display_text

PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""The journal's priorities (sd-daemon(3))."""

MAX_VALUE_CHARS: Final = 8 * 1024
"""Longer values are cut to this many characters."""

_THREE_DIGITS: Final = tuple(f"{number:03}" for number in range(1000))
"""Looking up takes a third of the time of formatting, and is done for every record."""

_BACKSLASH, _DELETE = b"\\\x7f"

Record = MutableMapping[str, Any]
Render = Callable[[Any, str, Record], bytes]


def renderer(form: str, *, colors: bool = False) -> Render:
    """The structlog processor that turns a record into a line of that format, line end included."""
    if form == "json":
        return _as_json
    if form == "logfmt":
        return _as_logfmt
    if form == "systemd":
        return _as_systemd
    return functools.partial(_as_console, _console(colors=colors))


def stamper(now: Callable[[], float] = time.time) -> Callable[[], str]:
    """A function that returns the time now as text: RFC 3339, UTC, with microseconds."""
    current, text = -1, ""

    def stamp() -> str:
        nonlocal current, text
        moment = now()
        second = int(moment)
        if second != current:
            current, text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        shown = text  # another thread may change it to the next second at any call
        micros = int((moment - second) * 1_000_000)
        return f"{shown}.{_THREE_DIGITS[micros // 1000]}{_THREE_DIGITS[micros % 1000]}Z"

    return stamp


def _harmless(record: Record) -> Record:
    """The record with all texts escaped and cut, so that each can be nothing but one value in one line."""
    for key, value in record.items():
        if type(value) is str:
            if not value.isprintable() or len(value) > MAX_VALUE_CHARS:
                record[key] = _clean_lines(value) if key == "exc" else _clean(value)
        elif not (value is None or isinstance(value, bool | int | float)):
            record[key] = _clean_any(value)
    return record


def _clean(text: str) -> str:
    return display_text(text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…")


def _clean_lines(text: str) -> str:
    """A traceback with its lines escaped; if too long, its end is kept, which says most."""
    kept = text if len(text) <= 2 * MAX_VALUE_CHARS else f"…{text[-2 * MAX_VALUE_CHARS :]}"
    return "\n".join(display_text(line) if not line.isprintable() else line for line in kept.rstrip("\n").split("\n"))


def _clean_any(value: object) -> object:
    if isinstance(value, str):
        return value if value.isprintable() and len(value) <= MAX_VALUE_CHARS else _clean(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean_any(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean_any(inner) for inner in value]
    return _clean(str(value))


def _as_json(_: object, __: str, record: Record) -> bytes:
    try:
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        pass  # a value is neither text nor number
    else:
        # All printable ASCII, and short: nothing had to be escaped or cut, as in nearly all records.
        if line.isascii() and _BACKSLASH not in line and _DELETE not in line and len(line) <= MAX_VALUE_CHARS:
            return line
    record = _harmless(record)
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits
        texts = {key: value if isinstance(value, str) else str(value) for key, value in record.items()}
        return orjson.dumps(texts, option=orjson.OPT_APPEND_NEWLINE)


_LOGFMT: Final = structlog.processors.LogfmtRenderer(bool_as_flag=False)


def _as_logfmt(logger: object, level: str, record: Record) -> bytes:
    flat = {key: _flat(value) for key, value in _harmless(record).items()}
    return f"{_LOGFMT(logger, level, flat)}\n".encode()


def _as_console(render: Callable[[object, str, Record], str], logger: object, level: str, record: Record) -> bytes:
    record = _harmless(record)
    tail = _indented(record.pop("exc", None))
    return f"{render(logger, level, record)}{tail}\n".encode()


def _as_systemd(logger: Any, level: str, record: Record) -> bytes:
    """Without time and level: the journal has its own time, and takes the level from the priority."""
    record = _harmless(record)
    tail = _indented(record.pop("exc", None))
    event = record.pop("event")
    fields = {key: _flat(value) for key, value in record.items() if key not in {"ts", "level"}}
    text = f"{event} {_LOGFMT(logger, level, fields)}{tail}"
    priority = f"<{PRIORITIES.get(level, 6)}>"
    return "".join(f"{priority}{line}\n" for line in text.split("\n")).encode()


def _indented(exc: str | None) -> str:
    return "" if not exc else "".join(f"\n    {line}" for line in exc.split("\n"))


def _flat(value: Any) -> Any:
    """A scalar as it is, the others as text: a list ``a,b``, a mapping ``x=1 y=2``, a list of mappings ``x=1; x=2``."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_inside(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ("; " if any(isinstance(each, Mapping) for each in value) else ",").join(map(_inside, value))
    return value


def _inside(value: object) -> str:
    return "-" if value is None else str(_flat(value))


def _value(value: Any) -> str:
    """A value for the console, quoted if it could be taken for more than one."""
    text = "-" if value is None else str(_flat(value))
    if text and " " not in text and "=" not in text and '"' not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    dev = structlog.dev
    styles = dev.ConsoleRenderer.get_default_column_styles(colors)
    levels = dev.ConsoleRenderer.get_default_level_styles(colors)

    def column(key_style: str | None, value_style: str, width: int = 0) -> Any:
        return dev.KeyValueColumnFormatter(key_style, value_style, styles.reset, value_repr=_value, width=width)

    return dev.ConsoleRenderer(
        sort_keys=False,
        columns=[
            dev.Column("ts", column(None, styles.timestamp)),
            dev.Column("level", dev.LogLevelColumnFormatter(levels, reset_style=styles.reset)),
            dev.Column("event", column(None, styles.bright, width=20)),
            dev.Column("", column(styles.kv_key, styles.kv_value)),
        ],
    )
