"""The configuration file: `realize.config`."""

from __future__ import annotations

import base64
import os
from datetime import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from realize.config import (
    Config,
    DirectoryConfig,
    LimitsConfig,
    LogsConfig,
    MoveConfig,
    PeerConfig,
    Right,
    ThrottleConfig,
    read_config,
)
from realize.config.addresses import DEFAULT_PORT, metrics_endpoint, parse_address, server_endpoint, with_backlog
from realize.config.reading import load_command_config
from realize.config.values import check_daemon_needs
from realize.errors import ConfigError, UsageError
from realize.keys import PublicKey, generate_identity, write_identity
from realize.levels import Levels
from realize.places import default_config_path, default_key_path
from realize.schedule.timetable import RateChange, RateTimetable, parse_timetable
from realize.units import Reserve
from realize.values import OnConflict


def public_key(number):
    return PublicKey(bytes.fromhex("302a300506032b6570032100") + bytes([number]) * 32)


CAMERA, HOSTB = public_key(1), public_key(2)
FIVE = [public_key(number) for number in range(3, 8)]

FULL = f"""
key = "realized.key"
listen = ["tcp:9771", "127.0.0.1:9772", "[::1]:9773"]
metrics = "127.0.0.1:9774"
partial_max_age = "2d"
drain = 0
[dirs.inbox]
path = "store/inbox"
reserve = "5%"
[dirs."2024.raw"]
path = "~/raw"
reserve = 4096
[peers.camera]
key = "{CAMERA.base64}"
dirs = {{ inbox = ["write"], "2024.raw" = ["read", "remove"] }}
[peers.hostb]
address = "hostb.example:9999"
key = '''
-----BEGIN PUBLIC KEY-----
{HOSTB.base64}
-----END PUBLIC KEY-----
'''
admin = true
[throttle]
service = "20M"
peers = {{ camera = 5000, hostb = "unlimited" }}
connection = "none"
[logs]
level = "debug"
format = "json"
"""

EXPECTED_RATE = 'expected a rate such as "20M", or a timetable such as "08:00,512k 18:00,unlimited"'

MINIMAL = """
key = "realized.key"
[dirs.inbox]
path = "store/inbox"
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with all that a daemon needs except its configuration file."""
    (tmp_path / "realized.key").write_text("a key")
    (tmp_path / "store" / "inbox").mkdir(parents=True)
    (tmp_path / "home" / "raw").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def read(folder):
    """Read a text as the configuration of a daemon, or of the command."""

    def read(text, *, for_daemon=True, **environ):
        path = folder / "realized.toml"
        path.write_text(text)
        return read_config(str(path), for_daemon=for_daemon, environ={"HOME": str(folder / "home"), **environ})

    return read


@pytest.fixture
def errors(read, folder):
    """The lines of the error that a text causes, without the name of the file, which each line must start with."""

    def errors(text, *, for_daemon=True):
        with pytest.raises(ConfigError) as caught:
            read(text, for_daemon=for_daemon)
        lines = str(caught.value).splitlines()
        prefix = f"{folder}/realized.toml: "

        assert [] == [line for line in lines if not line.startswith(prefix)]
        return [line.removeprefix(prefix) for line in lines]

    return errors


def test_full(read, folder):
    """Everything in a file arrives checked, with absolute paths, endpoint strings, numbers and keys."""
    expected = Config(
        key=f"{folder}/realized.key",
        listen=("tcp:9771", "tcp:9772:interface=127.0.0.1", r"tcp:9773:interface=\:\:1"),
        metrics="tcp:9774:interface=127.0.0.1",
        directories={
            "inbox": DirectoryConfig(f"{folder}/store/inbox", Reserve(part=Fraction(1, 20))),
            "2024.raw": DirectoryConfig(f"{folder}/home/raw", Reserve(4096)),
        },
        peers={
            "camera": PeerConfig(
                CAMERA,
                rights={"inbox": frozenset({Right.WRITE}), "2024.raw": frozenset({Right.READ, Right.REMOVE})},
            ),
            "hostb": PeerConfig(HOSTB, address="hostb.example:9999", admin=True),
        },
        throttle=ThrottleConfig(service_bps=20 << 20, peers_bps={"camera": 5000, "hostb": None}, connection_bps=None),
        logs=LogsConfig(Levels("debug"), "json"),
        partial_max_age_s=172_800.0,
        drain_s=0.0,
    )

    assert expected == read(FULL)


def test_limits_by_time_of_day(read):
    """Wherever a limit is; a rate that never changes stays a number."""
    config = read(
        MINIMAL
        + f"""
        [peers.camera]
        key = "{CAMERA.base64}"
        [throttle]
        service = "08:00,512k 18:00,unlimited"
        peers = {{ camera = "Mon-08:00,1M Fri-18:00,off" }}
        connection = "off"
        """
    )

    assert config.throttle == ThrottleConfig(
        service_bps=parse_timetable("08:00,512k 18:00,unlimited"),
        peers_bps={"camera": parse_timetable("Mon-08:00,1M Fri-18:00,off")},
        connection_bps=None,
    )


def test_defaults(read, folder):
    """A daemon needs a key and a directory; the rest has defaults, and no peer has any right."""
    config = read(MINIMAL)

    assert (
        Config(key=f"{folder}/realized.key", directories={"inbox": DirectoryConfig(f"{folder}/store/inbox")}) == config
    )
    assert ("*:9771",) == config.listen
    assert (604_800.0, 10.0) == (config.partial_max_age_s, config.drain_s)
    assert (None, {}, LogsConfig(Levels("info"), "auto", None)) == (
        config.throttle.service_bps,
        config.peers,
        config.logs,
    )


