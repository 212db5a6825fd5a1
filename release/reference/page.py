"""What is in docs/commands.md: each command with its options: their meaning, default, and what else sets them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Final

import attrs
import click

from realize.cli.main import realize
from realize.config import Config, LogsConfig, MoveConfig
from realize.config.problems import toml_key
from realize.daemon.tap import Options
from release.options import Option, options_of, options_of_daemon
from release.reference.chain import DOCS, chain, with_next

PAGE: Final = DOCS / "commands.md"

BEGINNING: Final = """\
# Commands and options

<!-- Made by `make reference` from what the programs say with --help. Do not edit it by hand. -->

Every option of `realize` and of `twistd realized`. [Using `realize`](usage.md) explains how they work together;
[Scripting](scripting.md) has exit codes, signals and JSON, [The daemon](daemon.md) how it starts and ends.

* An option of the command line outranks the variable of the environment, and that outranks the configuration.
* "Also set by" names the variable, or the [key of the configuration](configuration.md).
  A key `moves.NAME.…` sets the same for a [move that the daemon does by itself](moves.md).
* RATE, SIZE and DUR are [rates, sizes and durations](usage.md#rates-sizes-and-durations).
* An option without a value is off unless it is given.
"""

EXPLAINED_IN: Final[Mapping[str, str]] = {
    "--backup-dir": "usage.md#backups",
    "--best-effort": "preserving.md#attributes",
    "--check-config": "daemon.md#check",
    "--drain": "daemon.md#how-it-stops",
    "--compress": "traffic.md#compression",
    "--dry-run": "usage.md#dry-run",
    "--exclude": "selecting.md#filters",
    "--files-from": "selecting.md#files-by-name",
    "--filter-from": "selecting.md#filters",
    "--for": "limits.md#rate-limits",
    "--from0": "selecting.md#files-by-name",
    "--grace": "limits.md#time-limits",
    "--include": "selecting.md#filters",
    "--jobs": "selecting.md#order",
    "--json": "scripting.md#json",
    "--key": "keys.md",
    "--links": "preserving.md#symlinks",
    "--log-file": "logging.md",
    "--log-format": "logging.md",
    "--log-level": "logging.md",
    "--manifest": "manifest.md",
    "--max-duration": "limits.md#time-limits",
    "--max-size": "selecting.md#age-and-size",
    "--max-transfer": "limits.md#transfer-limits",
    "--metrics-addr": "metrics.md#the-port",
    "--metrics-instance": "run-metrics.md#the-pushgateway",
    "--metrics-job": "run-metrics.md#the-pushgateway",
    "--metrics-pushgateway": "run-metrics.md#the-pushgateway",
    "--metrics-textfile": "run-metrics.md#the-textfile",
    "--min-age": "selecting.md#age-and-size",
    "--min-size": "selecting.md#age-and-size",
    "--no-preserve": "preserving.md#attributes",
    "--no-retry": "limits.md#lost-connections",
    "--numeric-ids": "preserving.md#attributes",
    "--on-conflict": "usage.md#the-name-is-taken",
    "--one-file-system": "selecting.md#one-file-system",
    "--order": "selecting.md#order",
    "--preserve": "preserving.md#attributes",
    "--prune-dirs": "preserving.md#directories",
    "--scope": "limits.md#rate-limits",
    "--throttle": "limits.md#rate-limits",
    "--throttle-down": "limits.md#rate-limits",
    "--throttle-up": "limits.md#rate-limits",
    "--trust-source": "traffic.md#what-is-not-sent",
}
"""The sections that say more of an option."""

COMMANDS_EXPLAINED_IN: Final[Mapping[str, str]] = {
    "check": "check.md",
    "completion": "usage.md#completion",
    "keygen": "keys.md",
    "move": "usage.md",
    "moves": "moves.md#steering",
    "reload": "configuration.md#reload",
    "throttle": "limits.md#rate-limits",
}
"""The same for commands."""

DAEMON: Final = "twistd realized"

_UNITS: Final = ("_s", "_bytes", "_bps")
_RENAMED: Final = {"--filter-from": "filters", "--prune-dirs": "prune_age", "--metrics-addr": "metrics"}
"""The keys, without their unit, that are called otherwise than the options."""


def written() -> dict[Path, str]:
    """What is made here, whole or in part: this page, and the last lines of those that are to be read in order."""
    pages = chain()
    texts = {path: commands() if path == PAGE else path.read_text(encoding="utf-8") for path in pages}
    return {
        path: with_next(texts[path], path, following) for path, following in zip(pages, [*pages[1:], None], strict=True)
    }


def commands() -> str:
    """The content of the page."""
    parent = click.Context(realize, info_name="realize", **realize.context_settings)
    parts = [BEGINNING, *_group(parent)]
    for name, command in realize.commands.items():
        parts += _command(name, command, parent)
    parts += _daemon()
    return "\n".join(parts)


def keys_of(option: Option, command: str) -> list[str]:
    """The keys of a configuration that set what an option of this command, or of `DAEMON`, sets."""
    plain = option.names[-1].removeprefix("--").removeprefix("no-").replace("-", "_")
    name = next((_RENAMED[each] for each in option.names if each in _RENAMED), plain)
    if command == DAEMON:
        return [*_key("", Config, name), *_key("logs.", LogsConfig, name.removeprefix("log_"))]
    own = _key("", Config, name) if name == "key" else []
    return [*own, *(_key("moves.NAME.", MoveConfig, name) if command == "move" else ())]


def _key(prefix: str, cls: type[attrs.AttrsInstance], name: str) -> list[str]:
    """The key that sets the field of that name, its unit left out; none if the class has no such field."""
    return [f"{prefix}{toml_key(each.name)}" for each in attrs.fields(cls) if _without_unit(each.name) == name]


def _without_unit(name: str) -> str:
    return next((name.removesuffix(unit) for unit in _UNITS if name.endswith(unit)), name)


def _group(context: click.Context) -> Iterator[str]:
    yield "## `realize`\n"
    yield "    realize [OPTIONS] SRC... DST\n    realize COMMAND [OPTIONS] ARGS...\n"
    yield "| command | does |\n|---|---|"
    for name, command in realize.commands.items():
        more = f" [More]({COMMANDS_EXPLAINED_IN[name]})" if name in COMMANDS_EXPLAINED_IN else ""
        yield f"| [`{name}`](#realize-{name}) | {_cell(command.get_short_help_str(200))}{more} |"
    yield ""
    yield from _table(options_of(context), lambda _: [])


def _command(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name)
    yield f"## `realize {name}`\n"
    yield f"    realize {name} {' '.join(command.collect_usage_pieces(context))}\n"
    yield from _prose(str(command.help))
    if name == "copy":
        missing = {each.written for each in options_of(_context_of("move", parent))}
        missing -= {each.written for each in options_of(context)}
        without = f", without {' and '.join(f'`{each}`' for each in sorted(missing))}" if missing else ""
        yield f"It has the options of [`move`](#realize-move){without}.\n"
        return
    yield from _table(options_of(context), lambda option: keys_of(option, name))


def _context_of(name: str, parent: click.Context) -> click.Context:
    return click.Context(realize.commands[name], parent=parent, info_name=name)


def _daemon() -> Iterator[str]:
    yield "## `twistd realized`\n"
    yield "    twistd [OPTIONS OF TWISTD] realized [OPTIONS]\n"
    yield f"{Options.longdesc}\n"
    help_and_version = [
        Option(("--help",), "", "Display the options and exit.", "", ""),
        Option(("--version",), "", "Display the version of Realize and exit.", "", ""),
    ]
    yield from _table([*options_of_daemon(), *help_and_version], lambda option: keys_of(option, DAEMON))
    yield "What is given here outranks the file, also after a reload."
    yield "Options of `twistd` itself, such as `--nodaemon` and `--pidfile`, stand before `realized`;"
    yield "`twistd --help` lists them.\n"


def _prose(text: str) -> Iterator[str]:
    """The help of a command; click leaves a paragraph behind a backspace as it is."""
    for paragraph in cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.strip("\b\n").split("\n")
            yield "\n".join(f"    {line}".rstrip() for line in lines) + "\n"
        else:
            yield paragraph.strip() + "\n"


def _table(options: Iterable[Option], keys: Callable[[Option], list[str]]) -> Iterator[str]:
    yield "| option | meaning | default | also set by |\n|---|---|---|---|"
    for each in options:
        also = [*([each.environment] if each.environment else []), *keys(each)]
        cells = (
            f"`{each.written}`",
            _with_code(each.says) + _more(each),
            _with_code(each.default),
            ", ".join(f"`{name}`" for name in also),
        )
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""


def _more(option: Option) -> str:
    found = next((EXPLAINED_IN[name] for name in option.names if name in EXPLAINED_IN), None)
    return "" if found is None else f" [More]({found})"


def _with_code(text: str) -> str:
    """The text, with options in it as what somebody types."""
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
