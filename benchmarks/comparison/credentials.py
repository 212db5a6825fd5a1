"""Keys and certificates of the other tools, made anew for each comparison."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST_ALIAS: Final = "benchmark"
"""The name that ssh knows the server by, whatever its port."""


@frozen
class Credentials:
    """Files in one folder."""

    folder: Path

    @property
    def host_key(self) -> Path:
        """The private key of the ssh server."""
        return self.folder / "host_key"

    @property
    def user_key(self) -> Path:
        """The private key of the user that logs in."""
        return self.folder / "user_key"

    @property
    def authorized_keys(self) -> Path:
        """Who may log in."""
        return self.folder / "authorized_keys"

    @property
    def known_hosts(self) -> Path:
        """The server that ssh trusts."""
        return self.folder / "known_hosts"

    @property
    def authority(self) -> Path:
        """The certificate that both ends of TLS trust."""
        return self.folder / "authority.crt"

    def certificate(self, end: str) -> Path:
        """The certificate of ``server`` or ``client``."""
        return self.folder / f"{end}.crt"

    def key(self, end: str) -> Path:
        """The private key of that."""
        return self.folder / f"{end}.key"


def make_credentials(folder: Path) -> Credentials:
    """Make all of them."""
    made = Credentials(folder)
    host, user = _ssh_key(made.host_key), _ssh_key(made.user_key)
    made.authorized_keys.write_text(f"{user}\n")
    made.known_hosts.write_text(f"{HOST_ALIAS} {host}\n")
    _certificates(made)
    return made


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _ssh_key(path: Path) -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    _write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _certificates(made: Credentials) -> None:
    authority_key, authority_name = ec.generate_private_key(ec.SECP256R1()), _name("authority")
    now = dt.datetime.now(dt.UTC)

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=7))
        )

    authority = certificate(authority_name, authority_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    made.authority.write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    for end, usage in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_secret(made.key(end), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        leaf = certificate(_name(end), key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signed = leaf.add_extension(names, critical=False).sign(authority_key, hashes.SHA256())
        made.certificate(end).write_bytes(signed.public_bytes(Encoding.PEM))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
