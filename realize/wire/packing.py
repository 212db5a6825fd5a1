"""Lists of values as one AMP value of at most 65,535 bytes, and back.

Pure codecs.
A pack consists of its items, one after the other in network byte order, up to the end of the value; every item has at
least one byte.
Reading is strict: anything truncated, left over or out of range, and more than `Codec.most` items, raise
`realize.errors.ProtocolError`, and never anything else.
``docs/protocol.md`` describes the layouts; a change here is a change of the protocol.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat, starmap
from operator import is_
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from realize.by_value import ByValue
from realize.errors import BadName, InternalError, ProtocolError, RealizeError, every_error
from realize.leaving import MAX_RULES
from realize.units import display_text
from realize.values import (
    CHUNK_DIGEST_BYTES,
    DIGEST_BYTES,
    MAX_ALIKE_FILES,
    MAX_COMPONENT_BYTES,
    MAX_EXTRAS_BYTES,
    MAX_OFFERED_CHUNKS,
    MAX_TARGET_BYTES,
    MAX_VALUE_BYTES,
    NOTHING,
    Attributes,
    Backup,
    Chunk,
    Committed,
    Content,
    Directory,
    Entry,
    Existing,
    Expected,
    FoundSymlink,
    HardLink,
    HardLinked,
    Kind,
    Linked,
    Preserve,
    Removal,
    Seen,
    Siblings,
    Sized,
    SmallFile,
    Stored,
    Symlink,
    Vacant,
    Version,
    frozen,
)

if TYPE_CHECKING:
    from realize.extras import Extras, FoundExtras

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

MAX_PACK_ITEMS: Final = 256
"""Most items of a pack that is answered item by item: this many short errors still fit one value."""

MAX_ERROR_TEXT_BYTES: Final = 1_000
"""Longest text of an error, in UTF-8."""

_SHORT_TEXT_BYTES: Final = 200
_MAX_TOKEN_BYTES: Final = 64
"""Longest identity token, obstacle or wire code."""

_USUAL_TOKEN_BYTES: Final = 16
"""The length of the identity tokens that our stores make."""

_ERRORS: Final[dict[bytes, type[RealizeError]]] = {
    error.wire_code: error for error in reversed(list(every_error())) if error is not RealizeError
}


def harmless(text: str) -> str:
    """Return a text from the peer in a form that is safe to show: anything that could break or forge a line is escaped.

    Unlike `realize.units.display_text`, this keeps backslashes: the peer has already escaped the names in the text.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else display_text(character) for character in text)


def error_of(code: bytes, text: str) -> RealizeError:
    """Return the error that a wire code stands for, `InternalError` for one that a later minor version has added."""
    known, text = _ERRORS.get(code), harmless(text)
    if known is None:
        return InternalError(f"{text} ({code[:40]!r})")
    return known(text)


