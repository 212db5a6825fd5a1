"""Asks a daemon what it is doing, and shows its answer."""

from __future__ import annotations

from json import dumps

import click

from realize.cli.display.report import readable
from realize.cli.options import Access, LogOptions
from realize.cli.session.peers import naming
from realize.cli.session.reports import parse
from realize.cli.session.runner import run
from realize.cli.session.session import Session
from realize.concurrency.reactor import IReactor


def run_status(peer: str, access: Access, *, json: bool, log: LogOptions) -> int:
    """Print the status of the daemon at ``peer``."""
    from realize.wire.commands import Status

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, access) as session:
            whom = session.resolve_peer(peer)
            protocol = await session.connected(whom)
            with naming(whom):
                report = parse((await protocol.call(Status))["report"])
        click.echo(dumps(report) if json else "\n".join(readable(report)))
        return 0

    return run(main, log)
