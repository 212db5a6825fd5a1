"""The log of a move or copy: its start, its end, and what became of each file.

It observes the mover's events, as the display does, and in the command exists only if an option asks for a log.
The ``transfer`` id of a file is the same here and in the logs of the daemons (`realize.tracing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from realize import __version__
from realize.errors import DeadlineReached, Interrupted, RealizeError
from realize.logger import LoggerOf
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
from realize.runs.move_options import MoveOptions
from realize.runs.tally import Tally
from realize.tracing import transfer_id
from realize.units import display_name, display_text

HOW_NAMES: Final = {how: how.name.lower() for how in How}
"""The outcomes as they are logged."""

SKIPPED, GONE = How.SKIPPED, How.GONE


def log_failure(error: RealizeError, logger_of: LoggerOf) -> None:
    """Log an error that kept a run from starting."""
    logger_of("cli").error("run_failed", error=str(error), code=_code(error))


class RunLog:
    """Logs one run."""

    def __init__(self, run: str, logger_of: LoggerOf) -> None:
        self._run = run
        self._log = logger_of("cli").bind(run=run)
        self._files = logger_of("mover").bind(run=run)

    def started(self, texts: Sequence[str], options: MoveOptions, *, remove: bool) -> None:
        """Log the start of a move (``remove``) or copy to the last of ``texts``."""
        self._log.info(
            "run_started",
            version=__version__,
            command="move" if remove else "copy",
            sources=[display_text(text) for text in texts[:-1]],
            destination=display_text(texts[-1]),
            on_conflict=options.policy.name.lower(),
            jobs=options.jobs,
            dry_run=options.dry_run,
            links=options.links,
            prune_dirs=options.prune_age_s,
            up=options.up_bps,
            down=options.down_bps,
            max_duration=options.max_duration_s,
            grace=options.grace_s,
            max_transfer=options.max_transfer_bytes,
            retry=options.retry,
        )

    def deadline_reached(self, tally: Tally, seconds: float) -> None:
        """Log that the time limit ended the run after ``seconds``; called once, from any thread."""
        self._log.info(
            "deadline_reached",
            files=tally.arrived,
            bytes=tally.arrived_bytes,
            interrupted=[
                {"path": display_name(path), "size": size, "reached": reached}
                for path, (size, reached) in tally.interrupted.copy().items()
            ],
            not_started=tally.not_started,
            failed=tally.failed,
            unknown=tally.unknown_arrivals,
            unknown_removals=tally.unknown_removals,
            seconds=round(seconds, 3),
        )

    def ended(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Log that the run has ended after ``seconds``; ``error`` is what ended it early, or None."""
        if isinstance(error, Interrupted):
            self._log.info("interrupted")
        elif error is not None and not isinstance(error, DeadlineReached):
            self._log.error("run_failed", error=str(error), code=_code(error))
        self.counted(tally, seconds, error)

    def counted(self, tally: Tally, seconds: float, error: RealizeError | None) -> None:
        """Log what a run of ``seconds`` came to; to be called by itself where its error is told otherwise."""
        self._log.info(
            "run_ended",
            exit_code=tally.exit_code(error),
            seconds=round(seconds, 3),
            found=tally.found_files,
            created=tally.count(How.CREATED),
            replaced=tally.count(How.REPLACED),
            renamed=tally.count(How.RENAMED),
            already_there=tally.count(How.ALREADY_THERE),
            skipped=tally.finished[How.SKIPPED],
            gone=tally.finished[How.GONE],
            links=tally.links,
            left=tally.left,
            held_back=tally.held_back,
            failed=tally.failed,
            unknown=tally.unknown_arrivals,
            unknown_removals=tally.unknown_removals,
            removed=tally.removed,
            pruned=tally.pruned,
            arrived_bytes=tally.arrived_bytes,
            sent_bytes=tally.sent_bytes,
        )

    def __call__(self, event: Event) -> None:
        """Log one event of the mover, if it is one of those that are logged."""
        if type(event) is Finished:  # the most frequent one, so tested first
            self._finished(event)
            return
        log = self._files
        match event:
            case Failed(path, end, error):
                log.warning(
                    "file_failed",
                    path=display_name(path),
                    end=end.value,
                    code=_code(error),
                    error=str(error),
                    transfer=self._transfer(path),
                )
            case Postponed(path, end, error):
                log.warning(
                    "file_postponed",
                    path=display_name(path),
                    end=end.value,
                    code=_code(error),
                    error=str(error),
                    transfer=self._transfer(path),
                )
            case Left(path, note):
                log.info("file_left", path=display_name(path), note=note)
            case HeldBack(path, mtime_ns):
                log.info("file_held_back", path=display_name(path), mtime_ns=mtime_ns)
            case Pruned(path, removed=True):
                log.info("directory_removed", path=display_name(path))
            case Started(path, size, have):
                log.debug(
                    "transfer_started",
                    path=display_name(path),
                    size=size,
                    have=have,
                    transfer=self._transfer(path),
                )
            case Stopped(path, size, reached):
                log.info(
                    "transfer_stopped",
                    path=display_name(path),
                    size=size,
                    done=reached,
                    transfer=self._transfer(path),
                )
            case Unknown(path, size, _, how):
                log.warning(
                    "file_unknown",
                    path=display_name(path),
                    size=size,
                    how=None if how is None else HOW_NAMES[how],
                    transfer=self._transfer(path),
                )
            case SourceStarted(source, destination):
                log.info("source_started", source=display_text(source), destination=display_text(destination))
            case PartialGone(path, size, expired=True):
                log.info("partial_expired", path=display_name(path), size=size)
            case PartialGone(path, size):
                log.info("partial_freed", path=display_name(path), size=size)
            case OlderDestination():
                log.warning("cannot_keep_both")
            case NotPreserved(path, kind, why):
                log.warning("not_kept", path=display_name(path), kind=kind.value, error=why)
            case NotCompressed(peer):
                log.warning("not_compressed", peer=peer)
            case NoHardLinks(end):
                log.warning("no_hard_links", end=end.value)
            case NoRoom(files, size, missing):
                log.warning("no_room", files=files, bytes=size, missing=missing)
            case Retrying(error, delay):
                self._log.warning("retrying", delay=round(delay, 3), error=str(error), code=_code(error))
            case Found() | Listed() | Progressed() | UnderWay() | Planned() | Pruned():
                pass

    def _finished(self, event: Finished) -> None:
        log, path, transfer = self._files, display_name(event.path), self._transfer(event.path)
        size, how = event.size, HOW_NAMES[event.how]
        if event.how is SKIPPED or event.how is GONE:
            log.info("file_not_taken", path=path, size=size, how=how, transfer=transfer)
            return
        if event.target is not None:
            target = display_name(event.target)
            if event.removed:
                log.info("link_moved", path=path, target=target, how=how, transfer=transfer)
            else:
                log.info("link_copied", path=path, target=target, how=how, transfer=transfer)
            return
        digest, sent = event.digest.hex() or None, event.sent
        there = display_name(event.stored_as) if event.stored_as else None
        backup = display_name(event.backup) if event.backup else None
        if event.removed:
            log.info(
                "file_moved",
                path=path,
                size=size,
                how=how,
                digest=digest,
                sent=sent,
                stored_as=there,
                backup=backup,
                transfer=transfer,
            )
        else:
            log.info(
                "file_copied",
                path=path,
                size=size,
                how=how,
                digest=digest,
                sent=sent,
                stored_as=there,
                backup=backup,
                transfer=transfer,
            )

    def _transfer(self, path: bytes) -> str:
        return transfer_id(self._run, path)


def _code(error: RealizeError) -> str:
    return error.wire_code.decode()
