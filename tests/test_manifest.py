"""The record of what was moved: `realize.runs.manifest`, and what the mover makes of it."""

from __future__ import annotations

import base64
import datetime as dt
import errno
import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from blake3 import blake3
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from realize.errors import Busy, InternalError, NoSpace, StorageError, UsageError
from realize.keys import generate_identity
from realize.locations import LocalLocation, RemoteLocation
from realize.mover.events import Failed, Finished, How, Unknown
from realize.mover.interfaces import Arrived, IManifest
from realize.mover.run import Run, Side, TransferOptions
from realize.runs import manifest as manifest_module
from realize.runs.manifest import Ends, Manifest, ManifestFile, end_fields, recording, refuse_inside
from realize.values import OnConflict
from tests.memory_store import MemoryStore
from tests.processes import ENVIRONMENT, digests, run_program
from tests.store_helpers import digest

BIG = random.Random(1).randbytes(100_000)
AT = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
ENDS = Ends({"src": lambda: {"source": "/src"}}, lambda: {"destination": "nas:9771::inbox", "destination_key": "KEY"})


def arrived(name: bytes, size: int = 3) -> Arrived:
    """A file."""
    return Arrived(name, size, digest(name), How.CREATED)


def lines_of(path) -> list[dict]:
    """The lines of a manifest that are whole."""
    records = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


class Disk:
    """Stands for the file and the pool: keeps what is to be written until it is told how that ends."""

    def __init__(self):
        self.groups = []
        self.closed = False

    def append(self, lines, *, sync):
        """Never called: the work is kept."""

    def close(self):
        """Remember it."""
        self.closed = True

    def run_in_thread(self, _, lines, *, sync):
        """Keep it."""
        done = Deferred()
        self.groups.append(([json.loads(line) for line in lines.splitlines()], sync, done))
        return done

    def names(self):
        """What is in each group, and whether it is to be made durable."""
        return [([record["path"] for record in records], sync) for records, sync, _ in self.groups]


def made(disk):
    """A manifest on such a disk."""
    return Manifest(disk, ENDS, "run1", disk.run_in_thread, lambda: AT)


def test_a_line_says_what_where_and_when():
    """Every field that an audit asks for is in the line of each event."""
    disk = Disk()
    manifest = made(disk)

    manifest.durable("src", [arrived(b"a/b")])
    manifest.removed("src", [arrived(b"a/b")])
    disk.groups[0][2].callback(None)

    expected = {
        "path": "a/b",
        "size": 3,
        "blake3": digest(b"a/b").hex(),
        "how": "created",
        "source": "/src",
        "destination": "nas:9771::inbox",
        "destination_key": "KEY",
        "run": "run1",
    }
    when = "2026-01-02T03:04:05.000678Z"
    ([durable], _, _), ([removed], _, _) = disk.groups
    assert verifyObject(IManifest, manifest)
    assert {"event": "durable", **expected, "durable_at": when} == durable
    assert {"event": "removed", **expected, "removed_at": when} == removed


def test_a_name_that_is_not_utf_8_is_there_exactly():
    """As with --json: replacement characters for people, and the exact bytes beside them."""
    disk = Disk()

    made(disk).durable("src", [arrived(b"\xff\n")])

    [([record], _, _)] = disk.groups
    assert ("\ufffd\n", b"\xff\n") == (record["path"], base64.b64decode(record["path_base64"]))


def test_ends_are_told_so_that_they_are_understood_later():
    """A local end is absolute; a remote one has the key that it was known by."""
    key = generate_identity().public_key
    remote = RemoteLocation("nas", "192.0.2.1", 9771, "inbox", b"")

    assert {"source": os.path.abspath("x")} == end_fields("source", LocalLocation("x"), None)
    exact = end_fields("source", LocalLocation("/a\udcff"), None)
    assert (b"/a\xff", "/a\ufffd") == (base64.b64decode(exact["source_base64"]), exact["source"])
    expected = {"destination": "nas:9771::inbox", "destination_key": key.base64}
    assert expected == end_fields("destination", remote, key)


