"""Moving files from Python: `realize.api`, with a real reactor, real directories, and a daemon in the same process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue

from realize import api
from realize.api import events
from realize.config import MoveConfig
from realize.daemon import RealizedService
from realize.errors import ConfigError, Conflict, ConnectionFailed, NotFound, UsageError
from realize.keys import write_identity
from tests.processes import ENVIRONMENT, ROOT
from tests.store_helpers import random_bytes

SIZES = {"small": 1000, "below/large": 5 << 20}


@pytest.fixture
def out(tmp_path):
    """A directory with a small and a large file."""
    for name, size in SIZES.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_bytes(size))
    return tmp_path / "out"


@pytest_twisted.async_yield_fixture
async def nas(tmp_path):
    """The configuration of a program that knows a daemon, ``nas``, in this process; nothing of it is in a file."""
    own, theirs = api.generate_identity(), api.generate_identity()
    (tmp_path / "inbox").mkdir()
    rights = {"inbox": set(api.Right)}
    service = RealizedService(
        api.Config(
            key=theirs,
            listen=["127.0.0.1:0"],
            directories={"inbox": api.DirectoryConfig(tmp_path / "inbox")},
            peers={"camera": api.PeerConfig(own.public_key, rights=rights, admin=True)},
            drain_s=0,
        ),
        reactor,
    )
    service.startService()
    port = service.addresses[0].port
    yield api.Config(key=own, peers={"nas": api.PeerConfig(theirs.public_key, address=f"127.0.0.1:{port}")})
    await service.stopService()


def files(directory):
    """The contents below a directory, by name."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_a_move_between_directories_needs_no_configuration(out, tmp_path, records):
    """Paths may be `pathlib.Path`; the summary has what the command would say, and the log of the program the files."""
    before = files(out)

    summary = await api.move(reactor, [out], tmp_path / "in")

    assert before == files(tmp_path / "in")
    assert {} == files(out)
    assert (2, 2, 0, sum(SIZES.values())) == (summary.found, summary.created, summary.failed, summary.arrived_bytes)
    assert (api.ExitCode.DONE, 2, 2, False) == (
        summary.exit_code,
        summary.arrived,
        summary.removed,
        summary.deadline_reached,
    )
    names = [event for event, _ in records]
    assert ["run_started", "run_ended"] == [names[0], names[-1]]
    assert 2 == names.count("file_moved")


async def test_a_copy_leaves_its_sources_and_tells_all_events(out, tmp_path):
    """One source may be given by itself; what is there already is not sent."""
    seen = []

    first = await api.copy(reactor, str(out), str(tmp_path / "in"), on_event=seen.append)
    second = await api.copy(reactor, str(out), str(tmp_path / "in"))

    assert files(out) == files(tmp_path / "in")
    assert (2, 0) == (first.created, first.removed)
    assert (0, 2, 0) == (second.created, second.already_there, second.sent_bytes)
    assert {b"small", b"below/large"} == {each.path for each in seen if isinstance(each, events.Finished)}
    assert isinstance(seen[0], events.SourceStarted)


async def test_a_relative_path_is_a_path_whatever_its_name(tmp_path, monkeypatch):
    """A `pathlib.Path` is never taken for a location at a peer, as a string may be."""
    monkeypatch.chdir(tmp_path)
    Path("nas::inbox").write_bytes(b"content")

    summary = await api.move(reactor, Path("nas::inbox"), Path("in"))

    assert 1 == summary.created
    assert b"content" == Path("in/nas::inbox").read_bytes()


async def test_a_dry_run_touches_nothing(out, tmp_path):
    """It says what would be moved."""
    summary = await api.move(reactor, out, tmp_path / "in", options=api.MoveOptions(dry_run=True))

    assert (2, sum(SIZES.values()), 0) == (summary.planned, summary.planned_bytes, summary.created)
    assert not (tmp_path / "in").exists()


