"""What a check can find out, and what it advises; pure."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from realize.by_value import ByValue
from realize.config import Right
from realize.errors import Busy, ConfigError, RealizeError, VersionMismatch, WrongPeer
from realize.json_fields import printable
from realize.keys import MAX_KEYS, PublicKey, parse_public_key
from realize.pasting import admission, keys_line, table
from realize.units import display_text, format_rate, format_size
from realize.values import Space
from realize.wire.reaching import Obstacle, obstacle

MAX_CLOCK_SKEW_S: Final = 5.0
"""Seconds that two clocks may differ before it is worth a warning: ages of files are judged by them."""

CLOCK_TICK_S: Final = 0.01
"""Seconds that the clock that stamps files may be behind, as it shows the kernel's last tick: 100 Hz, or more."""

LOW_SPACE_FRACTION: Final = 0.01
"""Less than this part of a file system being free is worth a warning."""

SLOW_COMMIT_S: Final = 2.0
"""Seconds beyond which it is worth a warning that a small file becomes durable."""

_WAYS: Final = {
    Obstacle.REFUSED: "nothing listens there: is `twistd realized` running, and does its `listen` name this port?",
    Obstacle.ON_THE_WAY: "allow the port in the firewall of that machine, and on the way there; is the address right?",
    Obstacle.HERE: "look at this machine's own firewall and routes",
    Obstacle.NO_WAY: "there is no route to it: is the address right, are that machine and the VPN up?",
    Obstacle.SILENCE: "no answer at all: is the address right, is the machine up, does a firewall drop it?",
}


class Result(enum.Enum):
    """How a step ended, and the word for it."""

    OK = "ok"
    WARNING = "WARN"
    FAILED = "FAIL"
    SKIPPED = "skip"


@frozen(eq=False, repr=False)
class Finding(ByValue):
    """What one step found; ``mend`` are the lines that say what to do about it."""

    step: str
    result: Result
    found: str
    mend: Sequence[str] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.result.value:<4}  {self.step:<13}  {self.found}"
        for line in self.mend:
            yield f"{'':21}{line}"

    def as_json(self) -> str:
        """For programs."""
        record = {
            "event": "step",
            "step": self.step,
            "result": self.result.name.lower(),
            "found": printable(self.found),
            "mend": [printable(line) for line in self.mend],
        }
        return json.dumps(record)


def split_advice(error: RealizeError) -> tuple[str, list[str]]:
    """The sentence of an error, and the advice that comes with it on further lines or behind a semicolon."""
    first, *rest = str(error).splitlines() or [""]
    if rest:
        return first, rest
    found, _, advice = first.partition("; ")
    return found, [advice] if advice else []


def unreachable(error: RealizeError) -> Finding:
    """Nobody accepted the TCP connection."""
    advice = _WAYS.get(obstacle(error.__cause__), "is the address right?")
    return Finding("port", Result.FAILED, str(error), [advice])


def not_recognised(error: RealizeError, name: str | None, config: str) -> Finding:
    """Somebody is there, but has not shown the pinned key."""
    found, advice = split_advice(error)
    if isinstance(error, WrongPeer):
        where = f"in {table(name)} of {display_text(config)}" if name is not None else "with --peer-key"
        return Finding(
            "their key",
            Result.FAILED,
            found,
            [
                *advice,
                f"({where})",
                "If nobody changed the key on purpose, another machine answers at that address: find out which.",
            ],
        )
    advice = ["the program on that port does not speak TLS as realized does: is the port right?"]
    return Finding("their key", Result.FAILED, str(error), advice)


def their_keys(report: Mapping[str, object]) -> list[PublicKey]:
    """The keys that a daemon says it has, newest first; none if it does not say."""
    told = report.get("keys")
    try:
        rows = told if isinstance(told, list) else []
        return [parse_public_key(row["key"]) for row in rows[:MAX_KEYS]]
    except (ConfigError, KeyError, TypeError, AttributeError):
        return []


def key_change(
    where: str | None,
    theirs: Sequence[PublicKey],
    pins: Sequence[PublicKey],
    origin: PublicKey,
    ours: Sequence[PublicKey],
    shown: PublicKey,
) -> Finding:
    """Whether one end changes its key, and what is left to do; both ends have let each other in already.

    ``where`` is the table of the daemon in our configuration, with the name of the file; None for an option.
    ``theirs`` are the keys that the daemon says it has, newest first; none if it does not say.
    ``pins`` are its keys that are accepted here, and ``origin`` stands for it where it is kept what came from it.
    ``ours`` are our own keys, newest first, and ``shown`` is the one of them that the daemon knows.
    """
    found: list[str] = []
    mend: list[str] = []
    newest = theirs[0] if theirs else None
    missing = newest is not None and newest not in pins
    if newest is not None and missing:
        found.append(f"the daemon has a new key, {newest.fingerprint}, which is not known here")
        lines = [keys_line(*pins[: MAX_KEYS - 1], newest)]
        mend += ["once it is certain that somebody changed it on purpose:", *_in_place(where, newest, lines)]
    elif newest is not None and newest != pins[0]:
        found.append(f"the daemon has the key {newest.fingerprint} by now, and an older one is known here too")
        kept = pins[pins.index(newest) :]
        lines = [f'key = "{newest.base64}"' if len(kept) == 1 else keys_line(*kept)]
        lines += [] if origin == newest else [f'origin = "{origin.base64}"']
        mend += ["the older keys are no longer needed:", *_in_place(where, newest, lines)]
    if shown != ours[0]:
        found.append(f"the daemon knows only a former key of this machine, {shown.fingerprint}")
        mend += [
            "in the configuration of the daemon, put this in place of the key of this machine,",
            "and run realize reload there:",
            keys_line(shown, ours[0]),
        ]
    elif len(ours) > 1:
        found.append(f"the daemon knows the new key of this machine, {shown.fingerprint}")
        mend += ["once all daemons do: remove former_keys here, and the former key at the daemons"]
    if not found:
        return Finding("key change", Result.OK, "neither end changes its key")
    wrong = missing or shown != ours[0]
    return Finding("key change", Result.WARNING if wrong else Result.OK, "; ".join(found), mend)


