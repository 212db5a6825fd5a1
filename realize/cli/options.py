"""Options that several commands share, and the types of their values.

Nothing heavy is imported here: this is read whenever any command, or only the help, is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import click
from attrs import frozen

from realize.by_value import ByValue
from realize.cli.option_fields import Command, collects, option
from realize.errors import UsageError
from realize.levels import FORMATS, Levels, parse_levels
from realize.schedule.timetable import RateTimetable, parse_rate_by_time
from realize.units import parse_duration, parse_rate, parse_size

if TYPE_CHECKING:
    from realize.values import Preserve

UNLIMITED: Final = "unlimited"
"""What `rate` answers for a limit that is lifted on purpose."""

T = TypeVar("T")


def rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """The callback of an option whose value is a rate: bytes per second, ``UNLIMITED``, or None if it was not given."""
    if value is None:
        return None
    parsed = _parsed(parse_rate, ctx, param, value)
    return UNLIMITED if parsed is None else parsed


def rate_by_time(ctx: click.Context, param: click.Parameter, value: str | None) -> RateTimetable | int | str | None:
    """The same as `rate`, also for a timetable of rates."""
    if value is None:
        return None
    parsed = _parsed(parse_rate_by_time, ctx, param, value)
    return UNLIMITED if parsed is None else parsed


def duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The callback of an option whose value is a duration such as ``90s`` or ``1h30m``: its seconds."""
    return _parsed(partial(parse_duration, zero_allowed=True), ctx, param, value)


def age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option whose value is a duration such as ``1h``, ``0`` too, or not given."""
    return None if value is None else duration(ctx, param, value)


def time_limit(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option whose value is a duration above zero, or not given."""
    return None if value is None else _parsed(parse_duration, ctx, param, value)


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The callback of an option whose value is a size such as ``512k``, or not given: its bytes."""
    return None if value is None else _parsed(parse_size, ctx, param, value)


def preserve(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[Preserve] | None:
    """The callback of an option whose value is a list such as ``mode,times,owner``, or not given."""
    if value is None:
        return None
    from realize.preserving import preserved_in

    return _parsed(preserved_in, ctx, param, value)


def levels(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Levels | None:
    """The callback of an option, given any number of times, whose value is ``LEVEL`` or ``COMPONENT=LEVEL``."""
    return _parsed(parse_levels, ctx, param, ",".join(value)) if value else None


def _parsed(parse: Callable[[str], T], ctx: click.Context, param: click.Parameter, value: str) -> T:
    """The value of an option; what the parser refuses is a usage error of that option."""
    try:
        return parse(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@frozen(eq=False, repr=False)
class Access(ByValue):
    """Where our key and the keys of peers come from, as far as the command line says; None is the default."""

    config: str | None = option(
        otherwise=None,
        metavar="FILE",
        help="Read this configuration file  [default: ~/.config/realize/realize.toml; environment: REALIZE_CONFIG]",
    )
    key: str | None = option(
        otherwise=None,
        metavar="FILE",
        help="Use the private key in FILE  [default: the one that the configuration names; environment: REALIZE_KEY]",
    )
    peer_key: str | None = option(
        otherwise=None, metavar="KEY|FILE", help="Expect this public key of a peer that is not in the configuration."
    )


@frozen(eq=False, repr=False)
class LogOptions(ByValue):
    """What is logged, in which form, and to which file; None is the default, which is next to nothing on stderr."""

    level: Levels | None = option(
        otherwise=None,
        metavar="LEVEL",
        multiple=True,
        callback=levels,
        help="Log records of this level and above: error, warning, info or debug; info,wire=debug adds a level for "
        "one component  [default: only bugs of Realize on stderr, info in a file]",
    )
    format: str | None = option(
        otherwise=None,
        type=click.Choice(FORMATS),
        help="Format of the log  [default: auto: console on a terminal, systemd in the journal, else json]",
    )
    file: str | None = option(
        otherwise=None,
        metavar="FILE",
        type=click.Path(dir_okay=False, resolve_path=True),
        help="Log to this file instead of stderr; SIGUSR1 reopens it.",
    )

    @property
    def asked(self) -> bool:
        """Whether the user wants a log."""
        return self != LogOptions()


def remote_options(command: Command) -> Command:
    """Add the options of every command that may talk to a peer; their values arrive as ``access`` and ``log``."""
    return collects(Access, "access")(collects(LogOptions, "log", prefix="log_")(command))
