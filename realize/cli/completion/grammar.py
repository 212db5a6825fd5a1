"""The commands as a shell has to know them, from click's objects: options, what follows each, and arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import click
from attrs import frozen

from realize.by_value import ByValue
from realize.levels import LEVELS


@frozen(eq=False, repr=False)
class Operand(ByValue):
    """What may stand somewhere."""

    words: tuple[str, ...] = ()
    """These; a value need not be one of them."""
    asks: str = ""
    """What to ask `realize` for, one of `realize.cli.completion.words.WORDS_OF`; empty if it knows nothing."""
    files: bool = False
    """Whether local files and directories may stand there."""


@frozen(eq=False, repr=False)
class Option(ByValue):
    """One option."""

    names: tuple[str, ...]
    rivals: tuple[str, ...]
    """What says the opposite."""
    help: str
    metavar: str
    value: Operand | None
    """What follows it; None if nothing does, or only behind ``=``."""
    repeatable: bool
    value_behind_equals: bool
    """Whether a value may follow behind ``=``, and only there."""


@frozen(eq=False, repr=False)
class CommandGrammar(ByValue):
    """One command."""

    name: str
    help: str
    options: tuple[Option, ...]
    argument: Operand


_RATE_WORDS: Final = Operand(words=("unlimited",))
_ANYTHING: Final = Operand()

VALUES: Final[Mapping[str, Operand]] = {
    "AGE": _ANYTHING,
    "DIR": _ANYTHING,
    "DUR": _ANYTHING,
    "FILE": Operand(files=True),
    "GLOB": _ANYTHING,
    "HOST:PORT": _ANYTHING,
    "KEY|FILE": Operand(files=True),
    "LEVEL": Operand(words=tuple(LEVELS)),
    "LIST": Operand(words=("mode", "times", "owner", "acl", "xattr", "hardlinks", "all", "none")),
    "N": _ANYTHING,
    "NAME": _ANYTHING,
    "RATE": _RATE_WORDS,
    "SIZE": _ANYTHING,
    "URL": _ANYTHING,
    "service|peer:NAME|connection:ID": Operand(asks="scope"),
}
"""What the value of an option can be, by the name that the help has for it."""

ARGUMENTS: Final[Mapping[str, Operand]] = {
    "SRC... DST": Operand(asks="location", files=True),
    "LOCATION": Operand(asks="location", files=True),
    "PEER[::DIR]": Operand(asks="target"),
    "[PEER]": Operand(asks="peer"),
    "[PEER] [RATE]": Operand(asks="limited"),
    "[list] [PEER] | show|run|pause|resume NAME [PEER]": Operand(asks="steered"),
    "[FILE]": Operand(files=True),
}
"""What the arguments of a command can be, by the names that the help has for them."""


def commands_of(group: click.Group) -> tuple[CommandGrammar, ...]:
    """All commands of a group, in the order of its help."""
    return tuple(_command(group, command) for command in group.commands.values() if not command.hidden)


def options_of(command: click.Command, parent: click.Context | None = None) -> tuple[Option, ...]:
    """The options of a command, its help included, in the order of the help."""
    context = click.Context(command, parent=parent, info_name=command.name, help_option_names=["-h", "--help"])
    return tuple(
        _option(context, each)
        for each in command.get_params(context)
        if isinstance(each, click.Option) and not each.hidden
    )


def _command(group: click.Group, command: click.Command) -> CommandGrammar:
    parent = click.Context(group, info_name=group.name)
    context = click.Context(command, parent=parent, info_name=command.name)
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    argument = _argument(context, arguments[0]) if arguments else _ANYTHING
    return CommandGrammar(str(command.name), command.get_short_help_str(200).rstrip("."), options_of(command), argument)


def _argument(context: click.Context, argument: click.Argument) -> Operand:
    if isinstance(argument.type, click.Choice):
        return Operand(words=tuple(argument.type.choices))
    return ARGUMENTS.get(argument.make_metavar(context), _ANYTHING)


def _option(context: click.Context, option: click.Option) -> Option:
    metavar = "" if option.is_flag or option.count else option.make_metavar(context)
    optional = metavar.startswith("[=")
    metavar = metavar.strip("[=]")
    return Option(
        names=tuple(option.opts),
        rivals=tuple(option.secondary_opts),
        help=_in_short(option.help or ""),
        metavar=metavar,
        value=None if optional or not metavar else _value(option, metavar),
        repeatable=option.multiple,
        value_behind_equals=optional,
    )


def _value(option: click.Option, metavar: str) -> Operand:
    return (
        Operand(words=tuple(option.type.choices))
        if isinstance(option.type, click.Choice)
        else VALUES.get(metavar, _ANYTHING)
    )


def _in_short(text: str) -> str:
    """The first sentence of a help, without what stands in brackets behind it."""
    sentence = re.split(r"\s\[|(?<=[a-z)])[.;:]\s", text, maxsplit=1)[0]
    return " ".join(sentence.split()).rstrip(".")
