"""The command `keygen`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from realize.cli.commands.keygen import keygen
from realize.errors import ConfigError
from realize.keys import load_identity


def test_the_key_is_private_and_usable(tmp_path: Path) -> None:
    """The file has mode 0600 and holds the identity whose public key was printed."""
    path = tmp_path / "new" / "x.key"

    result = CliRunner().invoke(keygen, [str(path)])

    assert 0 == result.exit_code
    assert 0o600 == path.stat().st_mode & 0o777
    assert load_identity(str(path)).public_key.base64 in result.stdout.splitlines()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """An existing file stays as it is, whatever it holds."""
    path = tmp_path / "x.key"
    path.write_text("precious")

    result = CliRunner().invoke(keygen, [str(path)])

    assert isinstance(result.exception, ConfigError)
    assert "precious" == path.read_text()


def test_the_default_place_is_the_one_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a FILE the key goes where every other command looks for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REALIZE_KEY", raising=False)

    CliRunner().invoke(keygen, [])

    assert (tmp_path / ".config" / "realize" / "realize.key").is_file()
