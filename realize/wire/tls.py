"""TLS 1.3 between peers that know each other's ed25519 keys.

Only the pinned key counts: names, dates and issuers of certificates are not checked, so an expired certificate is
accepted (`realize.keys` says why).
OpenSSL verifies that the other side holds the private key of the certificate it shows; the verify callback decides
whether that key is accepted, at depth 0 and nowhere else.
There is no session cache and there are no tickets, so no connection is authenticated by the keys of an earlier one.
Who has several keys, since it changes them, shows the one that the other end accepts (`realize.wire.key_hints`).

With TLS 1.3 the connecting side's handshake completes before the accepting side has checked its key: we are connected
only once Hello was answered.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from realize.errors import RealizeError, WrongPeer
from realize.keys import Identity, PublicKey, spki_of_certificate
from realize.wire.key_hints import known_offer, offers, server_name, wanted

IO_CHUNK_BYTES: Final = 1 << 20
"""How much is read from the kernel or written to it at once, and how much may be queued before senders are paused.

With Twisted's own 64 and 128 KiB a bulk transfer keeps stopping and starting: measured with
``python -m benchmarks.wire_throughput``, 256 KiB 330 MB/s, 512 KiB 640, 1 MiB 700, 2 MiB 640.
"""

NOT_SENT_LOW_WATER_BYTES: Final = 512 * 1024
"""How much unsent data may wait in the kernel; more would only delay the answers behind it."""

_TCP_NOTSENT_LOWAT: Final = 25  # linux/tcp.h; Python 3.11's socket module does not name it
_PARTIAL_WRITE: Final = 1  # SSL_MODE_ENABLE_PARTIAL_WRITE in openssl/ssl.h; pyOpenSSL does not name it
_VERIFY: Final = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

Refused = Callable[[TLSMemoryBIOProtocol, RealizeError, PublicKey | None], None]
"""Called with the connection of a certificate that was refused, the reason, and its key if it is an ed25519 key."""


def _context(identity: Identity) -> SSL.Context:
    """TLS 1.3 and nothing else, with our key.

    Not Twisted's ``CertificateOptions``: those choose ciphers and curves for older versions, and `twisted.internet.ssl`
    loads what verifies names of hosts, which together was a fifteenth of a short run.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(os.urandom(8))  # OpenSSL fails who offers a session where clients are verified without one
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # pyOpenSSL sets it, and then OpenSSL comes back after every single record (`realize.wire.tls_bulk`).
    context.clear_mode(_PARTIAL_WRITE)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.private_key)
    context.check_privatekey()
    return context


def _judge_by(
    connection: SSL.Connection, protocol: TLSMemoryBIOProtocol, judge: Callable[[PublicKey], None], refused: Refused
) -> SSL.Connection:
    """Let ``judge`` decide about the peer's key; it raises an error to refuse it."""

    def verify(_: SSL.Connection, certificate: Any, _error: int, depth: int, _ok: int) -> bool:
        # OpenSSL's own verdict is ignored on purpose: it rejects every self-signed certificate.
        key = None
        try:
            if depth != 0:
                raise WrongPeer("the peer showed a chain of certificates instead of its own one")  # noqa: TRY301
            key = spki_of_certificate(certificate.to_cryptography())
            judge(key)
        except RealizeError as error:
            refused(protocol, error, key)
            return False
        except Exception as error:  # noqa: BLE001 -- pyOpenSSL would print it; a certificate we cannot check is refused
            refused(protocol, WrongPeer(f"the certificate of the peer cannot be read: {error}"), key)
            return False
        return True

    connection.set_verify(_VERIFY, verify)
    return connection


