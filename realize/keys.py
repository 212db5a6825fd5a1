"""Identities: our own key pair, and the public keys that we accept.

This module owns the files with private keys, and the text forms of public keys.
It imports no Twisted; `realize.wire` turns an `Identity` into TLS options.

A peer is its ed25519 public key, compared as a whole SubjectPublicKeyInfo (RFC 5280, RFC 8410).
The certificate around the key exists because TLS requires one: it is made in memory and self-signed, and nothing in it
but the key matters, neither names nor dates.
Keys do not expire: a key is revoked by removing it from the configuration.

Invariants: a private key is never shown, neither by ``repr`` nor by an error; a key file that others could read is not
used; a key file is never overwritten.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import os
import shlex
import stat
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from realize.by_value import ByValue
from realize.errors import ConfigError, WrongPeer
from realize.fs.durable import sync_directory
from realize.fs.own_files import OWN_FILES
from realize.ownership import forbidden, not_ours
from realize.units import display_text, quoted

MAX_KEYS: Final = 4
"""How many keys one peer, or we ourselves, may have at a time: a new one, and former ones that others still know."""

_SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410, section 4
_PRIVATE_PREFIX: Final = bytes.fromhex("302e020100300506032b6570")  # RFC 8410, section 7
_SPKI_BYTES: Final = 44
_UNLIKE_A_PATH: Final = ("MC4CAQ", "MCowBQYDK2Vw", "ssh-ed25519 ")
_MAX_KEY_FILE_BYTES: Final = 1 << 16
_EXPECTED: Final = "write the base64 of its SubjectPublicKeyInfo (MCowBQYDK2VwAyEA...) or a PEM PUBLIC KEY"
_NOT_BEFORE: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NOT_AFTER: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # "no expiry", RFC 5280, 4.1.2.5


@frozen(eq=False, repr=False)
class PublicKey(ByValue):
    """An ed25519 public key, which identifies a peer.  Raises `ConfigError` if ``spki`` is anything else."""

    spki: bytes
    """DER of the SubjectPublicKeyInfo, 44 bytes."""

    def __attrs_post_init__(self) -> None:
        """Refuse any other kind of key."""
        if len(self.spki) != _SPKI_BYTES or not self.spki.startswith(_SPKI_PREFIX):
            raise ConfigError(f"not an ed25519 public key: {_EXPECTED}")

    @property
    def base64(self) -> str:
        """The key as one line for configuration files, which `parse_public_key` reads."""
        return base64.b64encode(self.spki).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """A short name for people and logs; never used in a comparison."""
        digest = Hash(SHA256())  # not of `hashlib`, which loads another libcrypto than `cryptography` has
        digest.update(self.spki)
        return "SHA256:" + base64.b64encode(digest.finalize()).decode("ascii").rstrip("=")

    @property
    def short_fingerprint(self) -> str:
        """The beginning of the fingerprint, for tables."""
        return self.fingerprint[: len("SHA256:") + 12]

    def __str__(self) -> str:
        return self.fingerprint


@frozen(eq=False, repr=False)
class Identity(ByValue):
    """Our own key pair; two are equal if their public keys are."""

    private_key: Ed25519PrivateKey = field(repr=False, eq=False)
    public_key: PublicKey
    certificate: x509.Certificate = field(repr=False, eq=False)
    """Self-signed, made in memory each time a key is loaded."""


def parse_public_key(text: str) -> PublicKey:
    """The key in a base64 SubjectPublicKeyInfo (white space does not matter) or a PEM ``PUBLIC KEY``.

    Raises `ConfigError`, which never repeats the text: it may be a private key that went to the wrong place.
    """
    if "-----BEGIN " in text:
        if "PRIVATE KEY-----" in text:
            raise ConfigError(_misplaced())
        try:
            return _public(load_pem_public_key(text.strip().encode("utf-8", "surrogateescape")))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"not a PEM public key: {_EXPECTED}") from error
    if text.lstrip().startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError(f"an OpenSSH key is not used here: {_EXPECTED}")
    try:
        spki = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ConfigError(f"not a public key: {_EXPECTED}") from error
    if spki.startswith(_PRIVATE_PREFIX):
        raise ConfigError(_misplaced())
    return PublicKey(spki)


def read_public_key(text_or_path: str) -> PublicKey:
    """The key that the argument itself is, or else the key in the file that it names.  Raises `ConfigError`."""
    try:
        return parse_public_key(text_or_path)
    except ConfigError as error:
        # This is not a file name, and the error must not repeat it, in case it is a private key.
        if "-----BEGIN " in text_or_path or text_or_path.lstrip().startswith(_UNLIKE_A_PATH):
            raise
        not_a_key = error
    try:
        with open(text_or_path, "rb") as file:
            content = file.read(_MAX_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise ConfigError(
            f"{quoted(text_or_path)} is neither a public key nor a file that can be read ({reason}): {_EXPECTED}, "
            "or the name of a file that holds it"
        ) from not_a_key
    try:
        return parse_public_key(content.decode("utf-8", "surrogateescape"))
    except ConfigError as error:
        raise ConfigError(f"{display_text(text_or_path)}: {error}") from error


def spki_of_certificate(certificate: x509.Certificate) -> PublicKey:
    """The public key in a peer's certificate.  Raises `WrongPeer` if it is not ed25519.

    That the peer has the private key is proven by TLS, not here.
    """
    try:
        return _public(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm, ConfigError) as error:
        raise WrongPeer("the certificate of the peer holds no ed25519 key") from error


def generate_identity() -> Identity:
    """A new identity, in memory only."""
    return identity_of(Ed25519PrivateKey.generate())


def parse_identity(pem: bytes) -> Identity:
    """The identity in the content of a file as `load_identity` reads it.

    Raises `ConfigError`, which never repeats any of it.
    """
    return identity_of(_private(pem, "the private key"))


def load_identity(path: str) -> Identity:
    """The identity in a PEM file, as ``realize keygen`` and ``openssl genpkey -algorithm ed25519`` write it.

    The path may be a symlink; the file must be regular, belong to us or root, and be readable by nobody else.
    Raises `ConfigError`, whose sentence names the file and says what to do.
    """
    name = display_text(path)
    OWN_FILES.add(path)
    try:
        # With O_NONBLOCK, a FIFO of that name does not block us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{name}: there is no such key file; make one with `realize keygen {shlex.quote(name)}`"
        ) from error
    except (OSError, ValueError) as error:
        advice = forbidden(path) if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{name}: cannot read the key file: {_reason(error)}{advice}") from error
    try:
        _check_access(os.fstat(descriptor), name)
        content = os.read(descriptor, _MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{name}: cannot read the key file: {_reason(error)}") from error
    finally:
        os.close(descriptor)
    return identity_of(_private(content, name))


def write_identity(path: str, identity: Identity) -> None:
    """Write the private key into a new file, durably; the file has mode 0600 from the start.

    Missing parent directories are created with mode 0700.
    An existing file is never changed; a file that cannot be written completely is removed again.
    Raises `ConfigError`.
    """
    name = display_text(path)
    content = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    parent = os.path.dirname(os.path.abspath(path))
    try:
        _make_directory(parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{name}: exists already; a key file is never overwritten") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot make the key file: {_reason(error)}") from error
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_directory(parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            raise ConfigError(f"{name}: cannot write the key file: {_reason(error)}") from error
        raise


def identity_of(private_key: Ed25519PrivateKey) -> Identity:
    """The identity whose private key that is, with a certificate made for it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "realize")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(private_key, algorithm=None)
    )
    return Identity(private_key, _public(private_key.public_key()), certificate)


