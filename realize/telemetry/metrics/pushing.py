"""Push metrics to a Prometheus Pushgateway, from a thread of its own, within time limits.

A push is a POST: it replaces the metrics of the same name in its group, and leaves all others of the group alone.
There is one push at a time, and the final one comes last; if something hangs (a name server, the gateway), the caller
waits no longer than the time it gave.
Redirects are not followed: they would turn the POST into a GET, and send the password to another server.
The password is never part of a message.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import pushadd_to_gateway

from realize.by_value import ByValue
from realize.errors import UsageError
from realize.telemetry.metrics.run_metrics import Pushes
from realize.units import display_text, quoted

PUSH_ATTEMPT_TIMEOUT_S: Final = 3.0
"""Time limit for each step of an attempt that waits for the network."""

PUSH_RETRY_S: Final = 0.3
"""Delay before the second attempt."""

_MAX_REFUSAL_BYTES: Final = 200
"""How much of the text of a refusal is read and shown."""


class PushFailed(Exception):
    """A push failed; the text says why, and ``permanent`` that another attempt would fail too."""

    def __init__(self, why: str, *, permanent: bool = False) -> None:
        super().__init__(why)
        self.permanent = permanent


@frozen(eq=False, repr=False)
class Gateway(ByValue):
    """A Pushgateway and a group in it; ``url`` contains neither user nor password, so it may be shown."""

    url: str
    job: str
    instance: str
    user: str | None = None
    password: str = field(default="", repr=False)

    def push(self, registry: CollectorRegistry, timeout: float = PUSH_ATTEMPT_TIMEOUT_S) -> None:
        """Make one attempt, in which no step may wait longer than ``timeout`` seconds; raises `PushFailed`."""
        try:
            pushadd_to_gateway(
                self.url, self.job, registry, {"instance": self.instance}, timeout=timeout, handler=self._request
            )
        except urllib.error.HTTPError as error:
            with error:
                raise PushFailed(_refusal(error), permanent=error.code < 500) from error
        except urllib.error.URLError as error:
            raise PushFailed(_reason(error.reason)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PushFailed(_reason(error)) from error

    def _request(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        request = urllib.request.Request(url, data, dict(headers), method=method)  # noqa: S310 -- http or https
        if self.user is not None:
            word = b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {word}")

        def send() -> None:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout):
                pass

        return send


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turns every redirect into an error."""

    def redirect_request(self, *_: object) -> None:
        """Refuse to follow it."""


def parse_gateway(url: str, job: str, instance: str) -> Gateway:
    """The gateway at ``http[s]://[USER:PASSWORD@]HOST[:PORT][/PREFIX]``; raises `UsageError` for any other form."""
    form = "http[s]://[USER:PASSWORD@]HOST[:PORT][/PREFIX]"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = all(sign.isascii() and sign.isprintable() and sign != " " for sign in f"{parts.hostname}{parts.path}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or not plain:
        # The URL is not quoted, because there may be a password in it.
        raise UsageError(f"it is not the URL of a Pushgateway: write {form}")
    for name, value in (("job", job), ("instance", instance)):
        if not value.strip() or value in {".", ".."} or not _encodes(value):
            raise UsageError(f"{quoted(value)} cannot be the {name} of a group in a Pushgateway")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = host if port is None else f"{host}:{port}"
    return Gateway(
        url=f"{parts.scheme}://{address}{parts.path.rstrip('/')}",
        job=job,
        instance=instance,
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
    )


class Pusher:
    """Pushes to one gateway, one push at a time.

    ``failed`` is called, in the thread of the push, with the reason when a `beat` fails for the first time.
    """

    def __init__(self, push: Callable[[CollectorRegistry, float], None], failed: Callable[[str], object]) -> None:
        self._push = push
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._tried = 0
        self._failures = 0
        self._told = False

    def pushes(self) -> Pushes:
        """How many pushes were tried, and failed, so far."""
        return Pushes(self._tried, self._failures)

    def begin(self, registry: CollectorRegistry) -> None:
        """Push in the background; whether that fails is left to those that follow to report."""
        self._start(lambda: self._attempt(registry, PUSH_ATTEMPT_TIMEOUT_S))

    def beat(self, registry: CollectorRegistry) -> None:
        """Push in the background, unless the previous push is still going on; reports only the first failure."""

        def push() -> None:
            error = self._attempt(registry, PUSH_ATTEMPT_TIMEOUT_S)
            if error is not None and not self._told:
                self._told = True
                self._failed(str(error))

        if self._thread is None or not self._thread.is_alive():
            self._start(push)

    def finish(self, registry: CollectorRegistry, within: float) -> str | None:
        """Push for the last time, in up to two attempts, and wait at most ``within`` seconds; returns why it failed."""
        until = time.monotonic() + within
        outcome: list[PushFailed | None] = []

        def push() -> None:
            error = self._attempt(registry, min(PUSH_ATTEMPT_TIMEOUT_S, until - time.monotonic()))
            if error is not None and not error.permanent and (left := until - time.monotonic() - PUSH_RETRY_S) > 0:
                time.sleep(PUSH_RETRY_S)
                error = self._attempt(registry, left)
            outcome.append(error)

        if self._thread is not None:
            self._thread.join(within)
        if self._thread is None or not self._thread.is_alive():
            self._start(push).join(max(0.0, until - time.monotonic()))
        failure = outcome[0] if outcome else PushFailed(f"no answer within {within:.3g} s")
        return None if failure is None else str(failure)

    def _start(self, work: Callable[[], object]) -> threading.Thread:
        self._thread = threading.Thread(target=work, name="push", daemon=True)
        self._thread.start()
        return self._thread

    def _attempt(self, registry: CollectorRegistry, timeout: float) -> PushFailed | None:
        self._tried += 1
        try:
            self._push(registry, max(0.1, timeout))
        except PushFailed as error:
            self._failures += 1
            return error
        return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(_MAX_REFUSAL_BYTES).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        text = ""
    status = f"HTTP {error.code} {error.reason}"
    return display_text(f"{status}: {text.splitlines()[0]}" if text and error.code == 400 else status)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.HTTPException):
        return "the answer is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return display_text(error.strerror)
    return display_text(str(error))
