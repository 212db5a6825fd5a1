"""Asks a daemon about its standing moves, or to do something with one."""

from __future__ import annotations

from json import dumps

import click

from realize.cli.commands.moves import STEERING
from realize.cli.credentials import credentials_of
from realize.cli.display.moves import details, listing
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.runs.asking import ask_moves
from realize.runs.session import Session
from realize.wire.commands import Steering


def run_moves(peer: str | None, access: Access, action: str, name: str | None, *, json: bool, log: LogOptions) -> int:
    """Do the action, if it is one, and print what there is to know of the moves then, or of the one of that name."""
    steering = Steering(action) if action in STEERING else None

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), logger_of) as session:
            report = await ask_moves(session, peer, name, steering)
        if json:
            click.echo(dumps(report))
        else:
            click.echo("\n".join(details(report) if action == "show" else listing(report)))
        return 0

    return run(main, log)