@implementer(IOpenSSLClientConnectionCreator)
class ConnectingTLS:
    """TLS for connecting, only to the holder of one of ``pins``; errors call the other end ``label``.

    Of our ``identities``, the first one that the other end says it knows is shown, or else the very first.
    ``hints`` tells the other end which keys are pinned; without it, it is sent no server name.
    """

    def __init__(
        self, identities: Sequence[Identity], pins: Sequence[PublicKey], label: str, *, hints: bool = True
    ) -> None:
        self._keys = [identity.public_key for identity in identities]
        self._contexts = [_context(identity) for identity in identities]
        self._pins = pins
        self._hints = hints
        self._label = label

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a connection; Twisted calls it."""
        connection = SSL.Connection(self._contexts[0], None)
        if self._hints:
            connection.set_tlsext_host_name(server_name(self._pins))
        offered = offers(self._keys) if len(self._keys) > 1 else []
        if offered:
            connection.set_alpn_protos(offered)

        def judge(key: PublicKey) -> None:
            self._judge(key)
            # By now the other end has answered our offers, and our certificate has not been taken yet.
            answer = connection.get_alpn_proto_negotiated()
            if answer in offered:
                connection.set_context(self._contexts[offered.index(answer)])

        return _judge_by(connection, tlsProtocol, judge, _give_up)

    def _judge(self, key: PublicKey) -> None:
        if key not in self._pins:
            pinned = " or ".join(pin.fingerprint for pin in self._pins)
            raise WrongPeer(
                f"{self._label} shows the key {key.fingerprint} instead of {pinned}; "
                f'if it was changed on purpose, say so here: key = "{key.base64}"'
            )


def _give_up(protocol: TLSMemoryBIOProtocol, error: RealizeError, _: PublicKey | None) -> None:
    protocol.failVerification(Failure(error))


@implementer(IOpenSSLServerConnectionCreator)
class AcceptingTLS:
    """TLS for accepting, only from holders of keys for which ``is_known`` is true at that moment.

    Of our ``identities``, the first one that the other end says it accepts is shown, or else the very first.
    ``known`` are the keys that a peer with several may choose from; if there are none, it shows its first.
    A refused peer gets TLS's own alert, from which it can tell that its key is unknown, and the connection not just
    lost.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        is_known: Callable[[PublicKey], bool],
        refused: Refused,
        known: Callable[[], Iterable[PublicKey]] = tuple,
    ) -> None:
        self._keys = [identity.public_key for identity in identities]
        self._contexts = [_context(identity) for identity in identities]
        self._is_known = is_known
        self._known = known
        self._refused = refused
        for context in self._contexts:
            context.set_alpn_select_callback(self._choose_theirs)
        self._contexts[0].set_tlsext_servername_callback(self._choose_ours)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make a connection; Twisted calls it."""
        connection = SSL.Connection(self._contexts[0], None)
        return _judge_by(connection, tlsProtocol, self._judge, self._refused)

    def _choose_ours(self, connection: SSL.Connection) -> None:
        index = wanted(connection.get_servername(), self._keys)
        if index:
            connection.set_context(self._contexts[index])

    def _choose_theirs(self, _: SSL.Connection, offered: list[bytes]) -> Any:
        return known_offer(offered, self._known()) or SSL.NO_OVERLAPPING_PROTOCOLS

    def _judge(self, key: PublicKey) -> None:
        if not self._is_known(key):
            raise WrongPeer(f"the key {key.fingerprint} is not known")


def peer_public_key(transport: Any) -> PublicKey:
    """Return the key of the peer, once the handshake has completed; ``transport`` may wrap the TLS one.

    Raises `WrongPeer` if there is no certificate.
    """
    return _public_key(transport, SSL.Connection.get_peer_certificate, "the peer showed no certificate")


def own_public_key(transport: Any) -> PublicKey:
    """Return which of our keys was shown to the peer, once the handshake has completed.

    Raises `WrongPeer` if there is no certificate.
    """
    return _public_key(transport, SSL.Connection.get_certificate, "no certificate was shown to the peer")


def _public_key(transport: Any, certificate_of: Callable[..., Any], without: str) -> PublicKey:
    handle = transport.getHandle()
    certificate = certificate_of(handle, as_cryptography=True) if isinstance(handle, SSL.Connection) else None
    if certificate is None:
        raise WrongPeer(without)
    return spki_of_certificate(certificate)


def tune(transport: Any) -> None:
    """Tune the socket below any number of wrappers for bulk transfers with small answers in between.

    The sizes of the kernel's buffers are left to the kernel: a size that we set is capped (``net.core.rmem_max``) far
    below what its own tuning reaches, and would limit the throughput of long links.
    """
    read_at_once(transport, IO_CHUNK_BYTES)
    transport = lowest(transport)
    if hasattr(transport, "SEND_LIMIT"):
        transport.SEND_LIMIT = IO_CHUNK_BYTES
    if hasattr(transport, "setTcpNoDelay"):
        transport.setTcpNoDelay(True)
        with contextlib.suppress(OSError):
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER_BYTES)


def read_at_once(transport: Any, amount: int) -> None:
    """Let the socket below any number of wrappers read, and queue, at most ``amount`` bytes in its turn."""
    transport = lowest(transport)
    if hasattr(transport, "bufferSize"):
        transport.bufferSize = amount


def hung_up(transport: Any) -> bool:
    """Return whether the other end has closed the socket below any wrappers; we cannot see that while we do not read.

    True also if this end is closed; False where the system cannot tell.
    """
    transport = lowest(transport)
    if not hasattr(transport, "fileno") or not hasattr(select, "POLLRDHUP"):
        return False
    fd = transport.fileno()
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def lowest(transport: Any) -> Any:
    """Return the transport below any number of wrappers."""
    while (below := getattr(transport, "transport", None)) is not None:
        transport = below
    return transport


def handshake_error(error: SSL.Error) -> str:
    """Return OpenSSL's reason for a failed handshake, in words."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or "the TLS handshake failed"


def refused_by_peer(error: BaseException | None) -> bool:
    """Return whether a TLS alert says that the peer did not accept our certificate.

    These are the alerts of RFC 8446, section 6.2, that concern certificates, and access denied.
    """
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
        return False
    reasons = " ".join(str(entry[-1]) for entry in error.args[0])
    return "alert" in reasons and any(word in reasons for word in ("certificate", "unknown ca", "access denied"))
