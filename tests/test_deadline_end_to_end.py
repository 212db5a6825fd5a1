"""Time limits, signals and lost connections, with real processes; what is timed has wide margins."""

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from realize.keys import load_identity
from tests.leftovers import partial_at
from tests.processes import BUSY_S, ENVIRONMENT, TWISTD, Proxy, Site, digests, plant, run_program, wait_for

MIB = 1 << 20


@pytest.fixture
def site(tmp_path):
    """A daemon that serves ``inbox`` to a command with all rights."""
    site = Site(tmp_path)
    site.start()
    yield site
    site.stop()


def timed(site, *arguments):
    """Run the command; what it did and how long it took."""
    began = time.monotonic()
    done = site.realize(*arguments)
    return done, time.monotonic() - began


def finish(site, source, original):
    """Run without a limit; in the end everything is at the destination, once."""
    done = site.realize("--quiet", source, "hostb::inbox")

    assert (0, "") == (done.returncode, done.stderr)
    assert {} == digests(source)
    assert original == digests(site.inbox)


def test_one_huge_file(site, tmp_path):
    """At the limit the file stops on its way; what arrived is kept, said, and not sent again."""
    source = tmp_path / "source"
    original = plant(source, 1, small=0, large=1, large_size=20 * MIB)

    done, took = timed(site, "--json", "--throttle", "2M", "--max-duration", "6s", source, "hostb::inbox")

    summary = json.loads(done.stdout.splitlines()[-1])
    [interrupted] = summary["interrupted"]
    kept = partial_at(site.inbox, "large 0").stat().st_size
    assert 11 == done.returncode == summary["exit_code"]
    assert 5.9 < took < 6 + BUSY_S
    assert MIB < interrupted["reached"] <= kept
    assert 1 == done.stderr.count("--max-duration 6s reached")
    assert 1 == len(done.stderr.splitlines())
    again = site.realize("--json", source, "hostb::inbox")
    [sent] = [
        record["sent"]
        for line in again.stdout.splitlines()
        if (record := json.loads(line)).get("how") == "created" and record["path"] == "large 0"
    ]
    assert sent == interrupted["size"] - kept
    assert original == digests(site.inbox)


def test_many_small_files(site, tmp_path):
    """At the limit no file is half there, and the line says how many moved and how many were not started."""
    source = tmp_path / "source"
    original = plant(source, 2, small=1500, large=0)

    done, took = timed(site, "--throttle", "2M", "--max-duration", "6s", source, "hostb::inbox")

    here, there = digests(source), digests(site.inbox)
    assert 11 == done.returncode
    assert took < 6 + BUSY_S
    assert [] == [path for path, digest in original.items() if digest not in (here.get(path), there.get(path))]
    assert 0 < len([path for path in there if path in original]) < len(original)
    finish(site, source, original)


def test_a_limit_of_a_millisecond(site, tmp_path):
    """The shortest of limits ends in order too, with everything where it was; it has failed, for nobody was reached."""
    source = tmp_path / "source"
    original = plant(source, 3, small=5, large=0)

    done, took = timed(site, "--quiet", "--max-duration", "1ms", source, "hostb::inbox")

    assert (1, True) == (done.returncode, took < BUSY_S)
    assert original == digests(source)


def test_a_limit_that_suffices_changes_nothing(site, tmp_path):
    """Everything moved before the limit: exit code 0, and not a word about it."""
    source = tmp_path / "source"
    plant(source, 4, small=20, large=1)

    done, _ = timed(site, "--quiet", "--max-duration", "1h", source, "hostb::inbox")

    assert (0, "") == (done.returncode, done.stderr)