def cut(text: str, most: int) -> bytes:
    """Return ``text`` in UTF-8, cut to at most ``most`` bytes without splitting a character."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data
    return data[:most].decode("utf-8", "ignore").encode()


class Cursor:
    """Reads one pack from start to end; every method raises `ProtocolError` if the data is not as it should be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._end = len(data)

    def __bool__(self) -> bool:
        """Return whether anything is left."""
        return self._position < self._end

    # There are several calls of these for each file, so each of them looks for itself whether enough is left.

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        position = self._position
        self._position = end = position + length
        if end > self._end:
            raise _truncated()
        return self._data[position:end]

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the next fixed-size fields."""
        position = self._position
        self._position = end = position + layout.size
        if end > self._end:
            raise _truncated()
        return layout.unpack_from(self._data, position)

    def ahead(self, layout: struct.Struct) -> tuple[Any, ...] | None:
        """Return the next fixed-size fields without going on, or None if less is left."""
        position = self._position
        return layout.unpack_from(self._data, position) if position + layout.size <= self._end else None

    def since(self, start: int) -> bytes:
        """Return what was read since ``start`` bytes were left."""
        return self._data[self._end - start : self._position]

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self._end - self._position

    def again(self, data: bytes) -> bool:
        """Return whether that is next, and go on behind it if it is."""
        if not self._data.startswith(data, self._position):
            return False
        self._position += len(data)
        return True

    def byte(self) -> int:
        """Return the next byte."""
        position = self._position
        if position >= self._end:
            raise _truncated()
        self._position = position + 1
        return self._data[position]

    def octets(self, most: int = MAX_VALUE_BYTES) -> bytes:
        """Return the next byte string, which follows its 16-bit length."""
        data, start = self._data, self._position + _U16.size
        if start > self._end:
            raise _truncated()
        length = data[start - 2] << 8 | data[start - 1]
        if length > most:
            raise ProtocolError(f"a string of {length} bytes where {most} are allowed")
        self._position = end = start + length
        if end > self._end:
            raise _truncated()
        return data[start:end]

    def text(self, most: int = MAX_ERROR_TEXT_BYTES) -> str:
        """Return the next byte string as text, decoded from UTF-8 and made `harmless`."""
        try:
            return harmless(self.octets(most).decode())
        except UnicodeDecodeError:
            raise ProtocolError("a text that is not UTF-8") from None

    def choice(self, kind: type[E]) -> E:
        """Return the enum member whose value is the next byte."""
        return _member(kind, self.byte())

    def flags(self, known: int) -> int:
        """Return the next byte as flags, of which only ``known`` may be set."""
        number = self.byte()
        if number & ~known:
            raise ProtocolError(f"unknown flags {number:#x}")
        return number


def _truncated() -> ProtocolError:
    return ProtocolError("a truncated pack")


_MAX_OCTETS: Final = MAX_VALUE_BYTES - 2
"""The longest byte string that fits a value, with its length."""

_U8: Final = struct.Struct(">B")
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_SIZE: Final = struct.Struct(">q")
_SMALL: Final = struct.Struct(f">I{DIGEST_BYTES}s")
_USUAL_HEAD: Final = struct.Struct(f">I{DIGEST_BYTES}sBqHBH")
"""What comes before the path of a small file with attributes (1) without conditions (0), as nearly all are."""
_ENTRY: Final = struct.Struct(">qq")
_MTIME: Final = struct.Struct(">q")
_VERSION: Final = struct.Struct(">QQqqq")
_ATTRIBUTES: Final = struct.Struct(">qH")
_LINKED_FILE: Final = 7
"""Stands for `Kind.FILE` where the identity of a file with several names follows."""
_EXISTING: Final = struct.Struct(">qqqq")
_PRESENT: Final = 4
_RECENT: Final = 8
_ONE_TIME: Final = struct.Struct(">q")
_STORED: Final = struct.Struct(">Bq")
_CREATED_ROW: Final = struct.Struct(f">BBqH{_USUAL_TOKEN_BYTES}s")
"""A file that was created, among results: no error (0), how, its change time, and its token behind its length."""
_KEPT_BACKUP: Final = 5
"""Stands for `Committed.REPLACED` where the path of the backup follows."""
_CHUNK: Final = struct.Struct(f">H{CHUNK_DIGEST_BYTES}s")


@functools.cache
def _members(kind: type[E]) -> dict[int, E]:
    return {each.value: each for each in kind}


def _member(kind: type[E], number: int) -> E:
    """Return the enum member with that value; `enum.Enum` finds it in Python, which takes longer."""
    member: E | None = _members(kind).get(number)
    if member is None:
        raise ProtocolError(f"{number} is no {kind.__name__}")
    return member


def _octets(value: bytes) -> bytes:
    if len(value) > _MAX_OCTETS:
        raise BadName(f"a name of {len(value)} bytes is too long for the protocol")
    return _U16.pack(len(value)) + value


def _size(number: int) -> int:
    if number < 0:
        raise ProtocolError("a negative size")
    return number


def _encode_entry(entry: Entry) -> bytes:
    note = cut(entry.note, MAX_ERROR_TEXT_BYTES)
    return b"".join(
        (
            _U8.pack(_LINKED_FILE if entry.identity else entry.kind._value_),
            _ENTRY.pack(entry.size, entry.mtime_ns),
            _octets(entry.path),
            _octets(note),
            _U16.pack(entry.mode) if entry.kind is Kind.DIRECTORY else b"",
            _octets(entry.identity) if entry.identity else b"",
        )
    )


def _decode_entry(cursor: Cursor) -> Entry:
    number = cursor.byte()
    if number == _LINKED_FILE:
        size, mtime_ns = cursor.fields(_ENTRY)
        path, note = cursor.octets(), cursor.text()
        return Entry(path, Kind.FILE, _size(size), mtime_ns, note, identity=cursor.octets(_MAX_TOKEN_BYTES))
    kind = _member(Kind, number)
    size, mtime_ns = cursor.fields(_ENTRY)
    path, note = cursor.octets(), cursor.text()
    mode = _permissions(cursor.fields(_U16)[0]) if kind is Kind.DIRECTORY else 0
    return Entry(path, kind, _size(size), mtime_ns, note, mode)


def _permissions(mode: int) -> int:
    if mode > 0o777:
        raise ProtocolError(f"permission bits {mode:o}")
    return mode


def encode_version(version: Version) -> bytes:
    """Encode the version of a file."""
    return _VERSION.pack(version.device, version.inode, version.size, version.mtime_ns, version.ctime_ns)


def decode_version(cursor: Cursor) -> Version:
    """Decode what `encode_version` returns."""
    device, inode, size, mtime_ns, ctime_ns = cursor.fields(_VERSION)
    return Version(device, inode, _size(size), mtime_ns, ctime_ns)


def encode_attributes(attributes: Attributes | None) -> bytes:
    """Encode modification time and permission bits, or that they are not carried over."""
    if attributes is None:
        return b"\0"
    return b"\1" + _ATTRIBUTES.pack(attributes.mtime_ns, attributes.mode)


def decode_attributes(cursor: Cursor) -> Attributes | None:
    """Decode what `encode_attributes` returns."""
    if not cursor.flags(1):
        return None
    mtime_ns, mode = cursor.fields(_ATTRIBUTES)
    return Attributes(mtime_ns, _permissions(mode))


def _decode_present(cursor: Cursor) -> Attributes:
    attributes = decode_attributes(cursor)
    if attributes is None:
        raise ProtocolError("attributes are missing")
    return attributes


_KIND_BITS: Final = tuple(Preserve)
"""A bit for each, from the lowest."""

_OWNER: Final = struct.Struct(">II")
_HAS_OWNER, _HAS_ACL, _HAS_DEFAULT_ACL, _HAS_XATTRS, _NUMERIC, _HAS_EXTRAS = (1 << bit for bit in range(6))


@functools.cache
def bits_of(kinds: frozenset[Preserve]) -> int:
    """Return a set of kinds as bits."""
    return sum(1 << place for place, kind in enumerate(_KIND_BITS) if kind in kinds)


@functools.cache
def kinds_of(bits: int) -> frozenset[Preserve]:
    """Return the kinds that bits stand for; raises `ProtocolError` if one stands for nothing."""
    if bits >> len(_KIND_BITS):
        raise ProtocolError(f"unknown kinds {bits:#x}")
    return frozenset(kind for place, kind in enumerate(_KIND_BITS) if bits >> place & 1)


def _encode_extras(extras: Extras | None) -> bytes:
    if extras is None:
        return b"\0"
    owner, parts = extras.owner, list[bytes]()
    flags = _HAS_EXTRAS | (_NUMERIC if extras.numeric else 0)
    if owner is not None:
        flags |= _HAS_OWNER
        parts += (_OWNER.pack(owner.uid, owner.gid), _octets(owner.user), _octets(owner.group))
    for flag, form in (
        (_HAS_ACL, extras.acl),
        (_HAS_DEFAULT_ACL, extras.default_acl),
        (_HAS_XATTRS, extras.xattrs),
    ):
        if form is not None:
            flags |= flag
            parts.append(_octets(form))
    return b"".join((bytes((flags, bits_of(extras.lenient), bits_of(extras.leaves))), *parts))


def _decode_extras(cursor: Cursor) -> Extras | None:
    flags = cursor.flags(0x3F)
    if not flags:
        return None
    if not flags & _HAS_EXTRAS:
        raise ProtocolError("attributes that no file has")
    from realize.extras import Extras, Owner

    lenient, leaves = kinds_of(cursor.byte()), kinds_of(cursor.byte())
    owner = None
    if flags & _HAS_OWNER:
        uid, gid = cursor.fields(_OWNER)
        owner = Owner(uid, gid, cursor.octets(MAX_COMPONENT_BYTES), cursor.octets(MAX_COMPONENT_BYTES))
    forms = [
        cursor.octets(MAX_EXTRAS_BYTES) if flags & flag else None for flag in (_HAS_ACL, _HAS_DEFAULT_ACL, _HAS_XATTRS)
    ]
    acl, default_acl, xattrs = forms
    return Extras(owner, acl, default_acl, xattrs, bool(flags & _NUMERIC), lenient, leaves)


def _encode_found_extras(found: FoundExtras) -> bytes:
    return encode_version(found.version) + _encode_extras(found.extras)


def _decode_found_extras(cursor: Cursor) -> FoundExtras:
    version, extras = decode_version(cursor), _decode_extras(cursor)
    if extras is None:
        raise ProtocolError("attributes are missing")
    from realize.extras import FoundExtras

    return FoundExtras(extras, version)


def _encode_existing(existing: Existing) -> bytes:
    if existing is NOTHING:
        return b"\0"
    flags = _PRESENT | (existing.final_size is not None) | (existing.partial_size is not None) << 1
    flags |= _RECENT if existing.recent else 0
    return b"".join(
        (
            _U8.pack(flags),
            _EXISTING.pack(
                existing.final_size or 0,
                existing.partial_size or 0,
                existing.mtime_ns,
                existing.ctime_ns,
            ),
            _octets(existing.identity),
            _octets(cut(existing.obstacle, _MAX_TOKEN_BYTES)),
        )
    )


def _decode_existing(cursor: Cursor) -> Existing:
    flags = cursor.flags(3 | _PRESENT | _RECENT)
    if not flags:
        return NOTHING
    if not flags & _PRESENT:
        raise ProtocolError("a description of something that is not there")
    final_size, partial_size, mtime_ns, ctime_ns = cursor.fields(_EXISTING)
    place = cursor.octets(_MAX_TOKEN_BYTES)
    return Existing(
        final_size=_size(final_size) if flags & 1 else None,
        mtime_ns=mtime_ns,
        ctime_ns=ctime_ns,
        identity=place,
        partial_size=_size(partial_size) if flags & 2 else None,
        obstacle=cursor.text(_MAX_TOKEN_BYTES),
        recent=bool(flags & _RECENT),
    )


@frozen(eq=False, repr=False)
class SmallHead(ByValue):
    """A `realize.values.SmallFile` with only the size of its content."""

    path: bytes
    size: int
    digest: bytes
    attributes: Attributes | None
    replaces: Seen | None = None
    number: int = 0


def _encode_small(head: SmallHead | SmallFile) -> bytes:
    attributes = head.attributes
    if attributes is not None and head.replaces is None and not head.number:
        path = head.path
        length = len(path)
        if length <= _MAX_OCTETS:
            mtime_ns, mode = attributes.mtime_ns, attributes.mode
            return _USUAL_HEAD.pack(head.size, head.digest, 1, mtime_ns, mode, 0, length) + path
    return b"".join(
        (
            _U32.pack(head.size),
            head.digest,
            encode_attributes(attributes),
            _encode_condition(head.replaces, head.number),
            _octets(head.path),
        )
    )


def _decode_small(cursor: Cursor) -> SmallHead:
    usual = cursor.ahead(_USUAL_HEAD)
    if usual is not None:
        size, digest, attributed, mtime_ns, mode, conditions, length = usual
        if attributed == 1 and conditions == 0:
            path = cursor.take(_USUAL_HEAD.size + length)[_USUAL_HEAD.size :]
            return SmallHead(path, size, digest, Attributes(mtime_ns, _permissions(mode)))
    size, digest = cursor.fields(_SMALL)
    attributes = decode_attributes(cursor)
    flags = cursor.flags(3)
    replaces = _decode_seen(cursor) if flags & 1 else None
    number = _decode_number(cursor) if flags & 2 else 0
    return SmallHead(cursor.octets(), size, digest, attributes, replaces, number)


def _encode_condition(replaces: Seen | None, number: int) -> bytes:
    """Encode which version a file may replace, and which number it may get, if it may not get any."""
    if replaces is None and not number:
        return b"\0"
    flags = (replaces is not None) | bool(number) << 1
    seen = b"" if replaces is None else _encode_seen(replaces)
    return _U8.pack(flags) + seen + (_U32.pack(number) if number else b"")


def _decode_number(cursor: Cursor) -> int:
    number: int = cursor.fields(_U32)[0]
    if not number:
        raise ProtocolError("0 is the number of no name")
    return number


def _encode_seen(seen: Seen) -> bytes:
    return _octets(seen.identity) + _ONE_TIME.pack(seen.ctime_ns)


def _decode_seen(cursor: Cursor) -> Seen:
    place = cursor.octets(_MAX_TOKEN_BYTES)
    return Seen(place, *cursor.fields(_ONE_TIME))


@frozen(eq=False, repr=False)
class FetchedHead(ByValue):
    """A `realize.values.Fetched` with only the size of its content, and without its path, which the requester knows."""

    size: int
    digest: bytes
    attributes: Attributes | None
    version: Version


def _encode_fetched(head: FetchedHead) -> bytes:
    return b"".join(
        (
            _U32.pack(head.size),
            head.digest,
            encode_attributes(head.attributes),
            encode_version(head.version),
        )
    )


def _decode_fetched(cursor: Cursor) -> FetchedHead:
    size, digest = cursor.fields(_SMALL)
    attributes = decode_attributes(cursor)
    return FetchedHead(size, digest, attributes, decode_version(cursor))


def _encode_removal(removal: Removal) -> bytes:
    return encode_version(removal.version) + _octets(removal.path)


def _decode_removal(cursor: Cursor) -> Removal:
    version = decode_version(cursor)
    return Removal(cursor.octets(), version)


def _encode_link(link: Symlink) -> bytes:
    time = b"\0" if link.mtime_ns is None else b"\1" + _MTIME.pack(link.mtime_ns)
    return time + _octets(link.target) + _octets(link.path)


def _decode_link(cursor: Cursor) -> Symlink:
    mtime_ns = cursor.fields(_MTIME)[0] if cursor.flags(1) else None
    target = cursor.octets(MAX_TARGET_BYTES)
    return Symlink(cursor.octets(), target, mtime_ns)


@frozen(eq=False, repr=False)
class FoundTarget(ByValue):
    """A `realize.values.FoundSymlink` without its path, which the requester knows; the version has the time."""

    target: bytes
    version: Version

    def link(self, path: bytes) -> FoundSymlink:
        """Return the symlink, which has that path."""
        return FoundSymlink(Symlink(path, self.target, self.version.mtime_ns), self.version)


def _encode_found_link(found: FoundTarget) -> bytes:
    return encode_version(found.version) + _octets(found.target)


def _decode_found_link(cursor: Cursor) -> FoundTarget:
    version = decode_version(cursor)
    return FoundTarget(cursor.octets(MAX_TARGET_BYTES), version)


def _encode_linked(linked: Linked) -> bytes:
    return _U8.pack(linked.value)


def _decode_linked(cursor: Cursor) -> Linked:
    return cursor.choice(Linked)


def _encode_hard_link(link: HardLink) -> bytes:
    return link.digest + _octets(link.path) + _octets(link.to)


def _decode_hard_link(cursor: Cursor) -> HardLink:
    digest = cursor.take(DIGEST_BYTES)
    return HardLink(cursor.octets(), cursor.octets(), digest)


def _encode_hard_linked(linked: HardLinked) -> bytes:
    return _U8.pack(linked.value)


def _decode_hard_linked(cursor: Cursor) -> HardLinked:
    return cursor.choice(HardLinked)


def _encode_vacant(vacant: Vacant) -> bytes:
    if vacant.mtime_ns is None:
        return b"\0" + _octets(vacant.path)
    return b"\1" + _MTIME.pack(vacant.mtime_ns) + _octets(vacant.path)


def _decode_vacant(cursor: Cursor) -> Vacant:
    mtime_ns = cursor.fields(_MTIME)[0] if cursor.flags(1) else None
    return Vacant(cursor.octets(), mtime_ns)


def _encode_directory(directory: Directory) -> bytes:
    if directory.mtime_ns is None:
        return b"\0" + _U16.pack(directory.mode) + _octets(directory.path)
    return b"\1" + _MTIME.pack(directory.mtime_ns) + _U16.pack(directory.mode) + _octets(directory.path)


def _decode_directory(cursor: Cursor) -> Directory:
    mtime_ns = cursor.fields(_MTIME)[0] if cursor.flags(1) else None
    mode = _permissions(cursor.fields(_U16)[0])
    return Directory(cursor.octets(), mode, mtime_ns)


def _encode_expected(expected: Expected) -> bytes:
    return _SIZE.pack(expected.size) + expected.digest + _octets(expected.path)


def _decode_expected(cursor: Cursor) -> Expected:
    (size,) = cursor.fields(_SIZE)
    digest = cursor.take(DIGEST_BYTES)
    return Expected(cursor.octets(), _size(size), digest)


def _encode_sized(sized: Sized) -> bytes:
    return _SIZE.pack(sized.size) + _octets(sized.path)


def _decode_sized(cursor: Cursor) -> Sized:
    (size,) = cursor.fields(_SIZE)
    return Sized(cursor.octets(), _size(size))


def _encode_siblings(siblings: Siblings) -> bytes:
    return b"".join(map(_U32.pack, (siblings.free, *siblings.alike))) + _U32.pack(0)


def _decode_siblings(cursor: Cursor) -> Siblings:
    free = _decode_number(cursor)
    alike: list[int] = []
    while number := cursor.fields(_U32)[0]:
        alike.append(number)
        if len(alike) > MAX_ALIKE_FILES:
            raise ProtocolError(f"more than {MAX_ALIKE_FILES} numbered names")
    return Siblings(free, tuple(alike))


def _encode_nothing(_: None) -> bytes:
    return b""


def _decode_nothing(_: Cursor) -> None:
    return None


def _decode_flag(cursor: Cursor) -> bool:
    return bool(cursor.flags(1))


class Codec(Generic[T]):
    """Converts a list of one kind of item to one value, and back."""

    def __init__(
        self,
        name: str,
        encode: Callable[[T], bytes],
        decode: Callable[[Cursor], T],
        most: int = MAX_PACK_ITEMS,
    ) -> None:
        self.name = name
        self.encode = encode
        self.decode = decode
        self.most = most

    def pack(self, items: Iterable[T]) -> bytes:
        """Return the value; raises `ProtocolError` if it does not fit, which cannot happen to the lists from `fit`."""
        return _checked(self.name, b"".join([self.encode(item) for item in items]))

    def unpack(self, data: bytes) -> list[T]:
        """Return the items."""
        cursor, items, most, decode = Cursor(data), list[T](), self.most, self.decode
        while cursor:
            if len(items) == most:
                raise ProtocolError(f"more than {most} {self.name}")
            items.append(decode(cursor))
        return items


class Repeated(Codec[T]):
    """Like `Codec`, for lists in which many items are one object; what is as the item before is that object again."""

    def pack(self, items: Iterable[T]) -> bytes:
        """See `Codec`."""
        listed, encoded = list(items), dict[int, bytes]()
        for item in listed:
            if id(item) not in encoded:
                encoded[id(item)] = self.encode(item)
        return _checked(self.name, b"".join([encoded[id(item)] for item in listed]))

    def unpack(self, data: bytes) -> list[T]:
        """See `Codec`."""
        cursor, items, before = Cursor(data), list[T](), b""
        while cursor:
            if len(items) == self.most:
                raise ProtocolError(f"more than {self.most} {self.name}")
            if before and cursor.again(before):
                items.append(items[-1])
                continue
            left = cursor.left
            items.append(self.decode(cursor))
            before = cursor.since(left)
        return items


_NOT_USUAL: Final = object()


class Results(Codec[Any]):
    """Like `Codec`, for lists in which any item may be replaced by the error that occurred for it.

    ``usual`` is what most lists consist of, if there is such a value: those are packed and unpacked all at once.
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[Any], bytes],
        decode: Callable[[Cursor], Any],
        most: int = MAX_PACK_ITEMS,
        *,
        usual: Any = _NOT_USUAL,
    ) -> None:
        super().__init__(name, encode, decode, most)
        self.usual = usual

    def pack(self, items: Iterable[Any]) -> bytes:
        """Return the value; the texts of errors are shortened if not all of them fit."""
        listed = list(items)
        if all(map(is_, listed, repeat(self.usual))):
            return _checked(self.name, self._usual_pack(len(listed)))
        data = b"".join([self._encode(item, MAX_ERROR_TEXT_BYTES) for item in listed])
        if len(data) > MAX_VALUE_BYTES:
            data = b"".join([self._encode(item, _SHORT_TEXT_BYTES) for item in listed])
        return _checked(self.name, data)

    def unpack(self, data: bytes) -> list[Any]:
        """Return the items."""
        if self.usual is not _NOT_USUAL:
            count = len(data) // len(self._usual_pack(1))
            if count <= self.most and data == self._usual_pack(count):
                return [self.usual] * count
        cursor, items, most, decode = Cursor(data), list[Any](), self.most, self.decode
        while cursor:
            if len(items) == most:
                raise ProtocolError(f"more than {most} {self.name}")
            if cursor.flags(1):
                code = cursor.octets(_MAX_TOKEN_BYTES)
                items.append(error_of(code, cursor.text()))
            else:
                items.append(decode(cursor))
        return items

    def _usual_pack(self, count: int) -> bytes:
        return self._encode(self.usual, 0) * count if count else b""

    def _encode(self, item: Any, most: int) -> bytes:
        if isinstance(item, RealizeError):
            return b"\1" + _octets(item.wire_code) + _octets(cut(str(item), most))
        return b"\0" + self.encode(item)


