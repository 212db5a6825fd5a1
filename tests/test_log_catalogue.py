"""`docs/logging.md` and the code say the same of what is logged."""

from __future__ import annotations

from realize.levels import COMPONENTS
from tests.log_catalogue import components, documented, logged


def test_every_event_is_in_the_catalogue_and_nothing_else():
    """The names of the events in the source and in the catalogue are the same."""
    assert sorted(documented()) == sorted(logged())


def test_levels_and_fields_are_those_of_the_catalogue():
    """Each event is logged at its level with its fields, no more and no less."""
    assert documented() == logged()


def test_components_exist():
    """Every event comes from components whose level can be set."""
    named = components()

    assert set(named) == set(documented())
    assert all(named.values())
    assert set().union(*named.values()) <= set(COMPONENTS)
