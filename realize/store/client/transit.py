"""What is on its way over a connection, to or from the store at its other end: which files, and how much of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realize.values import Travelled


class Transit:
    """The files of one store that are on their way at present."""

    def __init__(self) -> None:
        self._journeys: dict[int, tuple[Sequence[bytes], Callable[[], int]]] = {}

    def begin(self, stream: int, paths: Sequence[bytes], travelled: Callable[[], int]) -> None:
        """The content of these travels on that stream; ``travelled`` answers how many bytes of it have."""
        self._journeys[stream] = paths, travelled

    def end(self, stream: int) -> None:
        """Nothing travels there any more; harmless if nothing did."""
        self._journeys.pop(stream, None)

    def travelled(self) -> list[Travelled]:
        """What is on its way at present."""
        return [Travelled(paths, travelled()) for paths, travelled in self._journeys.values()]