async def test_rules_and_conflicts_are_those_of_the_command(out, tmp_path):
    """The last rule that matches decides."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small").write_bytes(b"another one")
    options = api.MoveOptions(rules=[("exclude", "*"), ("include", "small")], on_conflict=api.OnConflict.SKIP)

    summary = await api.move(reactor, out, tmp_path / "in", options=options)

    assert (1, 1, 0) == (summary.found, summary.skipped, summary.created)


async def test_a_manifest_has_what_was_moved(out, tmp_path):
    """A line for each arrival, and one for each removal."""
    await api.move(reactor, out, tmp_path / "in", options=api.MoveOptions(manifest=tmp_path / "manifest"))

    lines = (tmp_path / "manifest").read_text().splitlines()
    assert (2, 2) == (sum('"durable"' in line for line in lines), sum('"removed"' in line for line in lines))


async def test_what_ends_a_run_early_is_its_failure(tmp_path):
    """Here it is a source that is not there."""
    with pytest.raises(NotFound, match="no such file or directory"):
        await api.move(reactor, tmp_path / "nothing", tmp_path / "in")


async def test_a_file_that_fails_is_counted_and_no_failure_of_the_run(out, tmp_path):
    """The exit code says that not all was moved."""
    (tmp_path / "in" / "small").mkdir(parents=True)
    options = api.MoveOptions(on_conflict=api.OnConflict.REPLACE)

    summary = await api.move(reactor, out, tmp_path / "in", options=options)

    assert (1, 1, api.ExitCode.FAILED) == (summary.failed, summary.created, summary.exit_code)


async def test_an_error_of_the_program_ends_the_run_in_order(out, tmp_path):
    """It is what the caller gets; no file is at neither end."""
    before = files(out)

    def refuse(event):
        if isinstance(event, events.Started):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await api.move(reactor, out, tmp_path / "in", on_event=refuse)

    assert before == {
        **files(out),
        **{name: content for name, content in files(tmp_path / "in").items() if name in before},
    }


async def test_a_cancelled_run_ends_in_order_and_the_next_one_goes_on(nas, out, tmp_path):
    """What was sent is kept as a partial, and not sent again."""
    before = files(out)
    work = []

    def cancel(event):
        if isinstance(event, events.Progressed):
            reactor.callLater(0, work[0].cancel)

    options = api.MoveOptions(up_bps=2 << 20)
    work.append(api.move(reactor, out, "nas::inbox", config=nas, options=options, on_event=cancel))
    with pytest.raises(CancelledError):
        await work[0]
    kept = sum(
        entry.size
        for entry in await api.list_files(reactor, "nas::inbox", config=nas)
        if entry.kind is api.Kind.PARTIAL
    )

    summary = await api.move(reactor, out, "nas::inbox", config=nas)

    assert kept > 0
    assert summary.sent_bytes <= sum(SIZES.values()) - kept
    assert before == files(tmp_path / "inbox")
    assert {} == files(out)


@pytest.mark.parametrize("cancelled_at", [events.SourceStarted, events.Found, events.Finished])
async def test_a_run_may_be_cancelled_from_inside_on_event(nas, out, tmp_path, cancelled_at):
    """Whichever event it is; no file is at neither end."""
    before, work = files(out), []

    def cancel(event):
        if isinstance(event, cancelled_at):
            work[0].cancel()

    work.append(api.move(reactor, out, "nas::inbox", config=nas, on_event=cancel))
    with pytest.raises(CancelledError):
        await work[0]

    assert set(before) == (set(files(out)) | set(files(tmp_path / "inbox"))) & set(before)


async def test_a_listing_may_be_cancelled_from_inside_on_page(nas, tmp_path):
    """What else there is to be listed is not waited for."""
    (tmp_path / "inbox" / "file").write_bytes(b"content")
    work = []
    work.append(api.list_files(reactor, "nas::inbox", config=nas, on_page=lambda _: work[0].cancel()))

    with pytest.raises(CancelledError):
        await work[0]


async def test_a_move_of_nothing_is_refused(tmp_path):
    """In one sentence."""
    with pytest.raises(UsageError, match=r"^sources: expected at least one location$"):
        await api.move(reactor, [], tmp_path / "in")


async def test_a_time_limit_fires_with_what_was_done(nas, out):
    """It is no failure: the next run goes on."""
    options = api.MoveOptions(up_bps=1 << 18, max_duration_s=2.0)

    summary = await api.move(reactor, out, "nas::inbox", config=nas, options=options)

    assert (True, api.ExitCode.DEADLINE_REACHED, (b"below/large",)) == (
        summary.deadline_reached,
        summary.exit_code,
        summary.interrupted,
    )


async def test_files_are_fetched_listed_and_sent(nas, out, tmp_path):
    """With an identity and a peer that are in no file."""
    before = files(out)

    await api.move(reactor, out, "nas::inbox/cam", config=nas)
    listed = await api.list_files(reactor, "nas::inbox", config=nas)
    pages = []
    nothing = await api.list_files(reactor, "nas::inbox", config=nas, on_page=pages.extend)
    fetched = await api.copy(reactor, "nas::inbox/cam", tmp_path / "back", config=nas)

    assert {(b"cam/" + name.encode(), size) for name, size in SIZES.items()} == {
        (each.path, each.size) for each in listed
    }
    assert (listed, []) == (pages, nothing)
    assert before == files(tmp_path / "back")
    assert 2 == fetched.created


async def test_limits_are_seen_and_changed(nas):
    """Of the service, for a time, and lifted; what is no rate is refused before anything is asked."""
    changed = await api.set_limit(reactor, "nas", 1 << 20, for_s=60, config=nas)
    seen = await api.limits(reactor, "nas", config=nas)
    lifted = await api.set_limit(reactor, "nas", None, config=nas)

    def service(rows):
        return next(row.limit_bps for row in rows if (row.scope, row.direction) == ("service", "send"))

    assert [1 << 20, 1 << 20, None] == [service(rows) for rows in (changed, seen, lifted)]
    for wrong in ({"rate_bps": 0}, {"rate_bps": 1, "for_s": 0}):
        with pytest.raises(UsageError):
            await api.set_limit(reactor, "nas", config=nas, **wrong)


async def test_a_limit_that_is_not_there_cannot_be_set(nas):
    """The error is that of the command, and names the peer."""
    with pytest.raises(api.RealizeError, match=r"127\.0\.0\.1:.*of somebody else"):
        await api.set_limit(reactor, "nas", 1, scope=api.Scope.CONNECTION, name="of somebody else", config=nas)


async def test_standing_moves_are_seen_and_steered(tmp_path):
    """At a daemon of this machine, by its socket; a program gets an object for each, and the errors of the command."""
    (tmp_path / "out").mkdir()
    out = MoveConfig(sources=[str(tmp_path / "out")], destination=str(tmp_path / "in"), when="every 1d")
    daemon = api.Config(key=api.generate_identity(), listen=[], moves={"out": out}, control=tmp_path / "c", drain_s=0)
    config = api.Config(key=api.generate_identity(), control=tmp_path / "c")
    service = RealizedService(daemon, reactor)
    service.startService()
    try:
        [listed] = await api.standing_moves(reactor, config=config)
        paused = await api.steer_move(reactor, "out", api.Steering.PAUSE, config=config)
        with pytest.raises(Conflict, match="paused"):
            await api.steer_move(reactor, "out", api.Steering.RUN, config=config)
        resumed = await api.steer_move(reactor, "out", api.Steering.RESUME, config=config)
        with pytest.raises(NotFound, match="c: there is no move 'other'"):
            await api.standing_moves(reactor, name="other", config=config)
        status = await api.status(reactor, config=config)
        limits = await api.limits(reactor, config=config)
    finally:
        await service.stopService()
    with pytest.raises(api.ConnectionFailed, match=r"nobody listens at .*/c; name a PEER"):
        await api.standing_moves(reactor, config=config)

    assert ["out", "out", "out"] == [each["name"] for each in (listed, paused, resumed)]
    assert ("paused", True) == (paused["phase"], resumed["phase"] != "paused")
    assert ["out"] == [each["name"] for each in status["moves"]]
    assert ["service"] == [each.scope for each in limits]


async def test_a_daemon_tells_what_it_does(nas):
    """As `realize status --json` does."""
    report = await api.status(reactor, "nas", config=nas)

    assert {"connections", "transfers", "limits"} <= set(report)


async def test_the_way_to_a_directory_is_checked(nas):
    """Each step is a finding, as it is made and at the end."""
    seen = []

    findings = await api.check(reactor, "nas::inbox", config=nas, on_finding=seen.append)

    assert seen == findings
    assert {api.Result.OK} == {
        each.result for each in findings if each.step in {"config", "port", "rights", "durable write"}
    }


async def test_a_peer_that_is_not_known_is_an_error_with_advice_for_a_program(nas):
    """It does not speak of options of the command."""
    with pytest.raises(ConfigError) as caught:
        await api.status(reactor, "other.example", config=nas)

    assert "in the configuration that this program gives" in str(caught.value)
    assert "--" not in str(caught.value)


async def test_a_connection_that_cannot_be_made_is_not_waited_for_unless_asked(nas, out):
    """Without retry the first failure is the run's."""
    gone = evolve(nas, peers={"nas": evolve(nas.peers["nas"], address="127.0.0.1:1")})

    with pytest.raises(ConnectionFailed):
        await api.move(reactor, out, "nas::inbox", config=gone, options=api.MoveOptions(retry=False))


