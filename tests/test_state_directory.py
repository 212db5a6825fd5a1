"""Where the states of standing moves are kept: `realize.moves.state_directory`."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock

from realize.errors import Busy
from realize.moves import state_directory
from realize.moves.state import MAX_STATE_BYTES, MoveState
from realize.moves.state_directory import SAVE_INTERVAL_S, SAVE_RETRY_S, StateDirectory
from tests.loopback import Log

PAUSED = MoveState(paused=True)
FAILING = MoveState(error="away")


class Kept:
    """A state directory whose clock and threads the test drives."""

    def __init__(self, path):
        self.path = path
        self.clock = Clock()
        self.log = Log()
        self.held = None
        """The threads' work while the test holds it up."""
        self.batches = 0
        self.states = self.again()

    def again(self):
        """The same directory, after a restart."""
        return StateDirectory(
            None if self.path is None else str(self.path),
            clock=self.clock,
            run_in_thread=self.run_in_thread,
            log=self.log,
        )

    def run_in_thread(self, work, *args):
        """Do it at once, or when the test says so."""
        self.batches += work.__name__ == "_write"
        if self.held is None:
            return maybeDeferred(work, *args)
        done = Deferred()
        self.held.append(lambda: maybeDeferred(work, *args).chainDeferred(done))
        return done

    def said(self):
        """What is in the log, as event and fields."""
        return [(event, fields) for _, event, fields in self.log.events]

    def load(self, name="camera"):
        """What the next daemon would find."""
        found = []
        self.again().load(name).addCallback(found.append)
        return found[0]

    def flush(self):
        """Whether that is done."""
        done = []
        self.states.flush().addCallback(done.append)
        return bool(done)


@pytest.fixture
def kept(tmp_path):
    """A state directory that is not yet there."""
    return Kept(tmp_path / "state")


def test_what_is_saved_is_there_after_a_restart(kept):
    """The next daemon finds the state of each move under its name, and a new one for a move that has none."""
    kept.states.save("camera", PAUSED)
    kept.states.save("scanner.2", FAILING)
    kept.clock.advance(0)

    assert [PAUSED, FAILING, MoveState()] == [kept.load(name) for name in ("camera", "scanner.2", "other")]
    assert ["camera.json", "scanner.2.json"] == sorted(os.listdir(kept.path))


def test_only_the_owner_may_read_it(kept):
    """Names of files are in it: the directory that it makes, and the files, are for nobody else."""
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)

    assert 0o700 == stat.S_IMODE(kept.path.stat().st_mode)
    assert 0o600 == stat.S_IMODE((kept.path / "camera.json").stat().st_mode)


def test_many_changes_are_one_write(kept):
    """It is written at most once a second, whatever the number of changes and moves, and the last state counts."""
    for number in range(1, 101):
        kept.states.save("camera", MoveState(attempts=number))
        kept.states.save("scanner", MoveState(attempts=number))
        kept.clock.advance(SAVE_INTERVAL_S / 50)

    assert 100 == kept.load().attempts or kept.clock.getDelayedCalls()
    assert 3 >= kept.batches
    kept.clock.advance(SAVE_INTERVAL_S)
    assert [100, 100] == [kept.load(name).attempts for name in ("camera", "scanner")]
    assert [] == kept.clock.getDelayedCalls()


def test_what_did_not_change_is_not_written(kept):
    """Saving the state that is there already costs nothing."""
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states.save("camera", MoveState(paused=True))
    kept.clock.advance(SAVE_INTERVAL_S)

    assert 1 == kept.batches


def test_what_was_loaded_is_not_written_again(kept):
    """A daemon that starts, and moves nothing, writes nothing."""
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states = kept.again()
    kept.states.load("camera")
    kept.states.save("camera", PAUSED)
    kept.clock.advance(SAVE_INTERVAL_S)

    assert 1 == kept.batches


def test_a_slow_disk_is_left_alone_for_most_of_the_time(kept, monkeypatch):
    """Writing takes a tenth of the time at most."""
    times = iter([0.0, 3.0])
    monkeypatch.setattr(state_directory.time, "monotonic", lambda: next(times))
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states.save("camera", FAILING)

    assert [30.0] == [call.getTime() - kept.clock.seconds() for call in kept.clock.getDelayedCalls()]


def test_a_move_is_forgotten(kept):
    """The file of a move that was taken out of the configuration goes; so does what a crash has left beside it."""
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    (kept.path / ".camera.json.new").write_text("half")
    kept.states.forget("camera")
    kept.clock.advance(SAVE_INTERVAL_S)

    assert [] == os.listdir(kept.path)
    assert [] == kept.said()


