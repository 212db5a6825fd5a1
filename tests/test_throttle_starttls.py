"""``startTLS`` on a throttled transport: it keeps its place in the order of the writes."""

import pytest
from twisted.internet.interfaces import ISSLTransport, ITLSTransport
from zope.interface import directlyProvides, implementer

from realize.throttle.states import TLSState, next_tls_state
from realize.throttle.tls_records import TLS_RECORD_OVERHEAD_BYTES
from tests.test_pacing import KIB, Link, Pushing, Setting


@implementer(ITLSTransport)
class SwitchingLink(Link):
    """A link that marks in the stream where TLS was started, and takes no plain producer along."""

    def startTLS(self, contextFactory, normal=True):
        """Mark the place."""
        assert self.producer is None
        self.calls.append(("tls", contextFactory, normal))
        self.write(b"|")
        directlyProvides(self, ISSLTransport)


class Switching(Setting):
    """A paced application on a link that knows ``startTLS``."""

    def connect(self):
        """One more connection."""
        paced = self.factory.buildProtocol(None)
        link = SwitchingLink(self.clock)
        paced.makeConnection(link)
        return link, paced


@pytest.mark.parametrize("rate", [None, KIB])
def test_bytes_before_it_go_in_plain_and_those_behind_it_encrypted(rate):
    """In the order of the calls, with a limit and without."""
    setting = Switching(rate)
    setting.paced.write(b"plain" * 100)
    setting.paced.startTLS("context", False)
    setting.paced.write(b"secret" * 100)
    setting.pass_time(3)

    assert b"plain" * 100 + b"|" + b"secret" * 100 == setting.link.value()
    assert [("tls", "context", False)] == setting.link.calls


def test_with_nothing_waiting_it_happens_at_once():
    """Also under a limit; what comes then is for the application again, which TLS decrypts."""
    setting = Switching(KIB)
    setting.paced.startTLS("context")
    setting.paced.dataReceived(b"decrypted")

    assert [("tls", "context", True)] == setting.link.calls
    assert b"decrypted" == setting.application.received
    assert "producing" == setting.link.producerState


@pytest.mark.parametrize("after", [None, 100 * KIB])
def test_a_limit_that_changes_meanwhile_changes_nothing_of_the_order(after):
    """Lifted or raised: TLS is started between the same two bytes."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")
    setting.paced.write(b"s" * 2000)
    setting.pass_time(0.5)
    early = list(setting.link.calls)
    setting.pacer.set_rate(setting.root, after)
    setting.pass_time(0.1)

    assert [] == early
    assert b"p" * 2000 + b"|" + b"s" * 2000 == setting.link.value()


def test_nothing_is_read_until_tls_is_started():
    """Whatever the application says: what was written in plain must not pass for what came encrypted."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")
    setting.paced.pauseProducing()
    setting.paced.resumeProducing()
    waiting = setting.link.producerState
    setting.pass_time(3)

    assert ("paused", "producing") == (waiting, setting.link.producerState)


def test_reading_that_the_application_has_paused_stays_paused():
    """TLS being started does not resume it."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")
    setting.paced.pauseProducing()
    setting.pass_time(3)

    assert "paused" == setting.link.producerState
    assert setting.link.calls


def test_plain_bytes_that_come_all_the_same_end_the_connection():
    """From a transport that reads although it was paused; the application never sees them."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")
    setting.paced.dataReceived(b"injected")

    assert b"" == setting.application.received
    assert ["abort"] == setting.link.calls


def test_it_looks_like_tls_from_the_call_on():
    """There is no certificate of the other end yet, as during a handshake."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    before = ISSLTransport.providedBy(setting.paced)
    setting.paced.startTLS("context")
    during = ISSLTransport.providedBy(setting.paced), setting.paced.getPeerCertificate()
    setting.pass_time(3)

    assert not before
    assert (True, None) == during
    assert "certificate" == setting.paced.getPeerCertificate()
    assert ISSLTransport.providedBy(setting.paced)


@pytest.mark.parametrize("how", ["abort", "lost"])
def test_a_connection_that_ends_before_starts_no_tls(how):
    """No byte behind the switch leaves in plain, either."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")
    setting.paced.write(b"s" * 2000)
    if how == "abort":
        setting.paced.abortConnection()
    else:
        setting.paced.connectionLost(None)
    setting.paced.startTLS("again")
    setting.pass_time(3)

    assert b"s" not in setting.link.value()
    assert [] == [call for call in setting.link.calls if call != "abort"]
    assert [] == setting.timers