async def test_the_end_of_a_run_is_in_its_textfile(out, tmp_path):
    """As that of the command, for node_exporter."""
    targets = api.MetricsTargets(textfile=str(tmp_path / "run.prom"), job="nightly")

    await api.move(reactor, out, tmp_path / "in", options=api.MoveOptions(metrics=targets))

    text = (tmp_path / "run.prom").read_text()
    assert 'realize_last_exit_code{task="nightly"} 0.0' in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_conflict": "replace"}, "on_conflict: expected"),
        ({"jobs": 0}, "jobs: expected a number from 1 to 32"),
        ({"jobs": 33}, "jobs: expected"),
        ({"jobs": True}, "jobs: expected"),
        ({"rules": [("exclude", "*", "x")]}, "rules: expected pairs"),
        ({"rules": [("leave", "*")]}, "rules: expected pairs"),
        ({"rules": [("exclude", "")]}, ""),
        ({"min_age_s": -1}, "min_age_s: expected a number of seconds"),
        ({"min_age_s": float("nan")}, "min_age_s: expected"),
        ({"min_size_bytes": -1}, "min_size_bytes: expected a number of bytes"),
        ({"max_transfer_bytes": 0}, "max_transfer_bytes: expected a number of bytes above zero"),
        ({"max_size_bytes": "1M"}, "max_size_bytes: expected a number of bytes"),
        ({"min_size_bytes": 2, "max_size_bytes": 1}, "min_size_bytes: is more than max_size_bytes"),
        ({"max_duration_s": 0}, "max_duration_s: expected"),
        ({"grace_s": 1}, "grace_s: needs max_duration_s"),
        ({"prune_age_s": float("inf")}, "prune_age_s: expected"),
        ({"up_bps": 0}, "up_bps: a limit is from 1 byte/s"),
        ({"down_bps": 1 << 60}, "down_bps: a limit is from 1 byte/s"),
        ({"up_bps": "1M"}, "up_bps: "),
        ({"manifest": "m", "dry_run": True}, "manifest: cannot be used with dry_run"),
    ],
)
def test_options_that_make_no_sense_are_refused_when_they_are_made(options, said):
    """In one sentence that names the option."""
    with pytest.raises(UsageError) as caught:
        api.MoveOptions(**options)

    assert str(caught.value).startswith(said)


