"""Names with a number: which they are, and that they can always be made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.fs import names
from realize.numbered import MAX_NAME_NUMBER, numbered

COMPONENTS = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & set(b"/\0") and name not in {b".", b".."}
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"app.log", b"app.1.log"),
        (b"a/b.c/app", b"a/b.c/app.1"),
        (b"archive.tar.gz", b"archive.1.tar.gz"),
        (b"archive.tar.GPG", b"archive.1.tar.GPG"),
        (b"archive.gz", b"archive.1.gz"),
        (b".bashrc", b".bashrc.1"),
        (b"..log", b"..log.1"),
        (b".config.json", b".config.1.json"),
        (b"libz.so.1", b"libz.so.1.1"),
        (b"app.log.2026", b"app.log.2026.1"),
        (b"video.mp4", b"video.1.mp4"),
        (b"Mr. Smith came", b"Mr. Smith came.1"),
        (b"ends with a dot.", b"ends with a dot..1"),
        ("Müller.jpg".encode(), "Müller.1.jpg".encode()),
        (b"app.1.log", b"app.1.1.log"),
        (b"x" * 255, b"x" * 253 + b".1"),
        (b"x" * 251 + b".log", b"x" * 249 + b".1.log"),
        ("ä".encode() * 127, "ä".encode() * 126 + b".1"),
        (b"\xff" * 255, b"\xff" * 253 + b".1"),
    ],
)
def test_the_number_comes_before_the_extension(name, expected):
    """What programs know the file by stays at its end; characters of UTF-8 are not cut, and other bytes are kept."""
    assert expected == numbered(name, 1)


def test_zero_is_the_name_itself():
    """So that what has no number needs no case of its own."""
    assert b"a/app.log" == numbered(b"a/app.log", 0)


@given(COMPONENTS, st.integers(1, MAX_NAME_NUMBER), st.integers(1, MAX_NAME_NUMBER))
def test_any_name_can_have_any_number(name, one, other):
    """The result is a name that is allowed, another one for each number, in the same directory, and no partial's."""
    path = b"d/" + name

    assert (b"d",) == names.judge(numbered(path, one))[:-1]
    assert (numbered(path, one) == numbered(path, other)) is (one == other)
    assert not names.is_partial(numbered(name, one))


@given(
    st.text(min_size=1, max_size=255).filter(lambda text: not set(text) & set("/\0")), st.integers(1, MAX_NAME_NUMBER)
)
def test_text_stays_text(name, number):
    """A name in UTF-8 has numbered names in UTF-8."""
    kept = name.encode(errors="ignore")[:255].decode(errors="ignore")
    if kept not in {"", ".", ".."}:
        assert numbered(kept.encode(), number).decode()
