"""`docs/configuration.md` names every key, with its default, and no others."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from realize.config import Config, DirectoryConfig, MoveConfig, PeerConfig, Right, read_config
from realize.config.problems import toml_key
from realize.daemon.tap import Options
from realize.errors import ConfigError
from realize.keys import generate_identity
from realize.levels import FORMATS
from realize.units import NO_RESERVE
from realize.values import OnConflict
from tests.pages import ROOT, page, quoted, rows, section

PAGE = page("configuration.md")
TABLE = {quoted(row[0])[0]: row for row in rows(PAGE.partition("\n## ")[0])}
NAMED = {
    "directories": ("dirs.NAME.", DirectoryConfig),
    "peers": ("peers.NAME.", PeerConfig),
    "moves": ("moves.NAME.", MoveConfig),
}
"""Tables whose keys are names that the operator chooses, and what each of them is the name of."""
IN_WORDS = {
    "unlimited": (None, {}),
    "off": (None,),
    "stderr": (None,),
    "nothing": (NO_RESERVE, {}),
    "its first key": (None,),
    "`rename`, or `skip` where that is unknown": (None,),
    "in path order": (None,),
    "as `compress`": (None,),
    "a tenth of the interval, at most 1m; 1m with a calendar expression": (None,),
}
"""Defaults that the page has in words, and the values that they stand for."""
PUBLIC_KEY = generate_identity().public_key.base64


def keys(cls: type, prefix: str = "") -> dict[str, Any]:
    """Every key below ``prefix`` as the page writes it, with its default; `attrs.NOTHING` if it is required."""
    found: dict[str, Any] = {}
    for field in attrs.fields(cls):
        default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default
        if cls is Config and field.name in NAMED:
            below, named = NAMED[field.name]
            found |= keys(named, below)
        elif cls is Config and attrs.has(type(default)):
            found |= keys(type(default), f"{field.name}.")
        else:
            found[prefix + toml_key(field.name)] = default
    return found


KEYS = keys(Config)


@pytest.fixture
def read(tmp_path):
    """Read a configuration that has what is required, and these lines besides: a line for a key, written in full."""
    tmp_path.joinpath("realized.key").touch()
    tmp_path.joinpath("inbox").mkdir()

    def read(*lines: str, instead: dict[str, str] | None = None) -> Config:
        required = {
            "key": f'key = "{tmp_path}/realized.key"',
            "dirs.NAME.path": f'dirs.NAME.path = "{tmp_path}/inbox"',
            "peers.NAME.key": f'peers.NAME.key = "{PUBLIC_KEY}"',
            "moves.NAME.from": f'moves.NAME.from = "{tmp_path}/outbox"',
            "moves.NAME.to": 'moves.NAME.to = "NAME::inbox"',
        }
        path = tmp_path / "realized.toml"
        path.write_text("\n".join([*(required | (instead or {})).values(), *lines]))
        path.chmod(0o600)
        return read_config(str(path), for_daemon=True, environ=os.environ)

    return read


def test_every_key_is_there_and_no_other():
    """The table has each key of the file once."""
    assert sorted(KEYS) == sorted(TABLE)
    assert len(TABLE) == len(rows(PAGE.partition("\n## ")[0]))


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("key", ""),
        ("dirs.NAME.path", "dirs.NAME.reserve = 1"),
        ("peers.NAME.key", "peers.NAME = {}"),
        ("moves.NAME.from", ""),
        ("moves.NAME.to", ""),
    ],
)
def test_required_keys(read, key, instead):
    """What has no default is an error where it is missing, and the page says so."""
    assert {name for name, default in KEYS.items() if default is attrs.NOTHING} | {"peers.NAME.key"} == {
        name for name, row in TABLE.items() if "required" in row[2]
    }
    with pytest.raises(ConfigError, match=f"{key}: is missing"):
        read(instead={key: instead})


@pytest.mark.parametrize("key", [key for key, default in KEYS.items() if default is not attrs.NOTHING])
def test_defaults(read, key):
    """A default in code is what the file may as well say; one in words stands for the value that the key has then."""
    default = TABLE[key][2]

    if default in IN_WORDS:
        assert KEYS[key] in IN_WORDS[default]
    elif key == "peers.NAME.key":
        assert None is KEYS[key]
        assert "required, or `keys`" == default
    elif key == "peers.NAME.address":
        assert None is KEYS[key]
        assert "`NAME`, port 9771" == default
    else:
        (value,) = quoted(default)
        assert read() == read(f"{key} = {value}")


def test_values_of_choices():
    """All rights and all forms of a log are named in their rows."""
    assert {right.value for right in Right} <= set(quoted(TABLE["peers.NAME.dirs"][1]))
    assert set(FORMATS) == set(quoted(TABLE["logs.format"][1]))
    assert {each.name.lower() for each in OnConflict} == set(quoted(TABLE["moves.NAME.on_conflict"][1]))


def test_a_reload_is_described_for_every_key():
    """The section says of each key, or of the table it is in, either that it is taken over or that it waits."""
    text = section(PAGE, "Reload")
    lines = text.splitlines()
    taken = next(line for line in lines if "take over" in line)
    restart = next(line for line in lines if line.endswith("need a restart."))
    groups = [set(quoted(taken.partition("take over")[2])), set(quoted(restart))]
    heads = [{key for key in KEYS if key in group or key.split(".")[0] in group} for group in groups]

    assert set(KEYS) == heads[0] | heads[1]
    assert set() == heads[0] & heads[1]


def test_no_option_that_does_not_exist():
    """Options that the page names are those of the daemon, or of twistd."""
    ours = {f"--{name}" for name, *_ in (*Options.optParameters, *Options.optFlags)}

    assert set() == set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - ours - {"--nodaemon", "--pidfile"}


def test_the_example_of_the_page(read, tmp_path):
    """What stands at its top is a configuration, but for the keys and paths of others."""
    text = "\n".join(line[4:] for line in PAGE.partition("\n## ")[0].splitlines() if line.startswith("    "))
    path = Path(tmp_path) / "example.toml"
    for old in ("realized.key", "/store/inbox"):
        text = text.replace(old, str(tmp_path / old.rsplit("/", maxsplit=1)[-1]))
    for _ in range(2):
        text = text.replace("MCowBQYDK2VwAyEA...", generate_identity().public_key.base64, 1)
    (tmp_path / "realized.key").touch()
    (tmp_path / "inbox").mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)

    config = read_config(str(path), for_daemon=True)

    assert {"camera", "nas"} == set(config.peers)


def test_the_whole_example(tmp_path):
    """`deploy/realized.toml` has every key, and is a configuration; keys that are commented out have their defaults."""
    text = (ROOT / "deploy" / "realized.toml").read_text()
    for name in set(re.findall(r"\"(\S+'S [A-Z ]*PUBLIC KEY)\"", text)):
        text = text.replace(f'"{name}"', f'"{generate_identity().public_key.base64}"')
    for old in ("/store/inbox", "/store/night", "/mnt/usb/outbox", "/var/lib/realize", "/var/log/realize"):
        tmp_path.joinpath(old[1:]).mkdir(parents=True)
    text = re.sub(r'"/(store|mnt|var)/', rf'"{tmp_path}/\1/', text)
    (tmp_path / "realized.key").touch()
    whole = re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)

    assert config_of(tmp_path / "realized.toml", text) == config_of(tmp_path / "realized.toml", whole)
    assert set(KEYS) - set(keys_in(whole)) == {"state", "control"}
    assert all(re.search(rf"^# {name} = ", text, flags=re.MULTILINE) for name in ("state", "control"))


def config_of(path: Path, text: str) -> Config:
    """The configuration that a file of this text is."""
    path.write_text(text)
    path.chmod(0o600)
    return read_config(str(path), for_daemon=True)


def keys_in(text: str) -> set[str]:
    """The keys of a file, as the page writes them."""
    found: set[str] = set()
    for name, value in tomllib.loads(text).items():
        tables = value.values() if name in {"dirs", "peers", "moves"} else [value]
        prefix = f"{name}.NAME." if name in {"dirs", "peers", "moves"} else f"{name}."
        found |= {f"{prefix}{key}" for table in tables for key in table} if isinstance(value, dict) else {name}
    return found
