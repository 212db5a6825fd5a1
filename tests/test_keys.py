"""Identities and public keys: `realize.keys`; cross-checked with the real openssl program."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from realize import keys
from realize.errors import ConfigError, WrongPeer
from realize.keys import (
    Identity,
    PublicKey,
    generate_identity,
    identity_of,
    load_identity,
    parse_identity,
    parse_public_key,
    read_public_key,
    spki_of_certificate,
    write_identity,
)

PREFIX = bytes.fromhex("302a300506032b6570032100")
RAW = st.binary(min_size=32, max_size=32)


@pytest.fixture(scope="module")
def identity():
    return generate_identity()


@pytest.fixture
def openssl():
    """A function that runs the openssl program and returns what it wrote; on CI its absence is a failure."""
    program = shutil.which("openssl")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the openssl program is missing on CI")
        pytest.skip("the openssl program is missing")

    def run(*arguments, data=b""):
        return subprocess.run([program, *arguments], input=data, check=True, capture_output=True).stdout

    return run


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def secret_file(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


@given(RAW, st.integers(1, 60))
def test_public_key_round_trip(raw, width):
    """The one-line form of a key reads back as the same key, also when white space got into it."""
    key = PublicKey(PREFIX + raw)
    wrapped = "\n  ".join(key.base64[start : start + width] for start in range(0, 60, width))

    assert key == parse_public_key(key.base64)
    assert key == parse_public_key(f" {wrapped}\n")
    assert key == read_public_key(key.base64)


def test_public_key_pem(identity):
    """A PEM public key is the same key as its base64."""
    text = public_pem(identity.private_key.public_key()).decode()

    assert identity.public_key == parse_public_key(text)
    assert identity.public_key == parse_public_key(f"\n{text}\n")


def test_fingerprint():
    """The fingerprint is the unpadded base64 of the SHA-256 of the whole SPKI, as text for people."""
    key = PublicKey(PREFIX + bytes(32))

    assert "SHA256:ciq9EumaU2fzda65ZyqOB3EuA8Kt0W+o1pFNHPou/gw" == key.fingerprint
    assert key.fingerprint == str(key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not an ed25519 public key"),
        ("hostb", "not a public key"),
        ("MCow BQYD", "not an ed25519 public key"),
        ("ключ", "not a public key"),
        (base64.b64encode(PREFIX + bytes(31)).decode(), "not an ed25519 public key"),
        (base64.b64encode(PREFIX + bytes(33)).decode(), "not an ed25519 public key"),
        (base64.b64encode(bytes(44)).decode(), "not an ed25519 public key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPN", "an OpenSSH key is not used here"),
        ("-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        (public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()).decode(), "another kind than ed25519"),
    ],
)
def test_bad_public_keys(text, expected):
    """What is no ed25519 public key is refused with what is wrong and what is expected instead."""
    with pytest.raises(ConfigError, match=expected) as caught:
        parse_public_key(text)

    assert "MCowBQYDK2VwAyEA" in str(caught.value)


@given(st.text())
def test_any_text_is_a_key_or_refused(text):
    """Whatever is given as a key, the only error is a configuration error."""
    try:
        parse_public_key(text)
    except ConfigError:
        return

    assert len("".join(text.split())) >= 59


@pytest.mark.parametrize("form", ["pem", "base64"])
def test_misplaced_private_key(identity, form, tmp_path):
    """A private key in the place of a public one is refused without being repeated."""
    text = pem(identity.private_key).decode()
    body = text.splitlines()[1]
    if form == "base64":
        text = body
    for read in (parse_public_key, read_public_key):
        with pytest.raises(ConfigError, match="this is a private key") as caught:
            read(text)

        assert body not in str(caught.value)


def test_public_key_file(identity, tmp_path):
    """An argument that is no key is the name of a file with one, in either form."""
    path = tmp_path / "ssh-host.pub"
    for content in (identity.public_key.base64, public_pem(identity.private_key.public_key()).decode()):
        path.write_text(content + "\n")

        assert identity.public_key == read_public_key(str(path))


def test_public_key_file_missing(tmp_path):
    """An argument that is neither key nor file is refused with both in the error."""
    with pytest.raises(
        ConfigError, match=r"'.*/absent\\n' is neither a public key nor a file that can be read \(No such"
    ):
        read_public_key(f"{tmp_path}/absent\n")
    with pytest.raises(ConfigError, match=r"neither a public key nor a file .*Is a directory"):
        read_public_key(str(tmp_path))
    with pytest.raises(ConfigError, match="neither a public key nor a file"):
        read_public_key("a\0b")


def test_public_key_file_with_rubbish(tmp_path):
    """The error about a file that holds no key names the file."""
    path = tmp_path / "key"
    path.write_bytes(b"\xff rubbish")
    with pytest.raises(ConfigError, match=r"/key: not a public key: write"):
        read_public_key(str(path))


def test_certificate(identity):
    """The certificate carries the key, is signed by it, and is valid as long as a certificate can be."""
    certificate = identity.certificate
    certificate.verify_directly_issued_by(certificate)

    assert identity.public_key == spki_of_certificate(certificate)
    assert "CN=realize" == certificate.subject.rfc4514_string()
    assert certificate.signature_hash_algorithm is None
    assert (1970, 9999) == (certificate.not_valid_before_utc.year, certificate.not_valid_after_utc.year)


def test_certificate_of_other_kind():
    """A peer whose certificate holds another kind of key is the wrong peer."""
    for key, algorithm in (
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (ed448.Ed448PrivateKey.generate(), None),
    ):
        template = generate_identity().certificate
        certificate = (
            x509.CertificateBuilder()
            .subject_name(template.subject)
            .issuer_name(template.subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(template.not_valid_before_utc)
            .not_valid_after(template.not_valid_after_utc)
            .sign(key, algorithm)
        )
        with pytest.raises(WrongPeer, match="holds no ed25519 key"):
            spki_of_certificate(certificate)


def test_identity_repr(identity):
    """The repr of an identity shows the public key only."""
    text = repr(identity)

    assert f"Identity(public_key={identity.public_key!r})" == text
    assert "private" not in text.lower()


def test_identity_equality(identity, tmp_path):
    """An identity that was written and loaded again equals itself, and no other one."""
    path = str(tmp_path / "key")
    write_identity(path, identity)

    assert identity == load_identity(path)
    assert identity != generate_identity()


def test_an_identity_needs_no_file(identity):
    """A program gives the content of a file, or a key object."""
    assert identity == parse_identity(pem(identity.private_key))
    assert identity == identity_of(identity.private_key)


def test_write_identity(identity, tmp_path):
    """A written key has mode 0600 and the directories made for it 0700, whatever the umask."""
    path = tmp_path / "a" / "b" / "realize.key"
    old = os.umask(0)
    try:
        write_identity(str(path), identity)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, path.parent.parent)]

    assert [0o600, 0o700, 0o700] == modes
    assert pem(identity.private_key) == path.read_bytes()


def test_write_identity_in_working_directory(identity, tmp_path, monkeypatch):
    """A bare file name stands for a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_identity("mine.key", identity)

    assert identity == load_identity("mine.key")