def test_a_move_that_comes_back_is_kept_again(kept):
    """Removed by one reload and added by the next one."""
    kept.states.save("camera", PAUSED)
    kept.states.forget("camera")
    kept.states.save("camera", PAUSED)

    assert kept.flush()
    kept.states.forget("camera")
    assert kept.flush()
    kept.states.save("camera", PAUSED)
    assert kept.flush()
    assert PAUSED == kept.load()


@pytest.mark.parametrize(("last", "expected"), [(None, MoveState()), (FAILING, FAILING)])
def test_what_is_not_written_yet_is_what_counts(kept, last, expected):
    """A move that is removed and comes back within a second begins anew, and not as the file has it until then."""
    found = []
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    if last is None:
        kept.states.forget("camera")
    else:
        kept.states.save("camera", last)
    kept.states.load("camera").addCallback(found.append)

    assert [expected] == found
    assert PAUSED == kept.load()


def test_flush_writes_at_once(kept):
    """At the end nothing waits for its second, and no timer is left."""
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states.save("camera", FAILING)

    assert kept.flush()
    assert FAILING == kept.load()
    assert [] == kept.clock.getDelayedCalls()


def test_flush_waits_for_what_is_being_written(kept):
    """There are never two writes at once, and what came meanwhile is written before it fires."""
    kept.held = []
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states.save("camera", FAILING)
    kept.clock.advance(10 * SAVE_INTERVAL_S)
    flushed = []
    kept.states.flush().addCallback(flushed.append)
    kept.states.flush().addCallback(flushed.append)

    assert 1 == len(kept.held)
    kept.held.pop()()
    assert (1, []) == (len(kept.held), flushed)
    kept.held.pop()()
    assert [None, None] == flushed
    kept.held = None
    assert FAILING == kept.load()


def test_flush_writes_what_is_saved_while_it_writes(kept):
    """The last word of a move counts, also when it comes in the last moment."""
    kept.held = []
    kept.states.save("camera", PAUSED)
    flushed = []
    kept.states.flush().addCallback(flushed.append)
    kept.states.save("camera", FAILING)
    kept.held.pop()()

    assert (1, []) == (len(kept.held), flushed)
    kept.held.pop()()
    assert [None] == flushed
    assert [] == kept.clock.getDelayedCalls()


def test_nothing_is_kept_without_a_directory():
    """Every state is a new one, and nothing is written or waited for."""
    kept = Kept(None)
    kept.states.save("camera", PAUSED)
    kept.states.forget("scanner")

    assert kept.flush()
    assert MoveState() == kept.load()
    assert (0, []) == (kept.batches, kept.clock.getDelayedCalls())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file: file.write_text("{"), "is not JSON"),
        (lambda file: file.write_text('{"format": "realize move state 9"}'), "is not of the format"),
        (lambda file: file.write_bytes(b" " * (MAX_STATE_BYTES + 7)), "is larger than 4 MiB"),
        (lambda file: file.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda file: file.symlink_to("elsewhere.json"), os.strerror(errno.ELOOP)),
    ],
    ids=["rubbish", "newer", "large", "directory", "fifo", "symlink"],
)
def test_what_cannot_be_read_is_said_and_replaced(kept, spoil, sentence):
    """The move begins with a new state; the next save replaces what was there, and no symlink is followed."""
    kept.path.mkdir()
    elsewhere = kept.path / "elsewhere.json"
    elsewhere.write_bytes(PAUSED.to_json())
    file = kept.path / "camera.json"
    spoil(file)

    assert MoveState() == kept.load()
    ((event, fields),) = kept.said()
    assert ("state_not_read", "camera") == (event, fields["move"])
    assert sentence in fields["error"]
    if not file.is_dir():
        kept.states.save("camera", FAILING)
        assert kept.flush()
        assert FAILING == kept.load()
        assert PAUSED.to_json() == elsewhere.read_bytes()


def test_a_symlink_with_the_name_of_the_new_file_is_not_followed(kept):
    """What somebody puts there is removed, and what it points to stays as it is."""
    kept.path.mkdir()
    elsewhere = kept.path / "elsewhere"
    elsewhere.write_text("precious")
    (kept.path / ".camera.json.new").symlink_to(elsewhere)
    kept.states.save("camera", PAUSED)

    assert kept.flush()
    assert "precious" == elsewhere.read_text()
    assert not (kept.path / "camera.json").is_symlink()


def test_a_directory_that_was_removed_is_made_again(kept):
    """The next save brings it back."""
    kept.states.save("camera", PAUSED)
    assert kept.flush()
    (kept.path / "camera.json").unlink()
    kept.path.rmdir()
    kept.states.save("camera", FAILING)

    assert kept.flush()
    assert FAILING == kept.load()


