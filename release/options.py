"""The options of both programs as values, read from the programs: for the reference and the man pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import click
from attrs import frozen

from realize.daemon.tap import Options

_NOTES: Final = re.compile(r"\s*\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]\.?$")
"""What the help has in square brackets at its end."""

_RANGE: Final = re.compile(r"(\d+)<=x<=(\d+)")


@frozen
class Option:
    """One option: how it is written, and what is to be known of it; what there is not is empty."""

    names: tuple[str, ...]
    value: str
    """What stands for its value."""
    says: str
    default: str
    environment: str
    """The variable of the environment that sets it."""

    @property
    def written(self) -> str:
        """All of its names, with what stands for the value behind the last one."""
        separator = "" if self.value.startswith("[=") else " "
        return f"{', '.join(self.names)}{separator}{self.value}".rstrip()


def options_of(context: click.Context) -> Iterator[Option]:
    """The options of a command of `realize`, as its help lists them."""
    for each in context.command.get_params(context):
        record = each.get_help_record(context) if isinstance(each, click.Option) else None
        if record is None or not isinstance(each, click.Option):
            continue
        says, notes = _parted(" ".join(record[1].split()))
        names = (*each.opts, *each.secondary_opts)
        default = notes.get("default", each.default if isinstance(each.default, str) else "")
        yield Option(names, _value(each, context), says, default, notes.get("environment", ""))


def options_of_daemon() -> Iterator[Option]:
    """The options of ``twistd realized``."""
    options = Options()
    values = dict(re.findall(r"--([a-z-]+) ([A-Z]+)", options.synopsis))
    for long, short, says in options.optFlags:
        yield Option(_names(long, short), "", says, "", "")
    for long, short, default, says in options.optParameters:
        plain, notes = _parted(says)
        yield Option(_names(long, short), values[long], plain, default or notes.get("default", ""), "")


def _value(option: click.Option, context: click.Context) -> str:
    if option.is_flag or option.count:
        return ""
    return option.metavar or option.make_metavar(context).strip("[]")


def _names(long: str, short: str | None) -> tuple[str, ...]:
    return (f"-{short}", f"--{long}") if short else (f"--{long}",)


def _parted(text: str) -> tuple[str, dict[str, str]]:
    """What the help says, with the limits of a number, and its notes by name: ``default``, ``environment``."""
    found = _NOTES.search(text)
    if found is None or not re.match(r"default: |environment: |\d+<=x<=", found[1]):
        return text, {}
    says, notes = text[: found.start()].rstrip(), {}
    for note in found[1].split("; "):
        name, separator, value = note.partition(": ")
        limits = _RANGE.fullmatch(note)
        if limits:
            says = f"{says} From {limits[1]} to {limits[2]}."
        elif separator and name in {"default", "environment"}:
            notes[name] = value
        else:
            raise ValueError(f"{note!r} is neither default, environment nor limits: {text}")
    return says if says.endswith((".", "!", ")")) else f"{says}.", notes