def test_write_identity_is_durable(identity, tmp_path, monkeypatch):
    """The file, its directory, and what is above a new directory are on stable storage before the call returns."""
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_identity(str(tmp_path / "new" / "key"), identity)

    assert [f"{tmp_path}", f"{tmp_path}/new/key", f"{tmp_path}/new"] == synced


@pytest.mark.parametrize("kind", ["file", "dangling symlink"])
def test_write_identity_never_overwrites(identity, tmp_path, kind):
    """Something of that name stays as it is."""
    path = tmp_path / "key"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="/key: exists already; a key file is never overwritten"):
        write_identity(str(path), identity)

    assert ["key"] == os.listdir(tmp_path)
    if kind == "file":
        assert "precious" == path.read_text()


@pytest.mark.parametrize("failing", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_written_identity_is_removed(identity, tmp_path, monkeypatch, failing):
    """A key that did not reach stable storage leaves no file behind that looks like one."""

    def fsync(descriptor):
        raise failing

    monkeypatch.setattr(os, "fsync", fsync)
    expected = ConfigError if isinstance(failing, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_identity(str(tmp_path / "key"), identity)

    assert [] == os.listdir(tmp_path)


def test_write_identity_where_nothing_can_be(identity, tmp_path):
    """A place where no file can be made is an error that names it."""
    (tmp_path / "file").write_text("")
    for path in (f"{tmp_path}/file/key", f"{tmp_path}/file/deep/key", "a\0b", f"{tmp_path}/{'x' * 300}"):
        with pytest.raises(ConfigError, match="cannot make the key file: "):
            write_identity(path, identity)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o610, 0o601, 0o644])
def test_key_that_others_may_use(identity, tmp_path, mode):
    """A key file that group or others have any access to is refused, with the command that mends it."""
    path = tmp_path / "a key"
    path.write_bytes(pem(identity.private_key))
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_identity(str(path))

    assert f"{path}: others may use the key file (its mode is {mode:04o}); run `chmod 600 '{path}'`" == str(
        caught.value
    )


def test_key_mode_is_that_of_the_file(identity, tmp_path):
    """A symlink to a key is fine, whatever its own mode; what it points to is judged."""
    path = secret_file(tmp_path / "key", pem(identity.private_key))
    link = tmp_path / "link"
    link.symlink_to(path)

    assert identity == load_identity(str(link))

    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match="/link: others may use"):
        load_identity(str(link))


