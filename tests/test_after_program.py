"""The program after a run: `realize.moves.after_program` and `realize.moves.child`, with real programs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock, deferLater

from realize.concurrency.thread_pool import ThreadPool
from realize.errors import Busy
from realize.moves import after_program, child
from realize.moves.after_program import GIVEN_UP_S, AfterOutcome, AfterProgram
from realize.moves.child import CHILD_KILL_AFTER_S, MAX_LINE_CHARS, MAX_LINES
from realize.moves.status import RunResult
from tests.loopback import Log
from tests.processes import lives, wait_for

LIMIT_S = 60.0
SOON_S = 20.0
RESULT = RunResult(run="a1", began=1.0, ended=2.0, moved_files=3, moved_bytes=40, code="done")


class Around:
    """The real descriptors of the reactor, and time that passes when the test says so."""

    def __init__(self):
        self.clock = Clock()
        self.seconds = self.clock.seconds
        self.callLater = self.clock.callLater
        self.addReader = reactor.addReader
        self.removeReader = reactor.removeReader
        self.log = Log()
        self.outcomes = []
        self._awaited = []
        self.pool = ThreadPool(reactor, 1, "test")
        self.run_in_thread = self.pool.run

    def program(self, *command: str, timeout_s: float = LIMIT_S) -> AfterProgram:
        """A program of the move ``camera``."""
        return AfterProgram(
            command,
            move="camera",
            reactor=self,
            run_in_thread=self.run_in_thread,
            log=self.log,
            timeout_s=timeout_s,
            on_outcome=self._ended,
        )

    def shell(self, script: str) -> AfterProgram:
        """One that is a script for sh(1)."""
        return self.program("/bin/sh", "-c", script)

    def _ended(self, outcome):
        self.outcomes.append(outcome)
        awaited, self._awaited = self._awaited, []
        for each in awaited:
            each.callback(None)

    async def ended(self, *outcomes: str) -> None:
        """Wait until so many programs have ended, and check how."""
        while len(self.outcomes) < len(outcomes):
            one = Deferred()
            self._awaited.append(one)
            await one.addTimeout(SOON_S, reactor)
        assert list(outcomes) == [outcome.value for outcome in self.outcomes]

    def said(self) -> list[str]:
        """The lines of the programs so far."""
        return [fields["text"] for fields in self.log.named("after_program_said")]

    async def line(self, number: int = 0) -> str:
        """That line, once it was said."""
        await until(lambda: len(self.said()) > number)
        return self.said()[number]


async def until(condition) -> None:
    """Look again and again whether it holds."""
    for _ in range(int(SOON_S / 0.01)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("waited in vain")


@pytest.fixture
def around():
    """What a program needs; at the end no timer is left, and no child of it."""
    around, before = Around(), children()
    yield around
    around.pool.stop()
    assert [] == around.clock.getDelayedCalls()
    assert set() == children() - before


def children() -> set[str]:
    """The processes that are children of this one, also those that have ended and that nobody has waited for."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(stat.parent.name)
    return found


@pytest_twisted.ensureDeferred
async def test_it_is_told_on_its_standard_input(around):
    """The whole result is there, and then the input ends."""
    around.shell("cat").ran(RESULT, [(b"a/b", Busy("a/b: is open"))])
    await around.ended("ok")

    (line,) = around.said()
    told = json.loads(line)
    assert ("camera", "a1", 3, 40) == tuple(told[key] for key in ("move", "run", "moved_files", "moved_bytes"))
    assert [{"path": "a/b", "error": "a/b: is open", "code": "BUSY"}] == told["failed"]
    assert [0] == [fields["lines_left_out"] for fields in around.log.named("after_program_ended")]


