"""Fields of JSON objects for what JSON has no type for: paths, times, errors, what a user wrote; pure."""

from __future__ import annotations

import base64
from datetime import datetime

from realize.errors import RealizeError


def path_fields(path: bytes, field: str = "path") -> dict[str, str]:
    """The path as text under ``field``; if that cannot be exact, also its bytes under ``{field}_base64``."""
    try:
        return {field: path.decode()}
    except UnicodeDecodeError:
        return {field: path.decode(errors="replace"), f"{field}_base64": base64.b64encode(path).decode()}


def given_path_fields(path: bytes | None, field: str) -> dict[str, str]:
    """The same for a path that may be missing, or empty: then there are no fields."""
    return path_fields(path, field) if path else {}


def error_fields(error: RealizeError) -> dict[str, str]:
    """The text of the error, and its wire code."""
    return {"error": printable(str(error)), "code": error.wire_code.decode()}


def utc_text(moment: datetime) -> str:
    """A moment in UTC by RFC 3339, with microseconds: ``2026-11-28T18:22:05.000000Z``."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """The text without lone surrogates, which other programs' JSON parsers may reject."""
    return text.encode("utf-8", "surrogateescape").decode(errors="replace")
