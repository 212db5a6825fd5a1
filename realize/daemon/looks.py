"""Looking whether the directories to be served are there, in threads that nobody waits for.

A dead disk or mount may never answer, so a look may never end, and the end of the process must not depend on it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from realize.by_value import ByValue
from realize.config import Config, DirectoryConfig
from realize.fs.descriptors import release
from realize.fs.mounts import is_at_or_below, mount_point_of
from realize.fs.oserrors import Deed, reason
from realize.fs.own_files import OWN_FILES
from realize.fs.tree import Inode, identity_of

T = TypeVar("T")

DISK_ANSWER_S: Final = 5.0
"""How long to wait for the disks of the configured directories to answer."""


@frozen(eq=False, repr=False)
class FoundDirectory(ByValue):
    """The directory that a look has found, and where its file system is mounted; None if that cannot be told."""

    identity: Inode
    mount: bytes | None


@frozen(eq=False, repr=False)
class Missing(ByValue):
    """Why there is none, in words that name no path: peers read them."""

    why: str
    hangs: bool = False
    """Whether that is because its disk does not answer."""


Sight = FoundDirectory | Missing
"""What a look has found."""

SILENT: Final = Missing("its disk does not answer", hangs=True)

UNMOUNTED: Final = Missing("its file system is not mounted")


def look(directory: DirectoryConfig) -> Sight:
    """Look for a directory; takes as long as its disk takes."""
    try:
        fd = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return Missing(reason(error, Deed.OPEN))
    try:
        found = FoundDirectory(identity_of(os.fstat(fd)), mount_point_of(fd))
        if directory.mount is not None and not _is_mounted_at(found.mount, directory.mount):
            return UNMOUNTED
    except OSError as error:
        return Missing(reason(error, Deed.OPEN))
    else:
        return found
    finally:
        release(fd)


def look_at(directories: Mapping[str, DirectoryConfig]) -> dict[str, Sight]:
    """Look for all of them at once; those whose disks do not answer within `DISK_ANSWER_S` are `SILENT`.

    Blocks for as long, so call it in a thread where that is too long.
    """
    seen = answers_in_time([partial(look, directory) for directory in directories.values()], DISK_ANSWER_S)
    return {name: sight or SILENT for name, sight in zip(directories, seen, strict=True)}


def note_own_files(config: Config) -> None:
    """Note where the daemon keeps files of its own; blocks as `look_at` does."""
    named = [config.key, *config.former_keys, config.state, *(move.manifest for move in config.moves.values())]
    paths = OWN_FILES.paths.union(path for path in named if isinstance(path, str))
    answers_in_time([partial(OWN_FILES.add, path, mounts=True) for path in paths], DISK_ANSWER_S)


def answers_in_time(asked: Sequence[Callable[[], T]], within_s: float) -> list[T | None]:
    """Ask disks all at once, so that several that hang take no longer than one; None for what has no answer by then.

    What is asked raises nothing.
    """
    answers: list[T | None] = [None] * len(asked)

    def note(number: int) -> None:
        answers[number] = asked[number]()

    threads = [_start(note, number) for number in range(len(asked))]
    until = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(answers)


def look_later(reactor: IReactorFromThreads, directory: DirectoryConfig) -> Deferred[Sight]:
    """Look for one; fires when its disk has answered, perhaps never."""
    seen: Deferred[Sight] = Deferred()

    def tell() -> None:
        sight = look(directory)
        if isinstance(sight, FoundDirectory):
            OWN_FILES.look_again(directory.path)
        try:
            reactor.callFromThread(seen.callback, sight)
        except RuntimeError:
            return  # the reactor's loop, that of asyncio, is closed: nobody waits any more

    _start(tell)
    return seen


def _is_mounted_at(mount: bytes | None, expected: str) -> bool:
    return mount is not None and is_at_or_below(mount, os.fsencode(os.path.realpath(expected)))


def _start(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True, name="look")
    thread.start()
    return thread
