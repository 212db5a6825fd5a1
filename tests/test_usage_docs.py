"""`docs/usage.md` names every command, option and exit code of `realize`, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from realize.cli.main import realize
from realize.daemon.tap import Options
from realize.exit_codes import DaemonExitCode, ExitCode
from realize.levels import FORMATS
from tests.pages import page, quoted, rows, section

PAGE = page("usage.md")
OF_MOVE = rows(section(PAGE, "Options of `move` and `copy`"))
OF_OTHERS = rows(section(PAGE, "Options of the other commands"))
OTHERS = sorted(set(realize.commands) - {"move", "copy"})


def options(*names: str) -> Iterator[tuple[str, click.Option, str]]:
    """Every way to write an option of these commands, with the option and the command."""
    for name in names:
        for option in realize.commands[name].params:
            if isinstance(option, click.Option):
                for written in [*option.opts, *option.secondary_opts]:
                    yield written, option, name


def value(option: click.Option) -> str:
    """What the page shows for the value of an option: the name of it, or the choices; those of a log are a column."""
    if option.is_flag or option.count:
        return ""
    if option.metavar is None and option.type.choices == FORMATS:
        return "FORMAT"
    return option.metavar or "|".join(option.type.choices)


def documented(table: list[list[str]]) -> dict[str, tuple[str, list[str]]]:
    """The options of a table, each with what stands for its value, and with its row."""
    found: dict[str, tuple[str, list[str]]] = {}
    for row in table:
        for each in quoted(row[0]):
            match = re.fullmatch(r"(--?[a-z0-9-]+)(?: (.+)|(\[=.+\]))?", each)
            assert match, f"{each} is not an option and its value"
            assert match[1] not in found, f"{match[1]} is there twice"
            found[match[1]] = (match[2] or match[3] or "", row)
    return found


def test_the_table_of_commands():
    """Each command has a row, and nothing else has one."""
    listed = [quoted(row[0])[0].split()[0] for row in rows(PAGE.partition("\n## ")[0])]

    assert sorted(realize.commands) == sorted(listed)


def test_the_options_of_move_and_copy():
    """The table has each option of both once, with the name of its value, and none that does not exist."""
    expected = {written: value(option) for written, option, _ in options("move", "copy")}

    assert expected == {written: shown for written, (shown, _) in documented(OF_MOVE).items()}


def test_what_only_one_of_them_has():
    """Where `move` and `copy` differ, the row says so."""
    move, copy = ({written for written, _, _ in options(name)} for name in ("move", "copy"))
    only = {written for written, (_, row) in documented(OF_MOVE).items() if "`move` only" in row[1]}

    assert set() == copy - move
    assert only == move - copy


def test_the_options_of_the_other_commands():
    """The table has each of their options once, with its value and the commands that know it, and no other."""
    expected: dict[str, tuple[str, set[str]]] = {}
    for written, option, name in options(*OTHERS):
        expected.setdefault(written, (value(option), set()))[1].add(name)

    assert expected == {
        written: (shown, set(quoted(row[2]))) for written, (shown, row) in documented(OF_OTHERS).items()
    }


def test_no_option_that_does_not_exist():
    """Wherever the page writes an option, one of our programs has it."""
    ours = {written for written, _, _ in options(*realize.commands)} | {"--help", "--version"}
    ours |= {f"--{name}" for name, *_ in Options.optParameters}
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGE))

    assert set() == written - ours


def test_choices():
    """The rows name each of the values that an option can have."""
    row = documented(OF_MOVE)["--log-format"][1]

    assert set(FORMATS) == set(quoted(row[1]))


def test_numbers_that_are_defaults():
    """The number that an option has by default is in its row."""
    numbers = {
        written: option.default
        for written, option, _ in options("move")
        if isinstance(option.default, int) and not option.is_flag and not option.count
    }

    assert {} != numbers
    assert all(f"(default {number})" in documented(OF_MOVE)[written][1][1] for written, number in numbers.items())


def test_exit_codes():
    """The table has each code that the command can end with, and no other; so has `realize --help`."""
    codes = set(ExitCode)
    elsewhere = {int(code) for code in re.findall(r"exit code (?:is )?(\d+)", PAGE)}

    assert codes == {int(row[0]) for row in rows(section(PAGE, "Exit codes"))}
    assert set(DaemonExitCode) == {int(row[0]) for row in rows(section(PAGE, "Exit codes of the daemon"))}
    assert codes == {int(code) for code in re.findall(r"^  (\d+) ", str(realize.epilog), flags=re.MULTILINE)}
    assert elsewhere <= codes


@pytest.mark.parametrize("name", sorted(realize.commands))
def test_environment_variables(name):
    """The page names each variable of the environment that the help names."""
    helps = " ".join([str(realize.commands[name].help), *(f"{option.help}" for _, option, _ in options(name))])

    assert set() == {variable for variable in re.findall(r"REALIZE_[A-Z_]+", helps) if f"`{variable}`" not in PAGE}
