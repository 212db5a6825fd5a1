"""Names are judged and joined in one place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realize.errors import BadName
from realize.store import names
from realize.testing import BAD_NAMES, ODD_NAMES

components = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_refuses(name):
    """Names that are empty, absolute, lead upwards, hold NUL or look like a partial are refused."""
    with pytest.raises(BadName):
        names.judge(name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_accepts(name):
    """Anything else that Linux takes for a file name is accepted as it is."""
    assert name == names.join(names.judge(name))


def test_limits_of_length():
    """A component has at most 255 bytes, a name at most 4000, and an error does not repeat all of it."""
    names.judge(b"x" * 255)
    names.judge(b"x/" * 1999 + b"xx")

    with pytest.raises(BadName):
        names.judge(b"x" * 256)
    with pytest.raises(BadName) as caught:
        names.judge(b"x/" * 2000 + b"x")
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=5000))
@example(b"a/" * 10)
@example(b"./a")
def test_what_is_accepted_stays_below(path):
    """Whatever bytes come: they are refused with `BadName`, or are components that cannot lead elsewhere."""
    try:
        judged = names.judge(path)
    except BadName:
        return

    assert path == names.join(judged)
    for component in judged:
        assert component not in {b"", b".", b".."}
        assert b"/" not in component
        assert b"\0" not in component
        assert not names.is_partial(component)


@given(components)
@example(b"x" * 249)
@example(b"x" * 250)
@example(b"x" * 255)
def test_a_partial_name_is_one(name):
    """The partial of any name fits one component, is recognised, and is never accepted from outside."""
    partial = names.partial_name(name)

    assert len(partial) <= 255
    assert names.is_partial(partial)
    with pytest.raises(BadName):
        names.judge(partial)


@given(components, components)
def test_partials_of_different_names_differ(one, other):
    """Two names have two partials, however long they are."""
    assert (one == other) == (names.partial_name(one) == names.partial_name(other))


@given(components.filter(lambda name: len(name) <= 220))
def test_a_partial_tells_its_final_name(name):
    """A listing can say what a partial is for."""
    assert name == names.final_name_of_partial(names.partial_name(name))


def test_only_whole_partials_are_partials():
    """A name needs the dot, the ending and something between."""
    assert names.is_partial(b".x.part")
    assert not names.is_partial(b"x.part")
    assert not names.is_partial(b".part")
    assert not names.is_partial(b"..part")
    assert not names.is_partial(b".x.party")
