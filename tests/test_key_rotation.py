"""Both ends change their keys, in any order of the steps: real TLS, then real daemons.

What is tried as an attacker: nobody gets in by a hint, by a certificate that a pinned key has signed, or with a key
that was taken out.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from itertools import product
from types import SimpleNamespace

import pytest
import pytest_twisted
from attrs import evolve
from cryptography import x509
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.task import deferLater

from realize import api
from realize.config import Config, DirectoryConfig, PeerConfig, Right
from realize.daemon import RealizedService
from realize.errors import WrongPeer
from realize.keys import Identity, generate_identity, spki_of_certificate
from realize.wire import key_hints, tls
from realize.wire.client import connect, connecting_protocol
from realize.wire.commands import Status
from realize.wire.connection import Greeting
from realize.wire.tls import AcceptingTLS, ConnectingTLS
from tests.loopback import Log

OLD, NEW, OWN_OLD, OWN_NEW, OTHER = (generate_identity() for _ in range(5))
OURS = {OLD: "old", NEW: "new", OWN_OLD: "own old", OWN_NEW: "own new", OTHER: "other"}


def name_of(handle_certificate):
    """Which of the identities above a certificate is of."""
    key = spki_of_certificate(handle_certificate)
    return next((name for identity, name in OURS.items() if identity.public_key == key), "unknown")


class Meeting:
    """A handshake in memory, to its end."""

    def __init__(self, connecting, accepting, *, prepare=lambda client: None):
        self.errors = []
        self.client = connecting.clientConnectionForTLS(self._protocol())
        self.server = accepting.serverConnectionForTLS(self._protocol())
        self.client.set_connect_state()
        self.server.set_accept_state()
        prepare(self.client)
        ends = (self.client, self.server)
        for _ in range(6):
            for here, there in (ends, ends[::-1]):
                self._step(here)
                self._carry(here, there)
        self.met = not self.errors and all(self._talks(*each) for each in (ends, ends[::-1]))

    def _protocol(self):
        return SimpleNamespace(
            factory=SimpleNamespace(wrappedFactory=None),
            failVerification=lambda failure: self.errors.append(failure.value),
        )

    def refused(self, _protocol, error, _key):
        """Called by the accepting side."""
        self.errors.append(error)

    def _step(self, end):
        try:
            end.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.errors.append(error)

    def _carry(self, here, there):
        with contextlib.suppress(SSL.WantReadError):
            there.bio_write(here.bio_read(1 << 20))

    def _talks(self, here, there):
        try:
            here.send(b"x")
            self._carry(here, there)
            return b"x" == there.recv(10)
        except SSL.Error:
            return False

    @property
    def shown(self):
        """What the daemon has shown, and what the command has."""
        return (
            name_of(self.client.get_peer_certificate(as_cryptography=True)),
            name_of(self.server.get_peer_certificate(as_cryptography=True)),
        )


def keys_of(identities):
    """Their public keys."""
    return [identity.public_key for identity in identities]


def connecting(own=(OWN_OLD,), pins=(OLD,)):
    """The command's side."""
    return ConnectingTLS(own, keys_of(pins), "nas")


def accepting(own=(OLD,), known=(OWN_OLD,)):
    """The daemon's side."""
    return AcceptingTLS(own, keys_of(known).__contains__, lambda *_: None, known=lambda: keys_of(known))


HAS = {"before": (0,), "changing": (1, 0), "after": (1,)}
"""Which keys an end has, newest first, by how far it is."""

ACCEPTS = {"before": (0,), "both": (0, 1), "both, the other way": (1, 0), "after": (1,)}
"""Which keys of the other end are accepted."""


@pytest.mark.parametrize(("has", "accepts", "own", "known"), [*product(HAS, ACCEPTS, HAS, ACCEPTS)])
def test_in_every_order_of_steps_they_meet_by_the_newest_key_that_both_know(has, accepts, own, known):
    """And if there is none, they do not; there is one in each order that begins with adding and ends with removing."""
    daemon, command = (OLD, NEW), (OWN_OLD, OWN_NEW)
    met = Meeting(
        connecting([command[each] for each in HAS[own]], [daemon[each] for each in ACCEPTS[accepts]]),
        accepting([daemon[each] for each in HAS[has]], [command[each] for each in ACCEPTS[known]]),
    )
    theirs = [each for each in HAS[has] if each in ACCEPTS[accepts]]
    ours = [each for each in HAS[own] if each in ACCEPTS[known]]

    assert bool(theirs and ours) == met.met
    if met.met:
        assert (OURS[daemon[theirs[0]]], OURS[command[ours[0]]]) == met.shown


