"""`twistd realized --check-config` and `--version`: what they say, and that they change nothing."""

from __future__ import annotations

import os
import subprocess
import threading
from functools import partial

import pytest
from twisted.internet import reactor

from realize import __version__
from realize.daemon import config_check
from realize.daemon.config_check import ConfigCheck
from realize.daemon.logs import DaemonLogOptions
from realize.keys import generate_identity, write_identity
from realize.wire.every_address import server_endpoint_of
from tests.processes import ENVIRONMENT, TWISTD, Site, run_program

NO_OPTIONS = DaemonLogOptions()
PEER = generate_identity().public_key.base64


@pytest.fixture
def folder(tmp_path):
    """A folder with a key, and an inbox."""
    write_identity(str(tmp_path / "key"), generate_identity())
    (tmp_path / "inbox").mkdir()
    return tmp_path


def check(folder, text, logs=NO_OPTIONS):
    """A check of that configuration, whose ``inbox`` a peer may read and write."""
    (folder / "realized.toml").write_text(
        f'{text}\n[peers.nas]\nkey = "{PEER}"\naddress = "nas.example"\ndirs = {{ inbox = ["read", "create"] }}\n'
        '[dirs.inbox]\npath = "inbox"\n'
    )
    return ConfigCheck(str(folder / "realized.toml"), logs, partial(server_endpoint_of, reactor))


def problems(folder, text, logs=NO_OPTIONS):
    """What is wrong, without the name of the file."""
    return [
        line.removeprefix(f"{folder}/realized.toml: ").replace(f"{folder}/", "")
        for line in check(folder, text, logs).problems()
    ]


def test_a_good_configuration_is_told_of(folder):
    """What it would serve and move, and for whom."""
    (folder / "out").mkdir()
    good = check(
        folder, 'key = "key"\nmetrics = 9772\nmoves.daily = { from = "out", to = "nas::inbox", when = "every 1d" }'
    )

    assert [] == good.problems()
    said = list(good.summary())
    assert f"{folder}/realized.toml: the configuration is good" == said[0]
    assert "key: SHA256:" in said[1]
    assert [
        "listen: *:9771",
        f"dirs.inbox: {folder}/inbox, for nas (create, read)",
        f"moves.daily: {folder}/out to nas::inbox, every 1d",
        "metrics: tcp:9772:interface=127.0.0.1",
        "logs: stderr",
    ] == said[2:]


def test_former_keys_are_checked_as_well(folder):
    """Each is told of; one that cannot be read, or is there twice, is missed by its place."""
    write_identity(str(folder / "old"), generate_identity())
    (folder / "rubbish").write_text("no key")
    (folder / "rubbish").chmod(0o600)
    good = check(folder, 'key = "key"\nformer_keys = ["old"]')

    assert [] == good.problems()
    assert ["key", "former key"] == [line.partition(":")[0] for line in list(good.summary())[1:3]]
    [unread] = problems(folder, 'key = "key"\nformer_keys = ["old", "rubbish"]')
    assert unread.startswith("former_keys[1]: rubbish: ")
    assert ["former_keys[0]: the same key as another one; expected each key once"] == problems(
        folder, 'key = "key"\nformer_keys = ["key"]'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('key = "gone"', "key: there is no file gone; expected a private key, as `realize keygen` makes it"),
        ('key = "open"', "key: there is no file open"),
        ('listen = ["ssl:9771:privateKey=gone.pem"]', "listen[0]: ssl:9771:privateKey=gone.pem: "),
        ('listen = ["unix:a:mode=0:mode=0:x"]', "listen[0]: "),
        ('listen = ["throttle:rate:tcp:1"]', "listen[0]: "),
        ('logs.file = "gone/log"', "logs.file: there is no directory gone; expected one that exists"),
        ('logs.file = "inbox"', "logs.file: inbox is a directory; expected a file"),
        ('state = "gone/state"', "state: there is no directory gone; expected one that exists"),
        ('state = "open"', "state: others can write to the directory open (its mode is 0777): chmod go-w open"),
        ('control = "gone/below/socket"', "control: there is no directory gone; expected one that exists"),
        ('control = "key"', "control: key exists and is not a socket; expected a name that is free"),
        (f'control = "{"s" * 107}"', "control: "),
        ('moves.m = { from = "gone", to = "nas::in" }', "moves.m.from[0]: there is no directory gone; expected "),
        ('moves.m = { from = "inbox", to = "other::in" }', "moves.m.to: other is not a peer"),
        ('moves.m = { from = "inbox", to = "nas::in", after = ["/gone"] }', "moves.m.after: /gone is not a program"),
        ("nonsense = 1", "nonsense: unknown key"),
        ("= 1", "not a TOML file"),
    ],
)
def test_what_is_wrong_is_a_line(folder, text, expected):
    """With the key that it is about."""
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    key = "" if text.startswith("key") else 'key = "key"\n'

    [line] = problems(folder, key + text)

    assert line.startswith(expected)


def test_a_disk_that_is_not_mounted_is_missed(folder):
    """By its own key: the daemon would not serve the directory, although there is one."""
    checked = check(folder, 'key = "key"')
    file = folder / "realized.toml"
    file.write_text(f'{file.read_text()}mount = "inbox"\n')
    unmounted = checked.problems()
    file.write_text(file.read_text().replace('mount = "inbox"', 'mount = "/"'))

    assert [f"{file}: dirs.inbox.mount: nothing is mounted at {folder}/inbox, so the directory counts as absent"] == (
        unmounted
    )
    assert [] == checked.problems()