@pytest_twisted.ensureDeferred
async def test_it_has_little_of_the_daemon(around, monkeypatch):
    """A session of its own, the root as its directory, three descriptors, few variables, and signals as usual."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    former = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    script = (
        "import json, os, signal; os.close(os.dup(0)); print(json.dumps([os.getpid(), os.getpgrp(), os.getsid(0), "
        "os.getcwd(), sorted(map(int, os.listdir('/proc/self/fd')))[:4], sorted(os.environ), "
        "os.environ['REALIZE_MOVE'], signal.getsignal(signal.SIGPIPE) != signal.SIG_IGN]))"
    )
    inheritable = os.open("/", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        around.program(sys.executable, "-S", "-E", "-c", script).ran(RESULT)
        await around.ended("ok")
    finally:
        os.close(inheritable)
        signal.signal(signal.SIGPIPE, former)

    pid, group, session, directory, descriptors, names, move, _ = json.loads(around.said()[0])
    assert pid == group == session
    assert session != os.getsid(0)
    assert "/" == directory
    assert [0, 1, 2, 3] == descriptors  # the last one lists the directory
    assert {"PATH", "REALIZE_MOVE"} <= set(names) <= {*after_program.INHERITED, "REALIZE_MOVE", "LC_CTYPE"}
    assert "camera" == move


@pytest_twisted.ensureDeferred
async def test_one_that_never_reads_holds_up_nobody(around):
    """More than a pipe takes waits in memory."""
    around.shell("exit 0").ran(RESULT, [(b"x" * 4_000, Busy("open"))] * 100)

    await around.ended("ok")


@pytest.mark.parametrize(
    ("script", "error"),
    [("exit 3", "exit code 3"), ("kill -SEGV $$", "killed by SIGSEGV"), ("kill -40 $$", "killed by signal 40")],
    ids=["exit code", "signal", "number"],
)
@pytest_twisted.ensureDeferred
async def test_its_failure_is_told_and_counted(around, script, error):
    """A record at warning, an outcome, and the next run is told as ever."""
    program = around.shell(script)
    program.ran(RESULT)
    await around.ended("failed")
    program.ran(RESULT)
    await around.ended("failed", "failed")

    first, second = around.log.named("after_program_failed")
    assert (error, "failed", "/bin/sh") == (first["error"], first["outcome"], first["program"])
    assert error == second["error"]


def _missing(folder: Path) -> Path:
    return folder / "missing"


def _plain(folder: Path) -> Path:
    (folder / "plain").write_text("#!/bin/sh\n")
    return folder / "plain"


def _rubbish(folder: Path) -> Path:
    (folder / "rubbish").write_bytes(b"\0\1\2")
    (folder / "rubbish").chmod(0o755)
    return folder / "rubbish"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_missing, "No such file or directory"),
        (_plain, "may not be executed"),
        (_rubbish, "Exec format error"),
        (lambda folder: folder, "Permission denied"),
        (lambda folder: f"{folder}/\0", "embedded null byte"),
    ],
    ids=["missing", "not executable", "no program", "directory", "no name"],
)
@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_started_is_told_and_counted(around, tmp_path, make, error):
    """With the reason, and the move goes on."""
    around.program(str(make(tmp_path))).ran(RESULT)
    await around.ended("not_started")

    (fields,) = around.log.named("after_program_failed")
    assert error in fields["error"]


@pytest_twisted.ensureDeferred
async def test_without_a_thread_it_is_not_started(around):
    """Nothing but a record and an outcome."""

    def refuse(*_):
        raise Busy("no thread is to be had")

    around.run_in_thread = refuse
    around.shell("exit 0").ran(RESULT)

    await around.ended("not_started")


@pytest_twisted.ensureDeferred
async def test_its_output_is_logged_line_by_line(around):
    """Both streams in their order, bytes that are no text, the last line without its end, and long lines cut."""
    around.shell(r"echo one; echo two >&2; printf 'b\377d\n\n'; printf '%05000d\n' 0; printf end").ran(RESULT)
    await around.ended("ok")

    assert ["one", "two", "b\ufffdd", "", "0" * MAX_LINE_CHARS, "end"] == around.said()


@pytest_twisted.ensureDeferred
async def test_only_so_many_lines_are_logged(around):
    """The rest is read and counted."""
    around.shell(f"seq 1 {MAX_LINES + 7}").ran(RESULT)
    await until(lambda: around.clock.advance(0.01) or around.outcomes)

    assert [str(number) for number in range(1, MAX_LINES + 1)] == around.said()
    assert [7] == [fields["lines_left_out"] for fields in around.log.named("after_program_ended")]


@pytest_twisted.ensureDeferred
async def test_one_that_writes_without_end_is_read_slowly(around, monkeypatch):
    """It waits for its pipe, and its time limit ends it; no read follows another one at once."""
    reads = []
    read = os.read
    monkeypatch.setattr(child.os, "read", lambda *args: reads.append(around.clock.seconds()) or read(*args))
    around.shell("exec yes").ran(RESULT)
    await until(lambda: len(around.said()) == MAX_LINES)
    reads.clear()
    for _ in range(50):
        around.clock.advance(0.01)
        await deferLater(reactor, 0)

    assert len(reads) <= 51
    around.clock.advance(LIMIT_S)
    await until(lambda: around.clock.advance(0.01) or around.outcomes)
    await around.ended("timed_out")
    assert around.log.named("after_program_failed")[0]["lines_left_out"] > 1_000


@pytest_twisted.ensureDeferred
async def test_a_line_without_end_takes_no_memory(around, monkeypatch):
    """No more of it is kept than is logged."""
    kept = []
    add = child.Child._add
    monkeypatch.setattr(child.Child, "_add", lambda self, part: (add(self, part), kept.append(len(self._line)))[0])
    around.shell("head -c 3000000 /dev/zero").ran(RESULT)
    await around.ended("ok")

    assert max(kept) <= 4 * MAX_LINE_CHARS
    assert ["\0" * MAX_LINE_CHARS] == around.said()


@pytest_twisted.ensureDeferred
async def test_what_it_leaves_behind_is_ended_with_it(around):
    """A child in the background that has its output open is not waited for."""
    around.shell("sleep 1000 & echo $!").ran(RESULT)
    await around.ended("ok")

    await until(lambda: not lives(around.said()[0]))


@pytest_twisted.ensureDeferred
async def test_what_it_leaves_behind_without_its_output_is_ended_with_it(around):
    """Also one that cannot be seen by the pipe."""
    around.shell("sleep 1000 >/dev/null 2>&1 & echo $!").ran(RESULT)
    await around.ended("ok")

    await until(lambda: not lives(around.said()[0]))


@pytest_twisted.ensureDeferred
async def test_what_has_left_its_group_is_not_waited_for(around):
    """One with a session of its own that holds the pipe open costs some seconds, and lives on."""
    around.shell("setsid sleep 1000 & echo $!; sleep 0.1").ran(RESULT)
    pid = await around.line()
    await until(lambda: around.clock.getDelayedCalls()[0].func.__name__ == "_kill")
    try:
        assert [] == around.outcomes
        around.clock.advance(CHILD_KILL_AFTER_S)
        await around.ended("ok")

        assert lives(pid)
    finally:
        os.kill(int(pid), signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_a_time_limit_ends_it_with_all_that_it_started(around):
    """SIGTERM to the whole group."""
    around.shell("sleep 1000 & echo $!; wait").ran(RESULT)
    pid = await around.line()
    around.clock.advance(LIMIT_S)
    await around.ended("timed_out")

    await until(lambda: not lives(pid))
    assert ["it took longer than 1m"] == [fields["error"] for fields in around.log.named("after_program_failed")]


@pytest_twisted.ensureDeferred
async def test_one_that_does_not_obey_is_killed(around):
    """SIGKILL follows after some seconds, to the whole group as well."""
    around.shell("trap '' TERM; (trap '' TERM; echo deaf; while :; do sleep 1; done) & wait; wait").ran(RESULT)
    await around.line()
    around.clock.advance(LIMIT_S)
    around.clock.advance(CHILD_KILL_AFTER_S - 0.1)
    assert [] == around.outcomes
    around.clock.advance(0.1)

    await around.ended("timed_out")


@pytest_twisted.ensureDeferred
async def test_it_may_clean_up_when_its_time_is_over(around):
    """What it does at SIGTERM it can do to the end, and say."""
    around.shell("trap 'echo cleaned; exit 0' TERM; echo ready; while :; do :; done").ran(RESULT)
    await around.line()
    around.clock.advance(LIMIT_S)
    await around.ended("timed_out")

    assert ["ready", "cleaned"] == around.said()


@pytest_twisted.ensureDeferred
async def test_runs_that_end_meanwhile_are_told_together(around, tmp_path):
    """There is one program at a time, and the next one knows of all runs since."""
    gate = tmp_path / "gate"
    program = around.shell(f"cat; while ! [ -e {gate} ]; do sleep 0.01; done")
    for _ in range(4):
        program.ran(RESULT)
    first = json.loads(await around.line())
    assert [] == around.outcomes
    gate.touch()
    await around.ended("ok", "ok")

    assert [(1, 3), (3, 9)] == [(told["runs"], told["moved_files"]) for told in (first, json.loads(around.said()[1]))]


@pytest_twisted.ensureDeferred
async def test_another_program_begins_when_the_one_before_has_ended(around, tmp_path):
    """It is told of the runs since; after a change to none, no more runs are told, but those from before are."""
    gate = tmp_path / "gate"
    program = around.shell(f"echo old; while ! [ -e {gate} ]; do sleep 0.01; done")
    program.ran(RESULT)
    program.change(("/bin/sh", "-c", "echo new; cat"), LIMIT_S)
    program.ran(RESULT)
    program.change((), LIMIT_S)
    program.ran(RESULT)
    await around.line()
    assert ["old"] == around.said()
    gate.touch()
    await around.ended("ok", "ok")

    assert ["old", "new"] == around.said()[:2]
    assert 1 == json.loads(around.said()[2])["runs"]


@pytest_twisted.ensureDeferred
async def test_a_stop_without_a_program_is_done_at_once(around):
    """And whatever ran afterwards is nobody's business any more."""
    program = around.shell("echo never")

    assert program.stop(30.0).called
    program.ran(RESULT)
    assert program.stop(0.0).called
    assert [] == around.outcomes