class Outcomes(Results):
    """Like `Results`, for commits: lists of files that were created are packed and unpacked by the column."""

    def pack(self, items: Iterable[Any]) -> bytes:
        """Return the value; the texts of errors are shortened if not all of them fit."""
        listed, row, how = list(items), _CREATED_ROW.pack, Committed.CREATED
        created = how.value
        rows = [
            row(0, created, each.ctime_ns, _USUAL_TOKEN_BYTES, each.identity)
            for each in listed
            if isinstance(each, Stored)
            and each.how is how
            and len(each.identity) == _USUAL_TOKEN_BYTES
            and each.backup is None
        ]
        return _checked(self.name, b"".join(rows)) if len(rows) == len(listed) else super().pack(listed)

    def unpack(self, data: bytes) -> list[Any]:
        """Return the items."""
        if len(data) % _CREATED_ROW.size == 0 and len(data) <= self.most * _CREATED_ROW.size:
            rows = list(_CREATED_ROW.iter_unpack(data))
            how = Committed.CREATED
            # Read one after the other, the items would be just these.
            if {(error, value, length) for error, value, _, length, _ in rows} == {(0, how.value, _USUAL_TOKEN_BYTES)}:
                return [Stored(how, identity, ctime_ns) for _, _, ctime_ns, _, identity in rows]
        return super().unpack(data)


