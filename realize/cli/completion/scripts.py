"""The scripts: what `realize.cli.completion.grammar` knows, as each shell wants to be told.

What is the same for every command line stands in the files ``realize.SHELL``; the rest comes where they say
``@TABLES@``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Final

from attrs import evolve

from realize.cli.completion.grammar import CommandGrammar, Operand, Option

_TABLES_MARK: Final = "@TABLES@\n"


def script(shell: str, commands: Sequence[CommandGrammar]) -> str:
    """The script for one of `SHELLS`."""
    frame = files(__package__).joinpath(f"realize.{shell}").read_text(encoding="utf-8")
    return frame.replace(_TABLES_MARK, "".join(f"{line}\n" for line in SHELLS[shell](commands)))


def _bash(commands: Sequence[CommandGrammar]) -> Iterator[str]:
    def entry(operand: Operand) -> str:
        asked = [f"@{operand.asks}"] if operand.asks else []
        return _single([*operand.words, *asked, *(["/"] if operand.files else [])])

    for command in commands:
        names = [name for option in command.options for name in (*option.names, *option.rivals)]
        yield f"_realize_arguments[{command.name}]={entry(command.argument)}"
        yield f"_realize_options[{command.name}]={_single(names)}"
        for option in command.options:
            if option.value is not None:
                yield from (f"_realize_values['{command.name} {name}']={entry(option.value)}" for name in option.names)


def _zsh(commands: Sequence[CommandGrammar]) -> Iterator[str]:
    def action(operand: Operand) -> str:
        if operand.asks:
            return f"_realize_{operand.asks}" if operand.files else f"{{_realize_ask {operand.asks}}}"
        return "_files" if operand.files else f"({' '.join(operand.words)})" if operand.words else " "

    def escaped(text: str) -> str:
        return "".join(f"\\{each}" if each in "\\:[]" else each for each in text)

    def specs(option: Option, *, first: bool) -> Iterator[str]:
        for names, rivals in ((option.names, option.rivals), (option.rivals, option.names)):
            others = " ".join([*(names if not option.repeatable else ()), *rivals])
            for name in names:
                if option.value_behind_equals:
                    value = f"=-[{escaped(option.help)}]::{option.metavar}: "
                elif option.value is None:
                    value = f"[{escaped(option.help)}]"
                else:
                    equals = "=" if name.startswith("--") else "+"
                    value = f"{equals}[{escaped(option.help)}]:{escaped(option.metavar)}:{action(option.value)}"
                yield _quoted(("*" if option.repeatable else f"({others})") + name + value)
        if first and "--help" in option.names:
            yield _quoted("(- *)--version[Show the version and exit]")

    yield ""
    yield "typeset -ga _realize_commands"
    yield "_realize_commands=("
    yield from (f"    {_quoted(f'{each.name}:{escaped(each.help)}')}" for each in commands)
    yield ")"
    for command in commands:
        yield ""
        yield f"_realize_of_{command.name}() {{"
        yield "    _arguments -s -S \\"
        for option in command.options:
            yield from (f"        {spec} \\" for spec in specs(option, first=command.name == "move"))
        yield f"        {_quoted(f'*:argument:{action(command.argument)}')}"
        yield "}"
    yield ""


def _fish(commands: Sequence[CommandGrammar]) -> Iterator[str]:
    def what(operand: Operand) -> str:
        words = list(operand.words) + ([f"(__realize_ask {operand.asks})"] if operand.asks else [])
        return (" -F" if operand.files else "") + (f" -a {_fish_quoted(' '.join(words))}" if words else "")

    def names(option: Option) -> Iterator[str]:
        if option.rivals:
            yield from (f" -l {name.removeprefix('--')}" for name in (*option.names, *option.rivals))
        else:
            yield "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)

    valued = dict.fromkeys(
        name for each in commands for option in each.options if option.value is not None for name in option.names
    )
    yield f"set -g __realize_commands {' '.join(each.name for each in commands)}"
    yield f"set -g __realize_valued {' '.join(valued)}"
    yield "complete -c realize -n __realize_begins -l version -d 'Show the version and exit'"
    for command in commands:
        yield f"complete -c realize -n __realize_begins -a {command.name} -d {_fish_quoted(command.help)}"
    options: dict[Option, list[str]] = {}
    for command in commands:
        here = f"__realize_is {command.name}"
        if command.argument.asks and command.argument.files:
            yield f"complete -c realize -n '{here}; and __realize_is_local' -F"
            yield f"complete -c realize -n '{here}'{what(evolve(command.argument, files=False))}"
        else:
            yield f"complete -c realize -n '{here}'{what(command.argument)}"
        for option in command.options:
            options.setdefault(option, []).append(command.name)
    for option, having in options.items():
        value = "" if option.value is None else (" -r" if option.value.files else " -x") + what(option.value)
        for name in names(option):
            condition = f"__realize_is {' '.join(having)}"
            yield f"complete -c realize -n '{condition}'{name}{value} -d {_fish_quoted(option.help)}"


SHELLS: Final[Mapping[str, Callable[[Sequence[CommandGrammar]], Iterator[str]]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""What each shell is told of the commands."""


def _single(words: Sequence[str]) -> str:
    return _quoted(" ".join(words))


def _quoted(text: str) -> str:
    """A word for bash and zsh, always in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
