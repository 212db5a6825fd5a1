"""Sources and destinations as people write them on a command line.

This module owns the syntax of locations and of peers; it imports no Twisted.
It looks names up in the peers of the configuration and nowhere else, and asks the system only for the working directory
(`LocalLocation.resolved`); it does not check whether a file or a host exists.
Names in the path of a remote location are bytes; the server decides which are allowed, and this module refuses only
obvious typing errors early.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from realize.by_value import ByValue
from realize.config import PeerConfig
from realize.config.addresses import DEFAULT_PORT, parse_address
from realize.config.checks import NAME_FORM
from realize.errors import UsageError
from realize.units import display_name, display_text, format_address, quoted

_SCHEME: Final = re.compile(r"realize://", re.IGNORECASE)
_OTHER_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BRACKETS: Final = re.compile(r"(\[[^\[\]/]*\](?::[^:/]*)?)(?:::(.*)|/.*)?", re.DOTALL)
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_FORMS: Final = "write HOST::DIRECTORY, HOST:PORT::DIRECTORY/PATH or realize://HOST:PORT/DIRECTORY/PATH"


@frozen(eq=False, repr=False)
class LocalLocation(ByValue):
    """A file or directory on this machine."""

    path: str
    """As it was given, so perhaps relative to the working directory; invalid UTF-8 is kept as surrogates (PEP 383)."""

    @property
    def resolved(self) -> str:
        """The absolute path, not for display."""
        return os.path.abspath(self.path)

    def __str__(self) -> str:
        return display_text(self.path)


@frozen(eq=False, repr=False)
class RemoteLocation(ByValue):
    """A directory that a daemon serves, or a file or directory in it."""

    peer: str | None
    """The name of the peer in the configuration; None if it has no such peer."""
    host: str
    """Without brackets."""
    port: int
    directory: str
    path: bytes
    """Below the directory: components joined by ``/``; empty for the directory itself."""

    @property
    def resolved(self) -> str:
        """The location with its port."""
        return str(self)

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return format_address(self.host, self.port)

    def __str__(self) -> str:
        """The location with its port, for messages; it can be pasted back if nothing in the path needed an escape."""
        end = self.address if self.peer is None else f"{self.peer}:{self.port}"
        below = f"/{display_name(self.path)}" if self.path else ""
        return f"{end}::{self.directory}{below}"


Location = LocalLocation | RemoteLocation


def parse_location(text: str, peers: Mapping[str, PeerConfig]) -> Location:
    """The location that a source or destination argument stands for.

    ``HOST[:PORT]::DIRECTORY[/PATH]`` and ``realize://HOST[:PORT]/DIRECTORY[/PATH]`` are remote.
    Everything without ``:``, or with a ``/`` before the first ``:``, is local: ``./a:b`` and ``./a::b`` are files.
    What other programs would take for a remote location is refused instead of being taken for a local name:
    ``nas:inbox``, ``http://nas/inbox``.
    If the host is the name of a peer, the address configured for that peer is used; a port in the text overrides the
    configured one.
    Raises `UsageError`.
    """
    if not text or "\0" in text:
        raise UsageError(f"{quoted(text)} is not a location: write a path, or {_FORMS.removeprefix('write ')}")
    if scheme := _SCHEME.match(text):
        return _url(text, scheme.end(), peers)
    if text.startswith("[") and (match := _BRACKETS.fullmatch(text)):
        end, inside = match[1], match[2]
        if inside is None:
            if end != text or not _is_address(end):
                return _local(text)
            raise UsageError(f"{quoted(text)} names no directory: {_FORMS}, or ./ before the name of a local file")
    else:
        end, separator, inside = text.partition("::")
        if not separator or "/" in end:
            return _local(text)
    peer, host, port = _remote_end(end, text, peers)
    directory, _, path = inside.partition("/")
    return RemoteLocation(peer, host, port, _directory(directory, text), _path(_encode(path), text))


def parse_peer(text: str, peers: Mapping[str, PeerConfig]) -> tuple[str | None, str, int]:
    """The name in the configuration (or None), host and port for ``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT``.

    Names and ports are looked up as for `parse_location`.
    Raises `UsageError`.
    """
    try:
        return _end(text, peers)
    except UsageError as error:
        raise UsageError(f"{quoted(text)} is not a peer: {error}") from error


def _end(text: str, peers: Mapping[str, PeerConfig]) -> tuple[str | None, str, int]:
    name, port = parse_address(text, 0)
    if name not in peers or text.startswith("["):
        return None, name, port or DEFAULT_PORT
    host, configured = parse_address(peers[name].address or name)
    return name, host, port or configured


def _remote_end(end: str, text: str, peers: Mapping[str, PeerConfig]) -> tuple[str | None, str, int]:
    try:
        return _end(end, peers)
    except UsageError as error:
        raise UsageError(
            f"{quoted(text)} is not a location: {error}; a local file with :: in its name is written ./NAME"
        ) from error


def _local(text: str) -> LocalLocation:
    """A path on this machine; raises `UsageError` if it looks like a mistyped remote location, or another program's."""
    if _OTHER_SCHEME.match(text):
        raise UsageError(
            f"{quoted(text)} is not a location: {_FORMS}, or ./ before it for a local file or directory of that name"
        )
    start = text.partition("/")[0]
    if ":" not in start:
        return LocalLocation(text)
    # Split at the last colon, so that a port stays with its host; drop a user, since Realize knows peers by their keys.
    host, _, inside = start.rpartition(":")
    host = host.rpartition("@")[2]
    remote = f"{host if _is_address(host) else 'HOST'}::"
    remote += text[len(start) - len(inside) :] if NAME_FORM.fullmatch(inside) else "DIRECTORY"
    raise UsageError(
        f"{quoted(text)} is not a location: write {display_text(remote)} for a directory that a daemon serves, "
        f"or ./{display_text(text)} for a local file or directory"
    )


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except UsageError:
        return False
    return True


