"""Names are judged and joined in one place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realize.errors import BadName
from realize.fs import names
from tests.store_helpers import BAD_NAMES, ODD_NAMES

components = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_refuses(name):
    """Names that are empty, absolute, lead upwards or hold NUL are refused."""
    with pytest.raises(BadName):
        names.judge(name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_accepts(name):
    """Anything else that Linux takes for a file name is accepted as it is."""
    assert name == names.join(names.judge(name))


def test_limits_of_length():
    """A component has at most 255 bytes, a name at most 128 of them and 4000 bytes; an error does not repeat it all."""
    names.judge(b"x" * 255)
    names.judge(b"x/" * 127 + b"x")
    names.judge((b"x" * 249 + b"/") * 15 + b"x" * 250)

    with pytest.raises(BadName):
        names.judge(b"x" * 256)
    for path in (b"x/" * 128 + b"x", (b"x" * 249 + b"/") * 15 + b"x" * 251):
        with pytest.raises(BadName) as caught:
            names.judge(path)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [*BAD_NAMES, *ODD_NAMES])
@pytest.mark.parametrize("directory", [b"", b"d/", b"d/e/", b"/", b"../", b"./", b"d//", b"x/" * 127, b"x/" * 128])
def test_a_name_is_judged_the_same_again(directory, name):
    """What is said of a name is the same whether another one in its directory came before or not."""

    def said():
        try:
            return names.parted(directory + name)
        except BadName as error:
            return str(error)

    names._directory.cache_clear()
    first = said()

    assert first == said()
    if isinstance(first, tuple):
        assert (*first[0], first[1]) == names.judge(directory + name) == tuple((directory + name).split(b"/"))


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


@given(components)
@example(b"x" * 224)
@example(b"x" * 225)
@example(b"x" * 255)
def test_a_partial_name_is_one(name):
    """The partial of any name fits one component and is recognised, whichever of its names it has."""
    partials = list(names.partial_names(name))

    assert len(partials) == len(set(partials)) == names.PREDICTABLE_PARTIAL_NAMES + 1
    for partial in partials:
        assert len(partial) <= 255
        assert names.is_partial(partial)


@given(components)
def test_the_last_name_of_a_partial_cannot_be_guessed(name):
    """All names are the same each time but the last: nobody can have taken that one beforehand."""
    *same, other = names.partial_names(name)

    assert (*same, other) != tuple(names.partial_names(name))
    assert same == list(names.partial_names(name))[:-1]


@given(components, components)
def test_partials_of_different_names_differ(one, other):
    """Two names have no name of a partial in common, however long they are."""
    assert (one == other) == bool(set(names.partial_names(one)) & set(names.partial_names(other)))


@given(components.filter(lambda name: len(name) <= 224))
@example(b"x" * 224)
def test_a_partial_tells_its_final_name(name):
    """A listing can say what a partial is for."""
    assert name == names.final_name_of_partial(names.partial_name(name))


def test_what_is_no_partial_is_its_own_final_name():
    """Only the form of a partial says that there is another name."""
    assert b"x.part" == names.final_name_of_partial(b"x.part")


@pytest.mark.parametrize(
    "name",
    [
        b".x.part",
        b"x.realize-0123456789abcdef.part",
        b"..realize-0123456789abcdef.part",
        b".x.realize-0123456789abcdef",
        b".x.realize-0123456789ABCDEF.part",
        b".x.realize-0123456789abcde.part",
        b".x.realize-0123456789abcdef.party",
    ],
)
def test_only_the_whole_form_is_that_of_a_partial(name):
    """A name needs the dot, a name, and the ending; names that other programs use do not have it."""
    assert names.is_partial(b".x.realize-0123456789abcdef.part")
    assert not names.is_partial(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"", "a name is empty"),
        (b"/a", "/a: the name is absolute"),
        (b"a//b", "a//b: the name has an empty component"),
        (b"a/", "a/: the name has an empty component"),
        (b"a/../b", "a/../b: the name has a component .."),
        (b"x" * 256, "x" * 256 + ": a component is longer than 255 bytes"),
    ],
)
def test_says_what_is_wrong_with_a_name(name, words):
    """In words for whoever has to find the file."""
    with pytest.raises(BadName) as caught:
        names.judge(name)

    assert words == str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        ".realize-backups",
        ".Realize-BACKUPS",
        ".realize-backups..",
        ".realize-bac\u212aup\u017f",
        "\u200d.re\u200dalize-backups",
    ],
)
@pytest.mark.parametrize("path", ["{}", "a/{}", "{}/a", "a/{}/b"])
def test_the_mark_of_backups_has_no_other_spelling(name, path):
    """On a file system that ignores case, or more, whoever makes such a file would hide all that is beside it."""
    with pytest.raises(BadName, match="is reserved"):
        names.judge(path.format(name).encode())


@pytest.mark.parametrize(
    "name", [".realize-backups.1", "realize-backups", ".realize-backup-of-mine", ".\u00e9", "\u00e9"]
)
def test_names_that_are_not_the_mark_are_names(name):
    """Also if they look like it."""
    assert (name.encode(),) == names.judge(name.encode())