def test_paths(folder, monkeypatch):
    """Absolute paths stay, relative ones start at the folder of the file, also if the file was named relatively."""
    monkeypatch.chdir(folder)
    (folder / "realized.toml").write_text(f'key = "./realized.key"\ndirs = {{ a.path = "{folder}/store" }}')
    config = read_config("realized.toml", for_daemon=True)

    assert f"{folder}/./realized.key" == config.key
    assert {"a": DirectoryConfig(f"{folder}/store")} == config.directories


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "kee = 1",
            "kee: unknown key; expected one of compress, control, dirs, drain, former_keys, key, limits, listen, ",
        ),
        ("directories = {}", "directories: unknown key; "),
        ("key = 1", "key: expected a path, not an integer"),
        ('key = ""', "key: expected a path"),
        (r'key = "a\u0000b"', "key: expected a path"),
        ('listen = "tcp:9771"', 'listen: expected an array of strings such as ["*:9771"], not a string'),
        ('listen = ["tcp:1", 2]', "listen[1]: expected HOST:PORT or a Twisted server endpoint string, not an integer"),
        ('listen = ["nonsense"]', "listen[0]: 'nonsense' is not something to listen on: write "),
        ("metrics = true", "metrics: expected HOST:PORT, PORT or a Twisted server endpoint string, not a boolean"),
        ('metrics = "nonsense"', "metrics: 'nonsense' is not something to listen on: write "),
        ("metrics = 70000", "metrics: '127.0.0.1:70000' has no valid port: "),
        ("dirs = []", "dirs: expected a table, not an array"),
        ('dirs.inbox = "/store"', "dirs.inbox: expected a table, not a string"),
        ("dirs.inbox = {}", "dirs.inbox.path: is missing; expected the path of the directory"),
        ("dirs.inbox.path = 1979-05-27", "dirs.inbox.path: expected a path, not a date or time"),
        (
            'dirs.inbox = { path = "/", mode = 1 }',
            "dirs.inbox.mode: unknown key; expected one of accept, backup, backup_max_age, links, mount",
        ),
        (
            'dirs.".in".path = "/"',
            "dirs.\".in\": not a name for a directory; expected at most 200 letters, digits, '.', '_' and '-'",
        ),
        (r'dirs."a\nb".path = "/"', 'dirs."a\\nb": not a name for a directory; expected '),
        ('dirs."".path = "/"', 'dirs."": not a name for a directory; expected '),
        ("peers.camera = {}", "peers.camera.key: is missing; expected the public key of the peer"),
        ("peers.camera.keys = []", "peers.camera.key: is missing; expected the public key of the peer, or keys with"),
        ("peers.camera.keys = 1", "peers.camera.keys: expected an array of public keys, not an integer"),
        ('peers.camera.keys = ["x"]', "peers.camera.keys[0]: not a public key: write the base64 of its "),
        (
            f'peers.camera = {{ key = "{CAMERA.base64}", keys = ["{HOSTB.base64}"] }}',
            "peers.camera.keys: is there beside key; expected one of the two",
        ),
        (
            f'peers.camera.keys = ["{HOSTB.base64}", "{CAMERA.base64}", "{CAMERA.base64}"]',
            "peers.camera.keys[2]: the same key as that of [1]; expected each key once",
        ),
        (
            f"peers.camera.keys = {[each.base64 for each in FIVE]}",
            "peers.camera.keys: 5 keys are too many; expected at most 4",
        ),
        (
            f'peers.camera = {{ key = "{CAMERA.base64}", origin = "x" }}',
            "peers.camera.origin: not a public key: write the base64 of its ",
        ),
        ('former_keys = "old.key"', "former_keys: expected an array of paths, not a string"),
        ('former_keys = ["a", ""]', "former_keys[1]: expected a path"),
        ("former_keys = ['1', '2', '3', '4']", "former_keys: expected at most 3 former keys"),
        ("peers.camera.key = 1.5", "peers.camera.key: expected a public key, not a float"),
        ('peers.camera.key = "x"', "peers.camera.key: not a public key: write the base64 of its "),
        (f'peers."a b".key = "{CAMERA.base64}"', 'peers."a b": not a name for a peer; expected at most 200 letters'),
        ('peers.camera.address = "::1"', "peers.camera.address: '::1' is not an address: write HOST, HOST:PORT"),
        (
            'peers.camera.address = "a:0"',
            "peers.camera.address: 'a:0' has no valid port: after the colon comes a number",
        ),
        ("peers.camera.admin = 1", "peers.camera.admin: expected true or false, not an integer"),
        ('peers.camera.dirs = ["inbox"]', "peers.camera.dirs: expected a table, not an array"),
        (
            'peers.camera.dirs.inbox = "write"',
            'peers.camera.dirs.inbox: expected an array with any of "read", "create", "write", "remove", "prune"',
        ),
        (
            'peers.camera.dirs.inbox = ["wrte"]',
            "peers.camera.dirs.inbox: 'wrte' is not a right; expected an array with any of \"read\", ",
        ),
        ("peers.camera.dirs.inbox = [1]", "peers.camera.dirs.inbox: expected an array with any of "),
        ("throttle.service = 0", "throttle.service: '0' is not a rate: write bytes per second above zero"),
        ("throttle.service = true", f"throttle.service: {EXPECTED_RATE}, not a boolean"),
        (
            'throttle.service = "08:00,1M 08:00,2M"',
            "throttle.service: '08:00,1M 08:00,2M' has two rates for 08:00",
        ),
        ('throttle.peers.camera = "8,1M"', "throttle.peers.camera: '8,1M' is not a rate with the time it begins"),
        ("throttle.connection = 1.5", f"throttle.connection: {EXPECTED_RATE}, not a float"),
        ('throttle.peers.camera = "fast"', "throttle.peers.camera: 'fast' is not a rate: write "),
        (
            'logs.level = "trace"',
            "logs.level: 'trace' is not a level: expected error, warning, info or debug",
        ),
        ("logs.format = []", "logs.format: expected one of auto, console, json, logfmt, systemd, not an array"),
        ('dirs.inbox.reserve = "100%"', "dirs.inbox.reserve: '100%' is too much: less than 100% is allowed"),
        ('dirs.inbox.reserve = "much"', "dirs.inbox.reserve: 'much' is not a reserve: write bytes or a part of "),
        ('dirs.inbox.links = "outside"', "dirs.inbox.links: 'outside' is not known; expected one of none, inside, any"),
        ("dirs.inbox.links = true", "dirs.inbox.links: expected one of none, inside, any, not a boolean"),
        ('dirs.inbox.accept = "owner"', "dirs.inbox.accept: expected an array of owner, acl, xattr"),
        ('dirs.inbox.accept = ["owner", "mode"]', "dirs.inbox.accept[1]: expected one of owner, acl, xattr"),
        ('dirs.inbox.accept = [["owner"]]', "dirs.inbox.accept[0]: expected one of owner, acl, xattr"),
        ('moves.a.preserve = "owner"', "moves.a.preserve: expected true, false, or an array of mode, times, owner"),
        (
            'moves.a.preserve = ["owner", "odd"]',
            "moves.a.preserve[1]: 'odd': expected all, none, or some of mode, times, owner",
        ),
        (
            'moves.a = { from = "/a", to = "/b", numeric_ids = true }',
            "moves.a.numeric_ids: needs owner or acl in preserve",
        ),
        ('moves.a.links = "any"', "moves.a.links: expected true or false, not a string"),
        ("dirs.inbox.reserve = true", 'dirs.inbox.reserve: expected a size or a percentage such as "10G" or "5%", not'),
        ("partial_max_age = 0", "partial_max_age: '0' is not a duration: write a time above zero"),
        ("partial_max_age = {}", 'partial_max_age: expected a duration such as "7d", not a table'),
        ("state = 1", "state: expected a path, not an integer"),
        ('control = ""', "control: expected a path"),
        ("control = true", "control: expected a path, not a boolean"),
        ('compress = "gzip"', "compress: 'gzip' is not known; expected one of auto, always, never"),
        ("page_file_names = 1", "page_file_names: expected true or false, not an integer"),
        ('moves.a.from = "/a"', "moves.a.to: is missing; expected where files go"),
        ("moves.a.to = 1", "moves.a.to: expected a path, not an integer"),
        ('moves.a = { from = [], to = "/b" }', "moves.a.from: expected at least one location"),
        ("moves.a.from = [1]", "moves.a.from[0]: expected a string that is not empty"),
        ('moves."a b".from = "/a"', 'moves."a b": not a name for a move; '),
        (f'moves.{"a" * 201}.from = "/a"', f"moves.{'a' * 201}: not a name for a move; "),
        (f'dirs.{"a" * 201}.path = "/"', f"dirs.{'a' * 201}: not a name for a directory; "),
        ('moves.a.settle = "soon"', "moves.a.settle: 'soon' is not a duration: "),
        (
            'moves.a.on_conflict = "ask"',
            "moves.a.on_conflict: 'ask' is not known; expected one of rename, replace, skip, fail",
        ),
        ('moves.a.jobs = "4"', "moves.a.jobs: expected a number, not a string"),
        ('moves.a = { from = "/a", to = "/b", grace = "1m" }', "moves.a.grace: needs max_duration"),
        (
            'moves.a = { from = "/a", to = "/b", after = ["x"] }',
            "moves.a.after: expected the absolute path of",
        ),
        ('drain = "soon"', "drain: 'soon' is not a duration: write a time, such as "),
    ],
)
def test_bad_values(errors, text, expected):
    """Every unknown key and bad value is reported with its key path and what was expected, to either end."""
    for for_daemon in (True, False):
        actual = [line for line in errors(text, for_daemon=for_daemon) if line.startswith(expected)]

        assert 1 == len(actual), errors(text, for_daemon=for_daemon)