class Chunks(Codec[Chunk]):
    """Like `Codec`, for chunks, which are handled all at once since there are many."""

    def pack(self, items: Iterable[Chunk]) -> bytes:
        """Return the value."""
        return _checked(self.name, b"".join(starmap(_CHUNK.pack, items)))

    def unpack(self, data: bytes) -> list[Chunk]:
        """Return the chunks."""
        if len(data) % _CHUNK.size or len(data) > self.most * _CHUNK.size:
            raise ProtocolError(f"{len(data)} bytes are not up to {self.most} {self.name}")
        chunks: list[Chunk] = list(_CHUNK.iter_unpack(data))
        if not all(length for length, _ in chunks):
            raise ProtocolError("an empty chunk")
        return chunks


def _encode_chunk(chunk: Chunk) -> bytes:
    return _CHUNK.pack(*chunk)


def _decode_chunk(cursor: Cursor) -> Chunk:
    length, digest = _CHUNK.unpack(cursor.take(_CHUNK.size))
    return length, digest


def _checked(name: str, data: bytes) -> bytes:
    if len(data) > MAX_VALUE_BYTES:
        raise ProtocolError(f"{len(data)} bytes of {name} do not fit one value")
    return data


def _same(item: bytes) -> bytes:
    return item


def _take_digest(cursor: Cursor) -> bytes:
    return cursor.take(DIGEST_BYTES)


