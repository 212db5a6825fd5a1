"""The command `keygen`."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from realize.cli.keygen_cmd import keygen
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


def test_the_printed_lines_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half is TOML: how a daemon grants us something, and how a command finds our daemon."""
    monkeypatch.setattr(socket, "gethostname", lambda: "camera_1.example.org")
    result = CliRunner().invoke(keygen, [str(tmp_path / "x.key")])
    key = load_identity(str(tmp_path / "x.key")).public_key.base64

    granted, found = [tomllib.loads("[peers." + part) for part in result.stdout.split("[peers.")[1:]]

    assert {"peers": {"camera-1": {"key": key, "dirs": {"inbox": ["write"]}}}} == granted
    assert {"peers": {"camera-1": {"key": key, "address": "camera_1.example.org:9771"}}} == found


def test_the_default_place_is_the_one_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a FILE the key goes where every other command looks for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REALIZE_KEY", raising=False)

    CliRunner().invoke(keygen, [])

    assert (tmp_path / ".config" / "realize" / "realize.key").is_file()