def test_options_do_not_change():
    """They may be shared by runs; rules given as a list are kept as they were."""
    rules = [("exclude", "*.tmp")]
    options = api.MoveOptions(rules=rules)
    rules.clear()

    assert (("exclude", "*.tmp"),) == options.rules


async def test_in_the_reactors_thread_nobody_can_wait(out, tmp_path):
    """It would wait for itself."""
    with pytest.raises(RuntimeError, match="reactor's own thread"):
        api.blocking(api.move, out, tmp_path / "in")


async def test_from_another_thread_of_a_running_program(out, tmp_path):
    """The reactor that runs is used."""
    done = Deferred()

    def wait():
        summary = api.blocking(api.move, out, tmp_path / "in")
        reactor.callFromThread(done.callback, summary)

    threading.Thread(target=wait).start()

    assert 2 == (await done).created


@pytest.mark.parametrize("begun", [True, False])
async def test_a_task_of_asyncio_that_is_cancelled_ends_in_order(out, tmp_path, begun):
    """The work has ended when the task has, also if it never had a turn: a program may go on, or end, at once."""
    program = """
        import asyncio, sys
        from realize import api
        async def main():
            async with api.asyncio_reactor() as reactor:
                options = api.MoveOptions(jobs=1)
                ended = []
                work = api.move(reactor, sys.argv[1], sys.argv[2], options=options)
                work.addBoth(lambda result: ended.append(result) or result)
                task = asyncio.ensure_future(api.in_asyncio(work))
                if "begun" in sys.argv:
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    print("cancelled", len(ended))
        asyncio.run(main())
    """
    command = ["-c", dedent(program), str(out), str(tmp_path / "in"), *["begun"] * begun]

    stdout, stderr, code = await getProcessOutputAndValue(sys.executable, command, env=ENVIRONMENT)

    assert (b"cancelled 1\n", b"", 0) == (stdout, stderr, code)


