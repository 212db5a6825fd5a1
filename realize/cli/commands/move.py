"""The commands `move` and `copy`: they share every option and differ in whether the source is removed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from realize.cli.commands.summaries import NOT_SOURCES_KEY, SUMMARIES
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

_RULE_OPTIONS: Final = ("include", "exclude", "filter_from")


class MoveCommand(click.Command):
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
        help="What to do if the destination has another file of that name: keep both, the newcomer under a numbered "
        "name (app.1.log), replace it atomically, leave both alone, or count it as a failure  [default: rename]",
    )
    backup_dir: str | None = option(
        metavar="DIR",
        help="Where what --on-conflict replace replaces goes: a directory inside DST, relative to it, which no move "
        "takes for data.",
    )
    include: tuple[str, ...] = option(
        metavar="GLOB",
        multiple=True,
        help="Take files that match this gitignore pattern; the last of these options that matches decides.",
    )
    exclude: tuple[str, ...] = option(metavar="GLOB", multiple=True, help="Leave out what matches.")
    filter_from: tuple[str, ...] = option(
        metavar="FILE", multiple=True, help="Leave out what this gitignore file says ('!' takes in)."
    )
    min_age: float = option(
        metavar="DUR",
        callback=duration,
        default="0s",
        help="Leave alone what was modified less than this ago.",
    )
    min_size: int | None = option(
        metavar="SIZE", callback=size, help="Leave alone what is smaller: bytes, or 512k, 1.5MiB, 20MB."
    )
    max_size: int | None = option(metavar="SIZE", callback=size, help="Leave alone what is larger.")
    files_from: str | None = option(
        metavar="FILE", help="Take only the files named in FILE, relative to SRC, one on a line; '-' is standard input."
    )
    from0: bool = option("-0", "--from0", is_flag=True, help="A NUL byte ends each name in --files-from.")
    one_file_system: bool = option(
        "-x", "--one-file-system", is_flag=True, help="Enter no directory that is on another file system than SRC."
    )
    order: str | None = option(
        type=click.Choice(["newest", "oldest", "largest", "smallest"]),
        help="Which files of a SRC go first; it is listed to its end before.",
    )
    max_transfer: int | None = option(
        metavar="SIZE", callback=size, help="End in order once so much content was sent; exit code 11."
    )
    throttle: RateTimetable | int | str | None = option(
        metavar="RATE",
        callback=rate_by_time,
        help="Send, and be sent to, at most so many bytes per second: 512k, 1.5MiB/s, unlimited, "
        'or by the time of day: "08:00,512k 18:00,unlimited".',
    )
    throttle_up: RateTimetable | int | str | None = option(
        metavar="RATE", callback=rate_by_time, help="The same for what this machine sends."
    )
    throttle_down: RateTimetable | int | str | None = option(
        metavar="RATE", callback=rate_by_time, help="The same for what reaches it."
    )
    compress: str | None = option(
        type=click.Choice(["auto", "always", "never"]),
        help="Compress content on its way, both ways: where the line is slower than that and as long as it shrinks, on "
        "every line, or not at all  [default: as the configuration says, or auto]",
    )
    max_duration: float | None = option(
        metavar="DUR",
        callback=time_limit,
        help="End in order after this time, connecting and retrying included; exit code 11.",
    )
    grace: float = option(
        metavar="DUR",
        callback=duration,
        default="0s",
        show_default=True,
        help="How long files under way may still take after --max-duration.",
    )
    no_retry: bool = option(is_flag=True, help="Fail at the first lost connection instead of coming back.")
    dry_run: bool = option(is_flag=True, help="Say on stdout what would be done; touch nothing on either side.")
    jobs: int = option(
        metavar="N",
        type=click.IntRange(1, 32),
        default=4,
        show_default=True,
        help="Large files in flight; small ones travel in batches besides.",
    )
    preserve: frozenset[Preserve] | None = option(
        metavar="LIST",
        callback=preserve,
        help="What to carry over besides the content, of directories too: some of mode, times, owner, acl, xattr, "
        "hardlinks, or all, or none. A file of which that cannot be kept stays  [default: mode,times]",
    )
    no_preserve: bool = option(is_flag=True, help="The same as --preserve=none.")
    numeric_ids: bool = option(
        is_flag=True, help="Carry owners and groups over by number, not by name, with --preserve owner or acl."
    )
    best_effort: bool = option(
        is_flag=True, help="Move files even if something of --preserve cannot be kept; say so once for each kind."
    )
    links: bool = option(
        is_flag=True,
        help="Move symlinks as they are, if their targets stay inside DST or the daemon there allows others; "
        "without it they stay.",
    )
    manifest: str | None = option(
        metavar="FILE",
        help="Append a JSON line for each file that arrived, durable before its source is removed, and one for "
        "each that was removed.",
    )
    trust_source: bool = option(
        is_flag=True,
        help="Compare with all that the destination holds, not only with what came from the same peer: saves "
        "sending it, and lets the source find out what it is.",
    )
    metrics: MetricsOptions = group(MetricsOptions, "metrics_")
    progress: bool | None = option("--progress/--no-progress", default=None, help="Draw bars  [default: on a terminal]")
    quiet: bool = option(is_flag=True, help="Say nothing but errors.")
    json: bool = option(is_flag=True, help="Write one JSON object a line to stdout.")
    verbose: bool = option("-v", "--verbose", is_flag=True, help="One line for each file.")
    prune_dirs: float | None = option(
        PRUNE_DIRS,
        otherwise=None,
        metavar="[=AGE]",
        callback=age,
        help="At the end, remove directories below SRC that are empty and have not changed for this long "
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
        if self.locations and (word := self.locations[0]) in ctx.meta.get(NOT_SOURCES_KEY, ()):
            raise click.UsageError(
                f"options stand behind the name of a command: realize {word} OPTIONS ...; "
                f"a directory called {word} is written ./{word}",
                ctx,
            )
        if len(self.locations) < 2:
            raise click.UsageError("at least one SRC and a DST are needed", ctx)
        if self.json + self.quiet + bool(self.progress) > 1 or (self.quiet and self.verbose):
            raise click.UsageError("--progress, --quiet and --json exclude each other, --quiet and --verbose too", ctx)
        if self.throttle is not None and (self.throttle_up is not None or self.throttle_down is not None):
            raise click.UsageError(
                "--throttle is for both directions; give it, or --throttle-up and --throttle-down", ctx
            )
        if self.max_transfer == 0:
            raise click.UsageError("--max-transfer is more than nothing; --dry-run sends nothing", ctx)
        if self.files_from is not None and len(self.locations) > 2:
            raise click.UsageError("--files-from is for one SRC, which its names are relative to", ctx)
        if self.from0 and self.files_from is None:
            raise click.UsageError("--from0 is for the names of --files-from, which is not given", ctx)
        if self.max_size is not None and (self.min_size or 0) > self.max_size:
            raise click.UsageError("--min-size is more than --max-size: no file has such a size", ctx)
        if self.grace and self.max_duration is None:
            raise click.UsageError("--grace is for what happens after --max-duration, which is not given", ctx)
        if self.manifest is not None and self.dry_run:
            raise click.UsageError("--manifest is for what is moved, and --dry-run moves nothing", ctx)
        if self.preserve is not None and self.no_preserve:
            raise click.UsageError("--no-preserve is --preserve=none; give one of the two", ctx)
        if self.numeric_ids and {"owner", "acl"}.isdisjoint(each.value for each in self.preserve or ()):
            raise click.UsageError("--numeric-ids is for --preserve with owner or acl", ctx)
        if self.backup_dir is not None and self.on_conflict != "replace":
            raise click.UsageError("--backup-dir is for what --on-conflict replace replaces", ctx)


@click.command("move", cls=MoveCommand, short_help=SUMMARIES["move"])
@collects(MoveArguments, "asked")
@click.pass_context
def move(ctx: click.Context, /, asked: MoveArguments) -> int:
    """Move the files in SRC to DST: copied, verified, durable there, then removed here.

    A directory as SRC stands for what is in it; a file lands in DST under its own name.
    """
    return _run(ctx, asked, remove=True)


@click.command("copy", cls=MoveCommand, short_help=SUMMARIES["copy"])
@collects(MoveArguments, "asked", without={"prune_dirs"})
@click.pass_context
def copy(ctx: click.Context, /, asked: MoveArguments) -> int:
    """Do the same as `move`, but leave the sources as they are."""
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


def _limit(both: RateTimetable | int | str | None, one: RateTimetable | int | str | None) -> RateByTime:
    given = one if both is None else both
    return None if isinstance(given, str) else given


def _rules_of(ctx: click.Context) -> list[tuple[str, str]]:
    """The filter rules in order, files of rules read in their place."""
    rules: list[tuple[str, str]] = []
    for kind, value in ctx.meta[RULES_KEY]:
        if kind == "filter_from":
            rules += [("exclude", line) for line in _lines(value)]
        else:
            rules.append((kind, value))
    return rules


def _lines(file_name: str) -> list[str]:
    from realize.errors import UsageError
    from realize.units import display_text

    try:
        with open(file_name, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise UsageError(f"--filter-from {display_text(file_name)}: {error.strerror}") from error
    return [line for line in lines if line.strip() and not line.startswith("#")]
