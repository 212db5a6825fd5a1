"""Giving files other names, for a thread: link(2), which is atomic, and replaces nothing.

What is linked is the inode that was looked at, through its descriptor, whatever has its name by then.
Only a file is linked that is known to the store (`realize.store.local.known_files`) and unchanged since: then its
source may be removed because it has the name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from realize.by_value import ByValue
from realize.errors import NotFound, NotRegular, RealizeError
from realize.fs import names
from realize.fs.descriptors import release
from realize.fs.syscalls import BTRFS, NO_LINKS, file_system, fresh_fstat, fresh_stat, link_open_file
from realize.fs.tree import Inode, Tree, identity_of
from realize.store.hooks import CommitHooks
from realize.store.local.existing import Vouching
from realize.store.local.headroom import Headroom, refuse_reserve
from realize.store.local.location import RootedLocation
from realize.store.local.new_names import make_names
from realize.store.local.partial_marks import MARK, is_ours
from realize.store.local.versions import LINK_FLAGS, open_regular, version_of
from realize.values import HardLink, HardLinked

_UNLINKABLE: Final = NO_LINKS | {errno.EXDEV, errno.EEXIST, errno.ENOENT}
"""Errors of link(2) after which the content can be sent all the same."""


@frozen(eq=False, repr=False)
class Linking(ByValue):
    """Makes the hard links of one batch."""

    location: RootedLocation
    vouching: Vouching
    watch: CommitHooks
    headroom: Headroom

    def link(self, links: Sequence[HardLink]) -> list[HardLinked | RealizeError]:
        """Make them, in this order, and make them durable; return for each how that went."""
        with self.location.tree(private=True) as tree:
            free = self.headroom.free(tree.root_fd) if self.headroom.reserve else None

            def make(link: HardLink) -> tuple[tuple[bytes, ...] | None, HardLinked]:
                directory, name = self.location.split(link.path)
                with self.vouching.known.linking:
                    answer = self._link(tree, directory, name, link, free)
                return None if answer is HardLinked.NOT_LINKED else directory, answer

            # Older btrfs leaves new names of a file out of what an fsync of a directory makes durable.
            return make_names(tree, links, make, lambda: file_system(tree.root_fd) == BTRFS, self.watch)

    def _link(
        self, tree: Tree, directory: tuple[bytes, ...], name: bytes, link: HardLink, free: int | None
    ) -> HardLinked:
        if names.is_partial(name) or names.is_temporary_link(name):
            return HardLinked.NOT_LINKED
        there, of = self.location.split(link.to)
        try:
            from_fd = tree.directory(there)
            fd = os.open(of, LINK_FLAGS, dir_fd=from_fd)
        except (FileNotFoundError, NotFound):
            return HardLinked.NOT_LINKED
        try:
            before = fresh_fstat(fd)
            # An error would tell of partials of other peers.
            if names.is_partial(of) and is_ours(from_fd, of, before):
                return HardLinked.NOT_LINKED
            # A mark that a power cut has left is cleared by comparing the file, not here.
            linkable = stat.S_ISREG(before.st_mode) and not before.st_mode & MARK
            if not linkable or not self.vouching.known.has(identity_of(before), before.st_ctime_ns, link.digest):
                return HardLinked.NOT_LINKED
            if free is not None and free < len(name):
                found = self._if_there(tree, directory, name, link, identity_of(before))
                if found is HardLinked.NOT_LINKED:
                    refuse_reserve(link.path, free, len(name))
                return found
            directory_fd = tree.directory(directory, create=True)
            try:
                link_open_file(fd, name, directory_fd)
            except OSError as error:
                if error.errno not in _UNLINKABLE:
                    raise
            else:
                after = fresh_fstat(fd)
                self.vouching.known.linked(identity_of(after), after.st_ctime_ns)
                written = (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
                return HardLinked.NOT_LINKED if written else HardLinked.CREATED
            return self._judged(tree, directory, name, link, identity_of(before))
        finally:
            release(fd)

    def _if_there(
        self, tree: Tree, directory: tuple[bytes, ...], name: bytes, link: HardLink, inode: Inode
    ) -> HardLinked:
        """Judge a name that may not be made, since the reserve is in use."""
        try:
            return self._judged(tree, directory, name, link, inode)
        except NotFound:
            return HardLinked.NOT_LINKED

    def _judged(
        self, tree: Tree, directory: tuple[bytes, ...], name: bytes, link: HardLink, inode: Inode
    ) -> HardLinked:
        """Return whether a name that was not made is one of the known file already, which is made sure of then."""
        directory_fd = tree.directory(directory)
        try:
            status = fresh_stat(name, directory_fd)
            known = self.vouching.known.has(inode, status.st_ctime_ns, link.digest)
            if identity_of(status) != inode or not known:
                return HardLinked.NOT_LINKED
            fd, opened = open_regular(tree, directory, name, link.path)
        except (FileNotFoundError, NotRegular):
            return HardLinked.NOT_LINKED
        try:
            version = version_of(opened)
            if version != version_of(status):
                return HardLinked.NOT_LINKED
            vouched = self.vouching.vouch(fd, tree, directory, name, version, None)
        finally:
            release(fd)
        if vouched is None:
            return HardLinked.NOT_LINKED
        self.vouching.known.linked(inode, vouched.ctime_ns)
        return HardLinked.ALREADY_THERE
