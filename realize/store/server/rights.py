"""What a peer may do in a directory: every command that names one asks here before anything is done.

Decides, logs what is denied, and touches nothing; the rights themselves come from the configuration.
A directory that does not exist and one without rights get the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from attrs import field, frozen

from realize.by_value import ByValue
from realize.config import Right
from realize.errors import AccessDenied, Conflict, NotKept
from realize.logger import Logger
from realize.store.origin import origin_of
from realize.units import display_name
from realize.values import Attributes, OnConflict, Use

_T = TypeVar("_T")

PUT: Final = (Right.WRITE, Right.CREATE)
"""Rights of which either allows a peer to put files."""

_NEEDED: Final[Mapping[Use, tuple[tuple[Right, ...], ...]]] = {
    Use.READ: ((Right.READ,),),
    Use.MOVE: ((Right.READ,), (Right.REMOVE,)),
    Use.PUT: (PUT,),
    Use.COMPARE: (PUT,),
}
"""For each use, groups of rights; a peer needs one of each group."""


@frozen(eq=False, repr=False)
class DirectoryRights(ByValue):
    """What one peer may do in one directory."""

    directory: str
    granted: frozenset[Right]
    _log: Logger = field(eq=False, repr=False)

    def require(self, *one_of: Right) -> None:
        """Raise `AccessDenied`, naming the first of them, unless the peer has one of these rights."""
        if self.granted.isdisjoint(one_of):
            self._log.warning("access_denied", dir=self.directory, right=one_of[0].value)
            raise AccessDenied(f"this peer may not {one_of[0].value} in {self.directory}")

    def require_for(self, use: Use) -> None:
        """Raise `AccessDenied` unless the peer may use files in this way."""
        for group in _NEEDED[use]:
            self.require(*group)

    @property
    def replaces(self) -> bool:
        """Whether the peer may change what is there."""
        return Right.WRITE in self.granted

    def not_kept(self, path: bytes, attributes: Attributes | None) -> NotKept | None:
        """The error for a file that is there, and may lack what a peer wants to have kept that may not change it.

        Else it would remove a source whose attributes are nowhere else.
        """
        extras = None if attributes is None else attributes.extras
        if self.replaces or extras is None or not extras.kinds - extras.lenient:
            return None
        note = "is there with the same content; this peer may create files, but not change attributes"
        return NotKept(f"{display_name(path)}: {note}")

    def policy(self, asked: OnConflict) -> OnConflict:
        """Return the policy for a name that is taken: without the right to replace, `REPLACE` becomes `FAIL`."""
        return OnConflict.FAIL if asked is OnConflict.REPLACE and not self.replaces else asked

    def said(self, error: _T) -> _T | Conflict:
        """Return ``error``; to a conflict, add that the peer may not replace files, if that may be the reason."""
        if not isinstance(error, Conflict) or self.replaces:
            return error
        return Conflict(f"{error}; this peer may create files there, but not replace any")

    def origin(self, key: bytes, named: bytes | None) -> bytes | None:
        """Return the origin whose content alone the store may compare; None, anything, for a peer that may read it.

        A peer that may read can still name an origin, to restrict what it learns on behalf of another.
        The origin it names is combined with its own ``key``, because another peer could name the same one.
        """
        if Right.READ in self.granted and named is None:
            return None
        return origin_of(key, named or b"")


def rights_in(directory: str, granted: Mapping[str, frozenset[Right]], log: Logger) -> DirectoryRights:
    """Return what a peer may do in a directory; raises `AccessDenied` for one without any right, if it exists or not.

    ``granted`` are the rights of the peer, by name of the directory.
    """
    rights = granted.get(directory, frozenset())
    if not rights:
        log.warning("access_denied", dir=display_name(directory.encode()), right="any")
        raise AccessDenied(f"no directory {display_name(directory.encode())} is open to this peer")
    return DirectoryRights(directory, rights, log)