def test_a_close_waits_for_it_and_for_what_is_behind():
    """TLS has to read to finish, so reading goes on after the switch although nothing is delivered."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 1000)
    setting.paced.startTLS("context")
    setting.paced.write(b"s" * 2000)
    setting.paced.loseConnection()
    setting.pass_time(1.5)
    reads = setting.link.producerState
    setting.paced.dataReceived(b"late")
    setting.pass_time(3)

    assert "producing" == reads
    assert b"" == setting.application.received
    assert b"p" * 1000 + b"|" + b"s" * 2000 == setting.link.value()
    assert "lose" == setting.link.calls[-1]


def test_a_producer_goes_on_behind_it():
    """Also one that a full transport had paused: the transport that encrypts says anew when it is full."""
    setting = Switching(KIB)
    producer = Pushing(setting.paced, piece=100)
    setting.paced.registerProducer(producer, streaming=True)
    producer.run()
    setting.link.producer.pauseProducing()
    setting.link.producer.resumeProducing()
    setting.paced.startTLS("context")
    plain = setting.paced._backlog.ahead
    setting.pass_time(5)

    assert plain > 0
    assert setting.link.value().index(b"|") >= plain
    assert setting.written() > 4 * KIB
    assert setting.link.producer is setting.paced._producers


def test_without_a_limit_the_producer_that_tls_drives_is_the_applications():
    """As before the switch."""
    setting = Switching()
    producer = Pushing(setting.paced, pieces=0)
    setting.paced.registerProducer(producer, streaming=True)
    setting.paced.startTLS("context")

    assert producer is setting.link.producer.push


def test_without_a_limit_a_producer_that_the_socket_had_paused_goes_on():
    """The transport that encrypts does not know of that pause, and would never end it."""
    setting = Switching()
    producer = Pushing(setting.paced, pieces=0)
    setting.paced.registerProducer(producer, streaming=True)
    setting.link.producer.pauseProducing()
    setting.paced.startTLS("context")

    assert (1, 1) == (producer.paused, producer.resumed)


def test_what_tls_adds_is_counted_from_then_on():
    """Before, a byte is a byte."""
    setting = Switching(KIB)
    before = setting.paced._tls.overhead
    setting.paced.startTLS("context")

    assert (0, TLS_RECORD_OVERHEAD_BYTES) == (before, setting.paced._tls.overhead)


def test_a_second_one_while_the_first_waits_is_refused():
    """There is one switch from plain to encrypted."""
    setting = Switching(KIB)
    setting.paced.write(b"p" * 2000)
    setting.paced.startTLS("context")

    with pytest.raises(RuntimeError, match="startTLS was called before"):
        setting.paced.startTLS("context")


def test_a_transport_that_cannot_is_asked_at_the_call():
    """Where there is no ``startTLS`` below, the application is told so, and nothing claims that there is."""
    setting = Setting(KIB)
    setting.paced.write(b"p" * 2000)

    assert not ITLSTransport.providedBy(setting.paced)
    with pytest.raises(AttributeError, match="startTLS"):
        setting.paced.startTLS("context")


def test_a_socket_that_encrypts_already_is_known_as_such():
    """As one that ``connectSSL`` made: what TLS adds is counted."""
    setting = Switching(KIB)
    link = SwitchingLink(setting.clock)
    directlyProvides(link, ISSLTransport)
    paced = setting.factory.buildProtocol(None)
    paced.makeConnection(link)

    assert TLS_RECORD_OVERHEAD_BYTES == paced._tls.overhead


@pytest.mark.parametrize("state", TLSState)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_states(state, asked, ahead):
    """Asked for, TLS starts when nothing is ahead of it; nothing else starts it."""
    starts = asked or state is TLSState.STARTING
    expected = {True: TLSState.STARTING, False: TLSState.SECURE}[ahead] if starts else state

    assert expected is next_tls_state(state, asked=asked, ahead=ahead)
