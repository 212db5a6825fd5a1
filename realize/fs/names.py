"""The one place where names are validated and joined.

A name from the wire, from a listing or from a command line reaches the disk only through `judge`.
This module is pure: it looks at bytes, never at a file system; `realize.fs.tree` keeps symlinks out.

A file that is being received lies in the directory of its final name, under a name made here.
Other files may have such a name, too: `realize.store.local.partial_marks` tells them apart.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from realize.errors import BadName
from realize.units import display_name
from realize.values import MAX_COMPONENT_BYTES, MAX_TARGET_BYTES

MAX_PATH_BYTES: Final = 4000
"""Longest name as a whole: with the path of the directory above it, it fits PATH_MAX."""

MAX_PATH_COMPONENTS: Final = 128
"""Most components of a name: each costs a system call, and in many places memory for all directories above it."""

PREDICTABLE_PARTIAL_NAMES: Final = 8
"""How many names for the partial of a file are always the same."""

BACKUP_MARK: Final = b".realize-backups"
"""The name of a file whose directory holds backups, and is no data, with all that is below it; nobody may use it."""

_PARTIAL_SUFFIX: Final = b".part"
_PARTIAL: Final = re.compile(rb"\.(.+)\.realize-[0-9a-f]{16}\.part", re.DOTALL)
_DOTS: Final = frozenset({b".", b".."})
_USUAL_FIRST: Final = frozenset(range(128)) - {ord(".")}
"""First bytes of components that are neither steps nor reserved, as nearly all are."""

_LIKE_MARK: Final = re.compile(rb"\.realize-back?ups?[. ]*", re.IGNORECASE)
"""What is left, without what is not ASCII, of names that some file system takes for `BACKUP_MARK`.

Case is ignored by FAT, SMB, and directories of ext4 that were made for it, the end by FAT, invisible characters by
ext4, for which U+212A is a k and U+017F an s.
"""

_NOT_ASCII: Final = bytes(range(128, 256))
_NO_STEPS: Final = frozenset({b"", b"."})
_OWN_LINK: Final = re.compile(rb"\.(.+)\.realize-([0-9a-f]{8})([0-9a-f]{8})\.part", re.DOTALL)
_ADDED_BYTES: Final = len(b"..realize-0123456789abcdef.part")
_KEPT_BYTES: Final = 180


def judge(path: bytes) -> tuple[bytes, ...]:
    """Return the components of a name that may be used below a directory; raises `BadName` for any other name."""
    above, name = parted(path)
    return (*above, name)


def parted(path: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Return the components of the directory of a name, and its last one; raises `BadName` as `judge` does.

    Many files of a directory come one after the other, so what was found of its name is remembered.
    """
    directory, slash, name = path.rpartition(b"/")
    if name and name[0] in _USUAL_FIRST and 0 not in name and len(name) <= MAX_COMPONENT_BYTES:
        if not slash:
            return (), name
        if len(path) <= MAX_PATH_BYTES:
            above = _directory(directory)
            if above is not None and len(above) < MAX_PATH_COMPONENTS:
                return above, name
    *parents, name = _judge(path)
    return tuple(parents), name


@functools.lru_cache(maxsize=64)
def _directory(path: bytes) -> tuple[bytes, ...] | None:
    """Return the components of the name of a directory, None if it is refused."""
    try:
        return _judge(path)
    except BadName:
        return None


def _judge(path: bytes) -> tuple[bytes, ...]:
    if not path:
        raise BadName("a name is empty")
    if len(path) > MAX_PATH_BYTES:
        raise BadName(f"{display_name(path[:80])}...: the name has {len(path)} bytes, more than {MAX_PATH_BYTES}")
    if b"\0" in path:
        raise BadName(f"{display_name(path)}: the name contains a NUL byte")
    if path.count(b"/") >= MAX_PATH_COMPONENTS:
        raise BadName(f"{display_name(path[:80])}...: the name has more than {MAX_PATH_COMPONENTS} components")
    components = tuple(path.split(b"/"))
    for component in components:
        if not component:
            fault = "is absolute" if path.startswith(b"/") else "has an empty component"
            raise BadName(f"{display_name(path)}: the name {fault}")
        if component in _DOTS:
            raise BadName(f"{display_name(path)}: the name has a component {display_name(component)}")
        if _is_reserved(component):
            raise BadName(f"{display_name(path)}: the name {display_name(component)} is reserved for Realize")
        if len(component) > MAX_COMPONENT_BYTES:
            raise BadName(f"{display_name(path)}: a component is longer than {MAX_COMPONENT_BYTES} bytes")
    return components


def components(path: bytes) -> tuple[bytes, ...]:
    """Return what stands between the slashes, of whatever path."""
    return tuple(path.split(b"/"))


def tidied(path: bytes) -> bytes:
    """Return a path without the components that mean nothing: empty ones, and dots."""
    return b"/".join(each for each in path.split(b"/") if each not in {b"", b"."})


