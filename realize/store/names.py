"""The one place that judges names and joins them.

A name from the wire, from a listing or from a command line reaches the disk only through `judge`.
This module is pure: it looks at bytes, never at a file system; `realize.store.tree` keeps symlinks out.

A file that is being received lies beside its final name under a name made here, and no name from outside may look like
one of those.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from realize.errors import BadName
from realize.units import display_name

MAX_COMPONENT: Final = 255
"""Bytes in one component: NAME_MAX of every Linux file system that matters."""

MAX_PATH: Final = 4000
"""Bytes in a whole name: it fits PATH_MAX with room for the directory above it."""

_PREFIX: Final = b"."
_SUFFIX: Final = b".part"
_KEPT: Final = 180


def judge(path: bytes) -> tuple[bytes, ...]:
    """The components of a name that may be used below a directory; any other name is a `BadName`."""
    if not path:
        raise BadName("a name is empty")
    if len(path) > MAX_PATH:
        raise BadName(f"{display_name(path[:80])}...: the name has {len(path)} bytes, more than {MAX_PATH}")
    if b"\0" in path:
        raise BadName(f"{display_name(path)}: the name contains a NUL byte")
    components = tuple(path.split(b"/"))
    for component in components:
        if not component:
            fault = "is absolute" if path.startswith(b"/") else "has an empty component"
            raise BadName(f"{display_name(path)}: the name {fault}")
        if component in {b".", b".."}:
            raise BadName(f"{display_name(path)}: the name has a component {display_name(component)}")
        if len(component) > MAX_COMPONENT:
            raise BadName(f"{display_name(path)}: a component is longer than {MAX_COMPONENT} bytes")
        if is_partial(component):
            raise BadName(f"{display_name(path)}: {display_name(component)} looks like a partial file of Realize")
    return components


def join(components: tuple[bytes, ...]) -> bytes:
    """The name that `judge` takes apart into these components."""
    return b"/".join(components)


def is_partial(name: bytes) -> bool:
    """Whether a component has the form of our partial files."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX) and len(name) > len(_PREFIX + _SUFFIX)


def partial_name(name: bytes) -> bytes:
    """Where a file of that name is received: always the same, so that a later transfer finds it.

    Two names may share it if one was made to look like the shortened form of the other.
    That costs time only: the lock admits one writer, and what a partial holds is verified before it counts.
    """
    partial = _PREFIX + name + _SUFFIX
    if len(partial) <= MAX_COMPONENT:
        return partial
    return _PREFIX + name[:_KEPT] + b"~" + blake3(name).hexdigest()[:32].encode("ascii") + _SUFFIX


def final_name_of_partial(partial: bytes) -> bytes:
    """The name that a partial is received for, as far as it can be told: a long one stays shortened."""
    return partial[len(_PREFIX) : -len(_SUFFIX)]
