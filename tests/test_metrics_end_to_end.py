"""The metrics of a real daemon, pulled as Prometheus would, against what was really moved."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from realize.keys import generate_identity
from realize.telemetry.metrics.exposition import CACHE_S
from tests.leftovers import leave_partial
from tests.processes import Site, plant, wait_for

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"}


def port_of(site):
    """Where the daemon serves metrics."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for record in reversed(site.records()):
            if record.get("event") == "metrics_listening":
                return record["port"]
        time.sleep(0.02)
    raise AssertionError("no metrics are served")


def get(port, path="/metrics", **headers):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def values(port):
    """All samples, none of them from an answer that was made before: name and labels, as they are written, to value."""
    time.sleep(1.2 * CACHE_S)
    _, text = get(port)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def sample(found, name, **labels):
    """One value."""
    return found[(f"realize_{name}", *sorted(labels.items()))]


def size(folder):
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def promtool():
    """The checker of Prometheus; where everything has to be tested it must be there."""
    found = shutil.which("promtool")
    if found is None:
        assert os.environ.get("CI") != "true", "promtool is missing, install the package prometheus"
        pytest.skip("promtool is not installed")
    return found


@pytest.fixture
def site(tmp_path):
    """A folder with identities; the daemon is not started."""
    site = Site(tmp_path)
    yield site
    site.stop()


def test_counts_are_what_was_moved(site, tmp_path, promtool):
    """Files, bytes, what was saved, who was refused; Prometheus' own checker and parsers have nothing to say."""
    site.start("--metrics-addr", "0")
    port = port_of(site)
    source, again = tmp_path / "source", tmp_path / "again"
    files = len(plant(source, 1, small=40, large=2))
    total = size(source)
    shutil.copytree(source, again, symlinks=True)
    half = (source / "large 0").read_bytes()[: 2 << 20]
    leave_partial(site.inbox, "large 0", half)
    before = values(port)

    assert 0 == site.realize("--quiet", source, "hostb::inbox").returncode
    put = values(port)
    assert 0 == site.realize("--quiet", again, "hostb::inbox").returncode
    compared = values(port)
    assert 0 == site.realize("--quiet", "hostb::inbox", tmp_path / "back").returncode
    (tmp_path / "command.key").rename(tmp_path / "former.key")
    assert 0 == site.realize("keygen", tmp_path / "command.key").returncode
    assert 0 != site.realize("status", "hostb").returncode
    # More silent connections than there may be: they keep nobody out.
    with contextlib.ExitStack() as silent:
        for _ in range(20):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        after = values(port)

    received = {"peer": "tester", "direction": "receive"}
    sent = {"peer": "tester", "direction": "send"}
    assert 0 == sample(before, "files_committed_total", dir="inbox", how="created")
    assert files == sample(put, "files_committed_total", dir="inbox", how="created")
    assert total - len(half) == sample(put, "transferred_bytes_total", kind="content", **received)
    assert len(half) == sample(put, "saved_bytes_total", how="resume")
    assert 0 < sample(put, "transferred_bytes_total", kind="other", **received) < 0.02 * total
    assert 0 == sample(put, "transferred_bytes_total", kind="content", **sent)
    assert 1 == sample(put, "commands_total", command="Hello", outcome="OK")
    assert 2 == sample(put, "commands_total", command="CommitStream", outcome="OK")
    assert files == sample(put, "commit_group_files_sum", dir="inbox")
    assert 0 < sample(put, "sync_duration_seconds_count", dir="inbox", what="directories")

    assert files == sample(compared, "files_committed_total", dir="inbox", how="created")
    assert total == sample(compared, "saved_bytes_total", how="already_there")
    assert total - len(half) == sample(compared, "transferred_bytes_total", kind="content", **received)

    assert files == sample(after, "files_removed_total", dir="inbox")
    assert total == sample(after, "transferred_bytes_total", kind="content", **sent)
    assert 3 == sample(after, "connections_accepted_total", peer="tester")
    assert 0 == sample(after, "connections", peer="tester")
    assert 1 == sample(after, "refusals_total", reason="pin_unknown")
    assert 0 == sum(value for key, value in after.items() if key[0] == "realize_file_failures_total")
    assert os.statvfs(site.inbox).f_blocks * os.statvfs(site.inbox).f_frsize == sample(
        after, "directory_size_bytes", dir="inbox"
    )

    _, text = get(port)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)
    _, openmetrics = get(port, **OPENMETRICS)
    assert openmetrics.endswith("\n# EOF\n")
    assert {each.name for each in parse_text(text)} == {each.name for each in parse_openmetrics(openmetrics)}
    assert re.search(r"127\.0\.0\.1|large|\.bin", text) is None