def test_a_disk_that_takes_nothing_is_said_once(kept, monkeypatch):
    """One record when it begins and one when it ends; the former state stays whole, and the last one is tried again."""
    kept.states.save("camera", PAUSED)
    assert kept.flush()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(state_directory, "write_all", refuse)
        for number in range(1, 50):
            kept.states.save("camera", MoveState(attempts=number))
            kept.states.save("scanner", MoveState(attempts=number))
            kept.clock.advance(SAVE_RETRY_S)
        assert PAUSED == kept.load()
        assert ["camera.json"] == os.listdir(kept.path)
    kept.clock.advance(SAVE_RETRY_S)

    assert [49, 49] == [kept.load(name).attempts for name in ("camera", "scanner")]
    assert [
        ("state_not_saved", {"directory": str(kept.path), "move": "camera", "error": full.strerror}),
        ("state_saved_again", {"directory": str(kept.path)}),
    ] == kept.said()
    assert [] == kept.clock.getDelayedCalls()


@pytest.mark.parametrize("why", ["parent", "file", "threads"])
def test_a_directory_that_cannot_be_used_stops_nothing(tmp_path, why):
    """Its parent is missing, a file has its name, or there is no thread: said once, and everything goes on."""
    kept = Kept(tmp_path / "state")
    if why == "parent":
        kept = Kept(tmp_path / "missing" / "state")
    elif why == "file":
        kept.path.write_text("")
    else:
        kept.run_in_thread = lambda *_: fail(Busy("no thread is to be had"))
        kept.states = kept.again()
    kept.states.save("camera", PAUSED)
    kept.clock.advance(0)
    kept.states.save("camera", FAILING)

    assert kept.flush()
    assert ["state_not_saved"] == [event for event, _ in kept.said()]
    assert [] == kept.clock.getDelayedCalls()
    assert MoveState() == kept.load()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_write_to_is_not_used(kept, mode):
    """Who may write there could pause a move, or forge how it fared: nothing is read, and nothing is put there."""
    kept.path.mkdir()
    (kept.path / "camera.json").write_bytes(PAUSED.to_json())
    kept.path.chmod(mode)

    assert MoveState() == kept.load()
    kept.states.save("scanner", FAILING)
    assert kept.flush()
    assert ["camera.json"] == os.listdir(kept.path)
    sentence = f"others can write to the directory {kept.path} (its mode is {mode:04o}): chmod go-w {kept.path}"
    assert [("state_not_read", sentence), ("state_not_saved", sentence)] == [
        (event, fields["error"]) for event, fields in kept.said()
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_not_used(kept):
    """Whoever owns it can write there."""
    kept.path.mkdir()
    os.chown(kept.path, 65534, 65534)

    assert MoveState() == kept.load()
    ((event, fields),) = kept.said()
    assert "state_not_read" == event
    assert fields["error"].startswith(f"the directory {kept.path} belongs to user 65534")


@pytest.mark.parametrize("dies_in", ["write_all", "fsync", "rename"])
def test_a_crash_leaves_the_former_state(kept, monkeypatch, dies_in):
    """Whatever is under way when the process dies, a whole state is there, and the rest is cleared away later."""

    class Killed(BaseException):
        """Nothing that comes after it is done."""

    def die(*_, **__):
        raise Killed

    kept.states.save("camera", PAUSED)
    assert kept.flush()
    with monkeypatch.context() as patch:
        patch.setattr(state_directory if dies_in == "write_all" else os, dies_in, die)
        patch.setattr(os, "unlink", lambda name, **_: (_ for _ in ()).throw(FileNotFoundError(errno.ENOENT, "")))
        with pytest.raises(Killed):
            state_directory._write(str(kept.path), {"camera": FAILING})
    assert {"camera.json", ".camera.json.new"} == set(os.listdir(kept.path))

    assert PAUSED == kept.load()
    kept.states = kept.again()
    kept.states.save("camera", FAILING)
    assert kept.flush()
    assert FAILING == kept.load()
    assert ["camera.json"] == os.listdir(kept.path)


def test_it_is_durable(kept, monkeypatch):
    """The content is synced before the name is given, and the directory after it."""
    steps = []
    for module, name in ((os, "fsync"), (os, "rename"), (state_directory, "fsync_directory")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, real=real, name=name, **kwargs: steps.append(name) or real(*args, **kwargs)
        )
    kept.states.save("camera", PAUSED)
    kept.states.save("scanner", PAUSED)
    assert kept.flush()

    assert ["fsync", "rename", "fsync", "rename", "fsync_directory"] == steps[:5]
