"""The command `keygen`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from realize.cli.main import realize
from realize.errors import ConfigError
from realize.keys import load_identity

PUBLIC = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


def test_the_key_is_private_and_usable(tmp_path: Path) -> None:
    """The file has mode 0600 and holds the identity whose public key was printed."""
    path = tmp_path / "new" / "x.key"

    result = CliRunner().invoke(realize, ["keygen", str(path)])

    assert 0 == result.exit_code
    assert 0o600 == path.stat().st_mode & 0o777
    assert load_identity(str(path)).public_key.base64 in result.stdout.splitlines()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """An existing file stays as it is, whatever it holds."""
    path = tmp_path / "x.key"
    path.write_text("precious")

    result = CliRunner().invoke(realize, ["keygen", str(path)])

    assert isinstance(result.exception, ConfigError)
    assert "precious" == path.read_text()


def test_the_default_place_is_the_one_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a FILE the key goes where every other command looks for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REALIZE_KEY", raising=False)

    CliRunner().invoke(realize, ["keygen"])

    assert (tmp_path / ".config" / "realize" / "realize.key").is_file()


def test_an_existing_key_is_shown_as_when_it_was_made(tmp_path: Path) -> None:
    """`--show` prints what making it printed, and changes nothing, not even the time of the file."""
    path = tmp_path / "x.key"
    made = CliRunner().invoke(realize, ["keygen", str(path)])
    before = path.stat()

    shown = CliRunner().invoke(realize, ["keygen", "--show", str(path)])

    assert (0, made.stdout, "") == (shown.exit_code, shown.stdout, shown.stderr)
    assert before.st_mtime_ns == path.stat().st_mtime_ns
    assert [path] == [*tmp_path.iterdir()]


def test_the_key_that_is_shown_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that every other command takes by default."""
    monkeypatch.setenv("REALIZE_KEY", str(tmp_path / "mine.key"))
    made = CliRunner().invoke(realize, ["keygen"])

    assert made.stdout == CliRunner().invoke(realize, ["keygen", "--show"]).stdout


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (None, 0o600, "there is no such key file; make one with `realize keygen "),
        ("rubbish", 0o600, "does not hold a PEM private key"),
        (PUBLIC, 0o600, "holds a public key; name the file that holds the private key"),
        ("rubbish", 0o640, "others may use the key file (its mode is 0640); run `chmod 600 "),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, content: str | None, mode: int, sentence: str) -> None:
    """A file that is missing, holds something else, or is open to others: one sentence, and nothing is made."""
    path = tmp_path / "x.key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)

    result = CliRunner().invoke(realize, ["keygen", "--show", str(path)])

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{path}: {sentence}")
    assert not result.stdout
    assert (content is not None) == path.exists()