def _encode_stored(stored: Stored) -> bytes:
    how, more = stored.how._value_, b""
    if stored.how is Committed.RENAMED:
        more = _U32.pack(stored.number)
    elif backup := stored.asked_backup:
        how, more = _KEPT_BACKUP, _octets(backup)
    return _STORED.pack(how, stored.ctime_ns) + _octets(stored.identity) + more


def _decode_stored(cursor: Cursor) -> Stored:
    value, ctime_ns = cursor.fields(_STORED)
    how = Committed.REPLACED if value == _KEPT_BACKUP else _member(Committed, value)
    identity = cursor.octets(_MAX_TOKEN_BYTES)
    number = _decode_number(cursor) if how is Committed.RENAMED else 0
    return Stored(how, identity, ctime_ns, number, Backup(cursor.octets()) if value == _KEPT_BACKUP else None)


def _encode_flag(flag: bool) -> bytes:  # noqa: FBT001 -- an item like any other
    return b"\1" if flag else b"\0"


def _encode_text(text: str) -> bytes:
    return _octets(cut(text, MAX_ERROR_TEXT_BYTES))


MAX_DIGESTS: Final = MAX_VALUE_BYTES // DIGEST_BYTES
"""Most digests of one pack."""

ENTRIES: Final = Codec[Entry]("entries", _encode_entry, _decode_entry, MAX_VALUE_BYTES)
RULES: Final = Codec[bytes]("rules", _octets, Cursor.octets, MAX_RULES)
PATHS: Final = Codec[bytes]("paths", _octets, Cursor.octets)
SMALL_HEADS: Final = Codec[Any]("small files", _encode_small, _decode_small)
SEEN: Final = Codec[Seen]("versions of final files", _encode_seen, _decode_seen, 1)
EXPECTED_FILES: Final = Codec[Expected]("expected files", _encode_expected, _decode_expected)
SIZED_FILES: Final = Codec[Sized]("files with sizes", _encode_sized, _decode_sized)
SYMLINKS: Final = Codec[Symlink]("symlinks", _encode_link, _decode_link)
FILE_LINKS: Final = Codec[HardLink]("hard links", _encode_hard_link, _decode_hard_link)
VACANT: Final = Codec[Vacant]("empty directories", _encode_vacant, _decode_vacant)
DIRECTORIES: Final = Codec[Directory]("directories", _encode_directory, _decode_directory)
REMOVALS: Final = Codec[Removal]("removals", _encode_removal, _decode_removal)
CHUNKS: Final = Chunks("chunks", _encode_chunk, _decode_chunk, MAX_OFFERED_CHUNKS)
DIGESTS: Final = Codec[bytes]("digests", _same, _take_digest, MAX_DIGESTS)
TEXTS: Final = Codec[str]("texts", _encode_text, Cursor.text)
CHAIN: Final = Codec[bytes]("identities", _octets, lambda cursor: cursor.octets(_MAX_TOKEN_BYTES), MAX_VALUE_BYTES)
VERSIONS: Final = Codec[Version]("versions", encode_version, decode_version, 1)
PRESENT_ATTRIBUTES: Final = Codec[Attributes]("attributes", encode_attributes, _decode_present, 1)
ATTRIBUTES: Final = Codec[Attributes | None]("attributes", encode_attributes, decode_attributes, 1)
EACH_ATTRIBUTES: Final = Codec[Attributes | None]("attributes", encode_attributes, decode_attributes)