def test_all_errors_together(errors):
    """All that is wrong in a file is reported at once, one line each."""
    lines = errors("""
        colour = "red"
        listen = ["a", "tcp:1", "tcp:x"]
        dirs.inbox = { }
        dirs.outbox = 1
        peers.camera = { key = "x", dirs = { inbox = ["fly"] }, dir = 1 }
        logs = { level = 1, format = "xml" }
    """)

    assert [
        "colour",
        "dirs.inbox.path",
        "dirs.outbox",
        "key",
        "listen[0]",
        "listen[2]",
        "logs.format",
        "logs.level",
        "peers.camera.dir",
        "peers.camera.dirs.inbox",
        "peers.camera.key",
    ] == sorted(line.partition(":")[0] for line in lines)


def test_contradictions(errors):
    """Names that refer to nothing and keys that two peers share are reported together, to either end."""
    text = f"""{MINIMAL}
        [peers]
        camera = {{ key = "{CAMERA.base64}", dirs = {{ outbox = ["read"] }} }}
        hostb = {{ key = "{CAMERA.base64}" }}
        [throttle.peers]
        hostc = 1000
    """
    expected = [
        "peers.camera.dirs.outbox: no such directory; expected one of inbox",
        "peers.hostb.key: the same key as that of peers.camera; expected another key for every peer",
        "throttle.peers.hostc: no such peer; expected one of camera, hostb",
    ]

    assert expected == errors(text)
    assert expected == errors(text, for_daemon=False)


