"""The logs of real processes: what they tell, where they go, and what is never in them."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from realize.keys import generate_identity, load_identity, write_identity
from realize.tracing import transfer_id
from realize.units import display_name
from tests import processes
from tests.log_catalogue import ANYWHERE, components, documented
from tests.processes import ENVIRONMENT, TWISTD, Site, closing, digests, plant, run_program, wait_for

CONNECTION = {"peer", "conn", "address", "run"}
BEGIN_AND_END = {"started", "limits_in_force", "listening", "draining", "stopped"}
SEVERITY = ("debug", "info", "warning", "error")


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.stop()


def lines(path):
    """The records in a file, each line of which is one."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def files_below(folder):
    """What is there: size and digest, by the name for people."""
    found = {}
    for path in Path(folder).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = display_name(os.path.relpath(os.fsencode(path), os.fsencode(folder)))
            found[name] = (len(content), blake3(content).hexdigest())
    return found


def as_catalogued(records):
    """Fail if a record is not as docs/logging.md says."""
    catalogue, where = documented(), components()
    for record in records:
        said = catalogue[record["event"]]
        assert said.level == record["level"], record
        assert record["component"] in where[record["event"]], record
        assert set(record) - ANYWHERE - CONNECTION <= said.fields, record


def test_a_run_can_be_reconstructed_from_the_daemons_log(site, tmp_path):
    """Who put, replaced or removed which file, when, with what size and digest, from its records at info and above.

    Two peers put, replace, find and remove files, large and small, with odd names, at level debug on both sides; what
    must not be in a log is looked for there too.
    """
    write_identity(str(tmp_path / "camera.key"), generate_identity())
    camera = load_identity(str(tmp_path / "camera.key")).public_key.base64
    site.write_daemon_config(f'[peers.camera]\nkey = "{camera}"\ndirs = {{ inbox = ["write"] }}\n')
    site.start("--log-level", "debug")
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "d").mkdir(parents=True)
    large = os.urandom(3 << 20)
    (source / "d" / "large").write_bytes(large)
    (source / "new\nline").write_bytes(b"forged?")
    (source / "kept").write_bytes(b"kept")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff")).write_bytes(b"not UTF-8")

    began = time.time()
    log = ["--quiet", "--log-level", "debug", "--log-file"]
    runs = [
        site.realize("--key", tmp_path / "camera.key", *log, tmp_path / "1.log", source, "hostb::inbox"),
        site.realize("copy", *log, tmp_path / "2.log", _planted(tmp_path, "kept", b"kept"), "hostb::inbox"),
        site.realize(
            "--on-conflict=replace",
            *log,
            tmp_path / "3.log",
            _planted(tmp_path, "kept", b"another"),
            "hostb::inbox",
        ),
        site.realize(*log, tmp_path / "4.log", "hostb::inbox/d", back),
        site.realize("--key", tmp_path / "camera.key", *log, tmp_path / "5.log", "hostb::inbox", back),
    ]
    for number in range(40):
        with socket.create_connection(("127.0.0.1", site.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"%d" % number)
            stranger.recv(100)
    site.stop()

    assert [0, 0, 0, 0, 1] == [run.returncode for run in runs], [run.stderr for run in runs]
    told = lines(site.log)
    commands = [lines(tmp_path / f"{number}.log") for number in range(1, 6)]
    as_catalogued(told)
    for each in commands:
        as_catalogued(each)

    # What is there now, and how it came to be there.
    there: dict[str, tuple[int, str]] = {}
    history = []
    for record in told:
        if record["event"] == "file_committed":
            assert record["replaced"] is (record["path"] in there)
            there[record["path"]] = (record["size"], record["digest"])
            history.append((record["peer"], "replaced" if record["replaced"] else "put", record["path"]))
        elif record["event"] == "file_already_there":
            assert (record["size"], record["digest"]) == there[record["path"]]
            history.append((record["peer"], "found", record["path"]))
        elif record["event"] == "file_removed":
            assert (record["size"], record["digest"]) == there.pop(record["path"])
            history.append((record["peer"], "removed", record["path"]))
        else:
            continue
        assert "info" == record["level"]
        assert "inbox" == record["dir"]
        assert began <= datetime.fromisoformat(record["ts"]).timestamp() <= time.time()
    assert files_below(site.inbox) == there
    assert {("camera", "put", path) for path in ("new\\nline", "kept", "d/large", "\\xff")} == set(history[:4])
    assert [
        ("tester", "found", "kept"),
        ("tester", "replaced", "kept"),
        ("tester", "removed", "d/large"),
    ] == history[4:]
    [denied] = [record for record in told if record["event"] == "access_denied"]
    assert ("camera", "inbox", "remove") == (denied["peer"], denied["dir"], denied["right"])

    # Both ends speak of the same runs and transfers.
    run = commands[0][0]["run"]
    committed = {
        each["path"]: each["transfer"] for each in told if each["event"] == "file_committed" and each["run"] == run
    }
    moved = {each["path"]: each["transfer"] for each in commands[0] if each["event"] == "file_moved"}
    assert moved == committed
    assert transfer_id(run, b"\xff") == moved["\\xff"]
    links = [[each["link"] for each in records if "link" in each] for records in (told, *commands)]
    assert links[0] == [link for each in links[1:] for link in each]
    [removed] = [each for each in told if each["event"] == "file_removed"]
    [fetched] = [each for each in commands[3] if each["event"] == "file_moved"]
    assert removed["transfer"] == fetched["transfer"]

    # A burst of strangers leaves a few lines and a number.
    assert 10 == sum(record["event"] == "peer_refused" for record in told)
    left_out = {each["left_out"]: each["count"] for each in told if each["event"] == "records_left_out"}
    assert 30 == left_out["peer_refused"]

    # Nothing secret, whatever form it might take.
    everything = b"".join(path.read_bytes() for path in (site.log, *tmp_path.glob("[1-5].log")))
    for name in ("command", "daemon", "camera"):
        key = load_identity(str(tmp_path / f"{name}.key")).private_key
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        pem = (tmp_path / f"{name}.key").read_bytes().split(b"\n")[1]
        assert not [
            form for form in (raw, raw.hex().encode(), base64.b64encode(raw), pem, pem[-24:]) if form in everything
        ]
    assert b"PRIVATE" not in everything
    assert large[:16] not in everything


def _planted(folder, name, content):
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more" / name).write_bytes(content)
    return folder / "more"


def test_the_log_file_can_be_rotated_and_the_level_changed(site, tmp_path):
    """SIGUSR1 opens the file anew, SIGHUP takes over a level; stderr stays empty, and a command does the same."""
    log = tmp_path / "realized.log"
    site.write_daemon_config(f'[logs]\nlevel = "error,daemon=info"\nfile = "{log.name}"\nformat = "logfmt"\n')
    config = (tmp_path / "realized.toml").read_text()
    site.daemon = processes.POPEN(
        [*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", str(tmp_path / "realized.toml")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    wait_for(lambda: log.exists() and "event=listening" in log.read_text())
    site.port = int(log.read_text().partition(" port=")[2].split()[0])
    site.write_command_config()
    assert 0 == site.realize("status", "hostb").returncode
    log.rename(tmp_path / "realized.log.1")
    (tmp_path / "realized.toml").write_text(
        config.replace("error,daemon=info", "error,wire=info,telemetry=info,daemon=info")
    )
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "event=reloaded" in log.read_text() if log.exists() else False)
    assert 0 == site.realize("status", "hostb").returncode
    wait_for(lambda: "event=peer_accepted" in log.read_text())
    log.rename(tmp_path / "realized.log.2")
    site.daemon.send_signal(signal.SIGUSR1)
    wait_for(lambda: log.exists() and "event=log_reopened" in log.read_text())
    daemon, site.daemon = site.daemon, None
    daemon.send_signal(signal.SIGTERM)
    said, _ = daemon.communicate(timeout=30)

    first, second = ((tmp_path / f"realized.log.{number}").read_text() for number in (1, 2))
    assert ("event=peer_accepted" in first, "event=peer_accepted" in second) == (False, True)
    assert "event=restart_needed" not in second
    assert "event=stopped" in log.read_text()
    assert b"" == said


def test_twistds_own_options_keep_working(site, tmp_path):
    """With --logfile Twisted's events are in that file and ours on stderr; without it they are in one stream."""
    site.start(twistd=("--logfile=theirs.log",))
    site.stop()

    assert BEGIN_AND_END == {record["event"] for record in lines(site.log)}
    assert "twistd 26" in (tmp_path / "theirs.log").read_text()
    assert "listening" not in (tmp_path / "theirs.log").read_text()


@pytest.mark.parametrize("ours", [False, True], ids=["no file of ours", "a file of ours"])
def test_a_process_that_becomes_a_daemon(site, tmp_path, ours):
    """It has no stderr: its records go to the file of ours, and Twisted's with them, or else into twistd's log."""
    options = ["--log-file", "ours.log", "--log-level", "debug"] if ours else []
    command = [*TWISTD, "--pidfile=twistd.pid", "realized", "--config", str(tmp_path / "realized.toml"), *options]
    run_program(command, cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=60)
    log = tmp_path / ("ours.log" if ours else "twistd.log")
    wait_for(lambda: log.exists() and '"event":"listening"' in log.read_text())
    pid = int((tmp_path / "twistd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: '"event":"stopped"' in log.read_text() and not (tmp_path / "twistd.pid").exists())

    assert ours is not (tmp_path / "twistd.log").exists()
    if ours:
        assert {"twisted_said", *BEGIN_AND_END} == {record["event"] for record in lines(log)}
    else:
        assert "twistd 26" in log.read_text()


@pytest.mark.parametrize(
    ("more", "options"),
    [("", ["--log-file", "missing/log"]), ('metrics = "tcp:1:interface=192.0.2.1"\n', ["--log-file", "ours.log"])],
    ids=["no log", "no address"],
)
def test_a_process_that_cannot_become_a_daemon(site, tmp_path, more, options):
    """`twistd` ends, and says so, instead of waiting for ever for what will not start; no PID file is left."""
    config = tmp_path / "realized.toml"
    config.write_text(more + config.read_text())
    command = [*TWISTD, "--pidfile=twistd.pid", "realized", "--config", str(config), *options]
    done = run_program(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)

    assert 1 == done.returncode
    assert "Please look at log file for more information" in done.stderr
    # The process that was to become the daemon tells the one on the terminal first, and removes the file then.
    wait_for(lambda: not (tmp_path / "twistd.pid").exists())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nodaemon", "--pidfile=missing/pid"], "missing/pid: No such file or directory"),
        (["--nodaemon", "--pidfile=", "--rundir=missing"], "missing: No such file or directory"),
        (["--pidfile=", "--logfile=missing/log"], "missing/log: No such file or directory"),
    ],
)
def test_what_the_system_refuses_twistd_is_said_in_one_line(site, tmp_path, options, expected):
    """Before there is a log; in the foreground it ended without a word, in the background with a traceback."""
    command = [*TWISTD, *options, "realized", "--config", str(tmp_path / "realized.toml")]
    done = run_program(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)

    assert 1 == done.returncode
    (line,) = done.stderr.splitlines()
    assert line.startswith("realized: error: twistd cannot start: ")
    assert line.endswith(expected)


def test_a_working_directory_that_is_gone(site, tmp_path):
    """A configuration that is named relative to it is not found, which is said."""
    gone = tmp_path / "gone"
    gone.mkdir()
    # As the installed script does, Python looks for no module there.
    twistd = [TWISTD[0], "-P", *TWISTD[1:], "--nodaemon", "--pidfile="]
    command = [*twistd, "realized", "--check-config", "--config", "realized.toml"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'rmdir ../gone; exec "$@"', "sh", *command],
        cwd=gone,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 78 == done.returncode
    expected = "realized: error: the working directory: No such file or directory; change to one that exists\n"
    assert expected == done.stderr


def test_a_move_that_makes_no_sense_is_found_before_twistd_goes_to_the_background(site, tmp_path):
    """Whoever starts it reads on the terminal what is wrong in which file, and the exit code says the same."""
    config = tmp_path / "realized.toml"
    config.write_text(config.read_text() + '[moves.m]\nfrom = "tape::a"\nto = "/b"\nwhen = "every never"\n')
    command = [*TWISTD, "--pidfile=twistd.pid", "realized", "--config", str(config)]
    done = run_program(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)

    assert 78 == done.returncode
    first, second = done.stderr.splitlines()
    assert first.startswith(f"realized: error: {config}: moves.m.from[0]: tape is not a peer of this configuration")
    assert second.startswith(f"realized: error: {config}: moves.m.when: ")
    assert not (tmp_path / "twistd.pid").exists()


def test_a_log_file_that_cannot_be_opened(site, tmp_path):
    """Both programs end with one sentence that names it; the disk of the daemon's may be there in a moment."""
    missing = tmp_path / "missing" / "log"
    daemon = run_program(
        [*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", "realized.toml", "--log-file", str(missing)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    command = site.realize("--log-file", missing, tmp_path / "inbox", tmp_path / "other")

    sentence = f"error: log file {missing}: No such file or directory"
    assert (1, f"realized: {sentence}\n") == (daemon.returncode, daemon.stderr)
    assert (2, f"realize: {sentence}\n") == (command.returncode, command.stderr)


def test_a_log_file_on_a_full_disk(site, tmp_path):
    """The run goes on, and its end says that the log is not whole."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")

    done = site.realize("--log-file", "/dev/full", tmp_path / "source", tmp_path / "target")

    assert 0 == done.returncode
    assert "realize: warning: 4 records could not be written to the log file /dev/full" in done.stderr.splitlines()


def test_a_run_that_cannot_begin_is_in_its_log(site, tmp_path):
    """Whoever looks into the log of a job finds why there is nothing else in it."""
    done = site.realize(
        *("--log-file", tmp_path / "log", "--config", tmp_path / "missing", tmp_path / "inbox", "hostb::inbox")
    )

    assert 2 == done.returncode
    [record] = lines(tmp_path / "log")
    as_catalogued([record])
    assert ("run_failed", f"{tmp_path}/missing: there is no such configuration file") == (
        record["event"],
        record["error"],
    )


def test_one_event_for_the_deadline(site, tmp_path):
    """The log says once that the time limit ended the run, with how far it came; stderr has one line."""
    site.start()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(random.Random(1).randbytes(8 << 20))

    done = site.realize(
        *(
            "--quiet",
            "--throttle",
            "64k",
            "--max-duration",
            "5s",
            "--log-level",
            "info",
            "--log-file",
            tmp_path / "log",
        ),
        *(tmp_path / "source", "hostb::inbox"),
    )

    assert 11 == done.returncode, done.stderr
    assert 1 == len(done.stderr.splitlines())
    records = lines(tmp_path / "log")
    as_catalogued(records)
    [reached] = [record for record in records if record["event"] == "deadline_reached"]
    assert ["large"] == [each["path"] for each in reached["interrupted"]]
    assert (0, 0) == (reached["files"], reached["not_started"])
    assert 5 <= reached["seconds"] < 60
    assert ["run_started", "run_ended"] == [records[0]["event"], records[-1]["event"]]
    assert 11 == records[-1]["exit_code"]
    wait_for(lambda: "transfer_stopped" in site.log.read_text())
    [stopped] = [record for record in lines(site.log) if record["event"] == "transfer_stopped"]
    assert (True, records[0]["run"]) == (stopped["kept"], stopped["run"])


def test_without_an_option_the_command_logs_nothing(site, tmp_path):
    """What a user can help is in the one message, as before."""
    site.start()
    done = site.realize(tmp_path / "missing", "hostb::inbox")

    assert 1 == done.returncode
    assert [f"realize: error: source {tmp_path}/missing: no such file or directory"] == done.stderr.splitlines()


def test_a_daemon_without_stderr(site, tmp_path, monkeypatch):
    """Started with stderr closed, it serves as ever, and no line of its log gets into what it opens instead."""
    monkeypatch.setattr("tests.processes.TWISTD", closing("2>&-", *TWISTD))
    site.start("--log-file", str(site.log))
    site.stop()
    site.write_daemon_config('[logs]\nlevel = "debug"\n')
    daemon = subprocess.Popen(
        closing(
            "2>&-", *TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", str(site.folder / "realized.toml")
        ),
        stdin=subprocess.DEVNULL,
        cwd=site.folder,
        env=ENVIRONMENT,
    )
    try:
        contents = plant(tmp_path / "source", 3, small=30, large=2, large_size=3 << 20)
        done = site.realize(str(tmp_path / "source"), "hostb::inbox", "--quiet")
        for _ in range(100):
            if not done.returncode:
                break
            time.sleep(0.2)
            done = site.realize(str(tmp_path / "source"), "hostb::inbox", "--quiet")
        links = {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in (0, 1, 2)}
    finally:
        daemon.terminate()
        ended = daemon.wait(20)

    assert (0, "", -signal.SIGTERM) == (done.returncode, done.stderr, ended)
    assert contents == digests(site.inbox)
    assert {} == digests(tmp_path / "source")
    assert not any(str(site.inbox) in link for link in links)