EACH_EXTRAS: Final = Repeated["Extras | None"]("attributes", _encode_extras, _decode_extras)
ONE_EXTRAS: Final = Codec["Extras | None"]("attributes", _encode_extras, _decode_extras, 1)

OUTCOME: Final = Codec[Stored]("outcome", _encode_stored, _decode_stored, 1)

EXAMINED_ENTRIES: Final = Results("entries", _encode_entry, _decode_entry)
FOUND: Final = Results("descriptions", _encode_existing, _decode_existing, usual=NOTHING)
FETCHED: Final = Results("fetched files", _encode_fetched, _decode_fetched)
FOUND_EXTRAS: Final = Results("found attributes", _encode_found_extras, _decode_found_extras)
FORESEEN: Final = Results("foreseen attributes", _encode_nothing, _decode_nothing, usual=None)
FOUND_LINKS: Final = Results("symlinks", _encode_found_link, _decode_found_link)
LINK_OUTCOMES: Final = Results("outcomes of symlinks", _encode_linked, _decode_linked)
FILE_LINK_OUTCOMES: Final = Results("outcomes of hard links", _encode_hard_linked, _decode_hard_linked)
OUTCOMES: Final = Outcomes("outcomes", _encode_stored, _decode_stored)
SIBLINGS: Final = Results("siblings", _encode_siblings, _decode_siblings)
SETTLED: Final = Results("settlements", _encode_flag, _decode_flag)
FORBIDDEN_FILES: Final = Results("permissions", _encode_nothing, _decode_nothing, usual=None)
MADE: Final = Results("results for directories", _encode_nothing, _decode_nothing, usual=None)
DONE: Final = Results("results for directories", _encode_flag, _decode_flag)
PRUNED: Final = Results("prunings", _encode_flag, _decode_flag)
REMOVED: Final = Results("removal results", _encode_nothing, _decode_nothing, usual=None)