@pytest.mark.parametrize(
    ("line", "expected"), [("", "/run/r/c"), ("control = false\n", None), ('control = "/c"\n', "/c")]
)
def test_the_control_socket_is_where_the_file_says_or_else_where_whoever_reads_it_says(folder, line, expected):
    """Which is nowhere, unless that is a daemon with a process of its own; `false` is nowhere in any case."""
    path = folder / "realized.toml"
    path.write_text(f'{line}key = "realized.key"\n[dirs.inbox]\npath = "store/inbox"\n')

    found = read_config(str(path), for_daemon=True, control="/run/r/c")
    by_others = read_config(str(path), for_daemon=True)
    assert expected == found.control
    assert (expected if line else None) == by_others.control


def test_filters_of_a_move_have_an_order(read, folder):
    """Files of patterns, which start where the configuration is, count where they stand."""
    (folder / "rules").write_text("# comment\n\n*.tmp\n!keep.tmp\n")
    text = """
        [moves.camera]
        from = "/a"
        to = "/b"
        filters = [{ exclude = "*.jpg" }, { filter_from = "rules" }, { include = "a.jpg" }]
        """
    move = read(f"{MINIMAL}\n{text}").moves["camera"]

    expected = (("exclude", "*.jpg"), ("exclude", "*.tmp"), ("exclude", "!keep.tmp"), ("include", "a.jpg"))
    assert expected == move.filters
    assert move == MoveConfig(sources=("/a",), destination="/b", filters=[list(each) for each in expected])


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ('"*.tmp"', "filters: expected an array of tables, not a string"),
        ('["*.tmp"]', "filters[0]: expected a table, not a string"),
        ('[{ include = "a" }, {}]', "filters[1]: expected one of { exclude = "),
        ('[{ include = "a", exclude = "b" }]', "filters[0]: expected one of { exclude = "),
        ('[{ leave = "a" }]', "filters[0]: expected one of { exclude = "),
        ("[{ include = 1 }]", "filters[0]: expected a pattern, not an integer"),
        ('[{ filter_from = "none" }]', "filters[0]: {folder}/none: No such file or directory"),
        ('[{ filter_from = "long" }]', "filters[0]: {folder}/long: is longer than 1 MiB"),
        ('[{ filter_from = "pipe" }]', "filters[0]: {folder}/pipe: not a regular file"),
        ('[{ filter_from = "." }]', "filters[0]: {folder}/.: not a regular file"),
        ('[{ filter_from = "open" }]', "filters[0]: {folder}/open: others can write to the file (its mode is 0666): "),
        ('[{ filter_from = "shared/rules" }]', "filters[0]: {folder}/shared/rules: others can write to its directory "),
        ('[{ include = "a" }]\nexclude = ["b"]', "filters: stands instead of include and exclude: "),
    ],
)
def test_filters_that_make_no_sense(errors, folder, filters, expected):
    """Each is told with its place, and nobody waits for who writes to a pipe; other users do not say what is moved."""
    (folder / "long").write_bytes(b"#" * ((1 << 20) + 1))
    (folder / "open").touch()
    (folder / "open").chmod(0o666)
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    (folder / "shared" / "rules").touch()
    os.mkfifo(folder / "pipe")
    [error] = errors(f'{MINIMAL}\n[moves.camera]\nfrom = "/a"\nto = "/b"\nfilters = {filters}')

    assert error.startswith(f"moves.camera.{expected.replace('{folder}', str(folder))}"), error


@pytest.mark.parametrize("filters", ["*.tmp", [("leave", "a")], [("include",)], [("include", 1)], [1]])
def test_filters_that_a_program_gives_are_checked(filters):
    """As those of a file are."""
    with pytest.raises(ConfigError, match="filters: expected "):
        MoveConfig(sources=("/a",), destination="/b", filters=filters)


def test_a_peer_may_have_several_keys(read, folder):
    """While it changes them; the first one, or the one that the file names, is its origin."""
    keys = ", ".join(f'"{each.base64}"' for each in (CAMERA, HOSTB))
    peers = read(f"""{MINIMAL}
        [peers]
        both = {{ keys = [{keys}] }}
        one = {{ key = "{FIVE[0].base64}", origin = "{FIVE[1].base64}" }}
    """).peers

    assert PeerConfig(keys=[CAMERA, HOSTB]) == peers["both"]
    assert ((CAMERA, HOSTB), CAMERA) == (peers["both"].pins, peers["both"].origin_key)
    assert ((FIVE[0],), FIVE[1]) == (peers["one"].pins, peers["one"].origin_key)


@pytest.mark.parametrize("key", ["keys", "origin"])
def test_no_peer_has_the_key_or_origin_of_another(errors, key):
    """One that let in the other would be nobody's, and with the origin of the other it would learn of its files."""
    value = f'["{FIVE[0].base64}", "{CAMERA.base64}"]' if key == "keys" else f'"{CAMERA.base64}"'
    other = f"{key} = {value}" if key == "keys" else f'key = "{FIVE[0].base64}", {key} = {value}'
    expected = f"peers.b.{key}{'[1]' if key == 'keys' else ''}: the same key as that of peers.a; expected another key"

    for first in (f'key = "{CAMERA.base64}"', f'key = "{HOSTB.base64}", origin = "{CAMERA.base64}"'):
        [error] = errors(f"{MINIMAL}\n[peers]\na = {{ {first} }}\nb = {{ {other} }}")
        assert error.startswith(expected)


