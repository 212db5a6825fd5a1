"""What a directory accepts beside content, permission bits and times; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve

from realize.by_value import ByValue
from realize.errors import NotKept
from realize.values import (
    EXTRAS,
    USUALLY_PRESERVED,
    Attributes,
    Directory,
    Expected,
    Preserve,
    SmallFile,
)

if TYPE_CHECKING:
    from realize.extras import Extras

_WithAttributes = TypeVar("_WithAttributes", SmallFile, Expected)


@define(eq=False, repr=False)
class Acceptance(ByValue):
    """What may be set in a directory; shared by all stores of it, and may be changed at any time.

    The default is for a directory of the user here, who decides by what is asked for.
    """

    kinds: frozenset[Preserve] = EXTRAS

    @property
    def all_kinds(self) -> frozenset[Preserve]:
        """What may be set, mode and time included."""
        return USUALLY_PRESERVED | self.kinds

    def attributes(self, asked: Attributes | None, path: bytes) -> Attributes | None:
        """Return what is accepted of attributes; raises `NotKept` for anything else that has to be kept."""
        if asked is None or asked.extras is None or asked.extras.kinds <= self.kinds:
            return asked
        return evolve(asked, extras=self.extras(asked.extras, path), mode=self._mode(asked.mode, asked.extras))

    def of(self, asked: _WithAttributes) -> _WithAttributes | NotKept:
        """Return a file with what is accepted of its attributes, or the error."""
        try:
            accepted = self.attributes(asked.attributes, asked.path)
        except NotKept as error:
            return error
        return asked if accepted is asked.attributes else evolve(asked, attributes=accepted)

    def directory(self, asked: Directory, *, strict: bool) -> Directory | NotKept:
        """Return a directory with what is accepted for it; if ``strict``, the error for anything else."""
        if asked.extras is None or asked.extras.kinds <= self.kinds:
            return asked
        meant = asked.extras if strict else evolve(asked.extras, lenient=asked.extras.kinds)
        try:
            return evolve(asked, extras=self.extras(meant, asked.path), mode=self._mode(asked.mode, asked.extras))
        except NotKept as error:
            return error

    def _mode(self, mode: int, asked: Extras) -> int:
        """Return which permission bits something gets that may lose its list: nobody gains by that."""
        if Preserve.ACL in self.kinds or not asked.acl:
            return mode
        from realize.fs.acls import most_without

        return mode & most_without(asked.acl)

    def extras(self, asked: Extras, path: bytes) -> Extras:
        """Return what is accepted of it; raises `NotKept` for anything else that has to be kept."""
        refused = asked.kinds - self.kinds
        if not refused:
            return asked
        # A directory that accepts all of it loads nothing for that.
        from realize.store.local.extras import not_kept

        for kind in sorted(refused - asked.lenient, key=lambda each: each.value):
            raise not_kept(kind, path, "the directory does not accept it")
        return evolve(
            asked,
            owner=None if Preserve.OWNER in refused else asked.owner,
            acl=None if Preserve.ACL in refused else asked.acl,
            default_acl=None if Preserve.ACL in refused else asked.default_acl,
            xattrs=None if Preserve.XATTR in refused else asked.xattrs,
        )
