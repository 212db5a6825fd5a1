"""What is asked of a move or copy: which files, how, how fast, how long, and what is recorded."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from attrs import Factory, field, frozen

from realize.by_value import ByValue
from realize.errors import RealizeError, UsageError
from realize.fs.names import judge
from realize.mover.filters import selection
from realize.mover.run import TransferOptions
from realize.runs.options import MetricsTargets, Patience, Rates
from realize.schedule.timetable import RateByTime, plainly
from realize.units import MAX_SIZE_BYTES
from realize.values import USUALLY_PRESERVED, Compress, OnConflict, Order, Preserve, preserving

MAX_JOBS: Final = 32
"""The most large files in flight at once."""


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _rules(rules: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(rules)


def _preserved(preserve: Collection[Preserve] | bool) -> Collection[Preserve]:  # noqa: FBT001 -- as it is given
    """What is asked for; what is no such thing stays as it is, and the checks refuse it."""
    return preserving(preserve) if isinstance(preserve, bool | set | frozenset | list | tuple) else preserve


@frozen(kw_only=True, eq=False, repr=False)
class MoveOptions(ByValue):
    """What is asked of a move or copy beside its locations; the defaults are those of the command.

    Raises `realize.errors.UsageError` for values that make no sense.
    """

    on_conflict: OnConflict | None = None
    """What to do if the destination has another file of that name.

    None keeps both, the newcomer under a numbered name; where the destination is of an older version that cannot do
    that, the file is skipped.
    """
    backup_dir: str | None = field(default=None, converter=_path)
    """A directory inside the destination, relative to it, for what is replaced there; None: that is not kept."""
    preserve: Collection[Preserve] = field(default=USUALLY_PRESERVED, converter=_preserved)
    """What is carried over besides the content; True stands for what usually is, False for nothing."""
    numeric_ids: bool = False
    """Carry owners and groups over by number, whatever their names."""
    best_effort: bool = False
    """Move files even if some of that cannot be kept; else they stay."""
    jobs: int = 4
    """How many large files are in flight at once; small ones travel in batches besides."""
    rules: Sequence[tuple[str, str]] = field(default=(), converter=_rules)
    """Which files are taken: ``("include" | "exclude", gitignore pattern)``; the last one that matches decides."""
    min_age_s: float = 0.0
    """Leave alone what was modified less than this ago."""
    min_size_bytes: int = 0
    """Leave alone what is smaller."""
    max_size_bytes: int | None = None
    """Leave alone what is larger; None: nothing is too large."""
    files_from: str | None = field(default=None, converter=_path)
    """The file with the names of what is moved, relative to the only source; ``-`` is standard input; None: all."""
    from0: bool = False
    """Whether a NUL byte ends each name there, and not the end of the line."""
    one_file_system: bool = False
    """Leave directories of the source alone that are on another file system than the source itself."""
    order: Order | None = None
    """Which files of a source go first; None: in path order."""
    max_transfer_bytes: int | None = None
    """End in order once so many bytes of content were sent; None: never."""
    dry_run: bool = False
    """Find out what would be done, and touch nothing on either side."""
    prune_age_s: float | None = None
    """Remove directories of the source that are empty and at least this old; None: never.  Not for a copy."""
    links: bool = False
    """Move symlinks, as they are; a target must stay inside the destination, unless a daemon there allows more."""
    compress: Compress | None = None
    """Whether content is compressed on its way; None: as the configuration says."""
    up_bps: RateByTime = field(default=None, converter=plainly)
    """Send at most so many bytes per second, always or by a timetable; None is unlimited."""
    down_bps: RateByTime = field(default=None, converter=plainly)
    """Be sent at most so many bytes per second, always or by a timetable; None is unlimited."""
    max_duration_s: float | None = None
    """End in order after this time, connecting and coming back included; None: never."""
    grace_s: float = 0.0
    """How long files in flight may still take after that."""
    retry: bool = True
    """Whether to come back after a lost connection."""
    manifest: str | None = field(default=None, converter=_path)
    """The file that gets a line of JSON for each file that arrived, durable before its source is removed."""
    trust_source: bool = False
    """Compare with all that the destination holds, not only with what came from the same peer.

    Saves sending it, and lets the source find out what it is.
    """
    metrics: MetricsTargets = Factory(MetricsTargets)
    """Where the metrics of the run go."""

    def __attrs_post_init__(self) -> None:
        """Refuse what makes no sense; the patterns are judged too."""
        for problem in self._problems():
            raise UsageError(problem)
        self.transfer(remove=True)

    def _problems(self) -> Iterator[str]:
        if not isinstance(self.on_conflict, OnConflict | None):
            yield f"on_conflict: expected one of {', '.join(map(str, OnConflict))}"
        if self.backup_dir is not None:
            yield from _backup_problems(self.backup_dir, self.on_conflict)
        if not isinstance(self.preserve, frozenset) or not all(isinstance(each, Preserve) for each in self.preserve):
            yield f"preserve: expected a set of {', '.join(map(str, Preserve))}"
            return
        if self.numeric_ids and self.preserve.isdisjoint({Preserve.OWNER, Preserve.ACL}):
            yield "numeric_ids: is for owners and access control lists, and preserve has neither"
        if not isinstance(self.order, Order | None):
            yield f"order: expected one of {', '.join(map(str, Order))}"
        if not isinstance(self.compress, Compress | None):
            yield f"compress: expected one of {', '.join(map(str, Compress))}"
        if type(self.jobs) is not int or not 1 <= self.jobs <= MAX_JOBS:
            yield f"jobs: expected a number from 1 to {MAX_JOBS}"
        for rule in self.rules:
            if len(rule) != 2 or rule[0] not in {"include", "exclude"} or not isinstance(rule[1], str):
                yield 'rules: expected pairs such as ("exclude", "*.tmp")'
        for name in ("min_age_s", "grace_s", "prune_age_s", "max_duration_s"):
            seconds = getattr(self, name)
            if seconds is not None and not _is_duration(seconds, zero_allowed=name != "max_duration_s"):
                yield f"{name}: expected a number of seconds"
        for name in ("min_size_bytes", "max_size_bytes"):
            size = getattr(self, name)
            if size is not None and (type(size) is not int or not 0 <= size <= MAX_SIZE_BYTES):
                yield f"{name}: expected a number of bytes"
                return
        limit = self.max_transfer_bytes
        if limit is not None and (type(limit) is not int or not 0 < limit <= MAX_SIZE_BYTES):
            yield "max_transfer_bytes: expected a number of bytes above zero"
        if self.max_size_bytes is not None and self.min_size_bytes > self.max_size_bytes:
            yield "min_size_bytes: is more than max_size_bytes: no file has such a size"
        limits = {name: rate for name in ("up_bps", "down_bps") if (rate := getattr(self, name)) is not None}
        if limits:
            # Without a limit, nothing of the throttle is loaded.
            from realize.throttle.rates import check_rate_by_time

            for name, rate in limits.items():
                try:
                    check_rate_by_time(rate)
                except (TypeError, UsageError) as error:
                    yield f"{name}: {error}"
        if self.grace_s and self.max_duration_s is None:
            yield "grace_s: needs max_duration_s"
        if self.from0 and self.files_from is None:
            yield "from0: needs files_from"
        if self.manifest is not None and self.dry_run:
            yield "manifest: cannot be used with dry_run, which moves nothing"

    @property
    def policy(self) -> OnConflict:
        """What to do about another file of a name, where the destination can do all of it."""
        return OnConflict.RENAME if self.on_conflict is None else self.on_conflict

    @property
    def rates(self) -> Rates:
        """The limits of both directions."""
        return Rates(self.up_bps, self.down_bps)

    @property
    def patience(self) -> Patience:
        """How long the run may take."""
        return Patience(self.max_duration_s, self.grace_s, self.retry)

    def transfer(self, *, remove: bool) -> TransferOptions:
        """The options for the mover; ``remove`` tells a move from a copy."""
        return TransferOptions(
            remove=remove,
            policy=self.policy,
            policy_asked=self.on_conflict is not None,
            preserve=frozenset(self.preserve),
            numeric_ids=self.numeric_ids,
            best_effort=self.best_effort,
            jobs=self.jobs,
            selection=selection(self.rules, self.min_age_s, min_size=self.min_size_bytes, max_size=self.max_size_bytes),
            one_file_system=self.one_file_system,
            order=self.order,
            dry_run=self.dry_run,
            links=self.links,
            prune_age_ns=None if self.prune_age_s is None or not remove else int(self.prune_age_s * 1e9),
        )


def _backup_problems(backup_dir: str, on_conflict: OnConflict | None) -> Iterator[str]:
    try:
        judge(os.fsencode(backup_dir))
    except RealizeError as error:
        yield f"backup_dir: expected a path inside the destination, such as .backup: {error}"
    if on_conflict is not OnConflict.REPLACE:
        yield "backup_dir: needs on_conflict replace"


def _is_duration(seconds: object, *, zero_allowed: bool) -> bool:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not math.isfinite(seconds):
        return False
    return seconds > 0 or (zero_allowed and seconds == 0)