def test_former_keys_of_our_own(folder, tmp_path):
    """Their files start where the file is; for a daemon they must be there, and `REALIZE_KEY` comes without them."""
    path = folder / "realized.toml"
    path.write_text('key = "realized.key"\nformer_keys = ["old.key"]\n[dirs.inbox]\npath = "store/inbox"\n')
    with pytest.raises(ConfigError, match=r"former_keys\[0\]: there is no file .*/old\.key; expected a private key"):
        read_config(str(path), for_daemon=True)
    found = read_config(str(path), environ={"HOME": "/h"})
    chosen = read_config(str(path), environ={"HOME": "/h", "REALIZE_KEY": "/k"})

    assert ((f"{folder}/old.key",), ()) == (found.former_keys, chosen.former_keys)


def test_own_keys_are_read_newest_first(tmp_path):
    """From files, or as they were given; none may be there twice, which would be a mistake for another file."""
    old, new = generate_identity(), generate_identity()
    write_identity(str(tmp_path / "old"), old)

    assert (new, old) == Config(key=new, former_keys=[tmp_path / "old"]).identities()
    assert (new,) == Config(key=new).identities()
    with pytest.raises(ConfigError, match=r"^former_keys\[0\]: the same key as another one; expected each key once$"):
        Config(key=old, former_keys=[tmp_path / "old"]).identities()


def test_a_standing_move(read, folder):
    """Local paths of a move become absolute, locations at peers stay; one source needs no array."""
    move = read("""
        key = "realized.key"
        listen = []
        [moves.camera]
        from = "~/raw"
        to = "nas::inbox/cam1"
        settle = "2s"
        max_duration = "50m"
        exclude = ["*.tmp"]
        on_conflict = "fail"
        manifest = "camera.jsonl"
        """).moves["camera"]

    assert (
        MoveConfig(
            sources=(f"{folder}/home/raw",),
            destination="nas::inbox/cam1",
            settle_s=2.0,
            max_duration_s=3000.0,
            exclude=("*.tmp",),
            on_conflict=OnConflict.FAIL,
            manifest=f"{folder}/camera.jsonl",
        )
        == move
    )


def test_daemon_needs(errors, read, folder):
    """A daemon without key file, endpoint or directories does not start, and these may come later."""
    assert ["key: is missing; expected the file of our private key"] == errors('dirs.inbox.path = "store"')
    assert [
        f"key: there is no file {folder}/absent; expected a private key, as `realize keygen` makes it",
        "listen: expected at least one endpoint to listen on, or a move",
        "dirs: expected at least one directory to serve, such as a table dirs.inbox with a path, or a move",
    ] == errors('key = "absent"\nlisten = []')

    text = 'key = "realized.key"\ndirs.a = { path = "absent", mount = "disk" }'

    directory = read(text).directories["a"]
    assert (f"{folder}/absent", f"{folder}/disk") == (directory.path, directory.mount)
    assert ["dirs.a.mount: expected a path"] == errors('key = "realized.key"\ndirs.a = { path = "a", mount = "" }')


def test_no_directory_to_grant(errors):
    """A right on a directory is reported also if no directory is configured at all."""
    lines = errors(f'peers.a = {{ key = "{CAMERA.base64}", dirs.inbox = ["read"] }}', for_daemon=False)

    assert ["peers.a.dirs.inbox: no such directory; expected one of those that are configured, and none is"] == lines


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"key = ", "not a TOML file: Invalid value"),
        (b"\xff", "not a TOML file: "),
        (b"a = 1\na = 2", "not a TOML file: Cannot overwrite a value"),
        (b"a = " + b"[" * 100_000, "not a TOML file: "),
    ],
)
def test_not_toml(folder, content, expected):
    """A file that is no TOML is an error that names the file and, where it is known, the place."""
    path = folder / "bad\n.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config(str(path), for_daemon=True)

    assert str(caught.value).startswith(f"{folder}/bad\\n.toml: {expected}")


def test_missing_file(folder):
    """A file that is missing, or cannot be read, is an error that names it."""
    with pytest.raises(ConfigError, match="/absent: there is no such configuration file"):
        read_config(f"{folder}/absent", for_daemon=True)
    with pytest.raises(ConfigError, match="cannot read the configuration file: Is a directory"):
        read_config(str(folder), for_daemon=True)


def test_private_key_in_configuration(errors):
    """A private key that was pasted where a public one belongs is not repeated in the error."""
    body = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + bytes(range(32))).decode()
    [line] = errors(f'peers.camera.key = "{body}"', for_daemon=False)

    assert line.startswith("peers.camera.key: this is a private key")
    assert body not in line


def test_default_paths():
    """Configuration and key are looked for below the home directory unless the environment names them."""
    assert "/home/me/.config/realize/realize.toml" == default_config_path({"HOME": "/home/me"})
    assert "/home/me/.config/realize/realize.key" == default_key_path({"HOME": "/home/me"})
    assert "/etc/r.toml" == default_config_path({"HOME": "/home/me", "REALIZE_CONFIG": "/etc/r.toml"})
    assert "r.key" == default_key_path({"HOME": "/home/me", "REALIZE_KEY": "r.key"})
    assert os.path.expanduser("~/.config/realize/realize.key") == default_key_path({})


