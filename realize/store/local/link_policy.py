"""Which symlinks may leave a local store, and which may be made in it."""

from __future__ import annotations

from realize.values import Links


class LinkPolicy:
    """Which symlinks a directory gives away, and takes; shared by all stores of it, and may be changed at any time.

    The defaults are for a directory of the user here, whose own symlinks may lead anywhere.
    """

    def __init__(self, gives: Links = Links.ANY, takes: Links = Links.INSIDE) -> None:
        self.gives = gives
        self.takes = takes
