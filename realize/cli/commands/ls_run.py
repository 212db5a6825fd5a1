"""Lists a location: prints entries as the pages arrive, so that memory does not grow with the number of files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.wording import about, local_time
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.json_fields import path_fields, printable
from realize.runs.asking import list_location
from realize.runs.session import Session
from realize.units import display_name, format_size
from realize.values import Entry, Kind

STATES: Final = {Kind.FILE: "final", Kind.PARTIAL: "partial", Kind.LEFT: "left", Kind.UNREADABLE: "unreadable"}


def run_ls(location: str, access: Access, *, json: bool, log: LogOptions) -> int:
    """List ``location`` on stdout; return 1 if something there could not be read, else 0."""

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), logger_of) as session:
            return await _list(session, location, as_json=json)

    return run(main, log)


async def _list(session: Session, location: str, *, as_json: bool) -> int:
    (shown,) = map(str, session.resolve(location))
    unreadable = 0

    def show(page: Sequence[Entry]) -> None:
        nonlocal unreadable
        for entry in page:
            if entry.kind is Kind.DIRECTORY:
                continue
            if entry.kind is Kind.UNREADABLE:
                unreadable = 1
                click.echo(f"realize: error: {shown}: {about(entry.path, entry.note)}", err=True)
            if as_json:
                click.echo(json.dumps(fields(entry)))
            elif entry.kind is not Kind.UNREADABLE:
                click.echo(line(entry))

    await list_location(session, location, show)
    return unreadable


def line(entry: Entry) -> str:
    """An entry for people."""
    state = STATES[entry.kind]
    if entry.kind is Kind.LEFT:
        return f"{'-':>10}  {'-':19}  {state:7}  {display_name(entry.path)} ({entry.note})"
    return f"{format_size(entry.size):>10}  {local_time(entry.mtime_ns):19}  {state:7}  {display_name(entry.path)}"


def fields(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    record: dict[str, Any] = {**path_fields(entry.path), "state": STATES[entry.kind]}
    if entry.kind in {Kind.FILE, Kind.PARTIAL}:
        record |= {"size": entry.size, "mtime_ns": entry.mtime_ns}
    return record | ({"note": printable(entry.note)} if entry.note else {})
