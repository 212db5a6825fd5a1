"""The display for other programs: one JSON object per line, as ``docs/scripting.md`` describes them."""

from __future__ import annotations

import json
from typing import Any, TextIO

from realize.errors import RealizeError
from realize.json_fields import error_fields, given_path_fields, path_fields, printable
from realize.mover.events import (
    Event,
    Failed,
    Finished,
    Found,
    HeldBack,
    How,
    Left,
    Listed,
    NoHardLinks,
    NoRoom,
    NotCompressed,
    NotPreserved,
    OlderDestination,
    PartialGone,
    Planned,
    Postponed,
    Progressed,
    Pruned,
    Retrying,
    SourceStarted,
    Started,
    Stopped,
    UnderWay,
    Unknown,
)
from realize.runs.board import Board
from realize.runs.tally import Tally


class JsonLines:
    """Writes events as they happen, the counts once a second, and a summary at the end."""

    interval: float = 1.0

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._board = Board()

    def __call__(self, event: Event) -> None:
        """Write the event, unless it is one of the frequent ones that `tick` sums up."""
        self._board(event)
        record = event_fields(event)
        if record is not None:
            self._write(record)

    def tick(self) -> None:
        """Write how far the run is."""
        board = self._board
        self._write(
            {
                "event": "progress",
                "found_files": board.found_files,
                "found_bytes": board.found_bytes,
                "listed": board.listed,
                "done_files": board.done_files,
                "done_bytes": board.done,
                "sent_bytes": board.sent.total,
            }
        )

    def close(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Write the summary."""
        self._write(
            {
                "event": "summary",
                "sources": list(map(printable, tally.sources)),
                "destination": printable(tally.destination) or None,
                "found_files": tally.found_files,
                "found_bytes": tally.found_bytes,
                **{how.name.lower(): tally.count(how) for how in How},
                "planned": tally.planned.total(),
                "planned_bytes": tally.planned_bytes,
                "arrived_bytes": tally.arrived_bytes,
                "sent_bytes": tally.sent_bytes,
                "links": tally.links,
                "linked": tally.linked,
                "hole_bytes": tally.hole_bytes,
                "compression_saved_bytes": tally.compression_saved_bytes,
                "removed": tally.removed,
                "left": tally.left,
                "held_back": tally.held_back,
                "pruned": tally.pruned,
                "failed": tally.failed,
                "busy": tally.busy,
                "not_kept": list(tally.not_kept),
                "interrupted": [
                    {**path_fields(path), "size": size, "reached": reached}
                    for path, (size, reached) in tally.interrupted.items()
                ],
                "unknown": tally.unknown_arrivals,
                "unknown_removals": tally.unknown_removals,
                "not_started": tally.not_started,
                "seconds": round(seconds, 3),
                "exit_code": tally.exit_code(error),
                **({} if error is None else error_fields(error)),
            }
        )

    def _write(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), file=self._out, flush=True)


def event_fields(event: Event) -> dict[str, Any] | None:
    """The JSON object of an event, or None for an event too frequent to be written one by one."""
    match event:
        case SourceStarted(source, destination):
            return {"event": "source", "source": printable(source), "destination": printable(destination)}
        case Planned(path, size, action, stored_as, target, linked_to):
            about = {**path_fields(path), **given_path_fields(target, "target"), "size": size}
            return {
                "event": "planned",
                **about,
                "action": action.value,
                **given_path_fields(stored_as, "stored_as"),
                **given_path_fields(linked_to, "linked_to"),
            }
        case Started(path, size, have):
            return {"event": "started", **path_fields(path), "size": size, "have": have}
        case Stopped(path, size, reached):
            return {"event": "interrupted", **path_fields(path), "size": size, "reached": reached}
        case Unknown(path, size, _, how):
            there = None if how is None else how.name.lower()
            return {"event": "unknown", **path_fields(path), "size": size, "how": there}
        case Finished(path, size, sent, how, digest, removed, stored_as, target, holes, backup, linked_to):
            return {
                "event": "finished",
                **path_fields(path),
                **given_path_fields(target, "target"),
                "size": size,
                "sent": sent,
                "holes": holes,
                "how": how.name.lower(),
                "blake3": digest.hex() or None,
                "removed": removed,
                **given_path_fields(stored_as, "stored_as"),
                **given_path_fields(backup, "backup"),
                **given_path_fields(linked_to, "linked_to"),
            }
        case Failed(path, end, error):
            return {"event": "failed", **path_fields(path), "end": end.value, **error_fields(error)}
        case Postponed(path, end, error):
            return {"event": "postponed", **path_fields(path), "end": end.value, **error_fields(error)}
        case Left(path, note):
            return {"event": "left", **path_fields(path), "note": note}
        case HeldBack(path, mtime_ns):
            return {"event": "held_back", **path_fields(path), "mtime_ns": mtime_ns}
        case Pruned(path, removed):
            return {"event": "pruned", **path_fields(path), "removed": removed}
        case PartialGone(path, size, expired):
            return {"event": "partial_gone", **path_fields(path), "size": size, "expired": expired}
        case NoRoom(files, size, missing):
            return {"event": "no_room", "files": files, "bytes": size, "missing_bytes": missing}
        case OlderDestination():
            return {"event": "cannot_keep_both"}
        case NotPreserved(path, kind, why):
            return {"event": "not_kept", **(path_fields(path) if path else {}), "kind": kind.value, "why": why}
        case NotCompressed(peer):
            return {"event": "not_compressed", "peer": peer}
        case NoHardLinks(end):
            return {"event": "no_hard_links", "end": end.value}
        case Retrying(error, delay):
            return {"event": "retrying", "delay": round(delay, 3), **error_fields(error)}
        case Found() | Listed() | Progressed() | UnderWay():
            return None