def test_command_without_configuration(tmp_path):
    """A default configuration that does not exist is an empty one."""
    environ = {"HOME": str(tmp_path)}

    assert Config(key=f"{tmp_path}/.config/realize/realize.key") == load_command_config(None, environ, print)
    assert Config(key="/k") == load_command_config(None, {**environ, "REALIZE_KEY": "/k"}, print)
    assert Config(key=f"{os.getcwd()}/k") == load_command_config(None, {**environ, "REALIZE_KEY": "k"}, print)


def test_command_with_default_configuration(tmp_path):
    """A default configuration that exists is read, and its errors are errors."""
    path = tmp_path / ".config" / "realize" / "realize.toml"
    path.parent.mkdir(parents=True)
    path.write_text('key = "mine.key"')
    environ = {"HOME": str(tmp_path)}

    assert Config(key=f"{path.parent}/mine.key") == load_command_config(None, environ, print)

    path.write_text("key = 1")
    with pytest.raises(ConfigError):
        load_command_config(None, environ, print)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load_command_config(None, environ, print)


def test_configuration_that_was_asked_for(tmp_path):
    """A configuration that an option or the environment names must exist; the option outranks the environment."""
    environ = {"HOME": str(tmp_path), "REALIZE_CONFIG": str(tmp_path / "env.toml")}
    for path in (None, str(tmp_path / "option.toml")):
        with pytest.raises(ConfigError, match="there is no such configuration file"):
            load_command_config(path, environ, print)
    (tmp_path / "env.toml").write_text('key = "env.key"')
    (tmp_path / "option.toml").write_text('key = "option.key"')

    assert f"{tmp_path}/env.key" == load_command_config(None, environ, print).key
    assert f"{tmp_path}/option.key" == load_command_config(str(tmp_path / "option.toml"), environ, print).key


def test_key_of_the_command(read, folder):
    """The key of the command is that of the environment, of the file, or the default; a daemon's is the file's."""
    assert "/env.key" == read(MINIMAL, for_daemon=False, REALIZE_KEY="/env.key").key
    assert f"{folder}/realized.key" == read(MINIMAL, for_daemon=False).key
    assert f"{folder}/home/.config/realize/realize.key" == read("", for_daemon=False).key
    assert f"{folder}/realized.key" == read(MINIMAL, REALIZE_KEY="/env.key").key


@pytest.mark.parametrize(
    ("text", "port", "interface"),
    [
        ("tcp:9771", 9771, ""),
        ("tcp:0", 0, ""),
        ("tcp:port=9771", 9771, ""),
        (r"tcp:9771:interface=\:\:1", 9771, "::1"),
        ("127.0.0.1:9771", 9771, "127.0.0.1"),
        ("localhost:0", 0, "localhost"),
        ("[::1]:9771", 9771, "::1"),
        ("[::]:9771", 9771, "::"),
        ("[fe80::1%eth0]:9771", 9771, "fe80::1%eth0"),
    ],
)
def test_endpoints_are_what_twisted_reads(text, port, interface):
    """What becomes of a listen entry means to Twisted what was meant."""
    reactor = MemoryReactor()
    serverFromString(reactor, server_endpoint(text)).listen(None)

    assert [(port, None, 50, interface)] == reactor.tcpServers


@pytest.mark.parametrize(
    ("text", "port", "interface"),
    [
        ("9772", 9772, "127.0.0.1"),
        (":9772", 9772, "127.0.0.1"),
        ("0", 0, "127.0.0.1"),
        ("tcp:9772", 9772, "127.0.0.1"),
        ("tcp:port=9772", 9772, "127.0.0.1"),
        ("tcp:9772:backlog=50", 9772, "127.0.0.1"),
        ("tcp6:9772", 9772, "::1"),
        ("tcp:9772:0.0.0.0", 9772, "0.0.0.0"),
        ("tcp:9772:interface=", 9772, ""),
        (r"tcp:9772:backlog=50:interface=\:\:", 9772, "::"),
        ("0.0.0.0:9772", 9772, "0.0.0.0"),
        ("[::]:9772", 9772, "::"),
        ("localhost:0", 0, "localhost"),
    ],
)
def test_metrics_are_for_this_machine(text, port, interface):
    """Metrics are on loopback unless an address says otherwise."""
    reactor = MemoryReactor()
    serverFromString(reactor, metrics_endpoint(text)).listen(None)

    assert [(port, None, 50, interface)] == reactor.tcpServers


@pytest.mark.parametrize("text", ["", ":", "::", "70000", "127.0.0.1", "127.0.0.1:", "-1", "tcp:x"])
def test_not_for_metrics(text):
    """What is no address is refused."""
    with pytest.raises(UsageError):
        metrics_endpoint(text)