def test_all_that_is_wrong_is_told_at_once(folder):
    """Also what stands behind what keeps the file from being used at all, and no place twice for the same reason."""
    said = problems(
        folder, 'key = "gone"\nlogs.file = "gone/log"\nlisten = ["ssl:1:privateKey=gone", "ssl:2:privateKey=gone"]'
    )

    assert ["key", "listen[0]", "listen[1]", "logs.file"] == [line.partition(": ")[0] for line in said]


def test_options_of_the_log_outrank_the_file(folder):
    """So the file that is used is looked at."""
    said = problems(folder, 'key = "key"\nlogs.file = "gone/log"', DaemonLogOptions(file=str(folder / "log")))

    assert [] == said


def test_permissions_that_peers_and_moves_need_are_missed(folder, monkeypatch):
    """Each that the daemon lacks; root lacks none, so the system is asked in the name of another user."""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: False)

    said = problems(folder, 'key = "key"\nlogs.file = "key"\nmoves.m = { from = "inbox", to = "nas::inbox" }')

    may_not = [
        f"this runs as user {os.geteuid()}, who may not {deed} the directory inbox" for deed in ("read", "write to")
    ]
    assert [
        *[f"dirs.inbox.path: {each}" for each in may_not],
        f"logs.file: this runs as user {os.geteuid()}, who may not write to key",
        *[f"moves.m.from[0]: {each}" for each in may_not],
    ] == said


def test_a_disk_that_hangs_holds_the_check_up_for_a_while_only(folder, monkeypatch):
    """And is named."""
    hanging, real = threading.Event(), os.stat
    monkeypatch.setattr(config_check, "DISK_ANSWER_S", 1.0)  # the others have to answer by then
    monkeypatch.setattr(
        config_check, "_is_directory", lambda path: hanging.wait() if path.endswith("inbox") else bool(real(path))
    )
    try:
        said = problems(folder, 'key = "key"')
    finally:
        hanging.set()

    assert ["dirs.inbox.path: inbox: its disk has not answered for 1 s"] == said


def test_sockets_that_systemd_opens_are_not_missed(folder):
    """They are for the daemon alone."""
    assert [] == problems(folder, 'key = "key"\nlisten = ["systemd:domain=INET:index=0"]')


# The program.


def twistd(folder, *options, **environ):
    """What `twistd realized` says, started in that folder; it must not go on."""
    return run_program(
        [*TWISTD, "realized", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**ENVIRONMENT, **environ},
    )


def names(folder):
    """Everything below a folder, and when it was changed."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_the_configuration_of_a_daemon_that_runs_is_checked(tmp_path):
    """Its port is no hindrance, and nothing is changed, made or opened."""
    site = Site(tmp_path)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    site.start(environ={"RUNTIME_DIRECTORY": str(runtime)})
    try:
        before = names(tmp_path)
        good = twistd(tmp_path, "--check-config", "--config", "realized.toml", RUNTIME_DIRECTORY=str(runtime))
        after = names(tmp_path)
    finally:
        site.stop()

    assert (0, "") == (good.returncode, good.stderr)
    assert f"{tmp_path}/realized.toml: the configuration is good" == good.stdout.splitlines()[0]
    assert before == after


def test_what_is_wrong_ends_it_like_a_start(tmp_path):
    """With the same exit code, and nothing on stdout."""
    Site(tmp_path).write_daemon_config("nonsense = 1\n")

    checked = twistd(tmp_path, "--check-config", "--config", "realized.toml", "--drain", "soon", "--log-level", "loud")
    started = twistd(tmp_path, "--config", "realized.toml")

    assert (78, 78, "") == (checked.returncode, started.returncode, checked.stdout)
    said = checked.stderr.splitlines()
    assert ["--drain", "--log-level", f"{tmp_path}/realized.toml"] == [line.split(": ")[2] for line in said]
    assert said[2:] == started.stderr.splitlines()


def test_an_address_that_cannot_be_one_is_found(tmp_path):
    """That of the command line as well."""
    Site(tmp_path).write_daemon_config("")

    checked = twistd(tmp_path, "--check-config", "--config", "realized.toml", "--metrics-addr", "x:y:z")

    assert (78, "") == (checked.returncode, checked.stdout)
    assert checked.stderr.startswith("realized: error: --metrics-addr: x:y:z: ")


@pytest.mark.parametrize("option", ["--version", "--help", "--check-config"])
@pytest.mark.parametrize(
    ("redirection", "expected"),
    [
        (">/dev/full", (1, "realized: error: cannot write output: No space left on device\n")),
        (">&-", (0, "")),
    ],
)
def test_output_that_cannot_be_written(tmp_path, option, redirection, expected):
    """Is one sentence, as with `realize`; whoever closes stdout wants none."""
    Site(tmp_path).write_daemon_config("")
    command = [*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", "realized.toml", option]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert expected == (done.returncode, done.stderr)


def test_a_configuration_without_end(tmp_path):
    """Memory is not filled with what cannot be a configuration."""
    done = twistd(tmp_path, "--check-config", "--config", "/dev/zero")

    assert (78, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "not a configuration: it has more than 16 MiB" in done.stderr


def test_the_version_is_that_of_realize(tmp_path):
    """And not that of Twisted, which has another option for it."""
    said = twistd(tmp_path, "--version")

    assert (0, f"realized {__version__}\n", "") == (said.returncode, said.stdout, said.stderr)
