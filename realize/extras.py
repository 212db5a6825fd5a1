"""Owners, access control lists and extended attributes as values; loaded only where they are asked for."""

from __future__ import annotations

from itertools import product
from typing import Final

from realize.by_value import ByValue
from realize.values import Preserve, Version, frozen

_KINDS_OF: Final = {
    given: frozenset(
        kind for kind, there in zip((Preserve.OWNER, Preserve.ACL, Preserve.XATTR), given, strict=True) if there
    )
    for given in product((False, True), repeat=3)
}
"""The kinds that there are, by whether there is an owner, a list, and whether there are extended attributes."""


@frozen(eq=False, repr=False)
class Owner(ByValue):
    """The owner and the group of a file, by number and by name where it is; a name is empty if there is none."""

    uid: int
    gid: int
    user: bytes = b""
    group: bytes = b""


@frozen(eq=False, repr=False)
class Extras(ByValue):
    """What is carried over besides content, time and permission bits, if it is asked for.

    None stands for what was not asked for.
    ``acl``, ``default_acl`` (of a directory) and ``xattrs`` have the forms of `realize.fs.acls` and
    `realize.fs.xattrs`, and take at most `MAX_EXTRAS_BYTES` together; an empty one says that the file has none.
    """

    owner: Owner | None = None
    acl: bytes | None = None
    default_acl: bytes | None = None
    xattrs: bytes | None = None
    numeric: bool = False
    """Whether numbers count, whatever the names."""
    lenient: frozenset[Preserve] = frozenset()
    """What need not be kept if it cannot be."""
    leaves: frozenset[Preserve] = frozenset()
    """Of mode and time, what is not carried over."""

    @property
    def kinds(self) -> frozenset[Preserve]:
        """What of it was asked for."""
        return _KINDS_OF[self.owner is not None, self.acl is not None, self.xattrs is not None]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        names = 0 if self.owner is None else len(self.owner.user) + len(self.owner.group)
        return names + len(self.acl or b"") + len(self.default_acl or b"") + len(self.xattrs or b"")


@frozen(eq=False, repr=False)
class WantedExtras(ByValue):
    """What is to be carried over of each file; the rest is as in `Extras`."""

    kinds: frozenset[Preserve]
    numeric: bool = False
    lenient: frozenset[Preserve] = frozenset()
    leaves: frozenset[Preserve] = frozenset()


@frozen(eq=False, repr=False)
class FoundExtras(ByValue):
    """What is carried over of a file, directory or symlink, and the version that it was read from."""

    extras: Extras
    version: Version
