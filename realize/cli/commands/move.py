"""The commands `move` and `copy`: they share every option and differ in whether the source is removed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from realize.cli.commands.summaries import NOT_SOURCES_KEY, SUMMARIES
from realize.cli.help_sections import CommandWithSections, examples
from realize.cli.metrics_options import MetricsOptions, metrics_targets
from realize.cli.option_fields import argument, collects, group, option
from realize.cli.options import Access, LogOptions, age, duration, preserve, rate_by_time, size, time_limit
from realize.runs.options import Patience, Rates
from realize.schedule.timetable import RateByTime, RateTimetable

if TYPE_CHECKING:
    from realize.values import Preserve

RULES_KEY: Final = "realize.rules"
"""The key in a context's ``meta`` for the filter rules, which keep the order of the command line."""

PRUNE_DIRS: Final = "--prune-dirs"
PRUNE_AGE: Final = "1h"
"""What `PRUNE_DIRS` means without a value."""

_ALIKE_FRACTION: Final = 0.7
"""How much a word must have of a command to be taken for a mistake: two letters that changed places in four are."""

_RULE_OPTIONS: Final = ("include", "exclude", "filter_from")


class MoveCommand(CommandWithSections):
    """A command that remembers in which order its different filter options were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual, and keep in ``ctx.meta`` the order of the filter options, which click forgets."""
        args = list(self._with_age(args))
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given: dict[str | None, Iterator[str]] = {name: iter(values.get(name) or ()) for name in _RULE_OPTIONS}
        ctx.meta[RULES_KEY] = [(each.name, next(given[each.name])) for each in order if each.name in given]
        return super().parse_args(ctx, args)

    def _with_age(self, args: list[str]) -> Iterator[str]:
        """The arguments, with the value of `PRUNE_DIRS` added where it is left out: click would take the next word."""
        options = [each for each in self.params if isinstance(each, click.Option)]
        with_value = {name for each in options if not (each.is_flag or each.count) for name in each.opts}
        rest = iter(args)
        for each in rest:
            if each == "--":
                yield each
                yield from rest
            elif each == PRUNE_DIRS and PRUNE_DIRS in with_value:
                yield f"{PRUNE_DIRS}={PRUNE_AGE}"
            else:
                yield each
                if each in with_value:
                    yield from islice(rest, 1)


