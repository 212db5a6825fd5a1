"""Asks a daemon about its limits, or to change one."""

from __future__ import annotations

import json as json_format
import time

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.limits import limit_rows
from realize.cli.display.report import table
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.runs.asking import Change, ask_limits
from realize.runs.session import Session


def run_throttle(peer: str | None, access: Access, change: Change | None, *, json: bool, log: LogOptions) -> int:
    """Make the change, if there is one, and print the limits now in force; no peer is the daemon of this machine."""

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), logger_of) as session:
            rows = await ask_limits(session, peer, change)
        click.echo(json_format.dumps(rows) if json else "\n".join(table(limit_rows(rows, time.time()))))
        return 0

    return run(main, log)