@pytest.mark.parametrize(
    "text", ["unix:/run/x", "systemd:domain=INET:index=0", "throttle:tcp:9771", "onion:a:b", r"unix:\\"]
)
def test_other_endpoints(text):
    """Endpoint strings of other kinds are left to Twisted and its plugins."""
    assert text == server_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp:",
        "tcp:http",
        "tcp:65536",
        "tcp6:x",
        ":9771",
        "9771",
        "::1:9771",
        "fe80::1:9771",
        "[::1]",
        "[::1]:",
        "[127.0.0.1]:9771",
        "[::1",
        "localhost:65536",
        "localhost:\N{ARABIC-INDIC DIGIT ONE}",
        "a b:9771",
        "unix:/run\\",
        r"unix:\\\ "[:-1],
    ],
)
def test_bad_endpoints(text):
    """What cannot be listened on is a usage error."""
    with pytest.raises(UsageError):
        server_endpoint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostb", ("hostb", DEFAULT_PORT)),
        ("hostb.example:9999", ("hostb.example", 9999)),
        ("10.0.0.1", ("10.0.0.1", DEFAULT_PORT)),
        ("[::1]", ("::1", DEFAULT_PORT)),
        ("[::1]:1", ("::1", 1)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
        ("bücher.example", ("bücher.example", DEFAULT_PORT)),
    ],
)
def test_address(text, expected):
    """An address is a host and a port, which has a default; an IPv6 address is in brackets."""
    assert expected == parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:b",
        "a:-1",
        "a: 1",
        "::1",
        "[]",
        "[a]",
        "[::1]1",
        "[::1]:",
        "[::1%]",
        "[::1%a b]",
        "u@a",
        "a/b",
        "a b",
        "a\nb",
        "-a",
        ".a",
        "a" * 254,
        "[::1]:1\n",
    ],
)
def test_bad_address(text):
    """What is no address is a usage error."""
    with pytest.raises(UsageError):
        parse_address(text)


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1M", "tcp:1", "7d", "read"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inbox", "path", "key", "dirs", "service", "level", "peers", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


@given(
    st.dictionaries(
        st.sampled_from(["key", "listen", "metrics", "dirs", "peers", "throttle", "logs", "partial_max_age", "drain"]),
        VALUES,
    )
)
def test_any_configuration_is_read_or_refused(tmp_path_factory, values):
    """Whatever values a TOML file has, it is read or refused with one line per problem; there is no other error."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in values.items()))
    try:
        config = read_config(str(path), for_daemon=False)
    except ConfigError as error:
        assert [] == [line for line in str(error).splitlines() if not line.startswith(f"{path}: ")]
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        ("tcp:9771", 1024),
        (r"tcp6:9771:interface=\:\:1", 1024),
        ("tcp:9771:127.0.0.1", 1024),
        ("tcp:9771:backlog=7", 7),
        ("tcp:9771:127.0.0.1:7", 7),
    ],
)
def test_a_burst_of_connections_may_wait(endpoint, wanted):
    """Twisted lets 50 wait; what the operator says counts."""
    reactor = MemoryReactor()
    serverFromString(reactor, with_backlog(endpoint)).listen(Factory())

    assert wanted == reactor.tcpServers[0][2]
    assert "unix:/run/x" == with_backlog("unix:/run/x")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_to_is_refused_by_the_daemon(folder, read, mode):
    """Whoever writes it decides who is let in; the command says so and goes on."""
    read(FULL)
    path = folder / "realized.toml"
    path.chmod(mode)
    warned = []

    with pytest.raises(ConfigError, match="others can write to the configuration file"):
        read_config(str(path), for_daemon=True, environ={"HOME": str(folder / "home")})
    read_config(str(path), for_daemon=False, environ={"HOME": str(folder / "home")}, warn=warned.append)

    assert [f"{path}: others can write to the configuration file (its mode is {mode:04o}): chmod go-w {path}"] == warned


def test_a_file_that_others_can_put_another_in_the_place_of_is_refused(folder, read):
    """A directory that is open to all must be sticky."""
    read(FULL)
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=f"others can write to its directory {folder}"):
        read(FULL)
    folder.chmod(0o1777)

    read(FULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_somebody_else_is_refused(folder, read):
    """Its owner can write to it whatever its mode."""
    read(FULL)
    os.chown(folder / "realized.toml", 12_345, -1)

    with pytest.raises(ConfigError, match="the configuration file belongs to user 12345"):
        read(FULL)


INBOX = {"inbox": DirectoryConfig("/store/inbox")}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Config(key=""), "key: expected a path"),
        (lambda: Config(key=b"-----BEGIN"), "key: expected a path, not of type bytes"),
        (lambda: Config(key="/k", listen=("tcp:1", "nonsense")), "listen[1]: 'nonsense' is not something to listen on"),
        (lambda: Config(key="/k", listen="tcp:1"), 'listen: expected an array of strings such as ["*:9771"], not a'),
        (lambda: Config(key="/k", metrics="nonsense"), "metrics: 'nonsense' is not something to listen on: write "),
        (lambda: Config(key="/k", directories={".in": DirectoryConfig("/")}), 'dirs.".in": not a name for a directory'),
        (lambda: Config(key="/k", directories={"in": "/"}), "dirs.in: expected of type DirectoryConfig, not a string"),
        (lambda: Config(key="/k", peers={"a b": PeerConfig(CAMERA)}), 'peers."a b": not a name for a peer; expected'),
        (lambda: Config(key="/k", drain_s=-1), "drain: '-1.000000000' is not a duration: write a time, such as"),
        (lambda: Config(key="/k", drain_s="10s"), "drain: expected a number of seconds, not a string"),
        (lambda: Config(key="/k", partial_max_age_s=0), "partial_max_age: '0.000000000' is not a duration: write a "),
        (lambda: Config(key="/k", partial_max_age_s=float("nan")), "partial_max_age: 'nan' is not a duration: write"),
        (
            lambda: Config(key="/k", peers={"a": PeerConfig(CAMERA), "b": PeerConfig(CAMERA)}),
            "peers.b.key: the same key as that of peers.a; expected another key for every peer",
        ),
        (
            lambda: Config(key="/k", directories=INBOX, peers={"a": PeerConfig(CAMERA, rights={"out": [Right.READ]})}),
            "peers.a.dirs.out: no such directory; expected one of inbox",
        ),
        (
            lambda: Config(key="/k", throttle=ThrottleConfig(peers_bps={"a": 1})),
            "throttle.peers.a: no such peer; expected one of those that are configured, and none is",
        ),
        (lambda: Config(key="/k", drain_s=10**400), "drain: expected a number of seconds that is not so large"),
        (lambda: Config(key="/k", directories=None), "dirs: expected a table, not of type NoneType"),
        (lambda: Config(key="/k", peers=1), "peers: expected a table, not an integer"),
        (lambda: Config(key="/k", moves=["m"]), "moves: expected a table, not an array"),
        (lambda: Config(key="/k", moves={1: None}), "moves: expected a string as the name of a move, not an integer"),
        (lambda: ThrottleConfig(peers_bps=None), "peers: expected a table, not of type NoneType"),
        (lambda: MoveConfig(sources=["/a"], destination="/b", after=1), "after: expected an array of strings, not an "),
        (lambda: MoveConfig(sources=["/a"], destination="/b", settle_s=10**400), "settle: expected a number of s"),
        (
            lambda: MoveConfig(sources=["/a"], destination="/b", max_size_bytes="1M"),
            "max_size: expected a number of byt",
        ),
        (
            lambda: MoveConfig(sources=["/a"], destination="/b", min_size_bytes=2, max_size_bytes=1),
            "min_size: is more than max_size",
        ),
        (lambda: MoveConfig(sources=["/a"], destination="/b", throttle=1.5), "throttle: expected a rate such as"),
        (lambda: DirectoryConfig("a\0b"), "path: expected a path"),
        (lambda: DirectoryConfig("/a", "5%"), "reserve: expected of type Reserve, not a string"),
        (lambda: PeerConfig(CAMERA.base64), "key: expected of type PublicKey, not a string"),
        (lambda: PeerConfig(CAMERA, address="::1"), "address: '::1' is not an address: write HOST, HOST:PORT"),
        (lambda: PeerConfig(CAMERA, rights={"inbox": "read"}), "dirs.inbox: expected of type Right, not a string"),
        (lambda: PeerConfig(CAMERA, admin="false"), "admin: expected true or false, not a string"),
        (lambda: ThrottleConfig(service_bps=0), "service: '0' is not a rate: write bytes per second above zero"),
        (
            lambda: ThrottleConfig(service_bps="20M"),
            "service: expected bytes per second, a timetable, or None, not a string",
        ),
        (
            lambda: ThrottleConfig(connection_bps=RateTimetable((RateChange(time(8), 0),))),
            "connection: '0' is not a rate: write bytes per second above zero",
        ),
        (lambda: ThrottleConfig(peers_bps={"a": 1 << 60}), "peers.a: '1152921504606846976' is too much: at most"),
        (lambda: LimitsConfig(memory_bytes=1), "memory: expected a size of at least 16M"),
        (lambda: LimitsConfig(peer_memory_bytes=1.5e9), "peer_memory: expected a number of bytes, not a float"),
        (lambda: LogsConfig(Levels("loud")), "level: 'loud' is not a level: expected error, warning, info or debug"),
        (lambda: LogsConfig(Levels(components={"x": "info"})), "level: 'x' is not a component of the log: expected"),
        (lambda: LogsConfig(format="xml"), "format: 'xml' is not known; expected one of auto, console, json"),
        (lambda: LogsConfig(file=""), "file: expected a path"),
    ],
)
def test_values_of_a_program_are_checked_like_those_of_a_file(make, expected):
    """In the same words, when they are made, so that the traceback shows where they come from."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value).startswith(expected)