class Named(Protocol):
    """An item with a path, and other fields that take at most `NAMED_BYTES` bytes."""

    @property
    def path(self) -> bytes:
        """The name."""


NAMED_BYTES: Final = _U32.size + DIGEST_BYTES + 1 + _ATTRIBUTES.size + _VERSION.size + _U16.size
"""At least as many bytes as a small head, a removal or an expected file takes besides its path."""


_EXTRAS_HEAD_BYTES: Final = 3 + _OWNER.size + 5 * _U16.size
"""What attributes take at most besides names, lists and extended attributes."""

EXAMINED_BYTES: Final = 512
"""What an entry, or an error of ours, takes at most in an answer, besides the path."""


def measure_path(path: bytes) -> int:
    """Return how many bytes a path takes, without packing it."""
    return len(path) + _U16.size


def measure_named(item: Named) -> int:
    """Return an upper bound of the bytes that an item takes, without packing it."""
    return len(item.path) + NAMED_BYTES


def measure_extras(extras: Extras | None) -> int:
    """Return an upper bound of the bytes that attributes take, without packing them."""
    return 1 if extras is None else extras.size + _EXTRAS_HEAD_BYTES


def measure_found_extras(found: FoundExtras | RealizeError) -> int:
    """The same for the answer about a file."""
    return NAMED_BYTES + (_SHORT_TEXT_BYTES if isinstance(found, RealizeError) else measure_extras(found.extras))


