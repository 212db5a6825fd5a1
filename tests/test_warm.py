"""`tests.warm`: programs that start as copies are like those that start cold."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import warm
from tests.processes import COMMAND, ENVIRONMENT, TWISTD, run_program


def started_cold(monkeypatch):
    """The commands that were not started as copies, from now on."""
    seen = []
    start = subprocess.Popen._execute_child

    def starting(process, args, *rest):
        seen.append(args)
        start(process, args, *rest)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", starting)
    return seen


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        ([*COMMAND, "--version"], {}),
        ([*COMMAND, "move", "--help"], {}),
        ([*COMMAND, "nothing/is/here", "there"], {}),
        ([*COMMAND, "status", "nas"], {"REALIZE_CONFIG": "/nothing/is/here"}),
        ([*TWISTD, "--nodaemon", "--pidfile=", "realized", "--config", "/nothing/is/here"], {}),
        ([*TWISTD, "--no-such-option"], {}),
    ],
)
def test_a_copy_does_what_a_cold_start_does(tmp_path, monkeypatch, argv, environ):
    """It says the same, to the same streams, and ends with the same code."""
    options = {"env": {**ENVIRONMENT, **environ}, "cwd": tmp_path, "capture_output": True, "text": True}
    expected = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False, **options)
    run_program([*COMMAND, "--version"], **options)  # the starter itself starts cold, once
    cold = started_cold(monkeypatch)

    done = run_program(argv, stdin=subprocess.DEVNULL, **options)

    assert [] == cold
    assert (expected.returncode, expected.stdout, expected.stderr) == (done.returncode, done.stdout, done.stderr)


def test_a_copy_is_a_child_of_the_test(tmp_path):
    """With the directory and the environment it was given; it can be sent signals, and waited for."""
    fifo = tmp_path / "files"
    os.mkfifo(fifo)
    environ = {**ENVIRONMENT, "REALIZE_CONFIG": "one"}
    with warm.Popen([*COMMAND, "--files-from", fifo, "a", "b"], env=environ, cwd=tmp_path) as copy:
        parent = Path(f"/proc/{copy.pid}/stat").read_text().rpartition(")")[2].split()[1]
        where = os.readlink(f"/proc/{copy.pid}/cwd")
        copy.kill()

    assert (str(os.getpid()), str(tmp_path), -signal.SIGKILL) == (parent, where, copy.returncode)


@pytest.mark.parametrize(
    "options",
    [
        {"env": {**ENVIRONMENT, "TZ": "Asia/Tokyo"}},
        {"preexec_fn": lambda: None},
        {"start_new_session": True},
        {"args": [COMMAND[0], "-B", *COMMAND[1:], "--version"]},
        {"env": None},
    ],
    ids=["environment", "something before", "session", "interpreter", "all"],
)
def test_what_is_settled_before_main_starts_cold(monkeypatch, options):
    """Python and its libraries look at it as they start, or it is nothing that the starter knows of."""
    cold = started_cold(monkeypatch)

    done = run_program(
        **{"argv": options.pop("args", [*COMMAND, "--version"]), "env": ENVIRONMENT, **options}, stdout=-1
    )

    assert (1, 0) == (len(cold), done.returncode)
