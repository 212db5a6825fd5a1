"""Structured logs: one line an event on stderr, readable on a terminal and parseable elsewhere.

Events have constant snake_case names; everything that varies is a field.
Names of files are escaped by `realize.units.display_name` before they get here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import structlog

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The levels of the configuration, by name."""

_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send all events of at least ``level`` to ``stream`` (default stderr).

    ``form`` is ``console`` (for eyes), ``json`` or ``logfmt`` (one flat line an event), ``systemd`` (console with the
    journal's priorities and without time), or ``auto``: console on a terminal, else json.
    """
    out = stream if stream is not None else sys.stderr
    structlog.configure(
        processors=[structlog.processors.add_log_level, *_renderers(form, colors=out.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )


def _renderers(form: str, *, colors: bool) -> list[Processor]:
    if form == "auto":
        form = "console" if colors else "json"
    timed = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
    plain = structlog.dev.plain_traceback  # one with the values of variables might show a key
    if form == "console":
        return [timed, structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", exception_formatter=plain)]
    if form == "systemd":
        return [_with_priority(structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain))]
    exceptions = structlog.processors.format_exc_info
    if form == "logfmt":
        return [timed, exceptions, structlog.processors.LogfmtRenderer(bool_as_flag=False)]
    return [timed, exceptions, structlog.processors.JSONRenderer()]


def _with_priority(render: Processor) -> Processor:
    def prefixed(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), 6)
        return "\n".join(f"<{priority}>{line}" for line in str(render(logger, method, event)).splitlines())

    return prefixed
