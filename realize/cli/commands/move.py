"""The commands `move` and `copy`: they share every option and differ in whether the source is removed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import click

from realize.cli.metrics_options import metrics_options, metrics_wanted
from realize.cli.options import (
    Access,
    Command,
    LogOptions,
    Patience,
    Rates,
    age,
    duration,
    rate,
    remote_options,
    time_limit,
)

RULES_KEY: Final = "realize.rules"
"""Where in a context the filter rules are kept, in the order in which the command line has them."""

PRUNE_DIRS: Final = "--prune-dirs"
PRUNE_AGE: Final = "1h"
"""What `PRUNE_DIRS` means without a value."""

_RULE_OPTIONS: Final = ("include", "exclude", "filter_from")


class MoveCommand(click.Command):
    """A command that remembers in which order its different filter options were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual; what the parser knows of the order, and click forgets, is kept in ``ctx.meta``."""
        args = list(self._with_age(args))
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given: dict[str | None, Iterator[str]] = {name: iter(values.get(name) or ()) for name in _RULE_OPTIONS}
        ctx.meta[RULES_KEY] = [(option.name, next(given[option.name])) for option in order if option.name in given]
        return super().parse_args(ctx, args)

    def _with_age(self, args: list[str]) -> Iterator[str]:
        """The arguments with the value of `PRUNE_DIRS` where it is left out: click would take the next one for it."""
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


def move_options(command: Command) -> Command:
    """Add the arguments and options that both commands have."""
    for option in reversed(
        (
            click.argument("locations", metavar="SRC... DST", nargs=-1, required=True),
            remote_options,
            click.option(
                "--on-conflict",
                type=click.Choice(["replace", "skip", "fail"]),
                default="replace",
                show_default=True,
                help="What to do if the destination has another file of that name; replacing is atomic.",
            ),
            click.option(
                "--include",
                metavar="GLOB",
                multiple=True,
                help="Take files that match this gitignore pattern; the last of these options that matches decides.",
            ),
            click.option("--exclude", metavar="GLOB", multiple=True, help="Leave out what matches."),
            click.option(
                "--filter-from",
                metavar="FILE",
                multiple=True,
                help="Leave out what this gitignore file says ('!' takes in).",
            ),
            click.option(
                "--min-age",
                metavar="DUR",
                callback=duration,
                default="0s",
                help="Leave alone what was modified less than this ago.",
            ),
            click.option(
                "--throttle",
                metavar="RATE",
                callback=rate,
                help="Send, and be sent to, at most so many bytes per second: 512k, 1.5MiB/s, unlimited.",
            ),
            click.option("--throttle-up", metavar="RATE", callback=rate, help="The same for what this machine sends."),
            click.option("--throttle-down", metavar="RATE", callback=rate, help="The same for what reaches it."),
            click.option(
                "--max-duration",
                metavar="DUR",
                callback=time_limit,
                help="End in order after this time, connecting and retrying included; exit code 11.",
            ),
            click.option(
                "--grace",
                metavar="DUR",
                callback=duration,
                default="0s",
                show_default=True,
                help="How long files under way may still take after --max-duration.",
            ),
            click.option("--no-retry", is_flag=True, help="Fail at the first lost connection instead of coming back."),
            click.option(
                "--dry-run", is_flag=True, help="Say on stdout what would be done; touch nothing on either side."
            ),
            click.option(
                "--jobs",
                metavar="N",
                type=click.IntRange(1, 32),
                default=4,
                show_default=True,
                help="Large files in flight; small ones travel in batches besides.",
            ),
            click.option(
                "--no-preserve", is_flag=True, help="Do not carry modification times and permission bits over."
            ),
            click.option(
                "--manifest",
                metavar="FILE",
                help="Append a JSON line for each file that arrived, durable before its source is removed, and one for "
                "each that was removed.",
            ),
            click.option(
                "--trust-source",
                is_flag=True,
                help="Compare with all that the destination holds, not only with what came from the same peer: saves "
                "sending it, and lets the source find out what it is.",
            ),
            metrics_options,
            click.option("--progress/--no-progress", default=None, help="Draw bars  [default: on a terminal]"),
            click.option("--quiet", is_flag=True, help="Say nothing but errors."),
            click.option("--json", is_flag=True, help="Write one JSON object a line to stdout."),
            click.option("-v", "--verbose", is_flag=True, help="One line for each file."),
        )
    ):
        command = option(command)
    return command


@click.command("move", cls=MoveCommand, short_help="Move files (the default command).")
@move_options
@click.option(
    PRUNE_DIRS,
    metavar="[=AGE]",
    callback=age,
    help="At the end, remove directories below SRC that are empty and have not changed for this long "
    f"[{PRUNE_AGE} if AGE is left out].",
)
@click.pass_context
def move(ctx: click.Context, /, **options: Any) -> int:
    """Move the files in SRC to DST: copied, verified, durable there, then removed here.

    A directory as SRC stands for what is in it; a file lands in DST under its own name.
    """
    return _run(ctx, remove=True, **options)


@click.command("copy", cls=MoveCommand, short_help="The same without removing the sources.")
@move_options
@click.pass_context
def copy(ctx: click.Context, /, **options: Any) -> int:
    """Do the same as `move`, but leave the sources as they are."""
    return _run(ctx, remove=False, **options)


def _run(
    ctx: click.Context,
    *,
    remove: bool,
    locations: tuple[str, ...],
    access: Access,
    log: LogOptions,
    on_conflict: str,
    min_age: float,
    max_duration: float | None,
    grace: float,
    no_retry: bool,
    throttle: int | str | None,
    throttle_up: int | str | None,
    throttle_down: int | str | None,
    dry_run: bool,
    jobs: int,
    no_preserve: bool,
    manifest: str | None,
    trust_source: bool,
    progress: bool | None,
    quiet: bool,
    json: bool,
    verbose: bool,
    metrics_addr: str | None,
    metrics_pushgateway: str | None,
    metrics_job: str | None,
    metrics_instance: str | None,
    metrics_textfile: str | None,
    prune_dirs: float | None = None,
    **_rules: Any,
) -> int:
    if len(locations) < 2:
        raise click.UsageError("at least one SRC and a DST are needed", ctx)
    if json + quiet + bool(progress) > 1 or (quiet and verbose):
        raise click.UsageError("--progress, --quiet and --json exclude each other, --quiet and --verbose too", ctx)
    if throttle is not None and (throttle_up is not None or throttle_down is not None):
        raise click.UsageError("--throttle is for both directions; give it, or --throttle-up and --throttle-down", ctx)
    if grace and max_duration is None:
        raise click.UsageError("--grace is for what happens after --max-duration, which is not given", ctx)
    if manifest is not None and dry_run:
        raise click.UsageError("--manifest is for what is moved, and --dry-run moves nothing", ctx)
    patience = Patience(max_duration, grace, not no_retry)
    if log.asked and log.file is None and progress is None:
        progress = False  # bars and records would overwrite each other
    rates = Rates(_limit(throttle, throttle_up), _limit(throttle, throttle_down))
    wanted = metrics_wanted(ctx, metrics_addr, metrics_pushgateway, metrics_job, metrics_instance, metrics_textfile)

    from realize.cli.commands.move_run import run_move
    from realize.cli.display.options import DisplayOptions
    from realize.cli.metrics import RunMetrics
    from realize.mover.filters import selection
    from realize.mover.run import MoveOptions
    from realize.values import OnConflict

    look = DisplayOptions(progress=progress, quiet=quiet, json=json, verbose=verbose, remove=remove, dry_run=dry_run)
    with RunMetrics(wanted, rates, patience, look) as metrics:
        options = MoveOptions(
            remove=remove,
            policy=OnConflict[on_conflict.upper()],
            preserve=not no_preserve,
            jobs=jobs,
            selection=selection(_rules_of(ctx), min_age),
            dry_run=dry_run,
            prune_age_ns=None if prune_dirs is None else int(prune_dirs * 1e9),
        )
        return run_move(
            locations[:-1],
            locations[-1],
            access,
            options,
            look,
            rates,
            patience,
            metrics=metrics,
            manifest=manifest,
            trusting=trust_source,
            log=log,
        )


def _limit(both: int | str | None, one: int | str | None) -> int | None:
    given = one if both is None else both
    return given if isinstance(given, int) else None


def _rules_of(ctx: click.Context) -> list[tuple[str, str]]:
    """The filter rules in order, files of rules read in their place."""
    rules: list[tuple[str, str]] = []
    for option, value in ctx.meta[RULES_KEY]:
        if option == "filter_from":
            rules += [("exclude", line) for line in _lines(value)]
        else:
            rules.append((option, value))
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
