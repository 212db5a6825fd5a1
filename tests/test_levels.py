"""Levels of the log as people write them: `realize.levels`."""

from __future__ import annotations

import pytest

from realize.errors import UsageError
from realize.levels import Levels, parse_levels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debug", Levels("debug")),
        ("info,wire=debug", Levels("info", {"wire": "debug"})),
        ("wire=debug", Levels("info", {"wire": "debug"})),
        (" warning , mover = info , twisted=error ", Levels("warning", {"mover": "info", "twisted": "error"})),
    ],
)
def test_levels_are_read(text, expected):
    """A level for everything, then levels for components."""
    assert expected == parse_levels(text)


def test_a_component_without_a_level_has_the_default():
    """Only those named differ."""
    levels = parse_levels("error,store=debug")

    assert (10, 40) == (levels.of("store"), levels.of("wire"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loud", "'loud' is not a level"),
        ("", "'' is not a level"),
        ("info,debug", "more than one level for everything"),
        ("info,disk=debug", "'disk' is not a component of the log: expected one of cli, daemon"),
        ("wire=", "'' in 'wire=' is not a level"),
        ("wire=debug,wire=info", "names wire twice"),
    ],
)
def test_nonsense_is_refused(text, expected):
    """What is no level is a usage error that says what would be one."""
    with pytest.raises(UsageError) as caught:
        parse_levels(text)

    assert expected in str(caught.value)
