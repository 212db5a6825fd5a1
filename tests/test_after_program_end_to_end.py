"""The program after a run of a real daemon: what it is told, and how a daemon that stops ends it."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest

from realize.keys import generate_identity, write_identity
from tests.processes import lives, start_daemon, wait_for


class Standing:
    """A daemon that moves from ``out`` to ``in``, both on this machine, and runs a script after that."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.out, self.inbox = folder / "out", folder / "in"
        for each in (self.out, self.inbox):
            each.mkdir()
        write_identity(str(folder / "key"), generate_identity())
        self.daemon = None

    def start(self, script: str, drain: str = "20s") -> None:
        """Start it with a script of sh(1)."""
        program = self.folder / "program"
        program.write_text(f"#!/bin/sh\ncd {self.folder}\n{script}\n")
        program.chmod(0o755)
        config = self.folder / "realized.toml"
        config.write_text(
            f'key = "key"\nlisten = []\ndrain = "{drain}"\n[moves.out]\nfrom = [{json.dumps(str(self.out))}]\n'
            f'to = {json.dumps(str(self.inbox))}\nsettle = "50ms"\nafter = [{json.dumps(str(program))}, "argument"]\n'
        )
        self.daemon = start_daemon(config, self.folder / "log")

    def records(self, event: str) -> list[dict]:
        """What it has logged of that name."""
        records = []
        for line in (self.folder / "log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return [record for record in records if record["event"] == event]

    def stop(self) -> int:
        """Stop it in order."""
        daemon, self.daemon = self.daemon, None
        daemon.send_signal(signal.SIGTERM)
        return daemon.wait(30)


@pytest.fixture
def standing(tmp_path):
    """A daemon that is not started yet."""
    standing = Standing(tmp_path)
    yield standing
    if standing.daemon is not None:
        standing.daemon.kill()
        standing.daemon.wait()


def test_it_is_told_what_was_moved(standing):
    """With its arguments; what it says is in the log, and its end as well."""
    standing.start('echo "$REALIZE_MOVE $1"; cat > told; mv told done')
    (standing.out / "a").write_bytes(b"123")
    wait_for((standing.folder / "done").exists)
    told = json.loads((standing.folder / "done").read_text())

    assert -signal.SIGTERM == standing.stop()
    assert ("out", 1, 3, 0, "done") == tuple(
        told[key] for key in ("move", "moved_files", "moved_bytes", "failed_files", "code")
    )
    assert [("out", "out argument")] == [
        (each["move"], each["text"]) for each in standing.records("after_program_said")
    ]
    assert 1 == len(standing.records("after_program_ended"))


def test_a_daemon_that_stops_waits_for_it(standing):
    """Within the drain time it may come to its end."""
    standing.start("echo $$ > begun; sleep 1; echo end > ended")
    (standing.out / "a").write_bytes(b"123")
    wait_for((standing.folder / "begun").exists)

    assert -signal.SIGTERM == standing.stop()
    assert (standing.folder / "ended").exists()
    assert [] == standing.records("after_program_failed")


def test_a_daemon_that_stops_ends_it_when_the_drain_time_is_over(standing):
    """With all that it has started, and without being killed itself."""
    standing.start("sleep 1000 & echo $! > begun; wait", drain="100ms")
    (standing.out / "a").write_bytes(b"123")
    wait_for(lambda: (standing.folder / "begun").exists() and (standing.folder / "begun").read_text().strip())
    pid = (standing.folder / "begun").read_text().strip()

    assert -signal.SIGTERM == standing.stop()
    assert ["stopped"] == [each["outcome"] for each in standing.records("after_program_failed")]
    wait_for(lambda: not lives(pid))
