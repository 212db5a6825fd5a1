"""Bounded AMP argument types: whatever arrives is in range, or raises `realize.errors.ProtocolError`.

AMP's own types convert numbers of any length and raise many kinds of errors; a missing argument is a `KeyError`.
"""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

from twisted.protocols import amp

from realize.errors import ProtocolError, UsageError
from realize.units import quoted
from realize.values import MAX_NAME_CHARS, MAX_VALUE_BYTES
from realize.wire.boxes import parse_number
from realize.wire.packing import Codec, cut

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

MAX_INTEGER = (1 << 63) - 1
"""The largest number of any argument: to the kernel, sizes and times are signed 64-bit numbers."""


class Bounded(amp.Argument):
    """Base of our types: a missing argument is a `ProtocolError` of the peer, not a `KeyError` of ours."""

    def fromBox(self, name: bytes, strings: dict[bytes, bytes], objects: dict[str, Any], proto: Any) -> None:
        """Refuse a missing argument; see `twisted.protocols.amp.IArgumentType`."""
        if name not in strings and not self.optional:
            raise ProtocolError(f"argument {name.decode('ascii')} is missing")
        super().fromBox(name, strings, objects, proto)


class Number(Bounded):
    """A non-negative decimal number from ``least`` to ``most``."""

    def __init__(self, most: int = MAX_INTEGER, *, least: int = 0, optional: bool = False) -> None:
        super().__init__(optional)
        self.least = least
        self.most = most

    def fromString(self, inString: bytes) -> int:
        """Parse."""
        number = parse_number(inString)
        if not self.least <= number <= self.most:
            raise ProtocolError(f"{number} is not between {self.least} and {self.most}")
        return number

    def toString(self, inObject: int) -> bytes:
        """Write."""
        if not self.least <= inObject <= self.most:
            raise ProtocolError(f"{inObject} is not between {self.least} and {self.most}")
        return b"%d" % inObject


class Octets(Bounded):
    """From ``least`` to ``most`` bytes."""

    def __init__(self, most: int = MAX_VALUE_BYTES, *, least: int = 0, optional: bool = False) -> None:
        super().__init__(optional)
        self.least = least
        self.most = most

    def fromString(self, inString: bytes) -> bytes:
        """Check."""
        if not self.least <= len(inString) <= self.most:
            raise ProtocolError(f"{len(inString)} bytes where {self.least} to {self.most} are allowed")
        return inString

    def toString(self, inObject: bytes) -> bytes:
        """Check."""
        return self.fromString(bytes(inObject))


class Text(Bounded):
    """UTF-8 text of at most ``most`` bytes: ours is cut to that, the peer's is refused if it is longer."""

    def __init__(self, most: int = 1_000, *, optional: bool = False) -> None:
        super().__init__(optional)
        self.most = most

    def fromString(self, inString: bytes) -> str:
        """Parse."""
        if len(inString) > self.most:
            raise ProtocolError(f"a text of {len(inString)} bytes where {self.most} are allowed")
        try:
            return inString.decode()
        except UnicodeDecodeError:
            raise ProtocolError("a text that is not UTF-8") from None

    def toString(self, inObject: str) -> bytes:
        """Write."""
        return cut(inObject, self.most)


class Name(Text):
    """The name of something at the other end: one that is too long is not sent, since a cut one may be another's."""

    def __init__(self, *, optional: bool = False) -> None:
        super().__init__(MAX_NAME_CHARS, optional=optional)

    def toString(self, inObject: str) -> bytes:
        """Check, and write."""
        if len(inObject.encode(errors="replace")) > self.most:
            raise UsageError(f"{quoted(inObject)} is too long for a name: expected at most {self.most} characters")
        return super().toString(inObject)


class Flag(Bounded):
    """``True`` or ``False``, spelled exactly like that."""

    def fromString(self, inString: bytes) -> bool:
        """Parse."""
        if inString not in {b"True", b"False"}:
            raise ProtocolError(f"{inString[:20]!r} is neither True nor False")
        return inString == b"True"

    def toString(self, inObject: bool) -> bytes:  # noqa: FBT001 -- Twisted's signature
        """Write."""
        return b"True" if inObject else b"False"


class Choice(Bounded, Generic[E]):
    """A member of an enum, by its name in lower case."""

    def __init__(self, kind: type[E], *, optional: bool = False) -> None:
        super().__init__(optional)
        self._kind = kind
        self._members = {member.name.lower().encode(): member for member in kind}

    def fromString(self, inString: bytes) -> E:
        """Parse."""
        member = self._members.get(inString)
        if member is None:
            raise ProtocolError(f"{inString[:40]!r} is no {self._kind.__name__}")
        return member

    def toString(self, inObject: E) -> bytes:
        """Write."""
        return inObject.name.lower().encode()


class Packed(Bounded, Generic[T]):
    """A list, as `realize.wire.packing` packs it."""

    def __init__(self, codec: Codec[T], *, optional: bool = False) -> None:
        super().__init__(optional)
        self.codec = codec

    def fromString(self, inString: bytes) -> list[T]:
        """Unpack."""
        return self.codec.unpack(inString)

    def toString(self, inObject: list[T]) -> bytes:
        """Pack."""
        return self.codec.pack(inObject)


class PackedOne(Packed[T]):
    """Exactly one value of a codec."""

    def fromString(self, inString: bytes) -> Any:
        """Unpack."""
        items = self.codec.unpack(inString)
        if len(items) != 1:
            raise ProtocolError(f"{len(items)} {self.codec.name} instead of one")
        return items[0]

    def toString(self, inObject: Any) -> bytes:
        """Pack."""
        return self.codec.pack([inObject])
