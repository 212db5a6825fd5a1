"""`StateDirectory`: keeps what standing moves remember, a file for each of them below the directory ``state``.

Files are replaced as a whole, and durable: a reader, or the next daemon, sees the former state or the new one.
All reading and writing is done in a thread, one batch at a time, at most every `SAVE_INTERVAL_S`, and where the disk is
slow for at most a tenth of the time.
A directory that others can write to is not used: who can put a state there can pause a move.
Nothing here stops a move: what cannot be kept is said once in the log, and tried again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Mapping
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from realize.by_value import ByValue
from realize.concurrency.shielded import RunInThread
from realize.fs.descriptors import release
from realize.fs.durable import write_all
from realize.fs.own_directories import put_by_others
from realize.fs.own_files import OWN_FILES
from realize.fs.syscalls import fsync_directory
from realize.logger import Logger
from realize.moves.state import MAX_STATE_BYTES, MoveState

SAVE_INTERVAL_S: Final = 1.0
"""The shortest pause between two writes."""

SAVE_RETRY_S: Final = 30.0
"""Pause before states are written again that could not be written."""

_MAX_BUSY_FRACTION: Final = 0.1
"""How much of the time is spent writing at most, unless somebody waits for it."""

_STATE_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STATE_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_Batch = Mapping[str, MoveState | None]
"""States by the name of the move; None for one that is to be forgotten."""


@frozen(eq=False, repr=False)
class _Written(ByValue):
    """What came of a batch: the error of each move that failed, and how many seconds it took."""

    errors: Mapping[str, str]
    seconds: float


class StateDirectory:
    """The states of all moves of a daemon.

    ``path`` is the directory, which is made if only it is missing; with None nothing is kept.
    Names of moves are those that `realize.config` allows, so they are names of files as they are.
    """

    def __init__(self, path: str | None, *, clock: IReactorTime, run_in_thread: RunInThread, log: Logger) -> None:
        self._path = path
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._log = log
        self._changed: dict[str, MoveState | None] = {}
        self._written: dict[str, MoveState | None] = {}
        self._failing: set[str] = set()
        """Moves whose last write failed."""
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._not_before = clock.seconds()

    def load(self, name: str) -> Deferred[MoveState]:
        """The state of the move when it was last saved; a new one if there is none that can be read."""
        if self._path is None:
            return succeed(MoveState())
        if name in self._changed:  # the file is not what it is to be yet
            return succeed(self._changed[name] or MoveState())
        loaded: Deferred[MoveState] = maybeDeferred(self._run_in_thread, _read, self._path, name)
        return loaded.addCallbacks(self._loaded, self._not_loaded, callbackArgs=(name,), errbackArgs=(name,))

    def _loaded(self, state: MoveState, name: str) -> MoveState:
        self._written.setdefault(name, state)
        return state

    def _not_loaded(self, failure: Failure, name: str) -> MoveState:
        self._log.warning("state_not_read", directory=self._path, move=name, error=_sentence(failure.value))
        return MoveState()

    def save(self, name: str, state: MoveState) -> None:
        """Keep the state of the move, soon."""
        self._change(name, state)

    def forget(self, name: str) -> None:
        """Remove the state of a move that is no more, soon."""
        self._change(name, None)

    def _change(self, name: str, state: MoveState | None) -> None:
        if self._path is None:
            return
        self._changed[name] = state
        self._plan()

    def _plan(self) -> None:
        if self._timer is None and self._writing is None and self._changed:
            delay = max(0.0, self._not_before - self._clock.seconds())
            self._timer = self._clock.callLater(delay, self._begin)

    def flush(self) -> Deferred[None]:
        """Write now what is not yet written; fires when that is done, or was tried once more in vain.

        No timer is left then, and nothing is tried again unless something is saved.
        """
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        await self._written_so_far()
        while True:
            self._begin()
            await self._written_so_far()
            if not self._changed or self._failing:
                break
        self._cancel()

    async def _written_so_far(self) -> None:
        while self._writing is not None:
            await _when(self._writing)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _begin(self) -> None:
        self._cancel()
        path, changed, self._changed = self._path, self._changed, {}
        batch = {name: state for name, state in changed.items() if self._differs(name, state)}
        if path is None or not batch:
            return
        self._writing = Deferred()
        saved: Deferred[_Written] = maybeDeferred(self._run_in_thread, _write, path, batch)
        saved.addCallbacks(self._end, self._end_in_vain, callbackArgs=(batch,), errbackArgs=(batch,))

    def _end_in_vain(self, failure: Failure, batch: _Batch) -> None:
        self._end(_Written(dict.fromkeys(batch, _sentence(failure.value)), 0.0), batch)

    def _differs(self, name: str, state: MoveState | None) -> bool:
        return name in self._failing or name not in self._written or self._written[name] != state

    def _end(self, saved: _Written, batch: _Batch) -> None:
        for name, state in batch.items():
            if name in saved.errors:
                self._changed.setdefault(name, state)
                self._written.pop(name, None)
            elif state is None:
                self._written.pop(name, None)
            else:
                self._written[name] = state
        self._tell(saved, batch)
        pause = SAVE_RETRY_S if saved.errors else max(SAVE_INTERVAL_S, saved.seconds / _MAX_BUSY_FRACTION)
        self._not_before = self._clock.seconds() + pause
        writing, self._writing = self._writing, None
        self._plan()
        if writing is not None:
            writing.callback(None)

    def _tell(self, saved: _Written, batch: _Batch) -> None:
        """Log when it begins and when it ends that states cannot be kept, whatever the number of moves."""
        failed_before = bool(self._failing)
        self._failing.difference_update(batch)
        self._failing.update(saved.errors)
        if self._failing and not failed_before:
            name, error = next(iter(saved.errors.items()))
            self._log.error("state_not_saved", directory=self._path, move=name, error=error)
        elif failed_before and not self._failing:
            self._log.info("state_saved_again", directory=self._path)


def _when(event: Deferred[None]) -> Deferred[None]:
    """A Deferred of one's own that fires after another one."""
    fired: Deferred[None] = Deferred()
    event.addCallback(lambda _: fired.callback(None))
    return fired


