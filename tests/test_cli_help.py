"""The help of each command: options in sections, and examples that work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from realize.cli.help_sections import sections_of
from realize.cli.main import realize


def help_of(*words: str) -> str:
    """What `--help` prints, on a wide terminal."""
    return CliRunner().invoke(realize, [*words, "--help"], terminal_width=100, catch_exceptions=False).output


def examples_in(text: str) -> Iterator[str]:
    """The command lines below "Examples", without what they are for."""
    below = text.partition("Examples:\n")[2].partition("\n\n")[0]
    return (line.strip().partition("   ")[0] for line in below.splitlines() if line.strip().startswith("realize "))


@pytest.mark.parametrize("name", ["move", "copy"])
def test_each_option_of_a_move_is_in_the_section_of_its_purpose(name: str) -> None:
    """There are many: nobody finds one in a single list."""
    command = realize.commands[name]
    sections = sections_of(command, click.Context(command, **realize.context_settings))

    assert "Options" not in sections
    assert len(command.params) == sum(map(len, sections.values()))  # SRC... is no option, --help is no parameter


def test_the_options_of_a_small_command_come_before_those_that_all_have() -> None:
    """Its own are what somebody looks for."""
    headings = re.findall(r"^(\S.*):$", help_of("throttle"), flags=re.MULTILINE)

    assert ["Options", "Output", "Configuration and keys", "Log"] == headings


@pytest.mark.parametrize("name", [None, *sorted({*realize.commands} - {"completion"})])
def test_each_help_has_examples_that_are_understood(name: str | None) -> None:
    """They can be copied."""
    lines = [*examples_in(help_of(*([name] if name else [])))]

    assert lines
    for line in lines:
        _, *words = shlex.split(line)
        command, rest = (words[0], words[1:]) if words[0] in realize.commands else ("move", words)
        realize.commands[command].make_context(command, rest, parent=click.Context(realize, **realize.context_settings))


@pytest.mark.parametrize("name", [None, *sorted(realize.commands)])
def test_two_colons_are_explained_where_a_location_is_asked_for(name: str | None) -> None:
    """Who reads `PEER::DIR` for the first time learns what it is on the same page."""
    text = " ".join(help_of(*([name] if name else [])).split())

    assert ("::" in text) == (("the daemon" in text and "DIR is a directory" in text) or name == "copy")
