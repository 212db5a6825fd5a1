"""`realize.throttle.states`: both machines, event by event, and their drawing in docs/states.md."""

from itertools import product
from pathlib import Path as File

import pytest

from realize.throttle.states import CloseState, SendState, TransportEvent, next_close_state, next_send_state

FACTS = [
    dict(zip(("limited", "waiting", "holding"), values, strict=True)) for values in product((False, True), repeat=3)
]
DRAWING = File(__file__).parent.parent / "docs" / "states.md"


class TestPath:
    """How bytes travel."""

    @pytest.mark.parametrize("facts", FACTS)
    @pytest.mark.parametrize("path", [SendState.PASSING, SendState.SHAPING])
    def test_a_limit_shapes(self, path, facts):
        """Whatever else is the case."""
        assert SendState.SHAPING is next_send_state(path, **{**facts, "limited": True})

    @pytest.mark.parametrize(("waiting", "holding"), [(False, True), (True, False), (True, True)])
    def test_without_a_limit_what_is_held_back_goes_first(self, waiting, holding):
        """Until then nothing may overtake it, and nobody else would resume the producer."""
        assert SendState.SHAPING is next_send_state(SendState.SHAPING, limited=False, waiting=waiting, holding=holding)

    @pytest.mark.parametrize("path", [SendState.PASSING, SendState.SHAPING])
    def test_without_a_limit_and_with_nothing_held_back_bytes_pass(self, path):
        """Again, or still."""
        assert SendState.PASSING is next_send_state(path, limited=False, waiting=False, holding=False)

    @pytest.mark.parametrize("facts", FACTS)
    def test_closed_is_final(self, facts):
        """Whatever happens then."""
        assert SendState.CLOSED is next_send_state(SendState.CLOSED, **facts)


class TestEnding:
    """How the application's wish to end is fulfilled."""

    @pytest.mark.parametrize("event", TransportEvent)
    def test_closed_is_final(self, event):
        """Whatever happens then."""
        assert CloseState.CLOSED is next_close_state(CloseState.CLOSED, event)

    @pytest.mark.parametrize("ending", CloseState)
    def test_abort_ends_everything(self, ending):
        """At once."""
        assert CloseState.CLOSED is next_close_state(ending, TransportEvent.ABORT)

    def test_a_close_replaces_a_half_close_that_has_not_happened(self):
        """The transport is then told once, to close."""
        ending = CloseState.OPEN
        for event in (TransportEvent.LOSE_WRITE, TransportEvent.LOSE, TransportEvent.LOSE_WRITE):
            ending = next_close_state(ending, event)

        assert CloseState.CLOSING is ending
        assert CloseState.CLOSED is next_close_state(ending, TransportEvent.DRAINED)

    def test_the_drawing_has_every_transition_and_no_other(self):
        """A reader of docs/states.md reads the table of the code."""
        section = DRAWING.read_text().partition("## The throttled transport")[2].partition("\n## ")[0]
        rows = [
            [cell.strip() for cell in line.split("|")[1:4]] for line in section.splitlines() if line.startswith("| ")
        ]
        endings, events = {each.value for each in CloseState}, {each.value for each in TransportEvent}
        drawn = {
            (source, event, target)
            for name, event, target in rows
            if event in events
            for source in (endings if name == "any" else {name})
            if source != target
        }

        assert drawn == {
            (ending.value, event.value, next_close_state(ending, event).value)
            for ending, event in product(CloseState, TransportEvent)
            if next_close_state(ending, event) is not ending
        }
