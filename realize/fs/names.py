"""The one place that judges names and joins them.

A name from the wire, from a listing or from a command line reaches the disk only through `judge`.
This module is pure: it looks at bytes, never at a file system; `realize.fs.tree` keeps symlinks out.

A file that is being received lies beside its final name under a name made here.
Other files may have such a name, too: `realize.store.local.partial_names` tells them apart.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from realize.errors import BadName
from realize.units import display_name

MAX_COMPONENT_BYTES: Final = 255
"""Bytes in one component: NAME_MAX of every Linux file system that matters."""

MAX_PATH_BYTES: Final = 4000
"""Bytes in a whole name: it fits PATH_MAX with room for the directory above it."""

MAX_PATH_COMPONENTS: Final = 128
"""Components of a name: each is a system call, and all that is above it is remembered beside it, in many places."""

PREDICTABLE_PARTIAL_NAMES: Final = 8
"""Names for the partial of a file that are always the same ones."""

_PARTIAL: Final = re.compile(rb"\.(.+)\.realize-[0-9a-f]{16}\.part", re.DOTALL)
_ADDED: Final = len(b"..realize-0123456789abcdef.part")
_KEPT: Final = 180


def judge(path: bytes) -> tuple[bytes, ...]:
    """The components of a name that may be used below a directory; any other name is a `BadName`."""
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
        if component in {b".", b".."}:
            raise BadName(f"{display_name(path)}: the name has a component {display_name(component)}")
        if len(component) > MAX_COMPONENT_BYTES:
            raise BadName(f"{display_name(path)}: a component is longer than {MAX_COMPONENT_BYTES} bytes")
    return components


def join(components: tuple[bytes, ...]) -> bytes:
    """The name that `judge` takes apart into these components."""
    return b"/".join(components)


def is_partial(name: bytes) -> bool:
    """Whether a component has the form of our partial files."""
    return name.endswith(b".part") and _PARTIAL.fullmatch(name) is not None


def partial_names(name: bytes, origin: bytes | None = None) -> Iterator[bytes]:
    """Where a file of that name may be received, best first.

    All but the last are always the same, so that a later transfer finds what an earlier one has left; a further one
    counts where somebody else's file has the one before.
    The last cannot be guessed.
    Each ``origin`` that may not read has names of its own, for it is told how much of its partial matches; all others
    have theirs in common.
    """
    for number in range(PREDICTABLE_PARTIAL_NAMES):
        distinction = b"%b\0%d" % (name, number) if number or origin else name
        yield _partial_name(name, blake3(distinction + (b"\0%b" % origin if origin else b"")).hexdigest()[:16])
    yield _partial_name(name, secrets.token_hex(8))


def partial_name(name: bytes, origin: bytes | None = None) -> bytes:
    """The best of `partial_names`."""
    return next(partial_names(name, origin))


def _partial_name(name: bytes, distinction: str) -> bytes:
    kept = name if len(name) + _ADDED <= MAX_COMPONENT_BYTES else name[:_KEPT]
    return b".%b.realize-%b.part" % (kept, distinction.encode("ascii"))


def final_name_of_partial(partial: bytes) -> bytes:
    """The name that a partial is received for, as far as it can be told: a long one stays shortened."""
    match = _PARTIAL.fullmatch(partial)
    return partial if match is None else match[1]