def _public(key: object) -> PublicKey:
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"a public key of another kind than ed25519: {_EXPECTED}")
    return PublicKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _private(content: bytes, name: str) -> Ed25519PrivateKey:
    if b"-----BEGIN PUBLIC KEY-----" in content and b"PRIVATE KEY-----" not in content:
        raise ConfigError(f"{name}: holds a public key; name the file that holds the private key")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ConfigError(
            f"{name}: the key is encrypted, and Realize cannot ask for its password; "
            "keep it unencrypted in a file of mode 0600"
        ) from error
    except (ValueError, UnsupportedAlgorithm):
        # Without a cause: the parser's message must not be shown, since it may repeat parts of a private key.
        raise ConfigError(f"{name}: does not hold a PEM private key; make one with `realize keygen`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{name}: holds a key of another kind than ed25519; make one with `realize keygen`")
    return key


def _check_access(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{name}: not a regular file, so not a key file")
    if status.st_uid not in {os.geteuid(), 0}:
        raise ConfigError(f"{name}: the key file {not_ours(status.st_uid)}")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{name}: others may use the key file (its mode is {stat.S_IMODE(status.st_mode):04o}); "
            f"run `chmod 600 {shlex.quote(name)}`"
        )


def _misplaced() -> str:
    return "this is a private key, but a public key belongs here; anybody who has read it can now impersonate its owner"


def _make_directory(path: str) -> None:
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make_directory(above)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    sync_directory(above)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
