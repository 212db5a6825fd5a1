"""What is done with errors, wherever they come from."""

import pytest
from twisted.internet.defer import fail

from realize.errors import Busy, ignore_expected


def test_our_own_errors_may_be_ignored():
    """Nobody waits, and nothing is logged."""
    ended = []

    fail(Busy("later")).addErrback(ignore_expected).addCallback(ended.append)

    assert [None] == ended


async def test_other_errors_are_never_ignored():
    """They are faults, and whoever comes next gets them."""
    with pytest.raises(ValueError, match="a fault"):
        await fail(ValueError("a fault")).addErrback(ignore_expected)