def run_program(program, tmp_path):
    """Run a program to its end, in that directory."""
    command = [sys.executable, "-c", dedent(program)]
    return subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_a_signal_handler_raises_ends_the_run_in_order(out, tmp_path):
    """A program that a supervisor ends does not go on until all is moved."""
    program = """
        import os, signal, sys
        from realize import api
        from realize.api import events
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
        def told(event):
            if isinstance(event, events.Started):
                os.kill(os.getpid(), signal.SIGTERM)
        def copying(reactor):
            work = api.copy(reactor, "out", "in", on_event=told)
            return work.addBoth(lambda result: print(result.type.__name__) or result)
        api.blocking(copying)
    """

    done = run_program(program, tmp_path)

    assert ("CancelledError\n", "told to end\n", 1) == (done.stdout, done.stderr, done.returncode)


BLOCKING_IN_VAIN = {
    "the reactor has run before": (
        """
        from twisted.internet import reactor
        from realize import api
        reactor.callWhenRunning(reactor.stop)
        reactor.run()
        try:
            api.blocking(api.move, "out", "in")
        except RuntimeError as error:
            print(error)
        """,
        "the reactor of this program has run and ended, and cannot be started again\n",
    ),
    "what is called returns no Deferred": (
        """
        from realize import api
        print(api.blocking(lambda reactor: 7))
        """,
        "7\n",
    ),
    "what is called ends the program": (
        """
        import sys
        from realize import api
        try:
            api.blocking(lambda reactor: sys.exit(3))
        except SystemExit as error:
            print(error.code)
        """,
        "3\n",
    ),
}


@pytest.mark.parametrize(("program", "said"), BLOCKING_IN_VAIN.values(), ids=BLOCKING_IN_VAIN)
def test_nobody_waits_for_what_never_comes(out, tmp_path, program, said):
    """Whatever a script calls."""
    done = run_program(program, tmp_path)

    assert (said, "", 0) == (done.stdout, done.stderr, done.returncode)