def test_grace_lets_files_under_way_finish(site, tmp_path):
    """The file that was under way at the limit arrives within the grace; the next one is not started."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(os.urandom(8 * MIB))

    done, took = timed(
        site, "--jobs", "1", "--throttle", "1M", "--max-duration", "6s", "--grace", "30s", source, "hostb::inbox"
    )

    assert 11 == done.returncode
    assert 7.5 < took < 8 + BUSY_S
    assert ["a"] == os.listdir(site.inbox)
    assert ["b"] == os.listdir(source)


def test_grace_that_does_not_suffice(site, tmp_path):
    """After limit and grace it stops all the same."""
    source = tmp_path / "source"
    plant(source, 5, small=0, large=1, large_size=20 * MIB)

    done, took = timed(site, "--throttle", "2M", "--max-duration", "5s", "--grace", "2s", source, "hostb::inbox")

    assert 11 == done.returncode
    assert 6.9 < took < 7 + BUSY_S


def test_a_failure_outranks_the_limit(site, tmp_path):
    """A file that failed before the limit was reached makes the exit code 1."""
    source = tmp_path / "source"
    plant(source, 6, small=3, large=1, large_size=20 * MIB)
    (site.inbox / ".hidden").mkdir()

    done, _ = timed(site, "--throttle", "2M", "--max-duration", "5s", "--on-conflict=fail", source, "hostb::inbox")

    assert 1 == done.returncode
    assert "--max-duration 5s reached" in done.stderr


@pytest.fixture
def silent(tmp_path):
    """A server that accepts connections and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def accept():
        while True:
            try:
                accepted.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()
    for each in accepted:
        each.close()


def test_a_peer_that_accepts_and_never_speaks(tmp_path, silent):
    """The limit covers connecting, and the handshake; without ever having been connected the run has failed."""
    site = Site(tmp_path)
    site.port = silent
    site.write_command_config()
    (tmp_path / "source").mkdir()

    done, took = timed(site, "--max-duration", "2s", tmp_path / "source", "hostb::inbox")

    assert (1, True) == (done.returncode, took < 2 + BUSY_S)
    assert "realize: error: the time limit was reached, and no connection was made" in done.stderr


def test_a_peer_that_never_answers_hello(tmp_path):
    """The limit covers the time between the handshake and the answer to Hello."""
    site = Site(tmp_path)
    identity = load_identity(str(tmp_path / "daemon.key"))
    (tmp_path / "cert.pem").write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "daemon.key")
    server = socket.create_server(("127.0.0.1", 0))
    shaken = []

    def accept():
        with contextlib.suppress(OSError):
            shaken.append(context.wrap_socket(server.accept()[0], server_side=True))

    threading.Thread(target=accept, daemon=True).start()
    site.port = server.getsockname()[1]
    site.write_command_config()
    (tmp_path / "source").mkdir()

    done, took = timed(site, "--max-duration", "6s", tmp_path / "source", "hostb::inbox")

    server.close()
    for connection in shaken:
        connection.close()
    assert (1, True, 1) == (done.returncode, took < 6 + BUSY_S, len(shaken))


def test_between_two_attempts(tmp_path):
    """The limit covers the waiting between retries; each attempt is announced with its cause, the end with the last."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()
    (tmp_path / "source").mkdir()

    done, took = timed(site, "--no-progress", "--max-duration", "6s", tmp_path / "source", "hostb::inbox")

    assert (1, True) == (done.returncode, 5.5 < took < 6 + BUSY_S)
    assert 2 <= done.stderr.count("retrying in")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("realize: error: the time limit was reached, and no connection was made; 127.0.0.1:9 ")
    assert "refused" in last


def test_between_two_attempts_there_is_no_grace(tmp_path):
    """The grace is for files under way: a run that waits to come back ends at its limit, as one without grace."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()
    (tmp_path / "source").mkdir()

    done, took = timed(
        site, "--no-progress", "--max-duration", "3s", "--grace", "30s", tmp_path / "source", "hostb::inbox"
    )

    assert (1, True) == (done.returncode, 2.5 < took < 3 + BUSY_S)
    assert "the time limit was reached" in done.stderr


