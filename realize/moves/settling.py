"""Runs as files settle in local sources; and once an hour one that removes empty directories, if these are to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from realize.errors import RealizeError
from realize.moves.episodes import is_busy_kind, kind_of_error
from realize.moves.feed import SettledFeed
from realize.moves.one_run import Occasion, RunEnd
from realize.moves.state import FileFailure, Unfinished
from realize.moves.status import KnownBacklog
from realize.watch.settling import FailedFile
from realize.watch.source_watch import SourceWatch, WatchMode

PRUNE_INTERVAL_S: Final = 3_600.0
"""Seconds between two looks for empty directories."""

WatchOf = Callable[[str], SourceWatch]


class Settling:
    """Sets off a run when a file has settled in one of the sources.

    ``watch_of`` makes the watch of a path.
    ``prunes`` says whether empty directories of the sources are removed, which takes a run over all of them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        paths: Sequence[str],
        watch_of: WatchOf,
        *,
        prunes: bool,
        max_duration_s: float | None,
        failures: Iterable[FileFailure] = (),
    ) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.source_hung: Callable[[], object] = lambda: None
        self._clock = clock
        self._max_duration_s = max_duration_s
        self._watches = {path: watch_of(path) for path in paths}
        self._feeds: dict[str, SettledFeed] = {}
        self._prune_at = clock.seconds() + PRUNE_INTERVAL_S if prunes else None
        self._errors: dict[tuple[str, bytes], tuple[str, str]] = {}
        """The kind of error, and the error, of each file that failed, by source and path."""
        self._newly_failed: set[bytes] = set()
        """Files that failed in the run that goes on, and had not before."""
        for failed in failures:
            if (watch := self._watches.get(failed.source)) is not None:
                watch.restore([FailedFile(failed.path, failed.since, failed.attempts)])
                self._errors[failed.source, failed.path] = (failed.code, failed.error)

    @property
    def watching(self) -> Mapping[str, str]:
        """See `realize.moves.trigger.Trigger`."""
        return {path: watch.mode.value for path, watch in self._watches.items()}

    @property
    def backlog(self) -> KnownBacklog:
        """All that is there and has not been moved, settled or not, in flight or failed."""
        return KnownBacklog.together(
            KnownBacklog(files=each.files, size=each.bytes, oldest=each.oldest, at_least=each.at_least)
            for each in (watch.backlog for watch in self._watches.values())
        )

    @property
    def failures(self) -> Sequence[FileFailure]:
        """See `realize.moves.trigger.Trigger`."""
        found: list[FileFailure] = []
        for source, watch in self._watches.items():
            for failed in watch.failures:
                code, error = self._errors.get((source, failed.path), ("", ""))
                found.append(
                    FileFailure(
                        source=source,
                        path=failed.path,
                        since=failed.since,
                        attempts=failed.attempts,
                        code=code,
                        error=error,
                    )
                )
        self._errors = {(each.source, each.path): (each.code, each.error) for each in found}
        return found

    @property
    def failed_files(self) -> int:
        """See `realize.moves.trigger.Trigger`."""
        return sum(1 for watch in self._watches.values() for _ in watch.failures)

    @property
    def busy_files(self) -> int:
        """See `realize.moves.trigger.Trigger`."""
        failed = ((source, each.path) for source, watch in self._watches.items() for each in watch.failures)
        return sum(is_busy_kind(self._errors[key][0]) for key in failed if key in self._errors)

    last_due: Final[float | None] = None
    unfinished: Final[Unfinished | None] = None

    def is_first_failure(self, path: bytes) -> bool:
        """See `realize.moves.trigger.Trigger`."""
        return path in self._newly_failed

    def start(self) -> None:
        """See `realize.moves.trigger.Trigger`."""
        for path, watch in self._watches.items():
            watch.on_ready = self._ready
            watch.on_hang = partial(self._hangs, path)
            watch.start()

    def stop(self) -> Deferred[None]:
        """See `realize.moves.trigger.Trigger`."""
        return gatherResults([watch.stop() for watch in self._watches.values()]).addCallback(lambda _: None)

    def wait_s(self, delay_s: float) -> float | None:
        """See `realize.moves.trigger.Trigger`."""
        waits = [delay_s] if self._with_files() else []
        if self._prune_at is not None:
            waits.append(max(delay_s, self._prune_at - self._clock.seconds()))
        return min(waits, default=None)

    def asked(self) -> None:
        """See `realize.moves.trigger.Trigger`; what was missed is found as well."""
        if self._prune_at is not None:
            self._prune_at = self._clock.seconds()
        for watch in self._watches.values():
            watch.retry_now()
            watch.walk_now()
        self.changed()

    def begin(self) -> Occasion | None:
        """See `realize.moves.trigger.Trigger`."""
        now = self._clock.seconds()
        prunes = self._prune_at is not None and self._prune_at <= now
        if prunes:
            self._prune_at = now + PRUNE_INTERVAL_S
            paths = [path for path, watch in self._watches.items() if watch.mode is not WatchMode.ABSENT]
        else:
            paths = self._with_files()
        if not paths:
            return None
        self._feeds = {path: self._feed(path) for path in paths}
        return Occasion(paths, list(self._feeds.values()), self._max_duration_s, prunes)

    def ended(self, _: RunEnd) -> None:
        """See `realize.moves.trigger.Trigger`; the feeds have told of each file."""
        self._feeds = {}
        self._newly_failed.clear()

    def _feed(self, path: str) -> SettledFeed:
        def failed(file: bytes, error: RealizeError) -> None:
            if (path, file) not in self._errors:
                self._newly_failed.add(file)
            self._errors[path, file] = (kind_of_error(error), str(error))

        return SettledFeed(
            self._watches[path],
            self._clock,
            others_wait=lambda: any(watch.ready for other, watch in self._watches.items() if other != path),
            failed=failed,
        )

    def _with_files(self) -> list[str]:
        return [path for path, watch in self._watches.items() if watch.ready]

    def _hangs(self, path: str) -> None:
        if path in self._feeds:
            self.source_hung()

    def _ready(self) -> None:
        for feed in list(self._feeds.values()):
            feed.wake()
        self.changed()
