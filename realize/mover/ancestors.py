"""The directories that a name in a listing is in: for the order of entries, and for nothing that is opened."""

from __future__ import annotations


def ancestors(path: bytes) -> list[bytes]:
    """The directories above, the outermost first."""
    components = path.split(b"/")
    return [b"/".join(components[:depth]) for depth in range(1, len(components))]
