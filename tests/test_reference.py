"""docs/commands.md: every option of both programs, as they are; `release.reference`."""

from __future__ import annotations

import click
import pytest

from realize.cli.main import realize
from realize.config import Config, LogsConfig, MoveConfig
from release.options import Option, options_of, options_of_daemon
from release.reference.chain import with_next, without_next
from release.reference.page import DAEMON, EXPLAINED_IN, PAGE, keys_of, written
from tests.test_configuration_docs import keys

ONLY_FOR_STANDING_MOVES = {"from", "to", "when", "settle", "jitter", "after", "after_timeout"}
"""Keys of a move that no option of `realize move` has; where the two programs differ on purpose."""


def options(name: str) -> list[Option]:
    """The options of a command, or of the daemon."""
    if name == DAEMON:
        return list(options_of_daemon())
    parent = click.Context(realize, **realize.context_settings)
    return list(options_of(click.Context(realize.commands[name], parent=parent, info_name=name)))


def test_pages_are_what_the_programs_say():
    """If this fails, an option, its help, or the title or order of a page is another one now: run `make reference`."""
    made = written()

    assert PAGE in made
    assert [] == [path.name for path, text in made.items() if text != path.read_text()]


def test_the_way_from_one_page_to_the_next(tmp_path):
    """The last line of a page leads to the next one by its title, and takes the place of the line before."""
    first, second = tmp_path / "README.md", tmp_path / "docs" / "second.md"
    second.parent.mkdir()
    second.write_text("# The second\n")

    text = with_next("# The first\n\nText.\n\nNext: [Other](other.md)\n", first, second)

    assert "# The first\n\nText.\n\nNext: [The second](docs/second.md)\n" == text
    assert "# The first\n\nText.\n" == with_next(text, first, None) == without_next(text)


def test_every_key_that_an_option_sets_too_is_named():
    """All keys of a standing move, and all of the log, are keys of options, but those that no option can have."""
    of_move = {key for option in options("move") for key in keys_of(option, "move")}
    of_daemon = {key for option in options(DAEMON) for key in keys_of(option, DAEMON)}

    assert {f"moves.NAME.{name}" for name in keys(MoveConfig)} - of_move == {
        f"moves.NAME.{name}" for name in ONLY_FOR_STANDING_MOVES
    }
    assert {"metrics", "drain", *keys(LogsConfig, "logs.")} == of_daemon
    assert of_daemon | of_move - {f"moves.NAME.{name}" for name in keys(MoveConfig)} <= set(keys(Config))


def test_every_explained_option_is_there():
    """What the page says more of is an option of one of the programs."""
    written = {name for command in (*realize.commands, DAEMON) for option in options(command) for name in option.names}

    assert set() == set(EXPLAINED_IN) - written


@pytest.mark.parametrize(
    ("name", "written", "default", "environment"),
    [
        ("--jobs", "--jobs N", "4", ""),
        ("--min-age", "--min-age DUR", "0s", ""),
        ("--prune-dirs", "--prune-dirs[=AGE]", "", ""),
        ("--config", "--config FILE", "~/.config/realize/realize.toml", "REALIZE_CONFIG"),
        ("--order", "--order newest|oldest|largest|smallest", "", ""),
        ("-v", "-v, --verbose", "", ""),
    ],
)
def test_how_an_option_is_read(name, written, default, environment):
    """Its name, value, default and variable come from what click knows, and from the brackets in its help."""
    (option,) = [each for each in options("move") if name in each.names]

    assert (written, default, environment) == (option.written, option.default, option.environment)
    assert "[default" not in option.says
