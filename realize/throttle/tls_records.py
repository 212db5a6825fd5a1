"""What TLS adds to the bytes of an application.

Pure arithmetic, both ways: from bytes of the application to bytes on the wire, and back.
"""

from __future__ import annotations

from typing import Final

TLS_RECORD_OVERHEAD_BYTES: Final = 22
"""Bytes that TLS 1.3 adds to a record: header, content type and tag (RFC 8446, section 5.2)."""

TLS_RECORD_BYTES: Final = 1 << 14
"""Bytes of the application in a full record; Twisted cuts writes into pieces of this size."""


def wire_size(payload: int, overhead: int) -> int:
    """The bytes that a write of ``payload`` bytes puts on the wire, at ``overhead`` bytes for each record."""
    return payload + overhead * -(-payload // TLS_RECORD_BYTES)


def payload_that_fits(wire: int, overhead: int) -> int:
    """The largest write, in bytes, of which `wire_size` is at most ``wire``; 0 if not even one byte fits."""
    full, rest = divmod(wire, TLS_RECORD_BYTES + overhead)
    return full * TLS_RECORD_BYTES + max(0, rest - overhead)
