"""Files in transit over a connection, to or from the store at its other end, and how much of each has travelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realize.values import Travelled


class Transit:
    """The files of one store that are in transit now."""

    def __init__(self) -> None:
        self._in_transit: dict[int, tuple[Sequence[bytes], Callable[[], int]]] = {}

    def begin(self, stream: int, paths: Sequence[bytes], travelled: Callable[[], int]) -> None:
        """Content of these files now travels on ``stream``; ``travelled()`` returns how many bytes of it have."""
        self._in_transit[stream] = paths, travelled

    def end(self, stream: int) -> None:
        """Forget the stream, if it is known."""
        self._in_transit.pop(stream, None)

    def travelled(self) -> list[Travelled]:
        """Return what is in transit now."""
        return [Travelled(paths, travelled()) for paths, travelled in self._in_transit.values()]
