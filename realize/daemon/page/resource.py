"""Answers requests for the page: who may have it, how it is to be treated, and how often it is made.

Invariant: the page is made at most once every `PAGE_CACHE_S`, however many ask for it.
"""

from __future__ import annotations

import ipaddress
import re
import traceback
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web import http

from realize.daemon.page.contents import Contents
from realize.daemon.page.rendering import LIVE_PATH, RENEWED_EVERY_S, STILL_PATH, render
from realize.daemon.page.style import POLICY
from realize.logger import Logger
from realize.telemetry.metrics.exposition import PLAIN, HttpAnswer, HttpAsked, Pages

PAGE_CACHE_S: Final = 1.0
"""How long a page that was made is good for."""

_HTML: Final = "text/html; charset=utf-8"
_HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_RENEW: Final = (("refresh", str(RENEWED_EVERY_S)),)


@define(eq=False, repr=False)
class StatusPage:
    """The page of one daemon; ``collect`` returns what it shows, and must not wait."""

    _collect: Callable[[], Contents]
    _clock: IReactorTime
    _log: Logger
    _made: tuple[float, HttpAnswer] | None = field(default=None, init=False)

    @property
    def pages(self) -> Pages:
        """Where the page is, for an `realize.telemetry.metrics.exposition.Exposition`."""
        return {LIVE_PATH: self.answer, STILL_PATH: self.answer}

    def answer(self, asked: HttpAsked) -> HttpAnswer:
        """The page, or why not."""
        if not may_ask(asked):
            text = "ask for localhost or for an address: another name for this machine may be that of an attacker\n"
            return HttpAnswer(http.FORBIDDEN, PLAIN, text.encode())
        answer = self._current()
        if asked.path == LIVE_PATH:
            answer = HttpAnswer(answer.code, answer.kind, answer.body, (*answer.headers, *_RENEW))
        return answer

    def _current(self) -> HttpAnswer:
        now = self._clock.seconds()
        if self._made is None or not 0 <= now - self._made[0] < PAGE_CACHE_S:
            self._made = now, self._make()
        return self._made[1]

    def _make(self) -> HttpAnswer:
        try:
            return HttpAnswer(http.OK, _HTML, render(self._collect()), _HEADERS)
        except Exception:  # noqa: BLE001 -- a bug of ours must not leave the browser without an answer
            self._log.error("page_failed", exc=traceback.format_exc())
            return HttpAnswer(http.INTERNAL_SERVER_ERROR, PLAIN, b"see the log\n", _HEADERS)


def may_ask(asked: HttpAsked) -> bool:
    """Whether a browser may be given the page: not one that was led to loopback by the name of another site.

    Such a name can be made to mean 127.0.0.1 when the browser has loaded that site (DNS rebinding), whose scripts could
    then read what only this machine should. Where others may ask, names are as good as addresses.
    """
    if not asked.on_loopback:
        return True
    match = _HOST.fullmatch(asked.host)
    if match is None:
        return False
    host = match[1].lower().removesuffix(".").strip("[]")
    if host in {"", "localhost"} or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
