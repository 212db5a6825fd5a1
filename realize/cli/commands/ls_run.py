"""Lists a location: prints entries as the pages arrive, so that memory does not grow with the number of files."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import click

from realize.cli.credentials import credentials_of
from realize.cli.display.wording import about, local_time
from realize.cli.logs import log_faults
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.errors import NotFound, RealizeError, next_step
from realize.json_fields import path_fields, printable
from realize.locations import Location
from realize.runs.session import Session
from realize.store.interfaces import IStore
from realize.units import display_name, format_size
from realize.values import Entry, Kind, WhereKind

STATES: Final = {Kind.FILE: "final", Kind.PARTIAL: "partial", Kind.LEFT: "left", Kind.UNREADABLE: "unreadable"}


def run_ls(location: str, access: Access, *, json: bool, log: LogOptions) -> int:
    """List ``location`` on stdout; return 1 if something there could not be read, else 0."""

    async def main(reactor: IReactor) -> int:
        async with Session(reactor, credentials_of(access), before_connecting=log_faults) as session:
            return await _list(session, location, as_json=json)

    return run(main, log)


async def _list(session: Session, text: str, *, as_json: bool) -> int:
    (location,) = session.resolve(text)
    try:
        return await _list_store(await session.store(location), location, as_json=as_json)
    except RealizeError as error:
        raise type(error)(f"{location}: {error}{next_step(error, str(location))}") from error


async def _list_store(store: IStore, location: Location, *, as_json: bool) -> int:
    where = await store.open(os.urandom(16))
    if where.kind is WhereKind.ABSENT:
        raise NotFound("no such file or directory")
    unreadable = 0
    listing = store.walk(partials=True)
    try:
        while page := await listing.next_page():
            for entry in page:
                if entry.kind is Kind.DIRECTORY:
                    continue
                if entry.kind is Kind.UNREADABLE:
                    unreadable = 1
                    click.echo(f"realize: error: {location}: {about(entry.path, entry.note)}", err=True)
                if as_json:
                    click.echo(json.dumps(fields(entry)))
                elif entry.kind is not Kind.UNREADABLE:
                    click.echo(line(entry))
    finally:
        listing.close()
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