def test_key_of_another_user(identity, tmp_path, monkeypatch):
    """A key file that belongs neither to us nor to root is refused."""
    path = secret_file(tmp_path / "key", pem(identity.private_key))
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(ConfigError, match=r"the key file belongs to user \w+, and this is user \w+; it must belong to"):
        load_identity(path)


def test_missing_key(tmp_path):
    """A missing key file is an error that says how to make one."""
    with pytest.raises(ConfigError) as caught:
        load_identity(f"{tmp_path}/key")

    assert f"{tmp_path}/key: there is no such key file; make one with `realize keygen {tmp_path}/key`" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "does not hold a PEM private key"),
        (b"\xffrubbish", "does not hold a PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "does not hold a PEM private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "another kind than ed25519"),
        (pem(ed448.Ed448PrivateKey.generate()), "another kind than ed25519"),
        (pem(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), "the key is encrypted"),
        (public_pem(Ed25519PrivateKey.generate().public_key()), "holds a public key"),
    ],
)
def test_unusable_keys(tmp_path, content, expected):
    """A key file with anything but a plain ed25519 private key is refused with its name and the reason."""
    path = secret_file(tmp_path / "key", content)
    with pytest.raises(ConfigError, match=f"/key: .*{expected}"):
        load_identity(path)
    with pytest.raises(ConfigError, match=f"^the private key: .*{expected}"):
        parse_identity(content)


def test_key_file_that_is_no_file(tmp_path):
    """A directory or a FIFO of that name is refused at once, and nothing waits for a writer."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="not a regular file"):
            load_identity(str(path))
    (tmp_path / "loop").symlink_to("loop")
    for path in (f"{tmp_path}/loop", "a\0b"):
        with pytest.raises(ConfigError, match="cannot read the key file: "):
            load_identity(path)


def test_key_that_cannot_be_read(identity, tmp_path, monkeypatch):
    """A disk that refuses to read is reported with the name of the file, and the file is closed."""
    path = secret_file(tmp_path / "key", pem(identity.private_key))
    before = len(os.listdir("/proc/self/fd"))

    def read(descriptor, length):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(keys.os, "read", read)
    with pytest.raises(ConfigError, match="/key: cannot read the key file: Input/output error"):
        load_identity(path)

    assert before == len(os.listdir("/proc/self/fd"))


def test_openssl_key_works_as_it_is(openssl, tmp_path):
    """A key of `openssl genpkey` loads, and openssl prints the same public key for it as we do."""
    path = str(tmp_path / "key")
    openssl("genpkey", "-algorithm", "ed25519", "-out", path)
    os.chmod(path, 0o600)
    identity = load_identity(path)
    text = openssl("pkey", "-in", path, "-pubout").decode()
    spki = openssl("pkey", "-in", path, "-pubout", "-outform", "DER")

    assert isinstance(identity, Identity)
    assert identity.public_key == parse_public_key(text)
    assert identity.public_key.base64 == base64.b64encode(spki).decode()
    assert identity.public_key.fingerprint == "SHA256:" + base64.b64encode(
        openssl("dgst", "-sha256", "-binary", data=spki)
    ).decode().rstrip("=")


def test_openssl_reads_our_key(openssl, identity, tmp_path):
    """A key that we wrote is one for openssl."""
    path = str(tmp_path / "key")
    write_identity(path, identity)

    assert identity.public_key == parse_public_key(openssl("pkey", "-in", path, "-pubout").decode())


def test_openssl_accepts_our_certificate(openssl, identity, tmp_path):
    """Openssl verifies the signature and the dates of our certificate, and finds our key in it."""
    path = tmp_path / "certificate"
    path.write_bytes(identity.certificate.public_bytes(Encoding.PEM))

    assert b": OK" in openssl("verify", "-check_ss_sig", "-CAfile", str(path), str(path))
    assert identity.public_key == parse_public_key(openssl("x509", "-in", str(path), "-noout", "-pubkey").decode())


@pytest.mark.parametrize("algorithm", ["ed448", "x25519"])
def test_openssl_keys_of_other_kinds(openssl, tmp_path, algorithm):
    """Keys that resemble ours but sign otherwise, or cannot sign, are refused."""
    path = secret_file(tmp_path / "key", openssl("genpkey", "-algorithm", algorithm))
    with pytest.raises(ConfigError, match="another kind than ed25519"):
        load_identity(path)
    with pytest.raises(ConfigError, match="another kind than ed25519"):
        parse_public_key(openssl("pkey", "-in", path, "-pubout").decode())