def test_the_page_tells_of_a_move_that_fails(site, tmp_path):
    """A daemon whose peer is away says so at its first page, and names neither the file nor its directory."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"content")
    key = generate_identity().public_key.base64
    site.write_daemon_config(
        f'[peers.away]\nkey = "{key}"\naddress = "127.0.0.1:1"\n'
        f'[moves.camera]\nfrom = "{secret}"\nto = "away::inbox"\nsettle = 0\n'
    )
    site.start("--metrics-addr", "0")
    port = port_of(site)
    deadline = time.monotonic() + 30
    while "camera fails" not in (page := get(port, "/")[1]):
        assert time.monotonic() < deadline, page
        time.sleep(0.1)

    assert "The peer cannot be reached, or the connection was lost, for" in page
    assert "secret" not in page
    assert 403 == get(port, "/", Host="evil.example")[0]
    # Each attempt of it is another state for a moment.
    wait_for(lambda: 1 == sample(values(port), "move_state", move="camera", state="failing"))


def test_a_change_that_is_taken_back_needs_no_restart(site, tmp_path):
    """What counts is what is in force since the start: the log takes back what it said, and so does the metric."""
    site.start("--metrics-addr", "0")
    port = port_of(site)
    path = tmp_path / "realized.toml"
    original = path.read_text()
    seen = []
    for extra in ("", "page_file_names = true\n", "", "", 'control = "socket"\n', ""):
        path.write_text(extra + original)
        reloads = len(site.records())
        site.daemon.send_signal(signal.SIGHUP)
        _wait(lambda seen=reloads: any(each["event"] == "reloaded" for each in site.records()[seen:]))
        _wait(lambda needed=bool(extra): needed == sample(values(port), "restart_needed"))
        seen.append(sample(values(port), "restart_needed"))
    site.stop()

    said = [(each["event"], each["keys"]) for each in site.records() if each["event"].startswith("restart_")]
    assert [0, 1, 0, 0, 1, 0] == seen
    assert [
        ("restart_needed", ["page_file_names"]),
        ("restart_not_needed", ["page_file_names"]),
        ("restart_needed", ["control"]),
        ("restart_not_needed", ["control"]),
    ] == said


def test_a_draining_daemon_says_so(site, tmp_path):
    """While what runs may finish, the port still answers, and says that no more work is wanted."""
    (tmp_path / "realized.toml").write_text("metrics = 0\n" + (tmp_path / "realized.toml").read_text())
    site.start("--drain", "15s")
    port = port_of(site)
    assert (200, "ready\n") == get(port, "/healthz")
    site.daemon.send_signal(signal.SIGHUP)
    _wait(lambda: any(record["event"] == "reloaded" for record in site.records()))
    plant(tmp_path / "source", 1, small=0, large=1)
    # Slow enough to be running still when we look.
    moving = site.spawn("--quiet", "--throttle", "256k", tmp_path / "source", "hostb::inbox")
    _wait(lambda: sample(values(port), "transferred_bytes_total", peer="tester", direction="receive", kind="content"))
    site.daemon.terminate()
    _wait(lambda: get(port, "/healthz") == (503, "draining\n"))
    draining = values(port)

    assert 1 == sample(draining, "connections", peer="tester")
    moving.terminate()
    moving.wait(30)
    site.daemon.wait(30)
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")
    # The file was written anew when the daemon had started, and has no metrics in it any more.
    [kept] = [record["keys"] for record in site.records() if record["event"] == "restart_needed"]
    assert "metrics" in kept


def test_a_port_that_is_taken_is_an_error(site):
    """The daemon does not start, and says in one line why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(AssertionError):
            site.start("--metrics-addr", str(number))
        status = site.daemon.wait(20)

    errors = [record["error"] for record in site.records() if record["event"] == "cannot_start"]
    assert 1 == status
    assert 1 == len(errors)
    assert errors[0].startswith(f"--metrics-addr: tcp:{number}:interface=127.0.0.1: ")
    assert "Address already in use" in errors[0]
    assert "Traceback" not in site.log.read_text()


def test_an_address_that_is_none_is_a_usage_error(site):
    """Said before anything is opened."""
    with pytest.raises(AssertionError, match="'nonsense' is not something to listen on"):
        site.start("--metrics-addr", "nonsense")

    assert 78 == site.daemon.wait(20)


def _wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
