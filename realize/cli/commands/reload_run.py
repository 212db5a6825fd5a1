"""Asks the daemon of this machine to read its configuration again, and tells what came of it."""

from __future__ import annotations

import os
from json import dumps

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.reload import reload_lines
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.config import Config
from realize.errors import ConfigError, ConnectionFailed
from realize.exit_codes import ExitCode
from realize.places import default_key_path
from realize.runs.asking import ask_reload
from realize.runs.credentials import Credentials, GivenCredentials
from realize.runs.session import Session


def run_reload(access: Access, *, json: bool, log: LogOptions) -> int:
    """Have it reload, and print what has changed; raises `ConfigError` with what is wrong with its configuration."""
    credentials, unread = _credentials(access)

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials, logger_of) as session:
            try:
                report = await ask_reload(session)
            except ConnectionFailed as error:
                raise unread or error from error
        if unread is not None and access.config is not None and not report["errors"]:
            # Then it is not the configuration of the daemon that has answered.
            raise unread
        if json:
            click.echo(dumps(report))
            return ExitCode.USAGE if report["errors"] else ExitCode.DONE
        if report["errors"]:
            raise ConfigError("\n".join(report["errors"]))
        click.echo("\n".join(reload_lines(report)))
        return ExitCode.DONE

    return run(main, log)


def _credentials(access: Access) -> tuple[Credentials, ConfigError | None]:
    """Where the daemon is found, and what is wrong with the file that says it.

    That may be the configuration of the daemon itself, of which the daemon at the usual place is to say what is wrong.
    """
    try:
        credentials = credentials_of(access)
        credentials.control_paths  # noqa: B018 -- reads the configuration
    except ConfigError as error:
        return GivenCredentials(Config(key=default_key_path(os.environ))), error
    return credentials, None