@frozen(kw_only=True, eq=False, repr=False)
class MoveArguments:
    """What a command line of `move` or `copy` asks for; `copy` has all options but `PRUNE_DIRS`."""

    locations: tuple[str, ...] = argument(metavar="SRC... DST", nargs=-1, required=True)
    access: Access = group(Access)
    log: LogOptions = group(LogOptions, "log_")
    on_conflict: str | None = option(
        type=click.Choice(["rename", "replace", "skip", "fail"]),
        help="What to do if the destination has a different file of the same name: keep both and give the new one a "
        "numbered name (app.1.log), replace the old one atomically, skip the new one, or report a failure  "
        "[default: rename]",
    )
    backup_dir: str | None = option(
        metavar="DIR",
        help="Keep the files that --on-conflict replace replaces, in this directory. It is relative to DST and inside "
        "it; no move takes files from there.",
    )
    include: tuple[str, ...] = option(
        metavar="GLOB",
        multiple=True,
        help="Move files that match this gitignore pattern. If several patterns match a file, the last one decides.",
    )
    exclude: tuple[str, ...] = option(
        metavar="GLOB", multiple=True, help="Skip files that match this gitignore pattern."
    )
    filter_from: tuple[str, ...] = option(
        metavar="FILE",
        multiple=True,
        help="Skip files that the patterns in this gitignore file match; '!' includes them again.",
    )
    min_age: float = option(
        metavar="DUR",
        callback=duration,
        default="0s",
        help="Skip files that were modified less than this ago, such as 5m: somebody may still write to them.",
    )
    min_size: int | None = option(
        metavar="SIZE", callback=size, help="Skip files smaller than this: bytes, or 512k, 1.5MiB, 20MB."
    )
    max_size: int | None = option(metavar="SIZE", callback=size, help="Skip files larger than this.")
    files_from: str | None = option(
        metavar="FILE",
        help="Move only the files that FILE lists, one per line, relative to SRC; '-' is standard input.",
    )
    from0: bool = option(
        "-0", "--from0", is_flag=True, help="Names in --files-from end with a NUL byte, not a newline."
    )
    one_file_system: bool = option(
        "-x", "--one-file-system", is_flag=True, help="Skip directories that are on another file system than SRC."
    )
    order: str | None = option(
        type=click.Choice(["newest", "oldest", "largest", "smallest"]),
        help="Move these files of each SRC first. The whole SRC is listed before its first file moves.",
    )
    max_transfer: int | None = option(
        metavar="SIZE", callback=size, help="Stop cleanly after sending this many bytes of content; exit code 11."
    )
    throttle: RateTimetable | int | str | None = option(
        metavar="RATE",
        callback=rate_by_time,
        help="Limit sending and receiving, each to this many bytes per second: 512k, 1.5MiB/s, unlimited, "
        'or by the time of day: "08:00,512k 18:00,unlimited".',
    )
    throttle_up: RateTimetable | int | str | None = option(
        metavar="RATE", callback=rate_by_time, help="Limit only what this machine sends."
    )
    throttle_down: RateTimetable | int | str | None = option(
        metavar="RATE", callback=rate_by_time, help="Limit only what this machine receives."
    )
    compress: str | None = option(
        type=click.Choice(["auto", "always", "never"]),
        help="Compress content in both directions: only if the line is slower than compressing and the content shrinks "
        "(auto), always, or never  [default: as the configuration says, or auto]",
    )
    max_duration: float | None = option(
        metavar="DUR",
        callback=time_limit,
        help="Stop cleanly after this time, which includes connecting and retrying; exit code 11.",
    )
    grace: float = option(
        metavar="DUR",
        callback=duration,
        default="0s",
        show_default=True,
        help="After --max-duration, let files in transfer go on for this long.",
    )
    no_retry: bool = option(is_flag=True, help="Fail when the connection is lost, instead of reconnecting.")
    dry_run: bool = option(is_flag=True, help="Print what would be done, and change nothing on either side.")
    jobs: int = option(
        metavar="N",
        type=click.IntRange(1, 32),
        default=4,
        show_default=True,
        help="Transfer this many large files at a time. Small files travel in batches beside them.",
    )
    preserve: frozenset[Preserve] | None = option(
        metavar="LIST",
        callback=preserve,
        help="Preserve these attributes of files and directories: a list of mode, times, owner, acl, xattr and "
        "hardlinks, or all, or none. A file stays at the source if they cannot be kept  [default: mode,times]",
    )
    no_preserve: bool = option(is_flag=True, help="The same as --preserve=none.")
    numeric_ids: bool = option(
        is_flag=True, help="With --preserve owner or acl: identify owners and groups by number, not by name."
    )
    best_effort: bool = option(
        is_flag=True, help="Move files even if some attributes cannot be kept, and say so once for each kind."
    )
    links: bool = option(
        is_flag=True,
        help="Move symlinks too, as they are. Their targets must stay inside DST, unless the daemon there allows "
        "others.",
    )
    manifest: str | None = option(
        metavar="FILE",
        help="Append a JSON line to FILE for each file that arrived, and one for each source that was removed. The "
        "first line is on disk before the source is removed.",
    )
    trust_source: bool = option(
        is_flag=True,
        help="Compare with every file at the destination, not only with those that came from the same peer. This "
        "saves sending content that is there, but lets the source find out what is in those files.",
    )
    metrics: MetricsOptions = group(MetricsOptions, "metrics_")
    progress: bool | None = option(
        "--progress/--no-progress", default=None, help="Show progress bars  [default: on a terminal]"
    )
    quiet: bool = option(is_flag=True, help="Print only errors.")
    json: bool = option(is_flag=True, help="Print JSON, one object per line.")
    verbose: bool = option("-v", "--verbose", is_flag=True, help="Print a line for each file.")
    prune_dirs: float | None = option(
        PRUNE_DIRS,
        otherwise=None,
        metavar="[=AGE]",
        callback=age,
        help="At the end, remove directories below SRC that are empty and have not changed for AGE "
        f"[{PRUNE_AGE} if AGE is left out].",
    )

    @property
    def patience(self) -> Patience:
        """How long the run may take, and whether it comes back."""
        return Patience(self.max_duration, self.grace, not self.no_retry)

    @property
    def rates(self) -> Rates:
        """How fast this machine may send, and be sent to."""
        return Rates(_limit(self.throttle, self.throttle_up), _limit(self.throttle, self.throttle_down))

    def check(self, ctx: click.Context) -> None:
        """Raise `click.UsageError` if what is asked for makes no sense together."""
        names: Collection[str] = ctx.meta.get(NOT_SOURCES_KEY, ())
        if self.locations and (word := self.locations[0]) in names:
            raise click.UsageError(
                f"options come after the name of a command: realize {word} OPTIONS ...; "
                f"for a directory called {word}, write ./{word}",
                ctx,
            )
        if self.locations and (meant := _mistyped(word, names)):
            raise click.UsageError(
                f"{word} is neither a command nor a file here, so nothing was moved; did you mean realize {meant}? "
                f"For a source called {word}, write ./{word}",
                ctx,
            )
        if len(self.locations) < 2:
            raise click.UsageError("at least one SRC and a DST are needed", ctx)
        if self.json + self.quiet + bool(self.progress) > 1 or (self.quiet and self.verbose):
            raise click.UsageError("--progress, --quiet and --json exclude each other, --quiet and --verbose too", ctx)
        if self.throttle is not None and (self.throttle_up is not None or self.throttle_down is not None):
            raise click.UsageError(
                "--throttle limits both directions; give either --throttle, or --throttle-up and --throttle-down", ctx
            )
        if self.max_transfer == 0:
            raise click.UsageError("--max-transfer must be more than 0; to send nothing, use --dry-run", ctx)
        if self.files_from is not None and len(self.locations) > 2:
            raise click.UsageError("--files-from needs exactly one SRC: its names are relative to that", ctx)
        if self.from0 and self.files_from is None:
            raise click.UsageError("--from0 needs --files-from", ctx)
        if self.max_size is not None and (self.min_size or 0) > self.max_size:
            raise click.UsageError("--min-size is larger than --max-size, so no file would match", ctx)
        if self.grace and self.max_duration is None:
            raise click.UsageError("--grace needs --max-duration", ctx)
        if self.manifest is not None and self.dry_run:
            raise click.UsageError("--manifest and --dry-run exclude each other: a dry run moves nothing", ctx)
        if self.preserve is not None and self.no_preserve:
            raise click.UsageError("--no-preserve is --preserve=none; give one of the two", ctx)
        if self.numeric_ids and {"owner", "acl"}.isdisjoint(each.value for each in self.preserve or ()):
            raise click.UsageError("--numeric-ids needs --preserve with owner or acl", ctx)
        if self.backup_dir is not None and self.on_conflict != "replace":
            raise click.UsageError("--backup-dir needs --on-conflict replace", ctx)


