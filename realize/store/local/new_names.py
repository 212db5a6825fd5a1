"""Making many names, such as those of links, and making them durable together before anybody is answered.

For a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from realize.errors import InternalError, RealizeError
from realize.fs.durable import change_nothing
from realize.fs.oserrors import Deed, storage_error
from realize.fs.tree import Tree
from realize.store.hooks import CommitHooks, Sync
from realize.store.local.group_commit import note_arrivals, sync_directories
from realize.store.local.small_files import open_anchor


class _HasPath(Protocol):
    @property
    def path(self) -> bytes: ...


_Item = TypeVar("_Item", bound=_HasPath)
_Answer = TypeVar("_Answer")

_NOT_MADE: Final = InternalError("was not made")


def make_names(
    tree: Tree,
    items: Sequence[_Item],
    make: Callable[[_Item], tuple[tuple[bytes, ...] | None, _Answer]],
    needs_whole: Callable[[], bool],
    watch: CommitHooks,
) -> list[_Answer | RealizeError]:
    """Make the name of each item, in this order, and make them durable; return for each how that went.

    ``make`` returns the directory of the name, None if there is nothing to make durable, and its answer.
    ``needs_whole`` says whether it takes the whole file system to make them durable.
    """
    # Allocated in advance, so that no name is made and then lost because its answer cannot be appended.
    answers: list[_Answer | RealizeError] = [_NOT_MADE] * len(items)
    directories: list[tuple[bytes, ...] | None] = [None] * len(items)
    anchor = open_anchor(tree)
    try:
        for number, item in enumerate(items):
            try:
                directories[number], answers[number] = make(item)
            except RealizeError as error:
                answers[number] = error
            except (OSError, MemoryError) as error:
                answers[number] = storage_error(error, item.path, Deed.CREATE)
        if None in directories:
            tree.unmake(tree.made)  # those that stayed empty
        changed = {directory for directory in directories if directory is not None}
        note_arrivals(tree, changed)
        whole = bool(changed) and needs_whole()
        if not whole:
            for directory in changed:
                with contextlib.suppress(OSError, RealizeError):  # the sync will tell
                    change_nothing(tree.directory(directory))
        with watch.syncing(Sync.DIRECTORIES):
            failed = sync_directories(tree, changed, anchor, whole=whole)
    finally:
        if anchor is not None:
            anchor.close()
    return [
        failed.get(directory, answer) if directory is not None else answer
        for directory, answer in zip(directories, answers, strict=True)
    ]