@pytest_twisted.ensureDeferred
async def test_a_stop_lets_it_know_of_all_runs(around, tmp_path):
    """Within the patience both the one at work and the one that waits come to their end."""
    gate = tmp_path / "gate"
    program = around.shell(f"cat; while ! [ -e {gate} ]; do sleep 0.01; done")
    program.ran(RESULT)
    program.ran(RESULT)
    stopped = program.stop(30.0)
    await around.line()
    gate.touch()
    await stopped

    await around.ended("ok", "ok")


@pytest_twisted.ensureDeferred
async def test_a_stop_ends_it_when_the_patience_is_over(around):
    """The one at work is ended, the one that waits is not started; both are counted."""
    program = around.shell("sleep 1000 & echo $!; wait")
    program.ran(RESULT)
    program.ran(RESULT)
    pid = await around.line()
    stopped = program.stop(3.0)
    around.clock.advance(2.9)
    assert [] == around.outcomes
    around.clock.advance(0.1)
    await stopped

    await around.ended("stopped", "stopped")
    await until(lambda: not lives(pid))


@pytest_twisted.ensureDeferred
async def test_a_second_stop_may_have_less_patience(around):
    """A daemon that ends while a reload's stop still waits: both are done together."""
    program = around.shell("sleep 1000")
    program.ran(RESULT)
    stops = [program.stop(1_000.0), program.stop(0.0)]
    around.clock.advance(0)
    await DeferredList(stops)

    await around.ended("stopped")