def test_nothing_counts_as_recorded_before_it_is_durable():
    """While a group is written the next one collects, and each answer waits for its own group."""
    disk = Disk()
    manifest = made(disk)
    done = []

    for name in (b"1", b"2", b"3"):
        manifest.durable("src", [arrived(name)]).addCallback(lambda _, name=name: done.append(name))
    before = list(done)
    disk.groups[0][2].callback(None)
    between = list(done)
    disk.groups[1][2].callback(None)

    assert ([], [b"1"], [b"1", b"2", b"3"]) == (before, between, done)
    assert [(["1"], True), (["2", "3"], True)] == disk.names()


def test_removals_are_written_at_once_and_made_durable_at_the_end():
    """A kill leaves them in the file; only a machine that stops may lose them."""
    disk = Disk()
    manifest = made(disk)
    done = []

    manifest.removed("src", [arrived(b"1")])
    disk.groups[0][2].callback(None)
    Deferred.fromCoroutine(manifest.finish()).addCallback(done.append)
    before = list(done)
    disk.groups[1][2].callback(None)
    Deferred.fromCoroutine(manifest.finish()).addCallback(done.append)

    assert ([], [None, None]) == (before, done)
    assert [(["1"], False), ([], True)] == disk.names()


@pytest.mark.parametrize(("cause", "expected"), [(NoSpace("full"), NoSpace), (ValueError("bug"), InternalError)])
def test_once_it_is_broken_nothing_is_recorded_any_more(cause, expected):
    """All that wait fail, and all that come later, also if only the line of a removal was lost."""
    disk = Disk()
    manifest = made(disk)
    errors = []

    for name in (b"1", b"2"):
        manifest.durable("src", [arrived(name)]).addErrback(lambda failure: errors.append(failure.type))
    disk.groups[0][2].errback(cause)
    manifest.durable("src", [arrived(b"3")]).addErrback(lambda failure: errors.append(failure.type))
    manifest.removed("src", [arrived(b"1")])
    Deferred.fromCoroutine(manifest.finish()).addErrback(lambda failure: errors.append(failure.type))
    Deferred.fromCoroutine(manifest.close())

    assert [expected] * 4 == errors
    assert [["1"], ["1"]] == [[record["path"] for record in records] for records, _, _ in disk.groups]
    disk.groups[1][2].errback(cause)
    assert disk.closed


@pytest.mark.parametrize("room", [True, False])
def test_removals_that_could_not_be_recorded_are_tried_once_more(room):
    """No later run records them; what cannot be written at the end either is said."""
    disk = Disk()
    manifest = made(disk)
    closed = []

    manifest.removed("src", [arrived(b"1"), arrived(b"2")])
    waiting = manifest.durable("src", [arrived(b"3")]).addErrback(lambda _: None)
    manifest.unknown("src", [arrived(b"4")])
    disk.groups[0][2].errback(NoSpace("full"))
    manifest.removed("src", [arrived(b"5")])
    Deferred.fromCoroutine(manifest.close()).addCallback(closed.append)
    (records, sync, done) = disk.groups[1]
    done.callback(None) if room else done.errback(NoSpace("full"))

    assert waiting.called
    assert ([("removed", "1"), ("removed", "2"), ("unknown", "4"), ("removed", "5")], True) == (
        [(record["event"], record["path"]) for record in records],
        sync,
    )
    assert ["" if room else "removals that are missing in it: 3"] == closed
    assert disk.closed


def test_without_a_thread_nothing_is_recorded_and_nobody_waits():
    """Who waits for a line is told that it cannot be written, and the file is closed in the end."""
    disk, errors = Disk(), []

    def refuses(*_, **__):
        raise Busy("no thread is to be had")

    manifest = Manifest(disk, ENDS, "run1", refuses, lambda: AT)
    manifest.durable("src", [arrived(b"1")]).addErrback(lambda failure: errors.append(failure.type))
    manifest.removed("src", [arrived(b"1")])
    Deferred.fromCoroutine(manifest.close())

    assert [Busy] == errors
    assert disk.closed