def _sentence(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _file(name: str) -> str:
    return f"{name}.json"


def _new(name: str) -> str:
    return f".{name}.json.new"  # no name of a move begins with a dot


def _read(path: str, name: str) -> MoveState:
    for own in (_file(name), _new(name)):  # by name, too: the directory itself may be a source, or be served
        OWN_FILES.add(os.path.join(path, own))
    try:
        directory = _opened(path)
        try:
            fd = os.open(_file(name), _STATE_READ_FLAGS, dir_fd=directory)
        finally:
            release(directory)
    except FileNotFoundError:
        return MoveState()
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is not a regular file")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(MAX_STATE_BYTES + 1)
    finally:
        release(fd)
    return MoveState.from_json(content)


def _opened(path: str) -> int:
    """The directory; raises `OSError` if others could put states there, and so pause moves."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    others = put_by_others(os.fstat(directory), path)
    if others is not None:
        release(directory)
        raise OSError(errno.EPERM, others)
    return directory


def _write(path: str, batch: _Batch) -> _Written:
    """Write all of a batch; raises `OSError` if the directory cannot be used at all."""
    began = time.monotonic()
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    directory = _opened(path)
    errors = {}
    try:
        for name, state in batch.items():
            try:
                _write_one(directory, name, state)
            except OSError as error:
                errors[name] = _sentence(error)
        fsync_directory(directory)
    finally:
        release(directory)
    return _Written(errors, time.monotonic() - began)


def _write_one(directory: int, name: str, state: MoveState | None) -> None:
    _remove(directory, _new(name))  # what a crash has left
    if state is None:
        _remove(directory, _file(name))
        return
    fd = os.open(_new(name), _STATE_WRITE_FLAGS, 0o600, dir_fd=directory)
    try:
        write_all(fd, state.to_json())
        os.fsync(fd)
        os.rename(_new(name), _file(name), src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(_new(name), dir_fd=directory)
        raise
    finally:
        release(fd)


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
