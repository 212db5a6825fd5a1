"""Standing moves of a real daemon under twistd: what signals, and a kill, leave behind."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests import processes
from tests.processes import BUSY_S, ENVIRONMENT, TWISTD, Site, wait_for


class Producer:
    """A daemon that only moves, from ``out`` to the inbox of a site."""

    def __init__(self, folder, site):
        self.folder = folder
        self.out = folder / "out"
        self.out.mkdir(parents=True)
        self.state = folder / "state"
        self.site = site
        self.process = None
        self.config = folder / "realized.toml"

    def write_config(self, **more):
        """Say what is to be moved, and how."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in {"settle": "100ms", **more}.items()]
        self.config.write_text(
            "\n".join(
                [
                    f'key = "{self.site.folder / "command.key"}"',
                    "listen = []",
                    "[peers.nas]",
                    f'address = "127.0.0.1:{self.site.port}"',
                    f'key = "{self.site.keys["daemon"]}"',
                    "[moves.out]",
                    f'from = "{self.out}"',
                    'to = "nas::inbox"',
                    *lines,
                ]
            )
        )
        self.config.chmod(0o600)

    def start(self):
        """Start the daemon, as systemd would start one that has a state directory."""
        with (self.folder / "log").open("ab") as log:
            self.process = processes.POPEN(
                [*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", str(self.config), "--log-format", "json"],
                env={**ENVIRONMENT, "STATE_DIRECTORY": str(self.state)},
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def records(self):
        """What it has logged."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]

    def stop(self, number=signal.SIGTERM):
        """End it, and return its exit code."""
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(30)


@pytest.fixture
def producer(tmp_path):
    """One daemon that takes files, and one that produces them and is not started yet."""
    for name in ("nas", "cam"):
        (tmp_path / name).mkdir()
    site = Site(tmp_path / "nas", rights=("write",))
    site.start()
    producer = Producer(tmp_path / "cam", site)
    producer.write_config()
    yield producer
    if producer.process is not None:
        producer.stop(signal.SIGKILL)
    site.stop()


def whole_files(folder):
    """The content of what is in a folder, but for partials."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


def test_a_daemon_that_is_killed_loses_nothing_and_goes_on(producer):
    """However often: what had not arrived is moved by the next one, each file once, with its content."""
    contents = {f"{number}": os.urandom(20_000) for number in range(300)}
    for name, content in contents.items():
        (producer.out / name).write_bytes(content)
    for _ in range(3):
        producer.start()
        before = len(whole_files(producer.site.inbox))
        wait_for(lambda before=before: len(whole_files(producer.site.inbox)) > before or not os.listdir(producer.out))
        producer.stop(signal.SIGKILL)
        # What is at neither place is lost.
        assert contents.keys() == whole_files(producer.out).keys() | whole_files(producer.site.inbox).keys()
    producer.start()
    wait_for(lambda: not os.listdir(producer.out))

    assert contents == whole_files(producer.site.inbox)


def test_a_daemon_that_is_told_to_stop_keeps_what_has_arrived_and_says_how_it_fared(producer):
    """It ends at once, with a file in flight as a partial, from which the next one goes on; the state is on disk."""
    content = os.urandom(12 << 20)
    (producer.out / "large").write_bytes(content)
    producer.write_config(throttle_up="1M")
    producer.start()
    wait_for(lambda: any(path.stat().st_size > 300_000 for path in producer.site.inbox.iterdir()))
    began = time.monotonic()
    code = producer.stop()
    took = time.monotonic() - began
    kept = sum(path.stat().st_size for path in producer.site.inbox.iterdir())
    remembered = json.loads((producer.state / "out.json").read_text())
    producer.write_config()
    producer.start()
    wait_for(lambda: not os.listdir(producer.out))
    wait_for(lambda: any(record["event"] == "file_moved" for record in producer.records()))

    [moved] = [record for record in producer.records() if record["event"] == "file_moved"]
    assert (-signal.SIGTERM, True) == (code, took < BUSY_S)
    assert remembered["last_run"]["moved_files"] == 0
    assert kept > 300_000
    assert moved["sent"] <= len(content) - 300_000
    assert content == (producer.site.inbox / "large").read_bytes()


def test_a_reload_changes_what_is_moved(producer):
    """SIGHUP: what is excluded from then on stays; an entry that makes no sense changes nothing."""
    producer.start()
    (producer.out / "a").write_bytes(b"1")
    wait_for(lambda: not os.listdir(producer.out))
    for change, event in (({"exclude": ["*.tmp"]}, "reloaded"), ({"when": "at dawn"}, "reload_failed")):
        producer.write_config(**change)
        producer.process.send_signal(signal.SIGHUP)
        wait_for(lambda event=event: any(record["event"] == event for record in producer.records()))
    (producer.out / "b.tmp").write_bytes(b"2")
    (producer.out / "c").write_bytes(b"3")
    wait_for(lambda: "c" in whole_files(producer.site.inbox) and not (producer.out / "c").exists())

    assert {"b.tmp": b"2"} == whole_files(producer.out)
    [failed] = [record for record in producer.records() if record["event"] == "reload_failed"]
    assert "moves.out.when: " in failed["error"]