@pytest_twisted.ensureDeferred
async def test_a_stop_does_not_wait_for_a_disk_that_hangs(around):
    """A program whose start hangs is given up; if it does start, it is ended at once."""
    hanging = Deferred()
    run = around.run_in_thread
    around.run_in_thread = lambda *args: hanging.addCallback(lambda _: run(*args))
    program = around.shell("sleep 1000")
    program.ran(RESULT)
    stopped = program.stop(3.0)
    around.clock.advance(3.0)
    around.clock.advance(CHILD_KILL_AFTER_S)
    assert not stopped.called
    around.clock.advance(GIVEN_UP_S)
    assert stopped.called

    hanging.callback(None)
    await around.ended("stopped")


@pytest_twisted.ensureDeferred
async def test_it_needs_no_handler_of_sigchld(around):
    """Where the program around us ignores SIGCHLD only the exit code is lost."""
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        around.shell("echo done; exit 3").ran(RESULT)
        await around.ended("failed")
    finally:
        signal.signal(signal.SIGCHLD, former)

    assert "its exit code is not known" in around.log.named("after_program_failed")[0]["error"]
    assert ["done"] == around.said()


@pytest_twisted.ensureDeferred
async def test_one_that_has_ended_before_it_is_looked_at_was_started(around, monkeypatch):
    """Where SIGCHLD is ignored nothing is left of it by then."""
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    open_pidfd = os.pidfd_open

    def late(pid):
        """In the thread that starts it, so that nobody else waits."""
        wait_for(lambda: not lives(pid))
        return open_pidfd(pid)

    monkeypatch.setattr(os, "pidfd_open", late)
    try:
        around.shell("echo done").ran(RESULT)
        await around.ended("failed")
    finally:
        signal.signal(signal.SIGCHLD, former)

    assert ["done"] == around.said()