def test_a_reader_of_messages_that_stands_still(tmp_path):
    """Nobody reads stderr, and the pipe is full: the process ends all the same, at limit + 5 s."""
    site = Site(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(400):
        (source / f"{'long name ' * 20}{number}").write_bytes(b"x")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    began = time.monotonic()

    command = site.spawn("--verbose", "--max-duration", "5s", source, tmp_path / "target", stderr=writing)
    try:
        assert 11 == command.wait(20)
    finally:
        command.kill()
        os.close(reading)
        os.close(writing)
    assert time.monotonic() - began < 5 + 5 + BUSY_S


def test_no_retry(tmp_path):
    """--no-retry fails at once."""
    site = Site(tmp_path)
    site.port = 9
    site.write_command_config()
    (tmp_path / "source").mkdir()

    done, took = timed(site, "--no-retry", tmp_path / "source", "hostb::inbox")

    assert (1, True) == (done.returncode, took < BUSY_S)
    assert "refused" in done.stderr


def test_what_is_permanent_is_not_retried(site, tmp_path):
    """A directory that there is not fails at once."""
    (tmp_path / "source").mkdir()

    done, took = timed(site, tmp_path / "source", "hostb::nosuch")

    assert (1, True) == (done.returncode, took < BUSY_S)


STUCK = {
    "a name server": "import socket\nsocket.getaddrinfo = lambda *a, **k: time.sleep(600)\n",
    "a disk": "import realize.store.local.walker as w\nw.Walker.page = lambda *a, **k: time.sleep(600)\n",
    "what commits": "import realize.store.local.group_commit as c\nc.commit_group = lambda *a: time.sleep(600)\n",
    "the whole reactor": "import realize.mover.move as m\nm.Move._is_selected = lambda *a, **k: time.sleep(600)\n",
}


@pytest.mark.parametrize("what", STUCK)
def test_whatever_hangs_the_process_ends(site, tmp_path, what):
    """A thread or a reactor that is stuck for ever is ended by force, at most five seconds after the limit.

    Where nobody was reached yet, that is a failure.
    """
    source = tmp_path / "source"
    original = plant(source, 7, small=3, large=0)
    config = site.folder / "realize.toml"
    config.write_text(config.read_text().replace("127.0.0.1", "localhost"))
    destination = str(tmp_path / "target") if "commits" in what else "hostb::inbox"
    script = f"import sys, time\n{STUCK[what]}from realize.cli.main import main\nmain()\n"
    limit_s = 2 if what == "a name server" else 5  # what hangs later needs the time that a start takes
    began = time.monotonic()

    done = subprocess.run(
        [*site.command()[:1], "-c", script, "--quiet", "--max-duration", f"{limit_s}s", source, destination],
        env={**ENVIRONMENT, "REALIZE_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (1 if what == "a name server" else 11) == done.returncode
    assert time.monotonic() - began < limit_s + 5 + BUSY_S
    assert 1 == done.stderr.count(f"--max-duration {limit_s}s reached")
    assert original == digests(source)


HANGING_CALL = """
import os, time
from realize.cli.main import main
plain, calls = os.CALL, []
def hang(*arguments):
    calls.append(arguments)
    return plain(*arguments) if len(calls) <= GOOD else time.sleep(600)
os.CALL = hang
main()
"""


@pytest.mark.parametrize(("call", "good"), [("pwrite", 2), ("fsync", 0)])
def test_a_disk_that_hangs_does_not_keep_an_interrupted_pull(site, tmp_path, call, good):
    """What is written, or made durable, is given up some seconds after a signal; nobody has to send a second one."""
    plant(site.inbox, 21, small=0, large=1, large_size=20 * MIB)
    target = tmp_path / "target"
    script = HANGING_CALL.replace("CALL", call).replace("GOOD", str(good))
    process = subprocess.Popen(
        [*site.command()[:1], "-c", script, "--quiet", "--throttle", "4M", "hostb::inbox", str(target)],
        env={**ENVIRONMENT, "REALIZE_CONFIG": str(site.folder / "realize.toml")},
    )
    try:
        wait_for(lambda: target.exists() and any(target.iterdir()))
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert 20 == process.wait(25)
    finally:
        process.kill()
        process.wait()


def test_a_signal_together_with_the_limit(site, tmp_path):
    """SIGTERM just before the limit: the run ends once, with one of the two codes, and nothing is lost."""
    source = tmp_path / "source"
    original = plant(source, 8, small=10, large=1, large_size=20 * MIB)
    began = time.monotonic()
    process = site.spawn("--quiet", "--throttle", "2M", "--max-duration", "6s", source, "hostb::inbox")
    wait_for(lambda: any(site.inbox.iterdir()))
    time.sleep(max(0.0, began + 5.95 - time.monotonic()))

    process.send_signal(signal.SIGTERM)

    assert process.wait(20) in {11, 20}
    finish(site, source, original)


def test_a_second_signal_ends_it_at_once(site, tmp_path):
    """Who signals twice does not wait for anything."""
    source = tmp_path / "source"
    plant(source, 9, small=0, large=1, large_size=40 * MIB)
    process = site.spawn("--quiet", "--throttle", "1M", source, "hostb::inbox")
    wait_for(lambda: any(site.inbox.iterdir()))

    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)

    assert 20 == process.wait(BUSY_S)


def test_a_daemon_that_is_restarted_is_waited_for(site, tmp_path):
    """The command comes back by itself and finishes the job, without sending again what has arrived."""
    source = tmp_path / "source"
    original = plant(source, 10, small=30, large=2, large_size=8 * MIB)
    process = site.spawn("--json", "--throttle", "4M", source, "hostb::inbox", stdout=subprocess.PIPE)
    wait_for(lambda: any(path.name.startswith(".large") and path.stat().st_size for path in site.inbox.iterdir()))
    site.stop(signal.SIGKILL)
    site.start()

    out, _ = process.communicate(timeout=60)

    records = [json.loads(line) for line in out.splitlines()]
    total = sum(record["size"] for record in records if record.get("event") == "finished")
    assert 0 == process.returncode
    assert 1 <= sum(record.get("event") == "retrying" for record in records)
    assert original == digests(site.inbox)
    # A batch that was on its way travels again.
    assert records[-1]["sent_bytes"] <= total + 2 * MIB


@pytest.mark.soak
def test_a_connection_that_goes_dark(site, tmp_path):
    """Nothing more arrives in either direction, and nobody says so: noticed in less than a minute, then retried."""
    source = tmp_path / "source"
    original = plant(source, 15, small=0, large=1, large_size=12 * MIB)
    process = site.spawn("--json", "--throttle-up", "4M", source, "hostb::inbox", stdout=subprocess.PIPE)
    wait_for(lambda: any(site.inbox.iterdir()))
    site.daemon.send_signal(signal.SIGSTOP)
    time.sleep(50)
    site.daemon.send_signal(signal.SIGCONT)

    out, _ = process.communicate(timeout=60)

    retries = [record for line in out.splitlines() if (record := json.loads(line)).get("event") == "retrying"]
    assert 0 == process.returncode
    assert any("not been heard of" in record["error"] for record in retries)
    assert original == digests(site.inbox)


def test_a_frozen_daemon_does_not_keep_an_interrupted_command(site, tmp_path):
    """SIGTERM to the command ends it in seconds, also when the daemon does not answer any more."""
    source = tmp_path / "source"
    plant(source, 14, small=0, large=1, large_size=20 * MIB)
    process = site.spawn("--quiet", "--throttle-up", "4M", source, "hostb::inbox")
    wait_for(lambda: any(site.inbox.iterdir()))
    site.daemon.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    try:
        assert 20 == process.wait(25)
    finally:
        site.daemon.send_signal(signal.SIGCONT)


def test_the_limit_while_shutting_down(site, tmp_path):
    """A shutdown that a frozen daemon holds up is cut short by the limit, five seconds after it at the latest."""
    source = tmp_path / "source"
    plant(source, 16, small=0, large=1, large_size=20 * MIB)
    began = time.monotonic()
    process = site.spawn("--quiet", "--throttle-up", "4M", "--max-duration", "8s", source, "hostb::inbox")
    wait_for(lambda: any(site.inbox.iterdir()))
    site.daemon.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(25) in {11, 20}
        assert time.monotonic() - began < 8 + 5 + BUSY_S
    finally:
        site.daemon.send_signal(signal.SIGCONT)


def test_a_port_that_is_taken_is_said_in_one_line(site, tmp_path):
    """A second daemon on the same port ends with status 1, and without a traceback."""
    done = run_program(
        [*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", str(site.folder / "realized.toml")],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert 1 == done.returncode
    assert "cannot_start" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_daemon_that_stops_drains(site, tmp_path):
    """SIGTERM in the middle of a file: a bounded wait, a clean exit; the command comes back when the daemon does."""
    site.stop()
    site.start("--drain", "1s")
    source = tmp_path / "source"
    original = plant(source, 13, small=10, large=1, large_size=16 * MIB)
    process = site.spawn("--quiet", "--throttle-up", "2M", source, "hostb::inbox")
    wait_for(lambda: [path for path in site.inbox.glob(".large 0.*") if path.stat().st_size])
    began = time.monotonic()
    code = site.stop()
    took = time.monotonic() - began
    log = site.log.read_text()
    site.start()

    assert (True, True) == (code in {0, -signal.SIGTERM}, 0.5 < took < 1 + BUSY_S)
    assert 0 == process.wait(60)
    assert original == digests(site.inbox)
    assert "Traceback" not in log


def test_the_daemon_knows_why_it_was_left(site, tmp_path):
    """A deadline is logged as one, not as a broken connection."""
    source = tmp_path / "source"
    plant(source, 11, small=0, large=1, large_size=20 * MIB)

    site.realize("--quiet", "--throttle", "1M", "--max-duration", "5s", source, "hostb::inbox")

    site.stop()
    [reason] = [record["reason"] for record in site.records() if record.get("event") == "peer_disconnected"]
    assert "reached its deadline" == reason


@pytest.fixture
def proxy(site):
    """Something between the command and the daemon that can be cut."""
    proxy = Proxy(site.port)
    config = site.folder / "realize.toml"
    config.write_text(config.read_text().replace(f":{site.port}", f":{proxy.port}"))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_cut_at_random_points(site, tmp_path, proxy, seed):
    """Connections that break again and again cost little: what has arrived is not sent again."""
    rng = random.Random(seed)
    source = tmp_path / "source"
    original = plant(source, seed, small=60, large=3, large_size=6 * MIB)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    process = site.spawn("--quiet", "--throttle-up", "8M", source, "hostb::inbox")
    cuts = 0
    while process.poll() is None and cuts < 4:
        before = proxy.passed
        while process.poll() is None and proxy.passed < before + rng.randrange(2 * MIB, 5 * MIB):
            time.sleep(0.01)
        proxy.cut()
        cuts += 1

    assert 0 == process.wait(60)
    assert cuts >= 2
    assert original == digests(site.inbox)
    assert {} == digests(source)
    # What was on its way at a cut is lost: up to a window for each file under way, and what the proxy held.
    assert proxy.passed < size * 1.02 + cuts * 6 * MIB


def test_who_comes_back_fences_the_dead_connection_off(site, tmp_path, proxy):
    """The daemon still holds the old connection and its locks; the new one ends it and takes the partial over."""
    source = tmp_path / "source"
    original = plant(source, 12, small=0, large=1, large_size=12 * MIB)
    process = site.spawn("--quiet", "--throttle-up", "4M", source, "hostb::inbox")
    while proxy.passed < 4 * MIB and process.poll() is None:
        time.sleep(0.01)

    proxy.cut(both=False)

    assert 0 == process.wait(40)
    assert original == digests(site.inbox)
    site.stop()
    assert "peer_came_back" in {record.get("event") for record in site.records()}


@pytest.mark.parametrize("duration", ["0", "-1s", "soon", "1e9d"])
def test_nonsense_is_a_usage_error(tmp_path, duration):
    """Zero, negative and absurd limits are refused by their text."""
    done = Site(tmp_path).realize(f"--max-duration={duration}", tmp_path, tmp_path / "x")

    assert 2 == done.returncode
    assert duration in done.stderr


def test_grace_without_a_limit_is_a_usage_error(tmp_path):
    """There is nothing that a grace could follow."""
    done = Site(tmp_path).realize("--grace", "1s", tmp_path, tmp_path / "x")

    assert (2, True) == (done.returncode, "--max-duration" in done.stderr)