def test_a_program_makes_the_configuration_that_a_file_has(read, folder, monkeypatch):
    """Paths are made absolute, and what may be written in several ways becomes endpoint strings and sets."""
    monkeypatch.chdir(folder)
    made = Config(
        key=folder / "realized.key",
        listen=["127.0.0.1:9772"],
        metrics=9774,
        directories={"inbox": DirectoryConfig("store/inbox")},
        peers={"camera": PeerConfig(CAMERA, rights={"inbox": [Right.WRITE]})},
    )
    text = f"""{MINIMAL}
        [peers.camera]
        key = "{CAMERA.base64}"
        dirs.inbox = ["write"]
    """

    assert made == read(f'listen = ["127.0.0.1:9772"]\nmetrics = 9774\n{text}')


def test_a_configuration_cannot_be_changed():
    """A reload compares with what is in force; a table that was changed in place would keep peers who have lost it."""
    rights, peers = {"inbox": {Right.READ}}, {}
    peers["camera"] = PeerConfig(CAMERA, rights=rights)
    config = Config(key="/k", directories=INBOX, peers=peers)
    rights["inbox"].add(Right.WRITE)
    rights.clear()
    peers.clear()

    assert {"inbox": {Right.READ}} == config.peers["camera"].rights
    with pytest.raises(TypeError):
        config.peers["b"] = PeerConfig(HOSTB)


def test_the_identity_of_a_configuration(tmp_path):
    """It is read from its file when it is asked for, or it is the one that was given; then nothing needs a file."""
    identity = generate_identity()
    write_identity(str(tmp_path / "key"), identity)
    given = Config(key=identity, directories={"inbox": DirectoryConfig(tmp_path)})

    assert identity == given.identity() == Config(key=tmp_path / "key").identity()
    check_daemon_needs(given)
    with pytest.raises(ConfigError, match=r"^listen: expected at least one endpoint to listen on"):
        check_daemon_needs(Config(key=identity, listen=(), directories={"inbox": DirectoryConfig(tmp_path)}))
    with pytest.raises(ConfigError, match="there is no such key file"):
        Config(key="/absent").identity()
