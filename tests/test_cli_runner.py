"""Signals and endings: `realize.cli.runner`, in processes of their own because the reactor runs once."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
import threading

import pytest

from realize.cli import runner
from tests.processes import ENVIRONMENT

PREAMBLE = """
import os, signal, sys
from twisted.internet.defer import CancelledError, Deferred
from realize.cli.runner import run
from realize.errors import NotFound, RealizeError

def kill(number):
    return lambda: os.kill(os.getpid(), number)

def report(main):
    try:
        print("returned", run(main, at_once=lambda code: print("ends with", code, flush=True)))
    except RealizeError as error:
        print("raised", type(error).__name__)
        sys.exit(error.exit_code)
"""


def outcome(main: str) -> tuple[int, str]:
    """Exit code and output of a program that runs the coroutine function ``main``."""
    program = f"{PREAMBLE}\n{main}\nreport(main)\n"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False
    )
    assert "" == done.stderr
    return done.returncode, done.stdout


def test_a_result_and_an_error_come_through() -> None:
    """What the coroutine returns is returned, what it raises is raised."""
    assert (0, "returned 7\n") == outcome("async def main(reactor):\n    return 7")
    assert (1, "raised NotFound\n") == outcome("async def main(reactor):\n    raise NotFound('x')")


@pytest.mark.usefixtures("hangups_end")
def test_the_first_signal_ends_the_work_in_order() -> None:
    """Each of these cancels what is awaited; the coroutine may clean up, and the exit code is 20."""
    for number in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        main = f"""
async def main(reactor):
    reactor.callLater(0.01, kill(signal.{number}))
    try:
        await Deferred()
    finally:
        done = Deferred()
        reactor.callLater(0.05, done.callback, None)
        await done
        print("cleaned up")
"""
        assert (20, "cleaned up\nraised Interrupted\n") == outcome(main)


def test_the_second_signal_ends_the_process_at_once() -> None:
    """Work that does not come to an end is left; what is known of it is reported before."""
    main = """
async def main(reactor):
    reactor.callLater(0.01, kill(signal.SIGTERM))
    while True:
        try:
            await Deferred()
        except CancelledError:
            print("still here", flush=True)
            reactor.callLater(0, kill(signal.SIGINT))
"""
    assert (20, "still here\nends with 20\n") == outcome(main)


@pytest.mark.parametrize("where", ["time.sleep(60)", "await Deferred()"], ids=["the reactor", "what is awaited"])
def test_what_hangs_after_a_signal_is_ended_by_force(where: str) -> None:
    """Nobody has to signal twice: systemd, for one, does so a minute and a half later."""
    main = f"""
import threading, time
import realize.cli.runner as runner
runner.SIGNAL_KILL_AFTER_S = 0.5

async def main(reactor):
    threading.Timer(0.1, kill(signal.SIGTERM)).start()
    while True:
        try:
            {where}
        except CancelledError:
            print("still here", flush=True)
"""
    awaits = "await" in where
    assert (20, "still here\n" * awaits + "ends with 20\n") == outcome(main)


def test_without_threads_a_signal_ends_the_work_in_order() -> None:
    """Nothing watches over that then, and the handler must not raise wherever the program is."""
    main = """
import threading

def no_thread(self):
    raise RuntimeError("can't start new thread")

async def main(reactor):
    threading.Thread.start = no_thread
    reactor.callLater(0.01, kill(signal.SIGTERM))
    await Deferred()
"""
    assert (20, "raised Interrupted\n") == outcome(main)


def test_a_terminal_that_takes_nothing_keeps_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped by Ctrl-S, or nobody is there any more: the cursor stays as it is."""
    ours, its = os.openpty()
    with open(its, "w", closefd=True) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        runner._show_cursor()
        shown = os.read(ours, 100)
        termios.tcflow(its, termios.TCOOFF)
        thread = threading.Thread(target=runner._show_cursor, daemon=True)
        thread.start()
        thread.join(10)
        ended = not thread.is_alive()
        termios.tcflow(its, termios.TCOON)
    os.close(ours)

    assert (runner.SHOW_CURSOR, True) == (shown, ended)


def test_a_hangup_that_is_ignored_ends_nothing() -> None:
    """As under nohup(1): the work goes on to its end."""
    main = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)

async def main(reactor):
    reactor.callLater(0.01, kill(signal.SIGHUP))
    done = Deferred()
    reactor.callLater(0.05, done.callback, 7)
    return await done
"""
    assert (0, "returned 7\n") == outcome(main)