def _in_place(where: str | None, newest: PublicKey, lines: Sequence[str]) -> list[str]:
    """Where the lines belong, or the option with the newest key."""
    return [f"--peer-key {newest.base64}"] if where is None else [f"in {where}, in place of its key or keys:", *lines]


def not_welcome(error: RealizeError, own: PublicKey) -> list[Finding]:
    """The peer is the right one, and did not let us in."""
    if isinstance(error, VersionMismatch):
        return [
            Finding("known there", Result.OK, "this machine's key is known"),
            Finding("versions", Result.FAILED, str(error), ["install the same version of Realize at both ends"]),
        ]
    if isinstance(error, Busy):
        advice = ["end other runs of this machine, or try again later"]
        return [Finding("known there", Result.FAILED, str(error), advice)]
    found, _ = split_advice(error)
    return [Finding("known there", Result.FAILED, found, admission(own))]


def rights(has: Sequence[str], own_name: str) -> Finding:
    """What we may do, known as ``own_name`` there, and what the configuration there would have to say for the rest."""
    may = [
        text
        for needed, text in (
            ({"write"}, "move and copy to it"),
            ({"create"}, "move and copy to it under new names"),
            ({"read"}, "copy from it"),
            ({"read", "remove"}, "move from it"),
            ({"prune"}, "remove empty directories"),
        )
        if needed <= set(has) and not (needed == {"create"} and "write" in has)
    ]
    found = f"{display_text(', '.join(has))}: we may {', '.join(may) or 'do nothing with that'}"
    included = {"create"} if "write" in has else set()
    missing = [right.value for right in Right if right.value not in {*has, *included}]
    more = f"(for {', '.join(missing)}: add it there to dirs of {table(own_name)}, and run realize reload there)"
    return Finding("rights", Result.OK, found, [more] if missing else [])


def skew(now_ns: int, before_ns: int, after_ns: int) -> Finding:
    """How the clock of the peer, read at some time between the two of ours, differs from ours.

    Whatever happened in between, the difference is within what is said.
    """
    least, most = (now_ns - after_ns) / 1e9, (now_ns - before_ns) / 1e9 + CLOCK_TICK_S
    middle, doubt = (most + least) / 2, (most - least) / 2
    # To whole milliseconds: what that leaves out counts as doubt, too.
    shown, doubted = f"{abs(middle):.3f}", f"{math.ceil(doubt * 1000 + 0.5) / 1000:.3f}"
    if abs(middle) <= doubt:
        found = f"as here, give or take {math.ceil((abs(middle) + doubt) * 1000) / 1000:.3f} s"
    else:
        found = f"{shown} s {'ahead of' if middle > 0 else 'behind'} this machine, give or take {doubted} s"
    if abs(middle) - doubt <= MAX_CLOCK_SKEW_S:
        return Finding("clock", Result.OK, found)
    advice = (
        "--min-age and the protection of files that arrive during a run use these clocks: let both follow a time server"
    )
    return Finding("clock", Result.WARNING, found, [advice])


def room(space: Space) -> Finding:
    """Whether there is any."""
    found = f"{format_size(space.free)} of {format_size(space.size)} free"
    if space.free_files is not None:
        found += f", room for {space.free_files:,} files"
    if not space.free or space.free_files == 0:
        return Finding("space", Result.FAILED, found, ["make room on that file system"])
    if space.free < LOW_SPACE_FRACTION * space.size:
        return Finding("space", Result.WARNING, found, ["it is nearly full"])
    return Finding("space", Result.OK, found)


def limits(sends: float | None, takes: float | None) -> Finding:
    """How fast the daemon sends to us, and lets us send to it, in bytes per second; None is without a limit."""
    return Finding("limits", Result.OK, f"the daemon sends {_at_most(sends)}, and lets us send {_at_most(takes)}")


def _at_most(rate: float | None) -> str:
    return "without a limit" if rate is None else f"at most {format_rate(rate)}"


def durable(nanoseconds: int) -> Finding:
    """How long it takes to make a small file durable."""
    found = f"a file was written, made durable and removed; durable after {nanoseconds / 1e6:.1f} ms"
    if nanoseconds <= SLOW_COMMIT_S * 1e9:
        return Finding("durable write", Result.OK, found)
    return Finding("durable write", Result.WARNING, found, ["that disk is slow, or busy"])
