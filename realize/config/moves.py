"""Standing moves as the configuration has them, ``[moves.NAME]``; checked when they are made.

Whether the locations are any is found out by `realize.moves.checking`, which knows what a location looks like.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Final, cast

from attrs import field, frozen

from realize.by_value import ByValue
from realize.config.checks import (
    as_backup_dir,
    as_boolean,
    as_path,
    as_rate_text,
    as_string,
    as_texts,
    check_preserve,
    check_rules,
    check_seconds,
    check_size_value,
    given_file,
    instance_of,
)
from realize.config.problems import SeveralProblems, problems_if_given, problems_of, refuse
from realize.errors import Problem, RealizeError
from realize.values import USUALLY_PRESERVED, Compress, OnConflict, Order, Preserve, preserving

SETTLE_S: Final = 10.0
"""Seconds that a file must be unchanged unless another time is configured."""

AFTER_TIMEOUT_S: Final = 60.0
"""Seconds that the program after a run may take unless another time is configured."""


def _given_rate(given: str | int | None) -> str | None:
    """The rate as text; what is none stays as it is, and the checks refuse it."""
    return str(given) if type(given) is int else cast("str | None", given)


def _given_texts(given: str | Collection[str]) -> tuple[str, ...]:
    """The texts; what is none stays as it is, and the checks refuse it."""
    try:
        return as_texts(given)
    except (RealizeError, SeveralProblems):
        return cast("tuple[str, ...]", given)


def _given_rules(given: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """The rules as tuples; what are none stay as they are, and the checks refuse them."""
    rules = tuple(tuple(each) if isinstance(each, list) else each for each in given) if type(given) is list else given
    return cast("tuple[tuple[str, str], ...]", rules)


def _given_preserve(preserve: Collection[Preserve] | bool) -> Collection[Preserve]:  # noqa: FBT001 -- as it is given
    """What is carried over; what is none stays as it is, and the checks refuse it."""
    return preserving(preserve) if isinstance(preserve, bool | set | frozenset | list | tuple) else preserve


@frozen(kw_only=True, eq=False, repr=False)
class MoveConfig(ByValue):
    """What the daemon moves by itself.  Raises `ConfigError` for values that make no sense."""

    sources: tuple[str, ...] = field(converter=_given_texts)
    """Where files come from: local directories or files, or locations at peers."""
    destination: str
    """Where they go: a location at a peer, or a local directory."""
    when: str = "settled"
    """As files settle, at intervals (``every 10m``), or a calendar expression; see `realize.schedule.when`."""
    settle_s: float = SETTLE_S
    """Seconds that a file must be unchanged, and nobody have it open for writing, before it is moved."""
    jitter_s: float | None = None
    """Seconds over which runs by the clock are spread; None for what suits ``when``."""
    throttle: str | None = field(default=None, converter=_given_rate)
    """Bytes per second in both directions, or a timetable of such; see `realize.schedule.timetable`."""
    throttle_up: str | None = field(default=None, converter=_given_rate)
    """The same for what is sent; outranks ``throttle``."""
    throttle_down: str | None = field(default=None, converter=_given_rate)
    """The same for what comes."""
    max_duration_s: float | None = None
    """Seconds after which a run ends in order; None: never."""
    grace_s: float = 0.0
    """Seconds that files in flight may still take then."""
    include: tuple[str, ...] = field(default=(), converter=_given_texts)
    """Patterns of the only files that are moved; none: all are."""
    exclude: tuple[str, ...] = field(default=(), converter=_given_texts)
    """Patterns of files that are not moved even if they are included."""
    filters: tuple[tuple[str, str], ...] = field(default=(), converter=_given_rules)
    """Instead of these two: ``("include" | "exclude", pattern)``, of which the last one that matches decides."""
    min_size_bytes: int = 0
    """Files that are smaller are not moved."""
    max_size_bytes: int | None = None
    """Files that are larger are not moved; None: none is too large."""
    one_file_system: bool = False
    """Whether directories on another file system than their source are left alone."""
    max_transfer_bytes: int | None = None
    """Bytes of content after which a run by the clock ends in order; None: never."""
    order: Order | None = None
    """Which files of a source go first, for runs by the clock; None: in path order."""
    on_conflict: OnConflict | None = None
    """What to do if the destination has another file of that name."""
    backup_dir: str | None = None
    """A directory inside the destination, relative to it, for what is replaced there; None: that is not kept."""
    preserve: Collection[Preserve] = field(default=USUALLY_PRESERVED, converter=_given_preserve)
    """What is carried over besides the content; True stands for what usually is, False for nothing."""
    numeric_ids: bool = False
    """Whether owners and groups are carried over by number, whatever their names."""
    best_effort: bool = False
    """Whether files are moved even if some of that cannot be kept; else they stay."""
    links: bool = False
    """Whether symlinks are moved, as they are."""
    compress: Compress | None = None
    """Whether content is compressed on its way; None: as the configuration says for all."""
    jobs: int = 4
    """Large files in flight at once."""
    prune_age_s: float | None = None
    """Remove directories of the source that are empty and at least this old; None: never.

    As files settle, that is done once an hour.
    """
    trust_source: bool = False
    """Compare with all that the destination holds, not only with what came from the same peer."""
    manifest: str | None = field(default=None, converter=given_file)
    """The file that gets a line of JSON for each file that arrived, before its source is removed."""
    after: tuple[str, ...] = field(default=(), converter=_given_texts)
    """A program, with its arguments, to run after a run that moved or failed something; none: no program."""
    after_timeout_s: float = AFTER_TIMEOUT_S
    """Seconds that it may take."""

    def __attrs_post_init__(self) -> None:
        """Refuse what a file may not say either."""
        zero_allowed = partial(check_seconds, zero_allowed=True)
        refuse(
            *problems_of("from", as_texts, self.sources),
            *(() if self.sources else [(("from",), "expected at least one location")]),
            *problems_of("to", as_path, self.destination),
            *problems_of("when", as_string, self.when),
            *problems_of("settle", zero_allowed, self.settle_s),
            *problems_if_given("jitter", zero_allowed, self.jitter_s),
            *(
                problem
                for name in ("throttle", "throttle_up", "throttle_down")
                for problem in problems_if_given(name, as_rate_text, getattr(self, name))
            ),
            *problems_if_given("max_duration", check_seconds, self.max_duration_s),
            *problems_of("grace", zero_allowed, self.grace_s),
            *problems_of("include", as_texts, self.include),
            *problems_of("exclude", as_texts, self.exclude),
            *problems_of("filters", check_rules, self.filters),
            *problems_of("min_size", check_size_value, self.min_size_bytes),
            *problems_if_given("max_size", check_size_value, self.max_size_bytes),
            *problems_of("one_file_system", as_boolean, self.one_file_system),
            *problems_if_given("max_transfer", check_size_value, self.max_transfer_bytes),
            *problems_if_given("order", instance_of(Order), self.order),
            *problems_if_given("on_conflict", instance_of(OnConflict), self.on_conflict),
            *problems_if_given("backup_dir", as_backup_dir, self.backup_dir),
            *problems_of("preserve", check_preserve, self.preserve),
            *problems_of("numeric_ids", as_boolean, self.numeric_ids),
            *problems_of("best_effort", as_boolean, self.best_effort),
            *problems_of("links", as_boolean, self.links),
            *problems_if_given("compress", instance_of(Compress), self.compress),
            *problems_of("jobs", instance_of(int), self.jobs),
            *problems_if_given("prune_dirs", zero_allowed, self.prune_age_s),
            *problems_of("trust_source", as_boolean, self.trust_source),
            *problems_if_given("manifest", as_path, self.manifest),
            *problems_of("after", as_texts, self.after),
            *problems_of("after_timeout", check_seconds, self.after_timeout_s),
            *self._contradictions(),
        )

    def _contradictions(self) -> Iterator[Problem]:
        if self.filters and (self.include or self.exclude):
            yield ("filters",), "stands instead of include and exclude: write them as filters, in their order"
        if self.backup_dir is not None and self.on_conflict is not OnConflict.REPLACE:
            yield ("backup_dir",), 'needs on_conflict = "replace"'
        kept = self.preserve
        if self.numeric_ids and isinstance(kept, frozenset) and kept.isdisjoint({Preserve.OWNER, Preserve.ACL}):
            yield ("numeric_ids",), "needs owner or acl in preserve"
        if self.grace_s and self.max_duration_s is None:
            yield ("grace",), "needs max_duration"
        if self.max_transfer_bytes == 0:
            yield ("max_transfer",), "expected more than 0"
        least, most = self.min_size_bytes, self.max_size_bytes
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield ("min_size",), "is more than max_size: no file has such a size"
        if isinstance(self.after, tuple) and self.after and not self.after[0].startswith("/"):
            yield ("after",), "expected the absolute path of a program first"
