"""What the daemon reports to ``realize status``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from realize import __version__
from realize.daemon.rates import RateSampler
from realize.errors import Busy
from realize.keys import PublicKey
from realize.wire.reports import MAX_REPORT_BYTES, dumped
from realize.wire.server import AcceptedProtocol


class Uptime(Protocol):
    """Something that knows for how many seconds it has been running."""

    @property
    def uptime(self) -> float:
        """Seconds since the start, by a monotonic clock."""


def totals(connections: Iterable[AcceptedProtocol]) -> dict[Hashable, int]:
    """The totals in bytes of all connections and transfers, for `RateSampler.look`."""
    found: dict[Hashable, int] = {}
    for connection in connections:
        found[connection.number, "received"] = connection.bytes_received
        found[connection.number, "sent"] = connection.bytes_sent
        for transfer in connection.transfers():
            found[_key(connection, transfer)] = transfer["done"]
    return found


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
    """The report as JSON, with fewer ``transfers``, ``moves`` and ``directories``, in this order, if it would not fit.

    Raises `Busy` if it never fits.
    """
    for key in ("transfers", "moves", "directories"):
        text = dumped(report.get(key) or [], MAX_REPORT_BYTES, partial(_with_fewer, report, key))
        if len(text) <= MAX_REPORT_BYTES:
            return text
        report = _with_fewer(report, key, [])
    raise Busy("the report is too long")


def _with_fewer(report: Mapping[str, Any], key: str, kept: list[Any]) -> Mapping[str, Any]:
    return report if len(kept) == len(report.get(key) or []) else {**report, key: kept, "truncated": True}


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
