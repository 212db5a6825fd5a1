"""The sentence that tells people about one event: it names the file, the side and the cause; pure."""

from __future__ import annotations

import time

from realize.errors import NoSpace, next_step
from realize.mover.events import (
    End,
    Event,
    Failed,
    Finished,
    HeldBack,
    How,
    Left,
    NoHardLinks,
    NoRoom,
    NotCompressed,
    NotPreserved,
    OlderDestination,
    PartialGone,
    Planned,
    Postponed,
    Pruned,
    Retrying,
    SourceStarted,
    Stopped,
    Unknown,
)
from realize.mover.plan import Action
from realize.units import display_name, format_size


class Wording:
    """Turns events into sentences; remembers the locations of the current source and of the destination."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._names = {End.SOURCE: "", End.DESTINATION: ""}
        self._verbose = verbose
        self._said_full: set[type[Event]] = set()

    def note(self, event: Event) -> str | None:
        """The sentence for an event that is always shown: a file failed, was postponed, left, skipped or interrupted.

        None for other events, and, unless verbose, for all but the first file for which the destination is full:
        `NoRoom` gives their number at the end.
        """
        if isinstance(event, Finished):
            return self._of_finished(event)
        if isinstance(event, (Failed, Postponed)) and event.end is End.DESTINATION and isinstance(event.error, NoSpace):
            if type(event) in self._said_full and not self._verbose:
                return None
            self._said_full.add(type(event))
        match event:
            case SourceStarted(source, destination):
                self._names = {End.SOURCE: source, End.DESTINATION: destination}
            case Failed(path, end, error):
                where, what = self._at(end), about(path, str(error)) + next_step(error, self._names[end])
                return f"error: {what}" if what.startswith(f"{where}:") else f"error: {where}: {what}"
            case Postponed(path, end, error):
                return f"postponed: {self._at(end)}: {about(path, str(error))}; it will be tried again"
            case Left(path, note):
                return f"left: {self._at(End.SOURCE)}: {about(path, note)}"
            case NoRoom(files, size, missing):
                what = "1 file" if files == 1 else f"{files:,} files"
                lack = "; is there a quota?" if missing == 0 else ""
                if missing:
                    lack = f": {format_size(missing)} are missing"
                return f"no room: {self._at(End.DESTINATION)}: {what}, {format_size(size)}, did not fit{lack}"
            case OlderDestination():
                return (
                    "warning: the destination has an older version that cannot keep two files of one name: such files"
                    " stay at the source; upgrade it, or use --on-conflict replace, skip or fail"
                )
            case NotPreserved(_, kind, why):
                return f"warning: {kind.value} is not kept: {why} (perhaps of other files, too; said once)"
            case NotCompressed(peer):
                return (
                    f"warning: {peer}: content is not compressed: the daemon there has an older version, or its "
                    'configuration says compress = "never"'
                )
            case NoHardLinks(end):
                return (
                    f"warning: {self._at(end)}: has an older version without hard links: "
                    "each name of a file becomes a file of its own; upgrade it"
                )
            case Retrying(error, delay, advice):
                return f"retrying in {delay:.1f} s: {error}" + (f" ({advice})" if advice else "")
            case Stopped(path, size, None):
                kept = f"it is unknown how much of {format_size(size)} is kept for the next time"
                return f"interrupted: {self._at(End.DESTINATION)}: {display_name(path)}: {kept}"
            case Stopped(path, size, reached) if reached:
                kept = f"{format_size(reached)} of {format_size(size)} are kept for the next time"
                return f"interrupted: {self._at(End.DESTINATION)}: {display_name(path)}: {kept}"
            case _:
                pass
        return None

    def arrival(self, event: Event) -> str | None:
        """The sentence for an event that only verbose displays show, such as an arrival or a removal; else None."""
        if isinstance(event, HeldBack):
            when = local_time(event.mtime_ns)
            return (
                f"held back: {self._at(End.SOURCE)}: {display_name(event.path)}: its time, {when}, lies in the future"
            )
        if isinstance(event, Pruned):
            return f"removed: {display_name(event.path)} (empty directory)" if event.removed else None
        if isinstance(event, PartialGone):
            what = "an expired partial" if event.expired else "a partial, to make space"
            return f"removed: {display_name(event.path)} ({format_size(event.size)}, {what})"
        if isinstance(event, Unknown):
            what = "is there" if event.how is None else "was removed"
            return f"unknown: {display_name(event.path)} ({format_size(event.size)}): no answer came whether it {what}"
        if not isinstance(event, Finished) or event.how in {How.SKIPPED, How.GONE}:
            return None
        verb = "moved" if event.removed else "copied"
        extra = "" if event.how is How.CREATED else f", {event.how.value}"
        if event.stored_as:
            extra += f", as {display_name(event.stored_as)}"
        if event.linked_to:
            extra += f", a hard link to {display_name(event.linked_to)}"
        if event.backup:
            extra += f", the former one is kept as {display_name(event.backup)}"
        return f"{verb}: {display_name(event.path)} ({_measure(event)}{extra})"

    def _of_finished(self, event: Finished) -> str | None:
        if event.how is How.SKIPPED:
            other = "another file" if event.target is None else "another symlink"
            return f"skipped: {self._at(End.DESTINATION)}: {display_name(event.path)}: {other} has this name"
        if event.how is How.RENAMED:
            where, name = self._at(End.DESTINATION), display_name(event.path)
            return f"kept both: {where}: {name}: its name was taken there; it is {display_name(event.stored_as)}"
        if event.how is How.GONE:
            return f"gone: {self._at(End.SOURCE)}: {display_name(event.path)}: somebody else removed or moved it"
        return None

    def _at(self, end: End) -> str:
        return f"{end.value} {self._names[end]}".rstrip()


def local_time(time_ns: int) -> str:
    """A file time (nanoseconds since the epoch) as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // 10**9))


def plan_line(event: Planned | Pruned) -> str:
    """One line of a dry run."""
    if isinstance(event, Pruned):
        return f"{'prune':<8} {'-':>10}  {display_name(event.path)}"
    if event.target is not None:
        return f"{event.action.value:<8} {'symlink':>10}  {display_name(event.path)} -> {display_name(event.target)}"
    line = f"{event.action.value:<8} {format_size(event.size):>10}  {display_name(event.path)}"
    if event.linked_to:
        return f"{line} (a hard link to {display_name(event.linked_to)})"
    if not event.stored_as:
        return line
    why = "would keep both" if event.action is Action.RENAME else "would keep both if they differ"
    return f"{line} ({why}, as {display_name(event.stored_as)})"


def _measure(event: Finished) -> str:
    """How large a file is, or where a symlink leads."""
    return format_size(event.size) if event.target is None else f"symlink to {display_name(event.target)}"


def about(path: bytes, cause: str) -> str:
    """The cause, preceded by the name of the file unless it starts with it."""
    name = display_name(path)
    return cause if not path or cause.startswith(f"{name}:") else f"{name}: {cause}"
