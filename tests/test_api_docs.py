"""docs/api.md says all that a program can ask for, and what it gets."""

from __future__ import annotations

import inspect

import attrs
import pytest

from realize import api
from realize.cli.commands.move import MoveArguments
from tests.pages import page, quoted, rows, section

FUNCTIONS = [
    each
    for name in api.__all__
    if inspect.isfunction(each := getattr(api, name)) and "reactor" in inspect.signature(each).parameters
]
NOT_FOR_PROGRAMS = {
    "locations": "parameters of `move`",
    "access": "`config`",
    "log": "`logger_of`",
    "include": "`rules`",
    "exclude": "`rules`",
    "filter_from": "`rules`",
    "throttle": "`up_bps` and `down_bps`",
    "throttle_up": "`up_bps`",
    "throttle_down": "`down_bps`",
    "min_age": "`min_age_s`",
    "min_size": "`min_size_bytes`",
    "max_size": "`max_size_bytes`",
    "max_transfer": "`max_transfer_bytes`",
    "prune_dirs": "`prune_age_s`",
    "max_duration": "`max_duration_s`",
    "grace": "`grace_s`",
    "no_retry": "`retry`",
    "no_preserve": "`preserve`",
    "progress": "a display",
    "quiet": "a display",
    "json": "a display",
    "verbose": "a display",
}
"""Options of the command, and what a program has in their place."""


def test_every_option_of_a_move_is_there():
    """In the table, and none that does not exist."""
    text = section(page("api.md"), "The functions")

    table = text[text.index("| field |") :]
    named = {name for row in rows(table) for name in quoted(row[0])}
    assert {field.name for field in attrs.fields(api.MoveOptions)} == named


def test_whatever_the_command_can_ask_for_a_program_can_ask_for():
    """Under the same name, or another one for a reason."""
    fields = {field.name for field in attrs.fields(api.MoveOptions)}

    missing = {field.name for field in attrs.fields(MoveArguments)} - fields
    assert set(NOT_FOR_PROGRAMS) == missing


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_function_is_there_with_its_parameters(function):
    """Each keyword is explained on the page."""
    text = section(page("api.md"), "The functions")

    assert f"`{function.__name__}(reactor, " in text
    keywords = [each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]
    assert [] == [name for name in keywords if f"`{name}`" not in text and f"{name}=" not in text]