def test_who_does_not_wait_any_more_is_no_trouble():
    """A run that is interrupted while a group is written ends; the group is written all the same."""
    disk = Disk()
    manifest = made(disk)
    waiting = manifest.durable("src", [arrived(b"1")]).addErrback(lambda _: None)
    waiting.cancel()
    closed = []

    Deferred.fromCoroutine(manifest.close()).addCallback(closed.append)
    disk.groups[0][2].callback(None)
    disk.groups[1][2].callback(None)

    assert [""] == closed


# The file.


def test_the_file_is_private_and_appended_to(tmp_path):
    """It is made with mode 0600; what it holds already stays."""
    path = tmp_path / "m"
    for content in (b"1\n", b"2\n"):
        file = ManifestFile(str(path))
        file.append(content, sync=True)
        file.close()

    assert b"1\n2\n" == path.read_bytes()
    assert 0o600 == path.stat().st_mode & 0o777


def test_a_torn_line_stays_by_itself(tmp_path):
    """After a crash in the middle of a line the next one begins on its own."""
    path = tmp_path / "m"
    path.write_bytes(b'{"event": "dura')
    file = ManifestFile(str(path))
    file.append(b"{}\n", sync=False)
    file.close()

    assert b'{"event": "dura\n{}\n' == path.read_bytes()
    assert [{}] == lines_of(path)


def test_what_is_being_appended_when_it_is_closed_goes_to_no_other_file(tmp_path, monkeypatch):
    """A run that is cancelled twice closes it at once, and the next file that is opened gets the number."""
    path, other = tmp_path / "m", tmp_path / "other"
    file = ManifestFile(str(path))
    write = manifest_module.write_all
    opened = []

    def late(fd, content):
        file.close()
        opened.append(os.open(other, os.O_WRONLY | os.O_CREAT))
        write(fd, content)

    monkeypatch.setattr(manifest_module, "write_all", late)
    file.append(b"{}\n", sync=True)
    os.close(opened[0])
    with pytest.raises(StorageError, match="closed meanwhile"):
        file.append(b"{}\n", sync=True)

    assert (b"{}\n", b"") == (path.read_bytes(), other.read_bytes())


def test_a_run_that_is_cancelled_while_its_manifest_is_opened_closes_it(tmp_path):
    """The thread opens it all the same; that no descriptor is left open is looked at after each test."""
    opening = Deferred()
    session = SimpleNamespace(in_thread=lambda work, *_: opening if work is ManifestFile else succeed(None))

    async def record():
        async with recording(str(tmp_path / "m"), session, []):
            raise AssertionError

    work = Deferred.fromCoroutine(record())
    work.cancel()
    opening.callback(ManifestFile(str(tmp_path / "m")))

    failures = []
    work.addErrback(lambda failure: failures.append(failure.type))
    assert [CancelledError] == failures