PROGRAMS = {
    "a script without a reactor": """
        from realize import api
        print(api.blocking(api.move, ["out"], "in").created)
        print(api.blocking(api.copy, ["in"], "again").created)
        try:
            api.blocking(api.move, ["nothing"], "in")
        except api.RealizeError as error:
            print(type(error).__name__)
    """,
    "asyncio": """
        import asyncio
        from realize import api
        async def main():
            async with api.asyncio_reactor() as reactor:
                print((await api.in_asyncio(api.move(reactor, ["out"], "in"))).created)
                print((await api.in_asyncio(api.copy(reactor, ["in"], "again"))).created)
                try:
                    await api.in_asyncio(api.move(reactor, ["nothing"], "in"))
                except api.RealizeError as error:
                    print(type(error).__name__)
        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_other_kinds_of_programs(out, tmp_path, program):
    """One line for each call, results and errors as everywhere."""
    done = run_program(program, tmp_path)

    assert ("2\n2\nNotFound\n", "", 0) == (done.stdout, done.stderr, done.returncode)
    assert set(SIZES) == set(files(tmp_path / "again"))


def example(name, *words, env=None):
    """Run a program of ``docs/examples/`` to its end, beside the reactor of the tests: its output and exit code."""
    command = [str(ROOT / "docs" / "examples" / name), *map(str, words)]
    done = getProcessOutputAndValue(sys.executable, command, env={**ENVIRONMENT, **(env or {})})
    return done.addCallback(lambda result: (result[0].decode(), result[1].decode(), result[2]))


async def test_the_example_of_a_script(out, tmp_path):
    """It fetches, and says in one line what it could not."""
    assert ("2 files fetched, 0 failed\n", "", 0) == await example("fetch.py", out, tmp_path / "in")
    assert set(SIZES) == set(files(tmp_path / "in"))
    stdout, stderr, code = await example("fetch.py", tmp_path / "nothing", tmp_path / "in")
    assert ("", f"fetch: source {tmp_path}/nothing: no such file or directory\n", 1) == (stdout, stderr, code)


async def test_the_example_for_asyncio_fetches_from_a_daemon_by_name(nas, tmp_path):
    """The threads that look up its name do not keep the process."""
    (tmp_path / "inbox" / "file").write_bytes(b"content")
    write_identity(str(tmp_path / "key"), nas.key)
    peer = nas.peers["nas"]
    address = peer.address.replace("127.0.0.1", "localhost")

    done = await example("fetch_asyncio.py", tmp_path / "key", peer.key.base64, address, "inbox", tmp_path / "in")

    assert ("1 files fetched, 0 failed\n", "", 0) == done
    assert {"file": b"content"} == files(tmp_path / "in")


async def test_the_example_of_a_service_delivers_until_it_is_told_to_end(nas, out, tmp_path):
    """In order, at once, although it would look again in a minute."""
    for name in SIZES:
        os.utime(out / name, (1, 1))
    (out / "later.tmp").write_bytes(b"")
    write_identity(str(tmp_path / "key"), nas.key)
    peer = nas.peers["nas"]
    config = f'key = "key"\n[peers.nas]\naddress = "{peer.address}"\nkey = "{peer.key.base64}"\n'
    (tmp_path / "realize.toml").write_text(config)
    process = Collecting("2 files delivered, 0 failed\n")
    reactor.spawnProcess(
        process,
        sys.executable,
        [sys.executable, str(ROOT / "docs" / "examples" / "deliver.py"), str(out), "nas::inbox"],
        {**ENVIRONMENT, "REALIZE_CONFIG": str(tmp_path / "realize.toml")},
    )

    await process.said
    process.transport.signalProcess("TERM")
    code = await process.ended

    assert {"small", "below/large"} == {line.split()[1] for line in process.output.splitlines()[:2]}
    assert ("", 0) == (process.errors, code)
    assert {"later.tmp"} == set(files(out))


class Collecting(ProcessProtocol):
    """Collects what a process says; ``said`` fires when it has said that."""

    def __init__(self, awaited):
        self.awaited, self.output, self.errors = awaited, "", ""
        self.said, self.ended = Deferred(), Deferred()

    def outReceived(self, data):
        """To stdout."""
        self.output += data.decode()
        if self.awaited in self.output and not self.said.called:
            self.said.callback(None)

    def errReceived(self, data):
        """To stderr."""
        self.errors += data.decode()

    def processEnded(self, reason):
        """With an exit code, or by a signal."""
        if not self.said.called:
            self.said.errback(AssertionError(self.output + self.errors))
        self.ended.callback(reason.value.exitCode)