def with_certificate(identity, certificate):
    """The same keys with another certificate around them."""
    return Identity(identity.private_key, identity.public_key, certificate)


def signed_by(signer, subject, name="realize"):
    """A certificate for the key of ``subject``, signed by ``signer``: as an authority vouches for a key."""
    issuer, name = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in ("realize", name))
    key = subject.private_key.public_key()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(7).not_valid_before(x509_time(2020)).not_valid_after(x509_time(2100))
    return builder.sign(signer.private_key, algorithm=None)


def x509_time(year):
    """The beginning of a year."""
    return dt.datetime(year, 1, 1, tzinfo=dt.UTC)


def test_no_key_vouches_for_another():
    """Whoever has a pinned key, even a former one, cannot let in further keys, which would outlive its removal."""
    forged = with_certificate(OTHER, signed_by(OLD, OTHER))

    assert not Meeting(connecting(), accepting(own=[forged])).met
    forged = with_certificate(OTHER, signed_by(OWN_OLD, OTHER))
    assert not Meeting(connecting(own=[forged]), accepting()).met


@pytest.mark.parametrize("name", ["realize", "leaf"])
@pytest.mark.parametrize("issuers", [[OLD], [OTHER], [OLD, OTHER], [OTHER, OLD]])
def test_a_chain_lets_nobody_in(issuers, name):
    """Neither a stranger whose certificate a pinned key has signed, nor a friend whose own one is not its own."""
    for leaf in (OTHER, OLD):
        chained = accepting(own=[with_certificate(leaf, signed_by(issuers[0], leaf, name))])
        for signer, issuer in zip(issuers[1:] + issuers[:1], issuers, strict=True):
            chained._contexts[0].add_extra_chain_cert(signed_by(signer, issuer))
        met = Meeting(connecting(), chained)

        # Of a friend, that is refused of which OpenSSL makes a chain: what another name has issued.
        assert met.met <= (leaf is OLD and name == "realize")


@pytest.mark.parametrize("length", [1, 5, 50])
def test_certificates_behind_the_first_change_nothing(length):
    """A stranger who adds certificates of known keys to its own one is a stranger."""
    others = [OLD.certificate, signed_by(OLD, OTHER), signed_by(OTHER, OLD), OWN_OLD.certificate] * length

    def also(context):
        for certificate in others:
            context.add_extra_chain_cert(certificate)

    stranger = accepting(own=[OTHER])
    also(stranger._contexts[0])
    assert not Meeting(connecting(), stranger).met
    stranger = connecting(own=[OTHER])
    also(stranger._contexts[0])
    assert not Meeting(stranger, accepting()).met


def test_a_wrong_hint_lets_nobody_in(monkeypatch):
    """A command that asks for another key than it has pinned refuses that, and hints do not replace being known."""
    monkeypatch.setattr(tls, "server_name", lambda _: key_hints.server_name(keys_of([NEW])))

    assert not Meeting(connecting(pins=[OLD]), accepting(own=[OTHER, NEW, OLD])).met
    monkeypatch.setattr(tls, "known_offer", lambda offered, _known: offered[0])
    assert not Meeting(connecting(own=[OTHER, OWN_NEW], pins=[NEW]), accepting(own=[NEW], known=[OWN_OLD])).met


@pytest.mark.parametrize("name", [b"x", b"k" * 255, b"\xff" * 200, b"nas.example", b"k" + b"0" * 60 + b".invalid"])
def test_any_server_name_leads_to_the_first_key(name):
    """Hints of strangers are garbage at worst."""
    met = Meeting(
        connecting(pins=[OLD, NEW]),
        accepting(own=[NEW, OLD]),
        prepare=lambda client: client.set_tlsext_host_name(name),
    )

    assert met.met
    assert "new" == met.shown[0]


def test_no_server_name_is_sent_unless_hints_are_wanted():
    """Endpoints of other applications send none: a server of another kind may refuse names that it does not know."""
    hinting = Meeting(connecting(), accepting())
    silent = Meeting(ConnectingTLS([OWN_OLD], keys_of([OLD]), "nas", hints=False), accepting())

    assert (True, True) == (hinting.met, silent.met)
    assert b".invalid" in hinting.server.get_servername()
    assert silent.server.get_servername() is None


@pytest.mark.parametrize("offered", [[b"h2"], [b"k" * 25] * 400, [bytes([each]) * 255 for each in range(1, 200)]])
def test_any_offers_lead_to_the_first_key(offered):
    """Of the command, which is judged as ever."""
    met = Meeting(connecting(), accepting(), prepare=lambda client: client.set_alpn_protos(offered))

    assert met.met
    assert "own old" == met.shown[1]


