"""What the daemon reports to ``realize status``."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from realize import __version__
from realize.daemon.rates import RateSampler
from realize.errors import Busy
from realize.keys import PublicKey
from realize.wire.reports import MAX_REPORT_BYTES, dumped
from realize.wire.server import AcceptedProtocol

IDLE_BPS: Final = 100
"""Bytes per second below which a connection counts as idle: pings are less."""

_SEPARATOR_CHARS: Final = len(", ")


class Uptime(Protocol):
    """Something that knows for how many seconds it has been running."""

    @property
    def uptime(self) -> float:
        """Seconds since the start, by a monotonic clock."""


def sample(rates: RateSampler, connections: Iterable[AcceptedProtocol], *, carried: bool) -> None:
    """Let ``rates`` know the totals in bytes of all connections and transfers.

    Of very many connections that takes as long as all their pings, so it is left out, as long as no connection has
    ``carried`` more than those and no transfer is in progress, whatever that works on.
    """
    if not carried and rates.repeat():
        return
    found: dict[Hashable, int] = {}
    has_transfers = False
    for connection in connections:
        found[connection.number, "received"] = connection.bytes_received
        found[connection.number, "sent"] = connection.bytes_sent
        for transfer in connection.transfers():
            found[_key(connection, transfer)] = transfer["done"]
            has_transfers = True
    rates.look(found, lasts=not has_transfers)


def report(
    service: Uptime,
    connections: Iterable[AcceptedProtocol],
    rates: RateSampler,
    directories: Sequence[Mapping[str, Any]],
    limits: Sequence[Mapping[str, Any]],
    moves: Sequence[Mapping[str, Any]],
    keys: Sequence[PublicKey],
    name: str,
    *,
    is_admin: bool,
) -> dict[str, Any]:
    """The report as a JSON object; for a peer that is no admin, it has only its own connections and transfers.

    ``keys`` are those of the daemon, newest first: whoever knows a former one learns from it which is the new one.
    ``directories`` and ``limits`` are those that this peer may see.
    ``moves`` are for an admin (`realize.daemon.move_reports.short_rows`).
    """
    shown = [each for each in connections if is_admin or each.name == name]
    shown.sort(key=lambda each: each.number)
    return {
        "version": __version__,
        "uptime": round(service.uptime, 1),
        "keys": [
            {"state": "former" if index else "current", "fingerprint": key.fingerprint, "key": key.base64}
            for index, key in enumerate(keys)
        ],
        "directories": directories,
        "connections": [
            {
                "id": each.number,
                "peer": each.name,
                "address": each.address,
                "key": _short(each.key),
                "shown": _short(each.shown),
                "receive_rate": _rounded(rates.of((each.number, "received"), each.bytes_received)),
                "send_rate": _rounded(rates.of((each.number, "sent"), each.bytes_sent)),
                "received": each.bytes_received,
                "sent": each.bytes_sent,
            }
            for each in shown
        ],
        "transfers": [transfer for each in shown for transfer in transfers_of(each, rates)],
        "limits": limits,
        **({"moves": moves} if is_admin else {}),
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report as JSON; if it would not fit, the rows that tell least are left out, and ``in_all`` counts all.

    These are limits that limit nothing, then connections that carry nothing, then whatever there is.
    Raises `Busy` if it never fits.
    """
    text = json.dumps(report)
    for key, may_go in _LEFT_OUT:
        if len(text) <= MAX_REPORT_BYTES:
            break
        report = _with_fewer(report, key, may_go)
        text = json.dumps(report)
    if len(text) > MAX_REPORT_BYTES:
        raise Busy("the report is too long to be sent")
    return text


def limits_text(limits: Sequence[Mapping[str, Any]]) -> str:
    """The limits as JSON; if they would not fit, those that limit nothing are left out, then the last ones."""
    text = json.dumps(limits)
    if len(text) <= MAX_REPORT_BYTES:
        return text
    return dumped([row for row in limits if not _limits_nothing(row)], MAX_REPORT_BYTES)


def _limits_nothing(row: Mapping[str, Any]) -> bool:
    """Whether a limit is none, and will not be one by itself, and is not what the asker keeps to."""
    return not row.get("yours") and all(row.get(each) is None for each in ("limit", "timetable", "changes_in"))


def _is_idle(row: Mapping[str, Any]) -> bool:
    """Whether a connection carries nothing but pings, as far as is known."""
    return all((row.get(each) or 0) < IDLE_BPS for each in ("receive_rate", "send_rate"))


def _anything(_: Mapping[str, Any]) -> bool:
    return True


_LEFT_OUT: Final[tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...]] = (
    ("limits", _limits_nothing),
    ("connections", _is_idle),
    *((key, _anything) for key in ("transfers", "moves", "directories", "connections", "limits")),
)
"""Which rows of a list may be left out, the least telling first."""


def _with_fewer(report: Mapping[str, Any], key: str, may_go: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """The report with as few rows of one list left out as necessary: the last of those that may go."""
    rows = report.get(key) or []
    stay = [row for row in rows if not may_go(row)]
    if len(stay) == len(rows):
        return report
    shortened = {"in_all": {}, **report, "truncated": True}
    shortened["in_all"] = {key: len(rows), **shortened["in_all"]}
    room = MAX_REPORT_BYTES - len(json.dumps({**shortened, key: stay}))
    kept = []
    for row in rows:
        if may_go(row):
            room -= len(json.dumps(row)) + _SEPARATOR_CHARS
            if room < 0:
                continue
        kept.append(row)
    return {**shortened, key: kept}


def transfers_of(connection: AcceptedProtocol, rates: RateSampler) -> Iterator[dict[str, Any]]:
    """The transfers of one connection as the report has them."""
    for transfer in connection.transfers():
        rate = rates.of(_key(connection, transfer), transfer["done"])
        left = (transfer["size"] - transfer["done"]) / rate if rate else None
        yield {
            "peer": connection.name,
            "connection": connection.number,
            **transfer,
            "rate": _rounded(rate),
            "left": None if left is None else round(left, 1),
        }


def _key(connection: AcceptedProtocol, transfer: Mapping[str, Any]) -> Hashable:
    return connection.number, transfer["direction"], transfer["dir"], transfer["path"]


def _short(key: PublicKey | None) -> str | None:
    return None if key is None else key.short_fingerprint


def _rounded(rate: float | None) -> int | None:
    return None if rate is None else round(rate)
