"""Pushing to a gateway: `realize.telemetry.metrics.pushing`, over real HTTP on loopback where that is what counts."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry, Gauge

from realize.errors import UsageError
from realize.telemetry.metrics.pushing import Gateway, Pusher, PushFailed, parse_gateway

REGISTRY = CollectorRegistry()
Gauge("thing", "A thing.", registry=REGISTRY).set(7)


class Receiver(HTTPServer):
    """Takes whatever is sent, and answers with ``status``."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http"
        self.requests = []
        self.status = 200
        self.headers = {}
        self.text = b""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def gateway(self, user="", prefix="", job="realize", instance="here"):
        return parse_gateway(f"{self.scheme}://{user}127.0.0.1:{self.server_port}{prefix}", job, instance)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers, body.decode()))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


def refused(gateway: Gateway) -> PushFailed:
    """How a push fails."""
    with pytest.raises(PushFailed) as caught:
        gateway.push(REGISTRY)
    return caught.value


def test_a_push_is_a_post_to_the_group(receiver):
    """The group is in the path, the classic text format in the body."""
    receiver.gateway(prefix="/below/").push(REGISTRY)

    [(path, headers, body)] = receiver.requests
    assert "/below/metrics/job/realize/instance/here" == path
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "thing 7.0\n" in body
    assert "Authorization" not in headers


def test_user_and_password_come_from_the_url(receiver):
    """They are sent as basic authentication, unescaped."""
    receiver.gateway(user="me:p%40ss%2F:w@").push(REGISTRY)

    [(_, headers, _)] = receiver.requests
    assert "Basic bWU6cEBzcy86dw==" == headers["Authorization"]


def test_the_password_is_never_shown(receiver):
    """Neither the gateway as text nor the errors have it in them."""
    receiver.status = 401
    gateway = receiver.gateway(user="me:secret@")

    assert "HTTP 401 Unauthorized" == str(refused(gateway))
    assert "secret" not in f"{gateway} {gateway.url}"
    with pytest.raises(UsageError) as caught:
        parse_gateway("ftp://me:secret@host", "j", "i")
    assert "secret" not in str(caught.value)


def test_a_refusal_says_why(receiver):
    """What is wrong with the metrics is in the answer of the gateway; it stays wrong."""
    receiver.status, receiver.text = 400, b"pushed metrics are invalid\nmore\n"

    error = refused(receiver.gateway())

    assert ("HTTP 400 Bad Request: pushed metrics are invalid", True) == (str(error), error.permanent)


def test_a_redirect_is_not_followed(receiver):
    """It would make a GET of the push, and tell the password to somebody else."""
    receiver.status, receiver.headers = 302, {"Location": "/elsewhere"}

    assert "HTTP 302 Found" == str(refused(receiver.gateway(user="me:secret@")))
    assert 1 == len(receiver.requests)


def test_no_one_there_is_said(receiver):
    """A refused connection is no reason to give up for good."""
    error = refused(parse_gateway("http://127.0.0.1:9", "j", "i"))

    assert ("Connection refused", False) == (str(error), error.permanent)


def certificate(folder: Path) -> Path:
    """A file with a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "gateway.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


def test_https_is_verified(receiver, tmp_path, monkeypatch):
    """A certificate that the system does not trust is refused; one that it trusts is good."""
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    receiver.scheme = "https"

    error = refused(receiver.gateway())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    receiver.gateway(user="me:secret@").push(REGISTRY)

    assert "its certificate is not trusted: self-signed certificate" == str(error)
    assert 1 == len(receiver.requests)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:9091",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://h/?a=b",
        "http://h/#a",
        "http://h/a b",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    """Only http and https, a host, and perhaps a port and a prefix."""
    with pytest.raises(UsageError, match="Pushgateway"):
        parse_gateway(url, "j", "i")


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "\udcff"])
def test_a_group_needs_names(name):
    """Neither may be empty, nor be something that cannot be in a URL."""
    for job, instance in ((name, "i"), ("j", name)):
        with pytest.raises(UsageError, match="group"):
            parse_gateway("http://[::1]:9091", job, instance)


class Pushes:
    """A push that fails as it is told, or hangs until it is let go."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.running = self.most = self.made = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, _registry, _timeout):
        self.running += 1
        self.most = max(self.most, self.running)
        self.go_on.wait(30)
        self.running -= 1
        self.made += 1
        if self.outcomes and (outcome := self.outcomes.pop(0)) is not None:
            raise outcome


def test_the_last_push_is_tried_twice():
    """What may pass is tried again; then it counts as done."""
    push, said = Pushes(PushFailed("no answer")), []

    assert Pusher(push, said.append).finish(REGISTRY, 20) is None
    assert (2, []) == (push.made, said)


def test_what_is_refused_for_good_is_tried_once():
    """A refusal would be repeated."""
    push = Pushes(PushFailed("HTTP 401", permanent=True))

    assert "HTTP 401" == Pusher(push, print).finish(REGISTRY, 20)
    assert 1 == push.made


def test_there_is_one_push_at_a_time():
    """A beat is left out while another push hangs, and the last push waits for it."""
    push, said = Pushes(), []
    pusher = Pusher(push, said.append)
    push.go_on.clear()
    pusher.beat(REGISTRY)
    pusher.beat(REGISTRY)
    threading.Timer(0.1, push.go_on.set).start()

    assert pusher.finish(REGISTRY, 20) is None
    assert (1, 2, []) == (push.most, push.made, said)
    assert (2, 0) == (pusher.pushes().tried, pusher.pushes().failed)


def test_nobody_waits_longer_than_he_said():
    """A push that hangs, before the end or at it, is left to itself."""
    push = Pushes()
    pusher = Pusher(push, print)
    push.go_on.clear()
    pusher.beat(REGISTRY)
    began = time.monotonic()

    outcomes = [each.finish(REGISTRY, 0.2) for each in (pusher, Pusher(push, print))]

    push.go_on.set()
    assert time.monotonic() - began < 10
    assert ["no answer within 0.2 s"] * 2 == outcomes


def test_a_gateway_that_fails_all_the_time_is_told_of_once():
    """Each failure is counted, the first one said."""
    push, said = Pushes(PushFailed("one"), PushFailed("two"), None), []
    pusher = Pusher(push, said.append)
    for _ in range(3):
        pusher.beat(REGISTRY)
        pusher._thread.join(10)

    assert (3, 2) == (pusher.pushes().tried, pusher.pushes().failed)
    assert ["one"] == said