def test_a_group_that_does_not_fit_is_taken_back(tmp_path, monkeypatch):
    """What was written of it before the disk was full would be a torn line in the middle of the file."""
    path = tmp_path / "m"
    file = ManifestFile(str(path))
    file.append(b"1\n", sync=True)

    def half(fd, content):
        os.write(fd, content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(manifest_module, "write_all", half)

    with pytest.raises(NoSpace, match=r"manifest .*/m: No space left on device"):
        file.append(b"2222\n", sync=True)
    file.close()
    assert b"1\n" == path.read_bytes()


def test_a_failed_sync_is_an_error(tmp_path, monkeypatch):
    """Written is not durable."""
    file = ManifestFile(str(tmp_path / "m"))

    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(manifest_module.os, "fdatasync", broken)

    with pytest.raises(StorageError, match="Input/output error"):
        file.append(b"1\n", sync=True)
    file.append(b"2\n", sync=False)
    file.close()


def test_a_manifest_behind_a_symlink_is_durable_where_it_is(tmp_path, monkeypatch):
    """It is made in the directory that the link leads to; its name must last there, and that of all directories above.

    Up to the mount point: a script may have made them a moment ago.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m").symlink_to("elsewhere/file")
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))

    ManifestFile(str(tmp_path / "m")).close()

    elsewhere = tmp_path / "elsewhere"
    device = elsewhere.stat().st_dev
    assert [str(each) for each in (elsewhere, *elsewhere.parents) if each.stat().st_dev == device] == synced


def test_a_manifest_that_was_removed_records_nothing(tmp_path):
    """Lines in a file without a name are lost with the process."""
    path = tmp_path / "m"
    file = ManifestFile(str(path))
    path.unlink()

    with pytest.raises(StorageError, match="was deleted"):
        file.append(b"1\n", sync=True)
    file.close()


def test_lines_of_several_commands_never_mix(tmp_path):
    """Each group is written as a whole, whoever else writes."""
    path = tmp_path / "m"
    count = 200

    def write(letter):
        file = ManifestFile(str(path))
        for _ in range(count):
            file.append(letter * 5_000 + b"\n" + letter * 5_000 + b"\n", sync=False)
        file.close()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = path.read_bytes().splitlines()
    assert 6 * count == len(lines)
    assert {b"a" * 5_000, b"b" * 5_000, b"c" * 5_000} == set(lines)
    assert all(one == two for one, two in zip(lines[::2], lines[1::2], strict=True))


def test_a_group_waits_for_that_of_another_command(tmp_path):
    """Nothing is written while another one writes, and when it has been written nobody is kept waiting."""
    path = tmp_path / "m"
    file = ManifestFile(str(path))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writing = threading.Thread(target=lambda: file.append(b"1\n", sync=False))
        writing.start()
        writing.join(0.05)
        early = path.read_bytes()
        fcntl.flock(other, fcntl.LOCK_UN)
        writing.join()

        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.close()

    assert (b"", b"1\n") == (early, path.read_bytes())


@pytest.mark.parametrize("kind", ["directory", "fifo", "/dev/full", "absent/m", "nul"])
def test_what_cannot_hold_a_manifest_is_refused(tmp_path, kind):
    """Only a regular file can be made durable; the sentence names it."""
    path = {"/dev/full": "/dev/full", "nul": "a\0b"}.get(kind, str(tmp_path / kind))
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)

    with pytest.raises(UsageError, match=r"^manifest "):
        ManifestFile(path)


def test_a_manifest_among_what_is_moved_is_refused(tmp_path):
    """It would be moved, or replaced by what arrives; also through a link, and if it is the source itself."""
    source, destination = tmp_path / "src", tmp_path / "dst"
    (source / "deep").mkdir(parents=True)
    destination.mkdir()
    (tmp_path / "link").symlink_to(source / "deep")
    (source / "file").write_text("")
    ends = [LocalLocation(str(source)), LocalLocation(str(destination))]

    for inside in (source / "m", source / "deep" / "m", tmp_path / "link" / "m"):
        with pytest.raises(UsageError, match=r"is in source .*src: it would be moved itself"):
            refuse_inside(str(inside), ends)
    with pytest.raises(UsageError, match="is in destination"):
        refuse_inside(str(destination / "m"), ends)
    with pytest.raises(UsageError, match="is in source"):
        refuse_inside(str(source / "file"), [LocalLocation(str(source / "file")), ends[1]])
    refuse_inside(str(tmp_path / "m"), ends)
    refuse_inside(str(source / "m"), [LocalLocation(str(source / "file")), ends[1]])
    refuse_inside(str(tmp_path / "m"), [RemoteLocation(None, "h", 1, "d", b""), LocalLocation(str(tmp_path / "new"))])


# The mover.


@implementer(IManifest)
class Notes:
    """A manifest in memory that looks at the source whenever something is to be recorded."""

    def __init__(self, source, error=None):
        self.source = source
        self.error = error
        self.told = {}
        self.gone = []
        self.unsure = []
        self.too_late = []

    def durable(self, source, files):
        """Note them, and any that is gone already."""
        self.too_late += [file.path for file in files if file.path not in self.source.files]
        if self.error is not None:
            return fail(self.error)
        self.told |= {file.path: (source, file.size, file.digest, file.how) for file in files}
        return succeed(None)

    def removed(self, source, files):
        """Note them."""
        self.gone += [file.path for file in files]

    def unknown(self, source, files):
        """Note them."""
        self.unsure += [file.path for file in files]


def run(source, destination, notes, **options):
    """A run to its end: its events, and what it came to."""
    clock, events, results = Clock(), [], []
    sides = [Side(source, "src")], Side(destination, "dst")
    moving = Run(*sides, TransferOptions(**options), events.append, clock, manifest=notes)
    moving.start().addBoth(results.append)
    clock.pump([0.05] * 200)
    [result] = results
    return events, getattr(result, "value", result)


def test_what_arrives_is_recorded_before_it_is_removed():
    """Small and large files, sent, replaced or there already; then each removal."""
    source = MemoryStore({b"small": b"1", b"large": BIG, b"same": b"2", b"same large": BIG, b"old": b"3"})
    destination = MemoryStore({b"same": b"2", b"same large": BIG, b"old": b"4"})
    contents = {path: file.content for path, file in source.files.items()}
    notes = Notes(source)

    run(source, destination, notes, policy=OnConflict.REPLACE)

    how = {b"same": How.ALREADY_THERE, b"same large": How.ALREADY_THERE, b"old": How.REPLACED}
    expected = {
        path: ("src", len(content), digest(content), how.get(path, How.CREATED)) for path, content in contents.items()
    }
    assert expected == notes.told
    assert [] == notes.too_late
    assert sorted(contents) == sorted(notes.gone)


def test_a_copy_removes_nothing_and_says_so():
    """What arrived is recorded all the same."""
    source = MemoryStore({b"small": b"1", b"large": BIG})
    notes = Notes(source)

    run(source, MemoryStore(), notes, remove=False)

    assert {b"small", b"large"} == set(notes.told)
    assert [] == notes.gone


def test_what_is_skipped_or_kept_is_not_recorded_as_removed():
    """A file that was skipped did not arrive; one that changed meanwhile arrived, and was not removed."""
    source, destination = MemoryStore({b"skipped": b"1", b"kept": b"2"}), MemoryStore({b"skipped": b"3"})
    source.fail_next["remove", b"kept"] = StorageError("no")
    notes = Notes(source)
    run(source, destination, notes, policy=OnConflict.SKIP)

    assert {b"kept"} == set(notes.told)
    assert [] == notes.gone


def test_what_cannot_be_recorded_is_not_removed():
    """The run ends with the one reason, and everything is still at the source; what arrived is said to be there."""
    files = {b"%d" % number: b"x" * number for number in range(20)} | {b"large": BIG}
    source, destination = MemoryStore(files), MemoryStore()
    full = NoSpace("manifest m: full")

    events, result = run(source, destination, Notes(source, full))

    assert full is result
    assert files == {path: file.content for path, file in source.files.items()}
    ended = [event for event in events if isinstance(event, Finished | Failed)]
    assert {False} == {event.removed for event in ended}
    assert set(destination.files) == {event.path for event in ended}


# The command, in processes of its own: they are killed.

KILLED = """
import os, signal, sys
from realize.store.local import removal
once, (count, after) = removal._remove, (int(sys.argv.pop(1)), sys.argv.pop(1) == "after")

def remove(*arguments):
    global count
    count -= 1
    if not count and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = once(*arguments)
    if not count:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

removal._remove = remove
from realize.cli.main import main
main()
"""


def command(*arguments, **options):
    """Run the command, or another program of Python."""
    return run_program(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize(("count", "when"), [(1, "before"), (1, "after"), (37, "after"), (61, "before")])
def test_a_kill_between_line_and_removal_leaves_nothing_unrecorded(tmp_path, count, when):
    """Killed just before, or just after, the first, a middle or the last removal: what is gone has its line."""
    source, destination, path = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    (source / "d").mkdir(parents=True)
    for number in range(60):
        (source / "d" / f"{number}").write_bytes(b"%d" % number * number)
    (source / "large").write_bytes(BIG)
    original = {os.path.relpath(each, source): each.read_bytes() for each in source.rglob("*") if each.is_file()}

    killed = command("-c", KILLED, count, when, "--manifest", path, source, destination)
    recorded = {line["path"]: line["blake3"] for line in lines_of(path) if line["event"] == "durable"}
    gone = {name for name in original if not (source / name).exists()}
    again = command("-m", "realize.cli.main", "--manifest", path, source, destination)

    assert -signal.SIGKILL == killed.returncode
    assert (when == "after" or count > 1) == bool(gone)
    assert gone <= set(recorded)
    assert {name: blake3(original[name]).hexdigest() for name in recorded} == recorded
    assert 0 == again.returncode, again.stderr
    assert {} == digests(source)
    assert set(original) == {line["path"] for line in lines_of(path) if line["event"] == "durable"}
    assert len(original) == len(digests(destination))


def test_a_manifest_that_is_full_stops_the_removing(tmp_path):
    """A real limit on the file's size stands for a full disk: one sentence, exit code 1, and nothing is lost."""
    source, destination, path = tmp_path / "src", tmp_path / "dst", tmp_path / "m"
    source.mkdir()
    for number in range(300):
        (source / f"{number}").write_bytes(b"%d" % number)
    path.write_text("x" * 1000 + "\n")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    # Without -B it might leave bytecode behind that is cut off at the limit, too.
    done = command("-B", "-m", "realize.cli.main", "--quiet", "--manifest", path, source, destination, preexec_fn=limit)

    lines = lines_of(path)
    removed = {f"{number}" for number in range(300)} - {name.name for name in source.iterdir()}
    assert 1 == done.returncode
    assert [f"realize: error: manifest {path}: File too large; sources are only removed once they are in it"] == (
        done.stderr.splitlines()
    )
    assert removed <= {line["path"] for line in lines}
    assert path.read_bytes().endswith(b"\n")
    again = command("-m", "realize.cli.main", "--quiet", "--manifest", path, source, destination)
    assert (0, []) == (again.returncode, list(source.iterdir()))
    assert {f"{number}" for number in range(300)} == {line["path"] for line in lines_of(path)}


def test_a_removal_that_is_missing_in_a_full_manifest_is_said(tmp_path):
    """There is room for the line that says that the file arrived, and then no more."""
    source, path = tmp_path / "f", tmp_path / "m"
    arguments = ("--quiet", "--manifest", path, source, tmp_path / "dst")
    source.write_bytes(b"content")
    command("-m", "realize.cli.main", *arguments)
    durable = len(path.read_bytes().splitlines(keepends=True)[0])
    path.unlink()
    source.write_bytes(b"another")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (durable + 10, durable + 10))

    done = command("-B", "-m", "realize.cli.main", "--on-conflict", "replace", *arguments, preexec_fn=limit)

    assert (1, False) == (done.returncode, source.exists())
    assert ["durable"] == [line["event"] for line in lines_of(path)]
    assert done.stderr.endswith("once they are in it; removals that are missing in it: 1\n")