def measure_file(file: SmallFile | Expected) -> int:
    """Return an upper bound of what a file takes, in the list of files or in that of attributes, whichever is more."""
    attributes = file.attributes
    if attributes is None or attributes.extras is None:
        return measure_named(file)
    return max(measure_named(file), measure_extras(attributes.extras))


def measure_directory(directory: Directory) -> int:
    """The same for a directory."""
    return max(measure_named(directory), measure_extras(directory.extras))


def measure_foreseen(asked: tuple[bytes, Extras]) -> int:
    """The same for a path and its attributes."""
    path, extras = asked
    return max(len(path) + _U16.size, measure_extras(extras))


def measure_link(link: Symlink) -> int:
    """Return an upper bound of the bytes that a symlink takes, without packing it."""
    return max(len(link.path) + len(link.target) + NAMED_BYTES, measure_extras(link.extras))


def measure_hard_link(link: HardLink) -> int:
    """Return an upper bound of the bytes that a hard link takes, without packing it."""
    return len(link.path) + len(link.to) + NAMED_BYTES


def measure_found_link(found: FoundTarget | RealizeError) -> int:
    """Return an upper bound of the bytes that the answer about a symlink takes, without packing it."""
    if isinstance(found, RealizeError):
        return _SHORT_TEXT_BYTES + _MAX_TOKEN_BYTES + NAMED_BYTES
    return len(found.target) + NAMED_BYTES


def measure_entry(entry: Entry) -> int:
    """Return how many bytes an entry takes."""
    return len(_encode_entry(entry))


def measure_examined(path: bytes) -> int:
    """Return how many bytes the answer about a path may take: an entry with a note, or an error."""
    return len(path) + EXAMINED_BYTES


def fit(
    items: Iterable[T],
    measure: Callable[[T], int],
    *,
    limit: int = MAX_VALUE_BYTES,
    most: int = MAX_PACK_ITEMS,
    weigh: Callable[[T], int] | None = None,
    load: int = MAX_VALUE_BYTES,
) -> Iterator[list[T]]:
    """Split ``items``, in order, into lists of at most ``most`` items and ``limit`` bytes, according to ``measure``.

    ``weigh`` returns the bytes that accompany an item outside of the pack (the content of a small file); those of a
    list must not exceed ``load``.
    An item that is too large by itself comes alone, and fails when it is packed.
    """
    items = list(items)
    if len(items) <= most and sum(map(measure, items)) <= limit and (weigh is None or sum(map(weigh, items)) <= load):
        # As nearly always: a list that comes from a batch.
        if items:
            yield items
        return
    pack: list[T] = []
    size = weight = 0
    for item in items:
        added, heavier = measure(item), weigh(item) if weigh is not None else 0
        if pack and (len(pack) == most or size + added > limit or weight + heavier > load):
            yield pack
            pack, size, weight = [], 0, 0
        pack.append(item)
        size += added
        weight += heavier
    if pack:
        yield pack


def split_contents(sizes: Sequence[int], pieces: Sequence[Content]) -> list[Content]:
    """Cut what came in these pieces into contents of these sizes; raises `ProtocolError` unless they add up to all.

    A content that lies in one piece is a view of it, and not copied.
    """
    arrived = sum(map(len, pieces))
    if sum(sizes) != arrived:
        raise ProtocolError(f"{arrived} bytes of content for files of {sum(sizes)}")
    contents = list[Content]()
    views = iter([memoryview(piece) for piece in pieces])
    view, position = memoryview(b""), 0
    for size in sizes:
        if size and position + size <= len(view):  # as with nearly all
            contents.append(view[position : position + size])
            position += size
            continue
        parts: list[Content] = []
        missing = size
        while missing:
            if position == len(view):
                view, position = next(views), 0
            part = view[position : position + missing]
            position += len(part)
            missing -= len(part)
            parts.append(part)
        contents.append(parts[0] if len(parts) == 1 else b"".join(parts))
    return contents


def pack_bits(bits: Sequence[bool]) -> bytes:
    """Pack one bit for each, beginning with the highest of the first byte; unused bits of the last byte are 0."""
    text = "".join(["1" if bit else "0" for bit in bits])
    length = -(-len(bits) // 8)
    return int(text.ljust(8 * length, "0") or "0", 2).to_bytes(length, "big")


def unpack_bits(data: bytes, count: int) -> list[bool]:
    """Return the ``count`` bits that `pack_bits` has packed; raises `ProtocolError` if there are more or fewer."""
    if len(data) != -(-count // 8):
        raise ProtocolError(f"{len(data)} bytes for {count} bits")
    text = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
    if "1" in text[count:]:
        raise ProtocolError("bits that stand for nothing")
    return [character == "1" for character in text[:count]]
