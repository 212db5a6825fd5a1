"""The ids that both ends make of what both know: `realize.tracing`."""

from xxhash import xxh3_64_digest

from realize.tracing import run_of, transfer_id


def test_a_transfer_is_named_by_run_and_path():
    """As docs/logging.md says: the XXH3 of run, NUL and path, in hexadecimal."""
    assert xxh3_64_digest(b"abc\0d/\xff").hex() == transfer_id("abc", b"d/\xff")


def test_transfers_are_told_apart():
    """Another run or another path is another transfer, and no run is no id."""
    assert 3 == len({transfer_id("a", b"f"), transfer_id("b", b"f"), transfer_id("a", b"g")})
    assert "" == transfer_id("", b"f")


def test_all_connections_of_a_run_are_of_that_run():
    """What distinguishes the peers of a run is behind a dash."""
    assert {"abc"} == {run_of("abc-1"), run_of("abc-2"), run_of("abc")}