def _url(text: str, start: int, peers: Mapping[str, PeerConfig]) -> RemoteLocation:
    authority, _, rest = text[start:].partition("/")
    if "?" in text or "#" in text:
        raise UsageError(f"{quoted(text)}: a location has no query and no fragment; write %3F for ? and %23 for #")
    # A zone is written %25zone in a URL (RFC 6874).
    end = authority.replace("%25", "%") if authority.startswith("[") else authority
    peer, host, port = _remote_end(end, text, peers)
    parts = [_percent_decode(part, text) for part in rest.split("/")]
    if any(b"/" in part or b"\0" in part for part in parts):
        raise UsageError(f"{quoted(text)}: no file name contains a / or NUL, so %2F and %00 cannot be meant")
    directory = _directory(parts[0].decode("utf-8", "surrogateescape"), text)
    return RemoteLocation(peer, host, port, directory, _path(b"/".join(parts[1:]), text))


def _percent_decode(part: str, text: str) -> bytes:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise UsageError(f"{quoted(text)}: after % come two hexadecimal digits; write %25 for % itself")
        return bytes.fromhex(match[1].decode("ascii"))

    return _PERCENT.sub(byte, _encode(part))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _directory(name: str, text: str) -> str:
    if not name:
        raise UsageError(f"{quoted(text)} names no directory: {_FORMS}")
    if not NAME_FORM.fullmatch(name):
        raise UsageError(
            f"{quoted(text)}: {quoted(name)} cannot be the name of a directory: such names consist of letters, digits, "
            "'.', '_' and '-', a letter or digit first"
        )
    return name


def _path(path: bytes, text: str) -> bytes:
    components = [component for component in path.split(b"/") if component not in {b"", b"."}]
    if b".." in components:
        raise UsageError(f"{quoted(text)}: a path below a directory cannot go up with ..")
    return b"/".join(components)