def test_a_daemon_that_answers_what_was_not_offered_is_shown_the_first_key(monkeypatch):
    """Only what was offered counts."""
    monkeypatch.setattr(tls, "known_offer", lambda _offered, _known: b"something else")
    met = Meeting(connecting(own=[OWN_NEW, OWN_OLD]), accepting(known=[OWN_OLD, OWN_NEW]))

    assert not met.met or "own new" == met.shown[1]


# Daemons, with real sockets.


class Site:
    """A daemon, and what commands with several keys do there."""

    def __init__(self, folder):
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.out = folder / "out"
        self.out.mkdir()
        self.rights = {"inbox": {Right.CREATE}}
        self.config = Config(
            key=NEW,
            former_keys=[OLD],
            listen=["127.0.0.1:0"],
            directories={"inbox": DirectoryConfig(self.inbox)},
            peers=self.peers(OWN_OLD),
            drain_s=0,
        )
        self.service = RealizedService(self.config, reactor)
        self.service.startService()
        self.port = self.service.addresses[0].port

    def peers(self, *keys, **more):
        """The only peer, with these keys; the newest is last."""
        return {"camera": PeerConfig(keys=keys_of(keys), rights=self.rights, **more)}

    async def reload(self, peers):
        """Take over other peers."""
        return await self.service.reload(evolve(self.config, peers=peers))

    async def connect(self, *own, pins=(NEW,)):
        """A connection of a command."""
        make = connecting_protocol(clock=reactor, log=Log(), greeting=Greeting("client"))
        return await connect(reactor, "127.0.0.1", self.port, own, keys_of(pins), make_protocol=make)

    def command(self, own, *pins, former=(), **more):
        """The configuration of a program that moves files there."""
        peer = PeerConfig(keys=keys_of(pins), address=f"127.0.0.1:{self.port}", **more)
        return Config(key=own, former_keys=former, peers={"nas": peer})

    async def copied(self, config):
        """How a copy of a file to the daemon ended: how many were created, there already, sent bytes, and failed."""
        done = await api.copy(reactor, [self.out], "nas::inbox", config=config)
        return done.created, done.already_there, done.sent_bytes, done.failed


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    """A daemon that changes its key."""
    running = Site(tmp_path)
    yield running
    await running.service.stopService()


async def until(holds):
    """Wait until something holds."""
    for _ in range(3_000):
        if holds():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it does not come to pass")


async def test_both_ends_tell_which_keys_they_used(site, records):
    """The command to whoever asks it, the daemon in its log and its report; that has the new key, too."""
    await site.reload(site.peers(OWN_OLD, OWN_NEW))
    protocol = await site.connect(OWN_OLD, pins=[OLD])
    report = (await protocol.call(Status))["report"]
    protocol.close()
    await protocol.when_lost()
    [accepted] = [fields for event, fields in records if event == "peer_accepted"]

    assert (OLD.public_key, OWN_OLD.public_key) == (protocol.their_key, protocol.own_key)
    assert OWN_OLD.public_key.fingerprint == accepted["fingerprint"]
    assert OLD.public_key.fingerprint == accepted["shown"]
    assert NEW.public_key.base64 in report
    assert OLD.public_key.short_fingerprint in report


async def test_a_key_that_is_taken_out_is_out_at_once(site):
    """Its connections end, and those that the same peer has made with its other key go on."""
    await site.reload(site.peers(OWN_OLD, OWN_NEW))
    old, new = await site.connect(OWN_OLD), await site.connect(OWN_NEW)
    await site.reload(site.peers(OWN_NEW))
    await old.when_lost()
    with pytest.raises(WrongPeer):
        await site.connect(OWN_OLD)
    still = await new.call(Status)

    assert "camera" in still["report"]
    new.close()
    await new.when_lost()


async def test_a_key_that_is_added_disturbs_nobody(site):
    """Nor does one that is put in another place."""
    old = await site.connect(OWN_OLD)
    for keys in ((OWN_OLD, OWN_NEW), (OWN_NEW, OWN_OLD)):
        await site.reload(site.peers(*keys))

    assert "camera" in (await old.call(Status))["report"]
    old.close()
    await old.when_lost()


async def test_a_key_that_goes_over_to_another_peer_is_not_the_same_any_more(site):
    """Its connections had the rights of the former one."""
    await site.reload(site.peers(OWN_OLD, OWN_NEW))
    connection = await site.connect(OWN_OLD)
    await site.reload({**site.peers(OWN_NEW), "other": PeerConfig(OWN_OLD.public_key)})
    await connection.when_lost()