@pytest_twisted.ensureDeferred
async def test_one_whose_end_could_not_be_learned_is_not_left_running(around, monkeypatch):
    """A kernel without pidfds: it is ended, and counts as not started."""
    monkeypatch.setattr(os, "pidfd_open", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no pidfds")))
    around.shell("sleep 1000").ran(RESULT)
    await around.ended("not_started")

    assert ["no pidfds"] == [fields["error"] for fields in around.log.named("after_program_failed")]


@pytest_twisted.ensureDeferred
async def test_kernels_that_know_no_seal_against_execution_will_do(around, monkeypatch):
    """The file in memory is made without it."""
    create = os.memfd_create

    def strict(name, flags):
        if flags & child._MFD_NOEXEC_SEAL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", strict)
    around.shell("wc -l").ran(RESULT)
    await around.ended("ok")

    assert ["1"] == around.said()


def test_the_reactor_may_run_without_signal_handlers():
    """Its end is learned in a program that runs the reactor without handlers, as embedded ones do."""
    script = """
from twisted.internet import reactor
from realize.concurrency.thread_pool import ThreadPool
from realize.moves.after_program import AfterProgram
from realize.moves.status import RunResult
from tests.loopback import Log
pool = ThreadPool(reactor, 1, "test")
program = AfterProgram(["/bin/sh", "-c", "exit 0"], move="camera", reactor=reactor, run_in_thread=pool.run, log=Log(),
    timeout_s=10.0, on_outcome=lambda outcome: (print(outcome.value), reactor.stop()))
reactor.callWhenRunning(program.ran, RunResult(run="a1", began=1.0, ended=2.0))
reactor.run(installSignalHandlers=False)
pool.stop()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)

    assert ("ok\n", "") == (done.stdout, done.stderr)


def test_every_outcome_has_a_word():
    """The words are labels of a metric: none may change its meaning."""
    assert ["ok", "failed", "timed_out", "stopped", "not_started"] == [outcome.value for outcome in AfterOutcome]
