"""Options that the fields of a class declare."""

from __future__ import annotations

import click
from attrs import frozen
from click.testing import CliRunner

from realize.cli.option_fields import argument, collects, group, option


@frozen
class Colours:
    """A group of options."""

    front: str = option(otherwise="black", default="red", help="The front.")
    back_side: str | None = option(otherwise=None, metavar="COLOUR", help="The back.")


@frozen(kw_only=True)
class Painting:
    """All that a command takes."""

    things: tuple[str, ...] = argument(nargs=-1)
    loud: bool = option("-l", "--loud/--quiet", default=None, help="Noise.")
    colours: Colours = group(Colours, "colour_")
    coats: int = option(default=1, help="How often.")
    frame: str | None = option(otherwise=None, help="Around it.")


def run(*words: str) -> tuple[Painting, str]:
    """What a command line sets, and the help of the command."""
    seen: list[Painting] = []

    @click.command()
    @collects(Painting, "asked", without={"frame"})
    def paint(asked: Painting) -> None:
        seen.append(asked)

    assert 0 == CliRunner().invoke(paint, words, catch_exceptions=False).exit_code
    return seen[0], CliRunner().invoke(paint, ["--help"]).output


def test_every_field_is_set_by_its_option() -> None:
    """By its own name or by the names it gives, in groups too; the rest have the defaults of the command line."""
    asked, _ = run("--coats", "2", "-l", "--colour-back-side", "blue", "door", "wall")

    assert Painting(things=("door", "wall"), loud=True, colours=Colours("red", "blue"), coats=2) == asked


def test_the_help_has_the_order_of_the_fields() -> None:
    """A group stands where its field stands, and what a command does without is not there."""
    _, text = run()

    words = [line.split()[0] for line in text.partition("Options:")[2].splitlines() if line.strip().startswith("-")]
    assert ["-l,", "--colour-front", "--colour-back-side", "--coats", "--help"] == words


def test_a_group_can_be_made_without_a_command_line() -> None:
    """Then its fields are what the class says, whatever the default of the option."""
    assert ("black", None) == (Colours().front, Colours().back_side)