@click.command(
    "move",
    cls=MoveCommand,
    short_help=SUMMARIES["move"],
    epilog=examples(
        "realize /store/camera nas::inbox                            from here to a daemon",
        "realize nas::outbox /store/here                             from a daemon to here",
        "realize --dry-run /store/camera nas::inbox                  what would be done?",
        "realize --min-age 5m --exclude '*.tmp' /store nas::inbox    only finished files",
    ),
)
@collects(MoveArguments, "asked")
@click.pass_context
def move(ctx: click.Context, /, asked: MoveArguments) -> int:
    """Move the files in SRC to DST.

    Each file is copied, verified and written to stable storage at DST. Only then is its source removed.

    SRC and DST are local paths, or PEER::DIR/PATH: DIR is a directory that the daemon at PEER serves, and PEER is a
    name from the configuration, or HOST or HOST:PORT.

    If SRC is a directory, the files in it are moved, not the directory itself. If SRC is a file, it gets the same name
    in DST.
    """
    return _run(ctx, asked, remove=True)


@click.command(
    "copy",
    cls=MoveCommand,
    short_help=SUMMARIES["copy"],
    epilog=examples("realize copy /store/a.iso nas::inbox/images"),
)
@collects(MoveArguments, "asked", without={"prune_dirs"})
@click.pass_context
def copy(ctx: click.Context, /, asked: MoveArguments) -> int:
    """Copy the files in SRC to DST, and keep the sources.

    SRC, DST and the options mean the same as for `realize move`.
    """
    return _run(ctx, asked, remove=False)


