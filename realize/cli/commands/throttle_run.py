"""Asks a daemon about its limits, or to change one."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from typing import Any

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.report import shown, table
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.runs.asking import Change, ask_limits
from realize.runs.reports import is_number
from realize.runs.session import Session
from realize.units import display_text, format_duration


def run_throttle(peer: str | None, access: Access, change: Change | None, *, json: bool, log: LogOptions) -> int:
    """Make the change, if there is one, and print the limits now in force; no peer is the daemon of this machine."""

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), logger_of) as session:
            rows = await ask_limits(session, peer, change)
        click.echo(json_format.dumps(rows) if json else "\n".join(table([readable(row) for row in rows])))
        return 0

    return run(main, log)


def readable(row: Mapping[str, Any]) -> dict[str, str]:
    """One limit for people."""
    scope, name = row.get("scope"), str(row.get("name") or "")
    lasts = row.get("lasts")
    return {
        "scope": display_text(f"{scope}:{name}" if name else str(scope)),
        "peer": display_text(str(row.get("peer") or "-")),
        "direction": display_text(str(row.get("direction"))),
        "limit": shown("limit", row.get("limit")),
        "now": "-" if row.get("rate") is None else shown("rate", row["rate"]),
        "lasts": format_duration(max(1, round(lasts))) if is_number(lasts) else shown("lasts", lasts),
    }
