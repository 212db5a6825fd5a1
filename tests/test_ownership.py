"""Whose a file is, and as which user to run the command that needs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from realize.config.reading import read_config
from realize.errors import ConfigError
from realize.keys import generate_identity, load_identity, write_identity
from realize.ownership import as_owner, forbidden
from realize.runs.check_findings import split_advice

NOBODY = 65_534
NAMELESS = 54_321

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, and becomes another user")


@contextmanager
def another_user(number: int) -> Iterator[None]:
    """Look at files as that user does."""
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can look into, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="realize-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def key_of(folder: Path, owner: int) -> str:
    """A key file of that user."""
    path = str(folder / "own.key")
    write_identity(path, generate_identity())
    os.chown(path, owner, -1)
    return path


def test_root_is_told_to_run_it_as_the_owner_of_the_key(folder):
    """Root could read the key, but would use it as somebody else: the sentence says how to be that user."""
    with pytest.raises(ConfigError) as caught:
        load_identity(key_of(folder, NOBODY))

    found, [advice] = split_advice(caught.value)
    assert found.endswith("own.key: the key file belongs to user nobody, and this is user root")
    assert advice.endswith("To run the command as that user, put `sudo -u nobody` before it")


def test_who_may_not_read_the_key_is_told_whose_it_is(folder):
    """A user who is refused by the system gets the same advice."""
    path = key_of(folder, NAMELESS)

    with another_user(NOBODY), pytest.raises(ConfigError) as caught:
        load_identity(path)

    found, [advice] = split_advice(caught.value)
    assert found.endswith("own.key: cannot read the key file: Permission denied")
    assert f"{path} belongs to user 54321, and this is user nobody. " in f"{advice} "
    assert advice.endswith("put `sudo -u '#54321'` before it")


def test_a_folder_that_is_closed_hides_whose_the_key_is_and_says_whose_it_is_itself(folder):
    """As with /etc/realize of the service user, mode 0700."""
    path = key_of(folder, NAMELESS)
    os.chown(folder, NAMELESS, -1)
    folder.chmod(0o700)

    with another_user(NOBODY):
        advice = forbidden(path)

    assert f"; {folder} belongs to user 54321, and this is user nobody. {as_owner(NAMELESS)}" == advice


def test_what_root_keeps_from_others_is_not_for_sudo(folder):
    """That a file belongs to root does not mean that the command should run as root."""
    path = key_of(folder, 0)

    with another_user(NOBODY):
        assert not forbidden(path)


def test_a_file_that_is_not_there_belongs_to_nobody(folder):
    """There is nothing to say of it, nor of what is no name."""
    assert not forbidden(str(folder / "absent"))
    assert not forbidden("a\0b")


def test_the_configuration_of_another_user(folder):
    """Whoever runs the command is warned with the same advice, and it goes on; a daemon is refused."""
    path = folder / "realize.toml"
    path.write_text("")
    os.chown(path, NOBODY, -1)
    warned: list[str] = []

    read_config(str(path), environ={"HOME": str(folder)}, warn=warned.append)

    [sentence] = warned
    assert "the configuration file belongs to user nobody, and this is user root; it must belong to" in sentence
    assert sentence.endswith(as_owner(NOBODY))


def test_a_configuration_that_may_not_be_read(folder):
    """The error says whose it is."""
    path = folder / "realize.toml"
    path.write_text("")
    path.chmod(0o600)
    os.chown(path, NAMELESS, -1)

    with another_user(NOBODY), pytest.raises(ConfigError, match=r"Permission denied; .* put `sudo -u '#54321'` before"):
        read_config(str(path), environ={"HOME": str(folder)})
