"""Asks a daemon what it is doing, and shows its answer."""

from __future__ import annotations

import time
from json import dumps

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.limits import with_what_comes
from realize.cli.display.report import readable
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.runs.asking import ask_status
from realize.runs.session import Session


def run_status(peer: str | None, access: Access, *, json: bool, log: LogOptions) -> int:
    """Print the status of the daemon at ``peer``; None is the one of this machine."""

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), logger_of) as session:
            report = await ask_status(session, peer)
        if not json and isinstance(rows := report.get("limits"), list) and all(isinstance(row, dict) for row in rows):
            report["limits"] = [with_what_comes(row, time.time()) for row in rows]
        click.echo(dumps(report) if json else "\n".join(readable(report)))
        return 0

    return run(main, log)