def _run(ctx: click.Context, asked: MoveArguments, *, remove: bool) -> int:
    asked.check(ctx)
    rates, patience = asked.rates, asked.patience
    targets = metrics_targets(ctx, asked.metrics)

    from realize.cli.commands.move_run import run_move
    from realize.cli.display.options import DisplayOptions
    from realize.cli.exit_codes import command_exit_code
    from realize.cli.logs import logger_of
    from realize.process import process_started
    from realize.runs.metrics import RunMetrics
    from realize.runs.move_options import MoveOptions
    from realize.values import Compress, OnConflict, Order

    look = DisplayOptions(
        # Bars and records on the same terminal would overwrite each other.
        progress=False if asked.progress is None and asked.log.asked and asked.log.file is None else asked.progress,
        quiet=asked.quiet,
        json=asked.json,
        verbose=asked.verbose,
        remove=remove,
        dry_run=asked.dry_run,
    )

    def say(sentence: str) -> None:
        click.echo(f"realize: {sentence}", err=True)

    with RunMetrics(
        targets,
        rates,
        patience,
        began=process_started(),
        dry_run=asked.dry_run,
        warn=lambda sentence: say(f"warning: {sentence}"),
        serving_at=lambda where: None if asked.quiet else say(f"metrics at {where}"),
        logger_of=logger_of,
        code_of=command_exit_code,
    ) as metrics:
        options = MoveOptions(
            on_conflict=None if asked.on_conflict is None else OnConflict[asked.on_conflict.upper()],
            backup_dir=asked.backup_dir,
            preserve=not asked.no_preserve if asked.preserve is None else asked.preserve,
            numeric_ids=asked.numeric_ids,
            best_effort=asked.best_effort,
            jobs=asked.jobs,
            rules=_rules_of(ctx),
            min_age_s=asked.min_age,
            min_size_bytes=asked.min_size or 0,
            max_size_bytes=asked.max_size,
            files_from=asked.files_from,
            from0=asked.from0,
            one_file_system=asked.one_file_system,
            max_transfer_bytes=asked.max_transfer,
            order=None if asked.order is None else Order(asked.order),
            dry_run=asked.dry_run,
            links=asked.links,
            compress=None if asked.compress is None else Compress(asked.compress),
            prune_age_s=asked.prune_dirs,
            up_bps=rates.up,
            down_bps=rates.down,
            max_duration_s=patience.max_duration,
            grace_s=patience.grace,
            retry=patience.retry,
            manifest=asked.manifest,
            trust_source=asked.trust_source,
            metrics=targets,
        )
        return run_move(asked.locations, asked.access, options, look, metrics, asked.log)


def _mistyped(word: str, names: Collection[str]) -> str:
    """The command that somebody meant who wrote this word in its place; empty for what may be a source.

    `realize cpoy SRC DST` would move what it was to copy, with a missing source besides.
    """
    if not names or not word.isalpha() or os.path.lexists(word):
        return ""
    if word == "cp":
        return "copy"
    # Nothing else needs it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, names, 1, _ALIKE_FRACTION)), "")


def _limit(both: RateTimetable | int | str | None, one: RateTimetable | int | str | None) -> RateByTime:
    given = one if both is None else both
    return None if isinstance(given, str) else given


def _rules_of(ctx: click.Context) -> list[tuple[str, str]]:
    """The filter rules in order, files of rules read in their place."""
    rules: list[tuple[str, str]] = []
    for kind, value in ctx.meta[RULES_KEY]:
        rules += _rules_in(value) if kind == "filter_from" else [(kind, value)]
    return rules


def _rules_in(file_name: str) -> list[tuple[str, str]]:
    from realize.config.filters import rules_in
    from realize.errors import UsageError

    try:
        return rules_in(file_name)
    except UsageError as error:
        raise UsageError(f"--filter-from {error}") from error
