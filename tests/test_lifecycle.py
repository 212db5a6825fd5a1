"""The states of a connection, and their order."""

from itertools import product

import pytest

from realize.wire.lifecycle import ConnectionState

STATES = list(ConnectionState)


@pytest.mark.parametrize(("state", "later"), list(product(STATES, STATES)))
def test_a_connection_never_goes_back(state, later):
    """What comes late changes nothing; what ends it may skip states."""
    after = state.then(later)

    assert (after is later) == (later >= state)
    assert after >= state


def test_boxes_are_sent_and_read_from_the_first_byte_to_the_last():
    """Also while a connection closes, and what has arrived when the transport is gone; never after an abort."""
    active = [state for state in STATES if state.active]

    assert [ConnectionState.OPEN, ConnectionState.CLOSING, ConnectionState.DISCONNECTED] == active