def test_a_manifest_of_a_copy_has_no_removals(tmp_path):
    """A line for what arrived, and for nothing else; the second run finds it there already, and says so."""
    (tmp_path / "f").write_bytes(b"content")
    arguments = ("-m", "realize.cli.main", "copy", "--manifest", tmp_path / "m", tmp_path / "f", tmp_path / "dst")

    results = [command(*arguments).returncode for _ in range(2)]

    lines = lines_of(tmp_path / "m")
    assert [0, 0] == results
    assert [("durable", "f", "created"), ("durable", "f", "already_there")] == [
        (line["event"], line["path"], line["how"]) for line in lines
    ]
    assert (str(tmp_path / "f"), str(tmp_path / "dst")) == (lines[0]["source"], lines[0]["destination"])
    assert 2 == len({line["run"] for line in lines})


def test_a_dry_run_has_no_manifest(tmp_path):
    """It moves nothing, so there is nothing to record: a usage error, and the file is not made."""
    arguments = ("--dry-run", "--manifest", tmp_path / "m", tmp_path, tmp_path / "dst")

    assert 2 == command("-m", "realize.cli.main", *arguments).returncode
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("content", [b"12345", bytes(3 << 20)], ids=["small", "large"])
def test_what_could_not_be_recorded_is_said_to_be_at_both_ends(content):
    """It has arrived, and was not removed."""
    source = MemoryStore({b"f": content})
    events, _ = run(source, MemoryStore(), Notes(source, StorageError("the disk is full")))

    assert [(b"f", How.CREATED, False)] == [
        (event.path, event.how, event.removed) for event in events if isinstance(event, Finished)
    ]
    assert [] == [event for event in events if isinstance(event, Unknown)]
