"""Standing moves for people: a table of 80 columns with what went wrong below it, and all about one move; pure.

What a daemon reports is not trusted: any value may be missing, or of another type.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from realize.cli.display.report import table
from realize.runs.reports import is_number
from realize.units import display_text, format_rate, format_size

MAX_TEXT_COLUMNS: Final = 1_000
"""How much of a text of a daemon is shown."""

_BADLY_WATCHED: Final = {
    "absent": "is not there, or does not answer",
    "limited": "is searched only once a minute: the kernel refuses more inotify watches (the log names the sysctl)",
}
"""What is wrong with a source, by how it is watched."""

_AGE_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_LAST_SECONDS: Final = 253_402_300_799
"""The last second of the year 9999."""


def listing(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for each move, and below them a line for each thing that is wrong."""
    now, moves = _number(report, "now") or 0.0, [each for each in report["moves"] if isinstance(each, Mapping)]
    if not moves:
        yield "this daemon has no standing moves"
        return
    yield from (line.removeprefix("  ") for line in table([_row(each, now) for each in moves]))
    troubles = [trouble for each in moves for trouble in _troubles(each, now)]
    if troubles:
        yield ""
        yield from troubles
    if report.get("truncated") is True:
        yield ""
        yield "there are more moves than a report holds; `realize moves show NAME` has each of them"


def details(report: Mapping[str, Any]) -> Iterator[str]:
    """All about each move of a report, as values with their names."""
    now = _number(report, "now") or 0.0
    for each in report["moves"]:
        for name, text in _facts(each, now):
            yield f"{name:<13} {text}".rstrip()


def age(seconds: float) -> str:
    """A duration in its largest unit, at most four characters below 1,000 days: ``45s``, ``12m``, ``3h``, ``2d``."""
    whole = max(0, round(seconds))
    size, unit = next(((size, unit) for size, unit in _AGE_UNITS if whole >= size), _AGE_UNITS[-1])
    return f"{whole // size}{unit}"


def _row(move: Mapping[str, Any], now: float) -> dict[str, str]:
    backlog, running, last = _object(move, "backlog"), _object(move, "running"), _object(move, "last_run")
    rate = _number(running, "rate_bps")
    return {
        "move": _text(move, "name"),
        "state": _text(move, "phase"),
        "waiting": _files(backlog, "files", "size"),
        "oldest": _since(backlog, "oldest", now),
        "rate": format_rate(round(rate)) if rate is not None and rate >= 1 else "-",
        "last": _since(last, "ended", now),
        "next": _until(move, "next_run", now),
    }


def _troubles(move: Mapping[str, Any], now: float) -> Iterator[str]:
    name = _text(move, "name")
    since = _number(move, "failing_since")
    if since is not None or _text(move, "error") != "-":
        first, more = _lines(move, "error")
        hint = f" (`realize moves show {name}` has more)" if more else ""
        yield f"{name}: failing{'' if since is None else f' for {age(now - since)}'}: {first}{hint}"
    failed = _number(move, "failed_files")
    if failed:
        yield f"{name}: {_failed(move, failed)}"
    for source, how in _object(move, "watching").items():
        if isinstance(how, str) and how in _BADLY_WATCHED:
            yield f"{name}: {_shown(source)} {_BADLY_WATCHED[how]}"


def _failed(move: Mapping[str, Any], failed: float) -> str:
    """How many files failed, and why the last one did: ``3 files failed (1 is busy), the last one: ...``."""
    busy = _number(move, "busy_files") or 0
    in_use = f" ({round(busy)} {'is' if busy == 1 else 'are'} busy)" if busy else ""
    return f"{_count(failed, 'file')} failed{in_use}, the last one: {_text(move, 'file_error')}"


