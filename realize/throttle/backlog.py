"""The bytes that a connection has written and not yet been allowed to send, in the order of the writes.

Pure: it holds bytes and cuts them, and neither sends them nor knows why they wait.
"""

from __future__ import annotations

from collections import deque

from realize.throttle.tls_records import TLS_RECORD_BYTES


class Backlog:
    """A queue of writes that is taken in pieces of any size; ``size`` is the number of bytes in it."""

    __slots__ = ("_offset", "_writes", "ahead", "size")

    def __init__(self) -> None:
        self.size = 0
        self.ahead = 0
        """How many of the bytes are ahead of the cut; 0 if there is none, or none any more."""
        self._writes: deque[bytes] | None = None
        """None while there are none: an empty deque takes 760 bytes, of every connection."""
        self._offset = 0
        """Bytes already taken from the first write, which is not copied again for each piece of it."""

    def put(self, data: bytes) -> None:
        """Add one write, which is not empty, at the end."""
        if self._writes is None:
            self._writes = deque()
        self._writes.append(data)
        self.size += len(data)

    def cut(self) -> None:
        """Let no piece hold both bytes that are here now and bytes that will be put later."""
        self.ahead = self.size

    def take(self, limit: int) -> bytes:
        """Remove and return bytes from the front: at most ``limit``, which is above 0, and at least one.

        Nothing is returned if nothing waits.

        Short writes are joined until the limit is reached.
        If what is left of the first write fills a TLS record, the piece ends with that write at the latest, because
        joining it to the next one would copy it for the sake of a single record.
        """
        writes = self._writes
        if writes is None:
            return b""
        left = len(writes[0]) - self._offset
        most = self.ahead or self.size
        amount = min(most, limit, left) if left >= TLS_RECORD_BYTES else min(most, limit)
        self.size -= amount
        if self.ahead:
            self.ahead -= amount
        parts: list[bytes] = []
        while amount:
            head = writes[0]
            left = len(head) - self._offset
            if left <= amount:
                parts.append(head[self._offset :] if self._offset else head)
                writes.popleft()
                self._offset = 0
                amount -= left
            else:
                parts.append(head[self._offset : self._offset + amount])
                self._offset += amount
                amount = 0
        if not writes:
            self._writes = None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def clear(self) -> None:
        """Drop everything."""
        self._writes = None
        self._offset = self.size = self.ahead = 0