async def test_an_origin_that_goes_over_to_another_peer_is_not_the_same_any_more(site):
    """Who is connected would go on to be compared with what came from there, and find out what the other one sends."""
    await site.reload(site.peers(OWN_NEW, origin=OLD.public_key))
    connection = await site.connect(OWN_NEW)
    await site.reload(site.peers(OWN_NEW))
    still = await connection.call(Status)
    await site.reload({**site.peers(OWN_NEW), "other": PeerConfig(OTHER.public_key, origin=OLD.public_key)})
    left = list(site.service._factory.connections.get("camera", ()))
    closing = [each.ending() is not None for each in left]
    connection.close()
    await connection.when_lost()

    assert "camera" in still["report"]
    assert all(closing)


async def test_the_connections_of_a_peer_are_counted_together(site, monkeypatch):
    """With several keys it may not have more of them."""
    monkeypatch.setattr("realize.wire.server.MAX_PEER_CONNECTIONS", 1)
    await site.reload(site.peers(OWN_OLD, OWN_NEW))
    first = await site.connect(OWN_OLD)
    with pytest.raises(Exception, match="1 connections already"):
        await site.connect(OWN_NEW)
    first.close()
    await first.when_lost()


async def test_what_came_with_the_former_key_is_still_its_own(site, records):
    """Nothing is sent again to a drop box, in all steps; it is if the origin is given up, which the log says."""
    (site.out / "f").write_bytes(b"x" * 100_000)
    steps = [
        (site.peers(OWN_OLD), site.command(OWN_OLD, OLD)),
        (site.peers(OWN_OLD), site.command(OWN_NEW, OLD, former=[OWN_OLD])),
        (site.peers(OWN_OLD, OWN_NEW), site.command(OWN_NEW, OLD, NEW, former=[OWN_OLD])),
        (site.peers(OWN_NEW, origin=OWN_OLD.public_key), site.command(OWN_NEW, NEW)),
    ]
    found = []
    for peers, command in steps:
        await site.reload(peers)
        found.append(await site.copied(command))
    before = [fields for event, fields in records if event == "origin_changed"]
    await site.reload(site.peers(OWN_NEW))
    lost = await site.copied(site.command(OWN_NEW, NEW))

    assert [(1, 0, 100_000, 0), *[(0, 1, 0, 0)] * 3] == found
    assert [] == before
    assert (0, 0, 100_000, 0) == lost
    assert sorted(each.name for each in site.inbox.iterdir()) == ["f", "f.1"]
    assert ["camera"] == [fields["peer"] for event, fields in records if event == "origin_changed"]


async def test_an_interrupted_file_goes_on_with_the_new_key(site):
    """What has arrived of it with the old key is not sent again."""
    size = 6 << 20
    (site.out / "f").write_bytes(os.urandom(size))  # does not shrink, so the limit holds it back
    slow = api.MoveOptions(up_bps=1 << 20, max_duration_s=4.0)
    command = site.command(OWN_OLD, OLD)
    first = await api.copy(reactor, [site.out], "nas::inbox", config=command, options=slow)
    await site.reload(site.peers(OWN_OLD, OWN_NEW))
    created, _, sent, _ = await site.copied(site.command(OWN_NEW, OLD, former=[OWN_OLD]))

    assert (0, 1) == (first.created, created)
    assert sent < size


async def test_what_was_pulled_from_the_former_key_is_still_its_own(site, tmp_path):
    """The same the other way round: the daemon whose key changes is the origin."""
    site.rights = {"inbox": {Right.READ}}
    await site.reload(site.peers(OWN_OLD))
    (site.inbox / "f").write_bytes(b"x" * 100_000)

    async def pulled(command):
        done = await api.copy(
            reactor,
            ["nas::inbox"],
            tmp_path / "here",
            config=command,
            options=api.MoveOptions(on_conflict=api.OnConflict.FAIL),
        )
        return done.created, done.already_there, done.sent_bytes, done.failed

    first = await pulled(site.command(OWN_OLD, OLD))
    both = await pulled(site.command(OWN_OLD, OLD, NEW))
    after = await pulled(site.command(OWN_OLD, NEW, origin=OLD.public_key))
    lost = await pulled(site.command(OWN_OLD, NEW))

    assert [(1, 0, 100_000, 0), (0, 1, 0, 0), (0, 1, 0, 0)] == [first, both, after]
    assert (0, 0, 1) == (lost[0], lost[1], lost[3])


async def test_a_manifest_has_the_key_that_was_used(site, tmp_path):
    """Whatever else is known of that peer."""
    (site.out / "f").write_bytes(b"x")
    manifest = tmp_path / "manifest"
    command = site.command(OWN_OLD, NEW, OTHER)
    await api.copy(reactor, [site.out], "nas::inbox", config=command, options=api.MoveOptions(manifest=manifest))

    assert f'"destination_key": "{NEW.public_key.base64}"' in manifest.read_text()
