"""Realize moves files between machines: copy, verify, make durable, and only then remove the original."""

from __future__ import annotations

__version__ = "0.1.0"
