"""The programs in ``docs/examples/``, run as docs/endpoints.md and docs/embedding.md say, as real processes."""

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from realize.keys import generate_identity, write_identity
from tests.processes import ENVIRONMENT, ROOT, TWISTD, wait_for

EXAMPLES = ROOT / "docs" / "examples"


@contextlib.contextmanager
def serving(name, *arguments, log):
    """A service of an example; gives the port that it says it listens on."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            said = process.stdout.readline()
            found = re.fullmatch(r"listening on port (\d+)\n", said)
            assert found, said + log.read_text()
            yield int(found[1])
        finally:
            process.terminate()
            process.communicate(timeout=20)


def read(endpoint, seconds):
    """Run the client: its exit code, KiB/s (0 if it printed none), and what it said on stderr."""
    command = [sys.executable, str(EXAMPLES / "readings.py"), "read", endpoint, str(seconds)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    found = re.fullmatch(r"\d+ readings, ([0-9.]+) KiB/s\n", done.stdout)
    return done.returncode, float(found[1]) if found else 0.0, done.stderr


def rate_of(endpoint):
    """KiB/s of the client: the most of some tries, for a machine that stands still for a moment makes it slower."""
    rates = []
    while len(rates) < 5 and (not rates or rates[-1] < 256 * 0.7):
        code, rate, said = read(endpoint, 2)
        assert (0, "") == (code, said)
        rates.append(rate)
    return max(rates)


@pytest.fixture
def log(tmp_path):
    """What a service says on stderr."""
    return tmp_path / "log"


@pytest.fixture
def keys(tmp_path):
    """``NAME.key`` and ``NAME.pub`` for three parties; gives their fingerprints."""
    fingerprints = {}
    for name in ("server", "client", "other"):
        identity = generate_identity()
        write_identity(str(tmp_path / f"{name}.key"), identity)
        (tmp_path / f"{name}.pub").write_text(identity.public_key.base64)
        fingerprints[name] = identity.public_key.fingerprint
    return fingerprints


def test_a_service_of_anybody_is_throttled_by_its_endpoint_string(log):
    """Without the prefix it is many times faster than with it."""
    with serving("readings.py", "serve", "throttle:tcp:0:interface=127.0.0.1:rate=256k", log=log) as port:
        rate = rate_of(f"throttle:tcp:127.0.0.1:{port}:rate=1M")
    with serving("readings.py", "serve", "tcp:0:interface=127.0.0.1", log=log) as port:
        _, free, _ = read(f"tcp:127.0.0.1:{port}", 1)

    assert 256 * 0.7 < rate < 256 * 1.3
    assert 1024 < free


def test_readers_of_one_service_share_its_limit(log):
    """The limit is one for the endpoint."""
    description = "throttle:tcp:0:interface=127.0.0.1:rate=256k"
    with serving("readings.py", "serve", description, log=log) as port:
        command = [sys.executable, str(EXAMPLES / "readings.py"), "read", f"tcp:127.0.0.1:{port}", "6"]
        readers = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        rates = [float(reader.communicate(timeout=60)[0].split()[2]) for reader in readers]

    assert 256 * 0.6 < sum(rates) < 256 * 1.4


@pytest.mark.parametrize("throttled", ["nobody", "server", "client"])
def test_a_pinned_service_reads_to_those_it_knows(tmp_path, log, keys, throttled):
    """The client is the same program; only the string differs, and `throttle:` combines with it on both sides."""
    listening = {"server": "throttle:tcp:0:interface=127.0.0.1:rate=256k"}.get(throttled, "tcp:0:interface=127.0.0.1")
    before, after = {"client": ("throttle:", ":rate=1M")}.get(throttled, ("", ""))
    arguments = (listening, tmp_path / "server.key", tmp_path / "client.pub")
    with serving("pinned_readings.py", *arguments, log=log) as port:
        rate = rate_of(f"{before}realize:127.0.0.1:{port}:key={tmp_path}/client.key:peer={tmp_path}/server.pub{after}")

    assert 256 * 0.7 < rate
    if throttled == "server":
        assert rate < 256 * 1.3


def test_a_pinned_service_turns_others_away(tmp_path, log, keys):
    """Each side says which key it did not want, and nothing is read."""
    arguments = ("tcp:0:interface=127.0.0.1", tmp_path / "server.key", tmp_path / "client.pub")
    with serving("pinned_readings.py", *arguments, log=log) as port:
        start = f"realize:127.0.0.1:{port}:key={tmp_path}"
        stranger = read(f"{start}/other.key:peer={tmp_path}/server.pub", 5)
        impostor = read(f"{start}/client.key:peer={tmp_path}/other.pub", 5)

    assert (1, 0.0) == stranger[:2]
    assert "does not know the key of this side" in stranger[2]
    assert keys["other"] in log.read_text()
    assert (1, 0.0) == impostor[:2]
    assert keys["server"] in impostor[2]
    assert keys["other"] in impostor[2]


def test_a_bad_string_is_said_in_one_line():
    """And so is a port that nobody listens on."""
    code, _, said = read("realize:127.0.0.1", 1)

    assert 1 == code
    assert "realize: needs key=, the file of the private key, as `realize keygen FILE` makes it\n" == said


def test_every_example_is_named_in_the_docs():
    """Or nobody would find it."""
    text = "".join(Path(ROOT / "docs" / page).read_text() for page in ("endpoints.md", "embedding.md", "api.md"))
    examples = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.tac")]

    assert set() == {path.name for path in examples if f"examples/{path.name}" not in text}


def move(tmp_path, port, name):
    """Move a new file of that name to the daemon of an example, as ``camera`` whose key is ``client.key``."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / name).write_text(name)
    (tmp_path / "realize.toml").write_text(
        f'key = "client.key"\n[peers.nas]\naddress = "127.0.0.1:{port}"\n'
        f'key = "{(tmp_path / "server.pub").read_text()}"\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "realize.cli.main", str(source), "nas::inbox"],
        env={**ENVIRONMENT, "REALIZE_CONFIG": str(tmp_path / "realize.toml")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_daemon_in_a_tac(tmp_path, keys):
    """It logs with the application, takes what it may, and ends when the application does; a port in use ends it."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "server.key").rename(tmp_path / "realized.key")
    (tmp_path / "client.pub").rename(tmp_path / "camera.pub")

    def start(listen):
        return subprocess.Popen(
            [*TWISTD, "--nodaemon", "--pidfile=", "--python", str(EXAMPLES / "inbox.tac")],
            cwd=tmp_path,
            env={**ENVIRONMENT, "LISTEN": listen, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with start("127.0.0.1:0") as process:
        try:
            line = next(line for line in process.stdout if " listening " in line)
            port = int(re.search(r" port=(\d+)", line)[1])
            moved = move(tmp_path, port, "one")
            with start(f"127.0.0.1:{port}") as second:
                refused, _ = second.communicate(timeout=60)
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=60)

    assert (0, "one") == (moved.returncode, (tmp_path / "inbox" / "one").read_text())
    assert (-signal.SIGTERM, 1) == (process.returncode, second.returncode)
    assert f"ConfigError: listen: tcp:{port}:interface=127.0.0.1: " in refused
    assert " file_committed " in said
    assert " stopped" in said


def test_a_daemon_in_a_service_of_ones_own(tmp_path, log, keys):
    """It lets in who is added and shuts out who is removed, while it runs."""
    for name in ("inbox", "keys"):
        (tmp_path / name).mkdir()
    admitted = tmp_path / "keys" / "camera.pub"
    arguments = ("tcp:0:interface=127.0.0.1", tmp_path / "server.key", tmp_path / "inbox", tmp_path / "keys")
    with serving("intake.py", *arguments, log=log) as port:
        before = move(tmp_path, port, "early").returncode
        admitted.write_text((tmp_path / "client.pub").read_text())
        wait_for(lambda: log.read_text().count(" reloaded ") == 1)
        during = move(tmp_path, port, "late")
        admitted.unlink()
        wait_for(lambda: log.read_text().count(" reloaded ") == 2)
        after = move(tmp_path, port, "too_late").returncode

    assert (True, 0, True) == (before != 0, during.returncode, after != 0)
    assert {"early", "late"} == {path.name for path in (tmp_path / "inbox").iterdir()}
    assert " stopped" in log.read_text()


def test_what_keeps_a_daemon_from_starting_is_said_by_the_program(tmp_path):
    """In its own way."""
    command = [sys.executable, str(EXAMPLES / "intake.py"), "tcp:0", str(tmp_path / "absent.key"), *[str(tmp_path)] * 2]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)

    assert (1, True) == (done.returncode, "intake: " in done.stderr)
    assert "there is no such key file" in done.stderr
