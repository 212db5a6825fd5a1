"""Hints about keys in a handshake: `realize.wire.key_hints`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.keys import MAX_KEYS, generate_identity
from realize.wire.key_hints import known_offer, offers, server_name, wanted

KEYS = [generate_identity().public_key for _ in range(MAX_KEYS + 2)]


@pytest.mark.parametrize("number", range(1, MAX_KEYS + 1))
def test_the_first_key_that_is_accepted_is_shown(number):
    """Whichever of them that is, whatever else is accepted, and in which order."""
    own = KEYS[:number]
    for index, key in enumerate(own):
        assert index == wanted(server_name([KEYS[-1], key]), own)
        assert index == wanted(server_name([key, KEYS[-1]]), own)
    assert 0 == wanted(server_name(own[::-1]), own)


def test_who_accepts_none_is_shown_the_first():
    """So are those who say nothing: a daemon of before has its pin compared as ever."""
    for name in (server_name(KEYS[-1:]), None, b""):
        assert 0 == wanted(name, KEYS[:2])


def test_a_server_name_is_a_name_and_tells_nothing():
    """It is a valid one that belongs to nobody, never the same twice, and as long for one key as for four."""
    names = {server_name(KEYS[:number]) for number in (1, 1, 2, 4)}

    assert 4 == len(names)
    assert 1 == len({len(name) for name in names})
    for name in names:
        assert re.fullmatch(rb"[a-z0-9]{1,63}\.invalid", name)


@given(st.one_of(st.none(), st.binary(max_size=300), st.from_regex(rb"k[0-9a-f]{60}\.invalid", fullmatch=True)))
def test_any_server_name_leads_to_a_key_of_ours(name):
    """What a stranger writes there can be anything."""
    assert wanted(name, KEYS[:3]) in {0, 1, 2}


def test_the_first_offer_that_is_known_is_answered():
    """In the order of who offers, which is the newest first; nothing if none is known."""
    own = KEYS[:3]
    offered = offers(own)

    assert offered[0] == known_offer(offered, KEYS)
    assert offered[1] == known_offer(offered, [KEYS[2], KEYS[1]])
    assert offered[2] == known_offer(offered, [KEYS[2]])
    assert known_offer(offered, [KEYS[5]]) is None
    assert known_offer(offered, []) is None
    assert known_offer([], own) is None


def test_an_offer_tells_nothing_to_who_does_not_know_the_key():
    """No two handshakes have the same."""
    assert set(offers(KEYS)).isdisjoint(offers(KEYS))


def test_nobody_has_us_hash_for_long():
    """Further offers are not looked at, nor those with another salt."""
    mine, other = offers(KEYS[:1]), offers(KEYS[1:2])

    assert known_offer([*[b"http/1.1"] * MAX_KEYS, *mine], KEYS[:1]) is None
    assert known_offer([*mine, *other], KEYS[1:2]) is None
    assert mine[0] == known_offer([b"h2", *mine], KEYS[:1])


@given(st.lists(st.binary(max_size=255), max_size=10))
def test_any_offers_are_answered_with_one_of_them_or_none(offered):
    """What a stranger offers can be anything."""
    assert known_offer(offered, KEYS) in {None, *offered}
