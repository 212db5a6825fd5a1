"""What a peer may do in a directory: `realize.store.server.rights`."""

import pytest

from realize.config import Right
from realize.errors import AccessDenied, BadName, Conflict
from realize.store.server.rights import rights_in
from realize.values import OnConflict, Use
from tests.loopback import Log


def rights(*granted, log=None):
    """Those of a peer with these rights."""
    return rights_in("inbox", {"inbox": frozenset(granted)}, Log() if log is None else log)


@pytest.mark.parametrize("granted", [{}, {"inbox": frozenset()}, {"outbox": frozenset(Right)}])
def test_a_directory_without_rights_is_like_one_that_does_not_exist(granted):
    """The same answer, and the same line in the log."""
    log = Log()
    with pytest.raises(AccessDenied, match=r"^no directory inbox is open to this peer$"):
        rights_in("inbox", granted, log)

    assert [{"dir": "inbox", "right": "any"}] == log.named("access_denied")


def test_one_of_the_rights_is_enough():
    """Without any of them, the first is the one that is named."""
    log = Log()
    may = rights(Right.CREATE, log=log)
    may.require(Right.WRITE, Right.CREATE)
    before = log.named("access_denied")
    with pytest.raises(AccessDenied, match=r"^this peer may not remove in inbox$"):
        may.require(Right.REMOVE, Right.PRUNE)

    assert ([], [{"dir": "inbox", "right": "remove"}]) == (before, log.named("access_denied"))


@pytest.mark.parametrize(
    ("use", "enough"),
    [
        (Use.READ, [{Right.READ}]),
        (Use.MOVE, [{Right.READ, Right.REMOVE}]),
        (Use.PUT, [{Right.WRITE}, {Right.CREATE}]),
        (Use.COMPARE, [{Right.WRITE}, {Right.CREATE}]),
    ],
)
def test_a_use_needs_its_rights(use, enough):
    """All of them, and no others."""
    for may in enough:
        rights(*may).require_for(use)
        for missing in may:
            with pytest.raises(AccessDenied):
                rights(*(set(Right) - set().union(*enough)), *(may - {missing})).require_for(use)


def test_who_may_only_create_replaces_nothing():
    """Whatever he asks for; and is told why not."""
    creates, writes = rights(Right.CREATE), rights(Right.WRITE)
    conflict, other = Conflict("f: is there already"), BadName("f")

    assert (False, True) == (creates.replaces, writes.replaces)
    assert [OnConflict.FAIL, OnConflict.FAIL, OnConflict.SKIP] == [
        creates.policy(asked) for asked in (OnConflict.REPLACE, OnConflict.FAIL, OnConflict.SKIP)
    ]
    assert OnConflict.REPLACE is writes.policy(OnConflict.REPLACE)
    assert "f: is there already; this peer may create files there, but not replace any" == str(creates.said(conflict))
    assert (conflict, other) == (writes.said(conflict), creates.said(other))


def test_who_may_not_read_has_an_origin():
    """His own, and that of whom he names; two peers that name the same have different ones."""
    writes, reads = rights(Right.WRITE), rights(Right.WRITE, Right.READ)
    named = bytes(32)
    origins = [writes.origin(b"key", None), writes.origin(b"other", None), writes.origin(b"key", named)]

    assert None is reads.origin(b"key", None)
    assert origins[2] == reads.origin(b"key", named)
    assert 3 == len({*origins})
    assert None not in origins
