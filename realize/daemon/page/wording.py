"""Numbers, times and states in the words of the page; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Final

from realize.daemon.page.contents import Headline
from realize.moves.status import KnownBacklog, MoveStatus, Phase
from realize.units import display_text, format_duration, format_rate, format_size

_SHOWN_CHARS: Final = 160
_DAY_S: Final = 86_400
_WEEK_S: Final = 6 * _DAY_S
_CALMEST_LEVEL: Final = 4

NO_BREAK: Final = "\N{NO-BREAK SPACE}"
"""What keeps a number and its unit together."""

STATE_WORDS: Final = {
    Phase.IDLE: "waiting",
    Phase.RUNNING: "moving",
    Phase.STUCK: "stuck files",
    Phase.FAILING: "failing",
    Phase.PAUSED: "paused",
}
"""What the page calls the states of a move."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 file``, ``1,204 files``."""
    return f"{count:,}{NO_BREAK}{noun if count == 1 else plural or noun + 's'}"


def coarse(seconds: float) -> str:
    """A duration as exactly as anybody wants to know: ``40s``, ``3m12s``, ``27m``, ``5h12m``, ``2d4h``."""
    seconds = max(0, round(seconds))
    for unit, from_ in ((3_600, _DAY_S), (60, 600)):
        if seconds >= from_:
            return format_duration(seconds // unit * unit)
    return format_duration(seconds)


def size_words(size: int) -> str:
    """Bytes with a unit that stays on the same line."""
    return format_size(size).replace(" ", NO_BREAK)


def rate_words(bps: float | None) -> str:
    """The same for bytes per second, or that there is no limit."""
    return "no limit" if bps is None else format_rate(bps).replace(" ", NO_BREAK)


def clock_time(at: float, now: float, zone: tzinfo | None) -> str:
    """A time of day, with the day if it is another one: ``18:22``, ``Fri 18:22``, ``2026-11-03 18:22``."""
    then, today = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(now, zone)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then:%a %H:%M}" if abs(at - now) < _WEEK_S else f"{then:%Y-%m-%d %H:%M}"


def shown(text: str) -> str:
    """A text that is not ours, on one line, without anything invisible, and cut in its middle if it is long.

    One that was escaped before stays as it is.
    """
    text = text if text.isprintable() else display_text(text)
    if len(text) <= _SHOWN_CHARS:
        return text
    half = _SHOWN_CHARS // 2
    return f"{text[:half]}…{text[-half:]}"


def backlog_words(backlog: KnownBacklog) -> str:
    """What waits: ``1,204 files, 3.2 GiB``."""
    if not backlog.files:
        return "nothing"
    least = "at least " if backlog.at_least else ""
    return f"{least}{counted(backlog.files, 'file')}, {size_words(backlog.size)}"


def urgency(move: MoveStatus) -> int:
    """Less for what should be seen first: what fails, what is stuck, what is paused, what moves, and the others."""
    if move.phase is Phase.FAILING:
        return 0
    if move.stuck_files:
        return 1
    return {Phase.PAUSED: 2, Phase.RUNNING: 3}.get(move.phase, _CALMEST_LEVEL)


def is_quiet(move: MoveStatus) -> bool:
    """Whether there is nothing to say of a move but that it waits."""
    return urgency(move) == _CALMEST_LEVEL


def tone_of(move: MoveStatus) -> str:
    """How a state is coloured: bad, warn, busy or calm."""
    return ("bad", "bad", "warn", "busy", "calm")[urgency(move)]


def state_of(move: MoveStatus) -> str:
    """The state in a word or two."""
    return STATE_WORDS[move.phase]


def headline(moves: Sequence[MoveStatus], *, is_ending: bool, is_busy: bool, absent: Sequence[str] = ()) -> Headline:
    """What is wrong first; then what goes on, in moves or for peers (``is_busy``); then that all is well.

    ``absent`` are names of directories that are not there.
    """
    failing = [move for move in moves if move.phase is Phase.FAILING]
    stuck = sum(move.stuck_files for move in moves)
    paused = [move for move in moves if move.phase is Phase.PAUSED]
    if is_ending:
        return Headline("The daemon is stopping", "warn")
    wrong = [_absent_words(absent)] if absent else []
    if failing:
        wrong.append(_of_all(failing, moves, "fails", "fail"))
    if stuck:
        wrong.append(f"{counted(stuck, 'file')} cannot be moved")
    if wrong:
        return Headline(", ".join(wrong), "bad")
    if paused:
        return Headline(_of_all(paused, moves, "is paused", "are paused"), "warn")
    if is_busy or any(move.phase is Phase.RUNNING for move in moves):
        return Headline("All is well, files are on their way", "good")
    return Headline("All is well", "good")


def _absent_words(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{shown(names[0])} is not there"
    return f"{len(names):,} directories are not there"


def all_that_waits(moves: Sequence[MoveStatus]) -> KnownBacklog:
    """The backlogs of all moves as one."""
    return KnownBacklog.together(move.backlog for move in moves)


def _of_all(these: Sequence[MoveStatus], moves: Sequence[MoveStatus], one: str, several: str) -> str:
    """How many of the moves do what the verb says; the name of the one, if it is just one."""
    if len(these) == 1:
        return f"{shown(these[0].name)} {one}"
    return f"{len(these):,} of {len(moves):,} moves {several}"