def _facts(move: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    watching = _object(move, "watching")
    yield "move", _text(move, "name")
    sources = move.get("sources")
    for each in sources if isinstance(sources, list) else []:
        how = watching.get(each) if isinstance(each, str) else None
        yield "from", _shown(each) + (f" ({_shown(how)})" if how else "")
    yield "to", _text(move, "destination")
    yield "when", _text(move, "when")
    since = _number(move, "failing_since")
    yield "state", _state(move, since, now)
    if _text(move, "error") != "-":
        first, more = _lines(move, "error")
        yield "error", first
        yield from (("", line) for line in more)
    failed = _number(move, "failed_files")
    if failed:
        yield "failed", _failed(move, failed).replace(" failed", "", 1)
    backlog = _object(move, "backlog")
    oldest = _since(backlog, "oldest", now)
    yield "waiting", _files(backlog, "files", "size") + ("" if oldest == "-" else f"; the oldest for {oldest}")
    yield from _of_run_now(_object(move, "running"), now)
    last = _object(move, "last_run")
    if last:
        yield "last run", f"{_at(last, 'ended', now)}, {_text(last, 'code')}: {_done(last)}"
        if _text(last, "error") not in {"-", _text(move, "error")}:
            first, more = _lines(last, "error")
            yield from (("", line) for line in (first, *more))
    yield "last success", _at(move, "last_success", now)
    yield "next run", _next(move, now)
    yield "limits", f"send {_rate(move, 'up_bps')}, receive {_rate(move, 'down_bps')}"
    for name, what in (("up_change", "send"), ("down_change", "receive")):
        change = _object(move, name)
        if change:
            yield "", f"{what} {_rate(change, 'bps')} from {_at(change, 'at', now)}"
    totals = _object(move, "totals")
    if totals:
        failures = _object(totals, "failures")
        kinds = ", ".join(f"{_shown(kind)} {_shown(count)}" for kind, count in failures.items())
        runs = _count(_number(totals, "runs") or 0, "run")
        moved = f"moved {_files(totals, 'moved_files', 'moved_bytes')}"
        yield "since start", f"{runs}, {moved}" + (f"; errors: {kinds}" if kinds else "")


def _state(move: Mapping[str, Any], failing_since: float | None, now: float) -> str:
    """The state, and for how long the move has been failing: ``failing for 1d``, ``running, failing for 1d``."""
    state = _text(move, "phase")
    if failing_since is None:
        return state
    since = f"failing for {age(now - failing_since)}"
    return since if state == "failing" else f"{state}, {since}"


def _next(move: Mapping[str, Any], now: float) -> str:
    """When the move runs again by itself."""
    if _text(move, "phase") == "paused":
        return "when it is resumed"
    if _number(move, "next_run") is None and _text(move, "when") == "settled":
        return "when files settle"
    return _at(move, "next_run", now)


def _of_run_now(running: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    if not running:
        return
    rate = _number(running, "rate_bps")
    speed = f", {format_rate(round(rate))}" if rate is not None and rate >= 1 else ""
    yield "this run", f"for {_since(running, 'began', now)}: {_done(running)}{speed}"
    in_flight = running.get("in_flight")
    for each in in_flight if isinstance(in_flight, list) else []:
        if isinstance(each, Mapping):
            yield "", f"{_size(each, 'done')} of {_size(each, 'size')} of {_text(each, 'path')}"


def _done(run: Mapping[str, Any]) -> str:
    failed = _number(run, "failed_files")
    moved = f"moved {_files(run, 'moved_files', 'moved_bytes')}"
    return moved if not failed else f"{moved}, {_count(failed, 'file')} failed"


def _files(values: Mapping[str, Any], files: str, size: str) -> str:
    count = _number(values, files)
    if count is None:
        return "-"
    more = "+" if values.get("at_least") is True else ""
    # Of files that have not settled the size is not known yet.
    return (
        f"{round(count)}{more} ({_size(values, size)})" if count and _number(values, size) else f"{round(count)}{more}"
    )


def _count(number: float, what: str) -> str:
    return f"{round(number)} {what}{'' if number == 1 else 's'}"


def _size(values: Mapping[str, Any], key: str) -> str:
    number = _number(values, key)
    return "-" if number is None else format_size(max(0, round(number)))


def _rate(values: Mapping[str, Any], key: str) -> str:
    number = _number(values, key)
    return format_rate(None if number is None else max(1, round(number)))


def _since(values: Mapping[str, Any], key: str, now: float) -> str:
    then = _number(values, key)
    return "-" if then is None else age(now - then)


def _until(values: Mapping[str, Any], key: str, now: float) -> str:
    then = _number(values, key)
    return "-" if then is None else age(then - now)


def _at(values: Mapping[str, Any], key: str, now: float) -> str:
    """A time of the daemon by the clock and the zone of this machine, and how far it is from now."""
    then = _number(values, key)
    if then is None:
        return "-"
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(max(then, 0), _LAST_SECONDS)))
    return f"{shown} ({f'in {age(then - now)}' if then > now else f'{age(now - then)} ago'})"


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return value if is_number(value) else None


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return "-" if value is None or value == "" else _shown(value)


def _lines(values: Mapping[str, Any], key: str) -> tuple[str, list[str]]:
    """The first line of a text, and those below it, which say what to paste where; each escaped by itself."""
    value = values.get(key)
    first, *more = (value if isinstance(value, str) and value else "-")[:MAX_TEXT_COLUMNS].split("\n")
    return _shown(first), [_shown(line) for line in more]


def _shown(value: Any) -> str:
    """A value for people: names of files were escaped by the daemon, and are not once more."""
    text = str(value)[:MAX_TEXT_COLUMNS]
    return text if text.isprintable() else display_text(text)
