"""The directories that the daemon serves, as stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from realize.config import DirectoryConfig
from realize.errors import StorageError
from realize.store.brief import BriefWork
from realize.store.commit import Committer
from realize.store.local import LocalStore, root_identity
from realize.store.threads import RunInThread
from realize.store.tree import Identity
from realize.store.watching import CommitWatch
from realize.units import display_text


@frozen
class ServedDirectory:
    """One directory, as it was when the configuration was read.

    All stores of it share a committer, so that files of different peers are committed together.
    """

    path: str
    identity: Identity
    committer: Committer
    run_in_thread: RunInThread
    run_briefly: RunInThread

    def store(self, base: bytes) -> LocalStore:
        """The files below ``base``."""
        return LocalStore(
            self.path,
            base,
            run_in_thread=self.run_in_thread,
            run_briefly=self.run_briefly,
            root_identity=self.identity,
            committer=self.committer,
        )


def serve_directories(
    directories: Mapping[str, DirectoryConfig],
    run_in_thread: RunInThread,
    clock: IReactorTime,
    watch: Callable[[str], CommitWatch],
) -> dict[str, ServedDirectory]:
    """Look at every directory once; raises `StorageError` if one cannot be reached.

    ``watch`` makes for each name what is told of the commits.
    """
    served = {}
    for name, directory in directories.items():
        try:
            identity = root_identity(directory.path)
        except OSError as error:
            raise StorageError(f"dirs.{name}.path: {display_text(directory.path)}: {error.strerror}") from error
        committer = Committer(run_in_thread, watch(name))
        briefly = BriefWork(run_in_thread, clock).run
        served[name] = ServedDirectory(directory.path, identity, committer, run_in_thread, briefly)
    return served