def _is_reserved(name: bytes) -> bool:
    """Return whether a name, which is not empty, is `BACKUP_MARK`, or might be for a file system."""
    first = name[0]
    return (first == ord(".") or first > 127) and _LIKE_MARK.fullmatch(name.translate(None, _NOT_ASCII)) is not None


def join(components: tuple[bytes, ...]) -> bytes:
    """Return the name that `judge` splits into these components."""
    return b"/".join(components)


def is_partial(name: bytes) -> bool:
    """Return whether a component has the form of the names of our partials."""
    return name.endswith(_PARTIAL_SUFFIX) and _PARTIAL.fullmatch(name) is not None


def partial_names(name: bytes, origin: bytes | None = None) -> Iterator[bytes]:
    """Yield the names under which a file of that name may be received, in order of preference.

    All but the last are always the same, so that a later transfer finds what an earlier one has left; each is for when
    somebody else's file has the one before.
    The last one cannot be guessed, so nobody can block all of them.
    Each ``origin`` that may not read has names of its own, since it is told how much of its partial matches; all other
    senders share theirs.
    """
    for number in range(PREDICTABLE_PARTIAL_NAMES):
        distinction = name
        if number or origin:
            distinction = b"%b\0%d%b" % (name, number, b"\0" + origin if origin else b"")
        yield _partial_name(name, blake3(distinction).hexdigest(8))
    yield _partial_name(name, secrets.token_hex(8))


def partial_name(name: bytes, origin: bytes | None = None) -> bytes:
    """Return the first of `partial_names`."""
    return next(partial_names(name, origin))


def _partial_name(name: bytes, distinction: str) -> bytes:
    kept = name if len(name) + _ADDED_BYTES <= MAX_COMPONENT_BYTES else name[:_KEPT_BYTES]
    return b"." + kept + b".realize-" + distinction.encode("ascii") + _PARTIAL_SUFFIX


def final_name_of_partial(partial: bytes) -> bytes:
    """Return the final name of a partial, as far as its own name tells: a long one stays shortened."""
    match = _PARTIAL.fullmatch(partial)
    return partial if match is None else match[1]


def temporary_link_name(name: bytes) -> bytes:
    """Return a name under which a symlink is made that is to replace the one of that name.

    It has the form of a partial's name, and cannot be guessed.
    A symlink has no mode that could mark it as ours, so the name itself tells: see `is_temporary_link`.
    """
    nonce = secrets.token_hex(4)
    partial = _partial_name(name, nonce + "0" * 8)
    return _partial_name(name, nonce + _check_digits(final_name_of_partial(partial), nonce.encode("ascii")))


def is_temporary_link(name: bytes) -> bool:
    """Return whether a component is one that `temporary_link_name` may have made, which hardly any other name is."""
    match = _OWN_LINK.fullmatch(name) if name.endswith(_PARTIAL_SUFFIX) else None
    return match is not None and match[3].decode("ascii") == _check_digits(match[1], match[2])


def _check_digits(kept: bytes, nonce: bytes) -> str:
    return blake3(b"symlink\0" + kept + b"\0" + nonce).hexdigest(4)


def check_target(target: bytes) -> None:
    """Raise `BadName` for bytes that no symlink can have as its target."""
    if not target:
        raise BadName("the target of a symlink is empty")
    if len(target) > MAX_TARGET_BYTES:
        raise BadName(f"the target of a symlink has {len(target)} bytes, more than {MAX_TARGET_BYTES}")
    if b"\0" in target:
        raise BadName("the target of a symlink contains a NUL byte")


def leads_outside(target: bytes, depth: int) -> bool:
    """Return whether a symlink with that target may lead out of a tree; ``depth`` directories of it are above the link.

    ``depth`` counts real directories, from the root of the tree down to the one that holds the link.
    A target is safe if it is relative, if all its ``..`` come first, and if they are no more than ``depth``.

    If every symlink in the tree is safe, none leads outside, nor does any chain of them, whatever they go through.
    The kernel resolves a path one component at a time, and is in a real directory before each.
    A name leads to a real directory below, or to a symlink; what is left of the path is then put behind its target.
    At that moment the kernel is in the directory that holds the symlink, so the ``..`` at the start of the target lead
    at most to the root.
    All that is left to do then are names: of this target, and of those whose rest waits, since their own ``..`` came
    first, too.
    So a ``..`` is only ever followed where it was counted, and never behind a name that turns out to be a symlink.
    That is why ``sub/../x`` is refused, although it looks as if it stayed inside: with ``sub -> a/b`` it leads to
    ``a/x``, and with ``sub -> .`` above the link's own directory.
    """
    if target.startswith(b"/"):
        return True
    steps = [step for step in target.split(b"/") if step not in _NO_STEPS]
    upwards = 0
    while upwards < len(steps) and steps[upwards] == b"..":
        upwards += 1
    return upwards > depth or b".." in steps[upwards:]
