"""The directories of the source at the destination: made before their files, and set when no file is in flight.

Which those are, and how each is to be set, is known by `realize.mover.directories`; this asks the destination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred, DeferredLock

from realize.mover.events import End
from realize.mover.work import Work, whole
from realize.values import Attributes


class _Making:
    """A call that makes directories; holds the lock until it is answered."""

    def __init__(self, paths: set[bytes]) -> None:
        self.paths = paths
        self.lock = DeferredLock()

    def answered(self) -> Deferred[None]:
        """Fires when it is answered, at once if it has been."""
        return self.lock.run(lambda: None)


class DirectoryCopies:
    """The copies of the directories of one source."""

    def __init__(self, work: Work) -> None:
        self.incomplete = False
        """Whether something of a directory could not be kept."""
        self._work = work
        self._making: list[_Making] = []
        """Calls in flight that make directories."""

    async def make(self, paths: Sequence[bytes], here: Mapping[bytes, Attributes]) -> None:
        """Create the directories missing for these files, and wait for those that other pages are creating.

        ``here`` has the directories that the files are in.
        Raises `StoreFailed` if a store refuses a whole call.
        """
        directories = self._work.directories
        if directories is None or not paths:
            return
        earlier = list(self._making)
        directories.fill(paths, here)
        coming = {path for each in earlier for path in each.paths}
        wanted = [each for each in directories.unmade(paths) if each.path not in coming]
        if wanted:
            making = _Making({each.path for each in wanted})
            await making.lock.acquire()
            self._making.append(making)
            try:
                # Calls are worked on side by side, but a directory comes before what is in it.
                for each in earlier:
                    if any(path.rpartition(b"/")[0] in each.paths for path in making.paths):
                        await each.answered()
                if self._work.keeping is not None:
                    wanted = await self._work.keeping.new_directories(self._work.source, wanted)
                with whole(End.DESTINATION):
                    # One that cannot be made shows when a file is put there.
                    await self._work.destination.make_directories(wanted)
                directories.made(wanted)
            finally:
                self._making.remove(making)
                making.lock.release()
        for each in earlier:
            await each.answered()

    async def finish(self, waiting: Iterable[bytes] = (), *, ended: bool) -> None:
        """Set the final permissions and times of those that are done, now that no file is in flight.

        ``waiting`` and ``ended`` are as for `Directories.done`.
        The destination leaves alone directories that are not ours to change, or that are gone by now.
        Raises `StoreFailed` if a store refuses a whole call.
        """
        directories, keeping = self._work.directories, self._work.keeping
        if directories is None:
            return
        selection = self._work.options.selection
        done = directories.done(waiting, ended=ended)
        meant = [each for each in done if each.mtime_ns is not None or selection.accepts_directory(each.path)]
        if meant and keeping is not None:
            kept = await keeping.set_directories(self._work, meant)
            self.incomplete = self.incomplete or not kept
        elif meant:
            with whole(End.DESTINATION):
                await self._work.destination.set_directories(meant)
        directories.forget(done)
