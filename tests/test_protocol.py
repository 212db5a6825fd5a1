"""One connection, above TLS."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.protocols import amp

from realize.errors import (
    Busy,
    ConnectionFailed,
    InternalError,
    NotFound,
    ProtocolError,
    Silence,
    VersionMismatch,
    WrongPeer,
)
from realize.wire import boxes, commands
from realize.wire import connection as protocol
from realize.wire.commands import Reason
from realize.wire.connection import CLOSE_TIMEOUT_S, Greeting
from realize.wire.keepalive import IDLE_TIMEOUT_S, PING_AFTER_S
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S
from realize.wire.send_queue import MAX_UNSENT_BYTES
from tests.faults import Quiet
from tests.loopback import HIGH, Pair


class Locator(amp.CommandLocator):
    """Answers Status as the test wants."""

    def __init__(self, answer):
        self.answer = answer

    @commands.Status.responder
    def status(self):
        """Whatever was given."""
        return self.answer()

    def transfers(self):
        """None."""
        return []

    def failed(self, box):
        """Nothing was to be closed."""


@pytest.fixture
def pair():
    """A pair that was introduced; nothing of it is left at the end."""
    made = Pair(Clock()).introduced()
    yield made
    made.client_wire.cut()
    made.flush()
    assert [] == made.clock.getDelayedCalls()


def result(pair, waiting):
    """What a Deferred has come to."""
    results = []
    waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
    pair.flush()
    return results[0] if results else None


def end(pair):
    """Cut the connection, and see that nothing is left."""
    pair.client_wire.cut()
    pair.flush()
    assert [] == pair.clock.getDelayedCalls()


def test_hello_introduces_both():
    """After Hello each side knows what the other is."""
    pair = Pair(Clock(), client_greeting=Greeting("realize 1", ("delta",), "run-1"))
    theirs = result(pair, pair.client.hello())
    end(pair)

    assert ("server", "tester") == (theirs.software, pair.client.name)
    assert Greeting("realize 1", ("delta",), "run-1") == pair.server.theirs


def test_hello_once(pair):
    """A second Hello is an error."""
    assert isinstance(result(pair, pair.client.hello()), ProtocolError)


def test_versions_that_differ_are_both_named():
    """The error says what either side speaks, and the connection ends."""
    pair = Pair(Clock(), client_greeting=Greeting("realize 9", major=9, minor=5))
    error = result(pair, pair.client.hello())
    pair.flush()

    assert VersionMismatch is type(error)
    assert "9.5" in str(error)
    assert f"{commands.MAJOR}.{commands.MINOR}" in str(error)
    assert pair.server.lost
    end(pair)


def test_who_is_not_welcome_is_told_why():
    """An error of the welcome is the answer, and the connection ends."""

    def welcome(protocol, greeting):
        raise WrongPeer("the key was withdrawn")

    pair = Pair(Clock(), welcome=welcome)
    error = result(pair, pair.client.hello())

    assert (WrongPeer, "the key was withdrawn") == (type(error), str(error))
    assert pair.server.lost
    end(pair)


def test_what_was_sent_ahead_by_who_is_not_welcome_is_ignored():
    """It breaks no rule, so the peer learns why it is not let in; its command fails with the connection."""

    def welcome(protocol, greeting):
        raise WrongPeer("the key was withdrawn")

    pair = Pair(Clock(), welcome=welcome)
    greeted = pair.client.hello()
    ahead = pair.client.call(commands.Status)
    error = result(pair, greeted)

    assert (WrongPeer, "the key was withdrawn") == (type(error), str(error))
    assert isinstance(result(pair, ahead), ConnectionFailed)
    assert [] == pair.log.named("protocol_violation")
    end(pair)


def test_silence_ends_the_connection(pair):
    """A peer that sends nothing at all for too long is given up, and those who wait learn it."""
    pair.server.serve(Locator(Deferred))
    waiting = pair.client.call(commands.Status, patient=True)
    pair.server_wire.stalled = True
    pair.client_wire.stalled = True
    pair.clock.pump([1] * int(IDLE_TIMEOUT_S + 1))

    assert isinstance(result(pair, waiting), Silence)


def test_pings_keep_a_quiet_connection(pair):
    """Two idle peers hear of each other."""
    pair.clock.pump([1] * int(10 * IDLE_TIMEOUT_S))

    assert not pair.client.lost
    assert not pair.server.lost


def test_pings_are_sent_only_when_nothing_else_is(pair):
    """What is sent anyway is sign of life enough."""
    box = boxes.encode({b"_command": b"Ping"})
    before = pair.client.bytes_sent
    for _ in range(20):
        pair.client.write(box)
        pair.clock.pump([1] * int(PING_AFTER_S - 2))

    assert before + 20 * len(box) == pair.client.bytes_sent


def test_an_ordinary_command_is_not_waited_for_for_ever(pair):
    """Pings alone do not excuse a missing answer."""
    pair.server.serve(Locator(Deferred))
    waiting = pair.client.call(commands.Status)
    pair.clock.pump([1] * int(REPLY_TIMEOUT_S + PING_AFTER_S + 1))

    error = result(pair, waiting)
    assert isinstance(error, Silence)
    assert "Status" in str(error)


def test_an_answer_that_arrives_slowly_is_waited_for(pair):
    """A throttled peer is not a silent one: any part of a box is a sign of work."""
    pair.server.serve(Locator(lambda: {"report": "x" * 50_000}))
    waiting = pair.client.call(commands.Status)
    pair.client_wire.deliver()
    for _ in range(int(3 * REPLY_TIMEOUT_S)):
        pair.server_wire.stalled = False
        pair.server_wire.chunk = 300
        pair.server_wire.deliver()
        pair.server_wire.stalled = True
        pair.clock.advance(1)
    pair.server_wire.stalled = False

    assert {"report": "x" * 50_000} == result(pair, waiting)


def test_a_patient_command_is_waited_for(pair):
    """A commit may take as long as the disk needs."""
    pair.server.serve(Locator(Deferred))
    waiting = pair.client.call(commands.Status, patient=True)
    pair.clock.pump([1] * int(10 * REPLY_TIMEOUT_S))

    assert not waiting.called
    waiting.addErrback(lambda _: None)


def test_a_declared_error_arrives_as_itself(pair):
    """Class and text survive."""

    def answer():
        raise NotFound("no such thing")

    pair.server.serve(Locator(answer))
    error = result(pair, pair.client.call(commands.Status))

    assert (NotFound, "no such thing") == (type(error), str(error))


@pytest.mark.parametrize("broken", [lambda: 1 // 0, lambda: None, lambda: {"wrong": "key"}])
def test_an_unexpected_error_is_logged_with_an_id(pair, broken):
    """A fault of the responder, or an answer that cannot be encoded, is ours; the connection stays."""
    pair.server.serve(Locator(broken))
    error = result(pair, pair.client.call(commands.Status))

    assert InternalError is type(error)
    assert pair.log.named("internal_error")[0]["id"] in str(error)
    assert not pair.client.lost


def test_an_unknown_command_is_an_error(pair):
    """The connection stays."""
    error = result(pair, pair.client.call(commands.Status))

    assert ProtocolError is type(error)
    assert not pair.client.lost


def test_an_argument_that_does_not_fit_fails_the_call(pair):
    """It does not raise, and does not end the connection."""
    error = result(pair, pair.client.call(commands.Describe, handle=1, paths=[b"x" * 60_000] * 2))

    assert isinstance(error, ProtocolError)
    assert not pair.client.lost


def test_too_many_commands_at_once_are_refused(pair):
    """More than the limit are answered at once with Busy."""
    pair.server.serve(Locator(Deferred))
    calls = [pair.client.call(commands.Status, patient=True) for _ in range(commands.MAX_RUNNING_COMMANDS + 3)]
    pair.flush()
    done = [call for call in calls if call.called]

    assert 3 == len(done)
    assert all(isinstance(result(pair, call), Busy) for call in done)
    for call in calls:
        call.addErrback(lambda _: None)


def test_all_who_wait_learn_of_the_loss(pair):
    """Calls, senders and watchers fail with one reason, which names the other end."""
    pair.server.serve(Locator(Deferred))
    waiting = pair.client.call(commands.Status)
    watching = pair.client.when_lost()
    pair.client_wire.stalled = True
    pair.client.write(bytes(HIGH + 1))
    sending = pair.client.sending.writable()
    pair.client_wire.cut()
    errors = [result(pair, each) for each in (waiting, watching, sending, pair.client.call(commands.Status))]

    assert {ConnectionFailed} == set(map(type, errors))
    assert "server.example" in str(errors[0])
    assert isinstance(result(pair, pair.client.when_lost()), ConnectionFailed)


def test_a_goodbye_is_the_reason(pair):
    """Who was told why is not left with a lost connection."""
    waiting = pair.client.when_lost()
    pair.server.close(Reason.DRAINING)
    error = result(pair, waiting)

    assert "is shutting down" in str(error)


def test_closing_takes_a_limited_time(pair):
    """A peer that does not take what we send is cut off."""
    pair.client_wire.stalled = True
    pair.client.write(bytes(10))
    pair.client.close()
    pair.clock.pump([1] * int(CLOSE_TIMEOUT_S + 1))

    assert pair.client.lost


def test_a_peer_that_does_not_read_is_given_up(pair):
    """What is queued for it is bounded."""
    pair.server_wire.stalled = True
    for _ in range(MAX_UNSENT_BYTES // 60_000 + 10):
        pair.server.write(bytes(60_000))
    pair.flush()

    assert pair.server.lost
    assert 1 == len(pair.log.named("peer_does_not_read"))


def test_senders_take_turns(pair):
    """When the transport takes more, senders go on in the order of asking, and only as far as it does."""
    pair.client_wire.stalled = True
    pair.client.write(bytes(HIGH + 1))
    order = []

    def sent(_, name):
        order.append(name)
        pair.client_wire.paused = False
        pair.client.write(bytes(HIGH + 1))

    for name in "abc":
        pair.client.sending.writable().addCallback(sent, name)
    seen = []
    for _ in range(3):
        pair.client.sending.resumeProducing()
        seen.append("".join(order))

    assert ["a", "ab", "abc"] == seen


def test_a_cancelled_call_is_forgotten(pair):
    """A late answer does no harm."""
    answer = Deferred()
    pair.server.serve(Locator(lambda: answer))
    waiting = pair.client.call(commands.Status)
    cancelled = result(pair, waiting) or waiting.cancel()
    answer.callback({"report": "{}"})
    pair.flush()

    assert cancelled is None
    assert not pair.client.lost


def test_idle_waits_for_commands_and_streams(pair):
    """A drain knows when the peer has nothing under way any more."""
    answer = Deferred()
    pair.server.serve(Locator(lambda: answer))
    waiting = pair.client.call(commands.Status)
    pair.server.streams.accept(1)
    pair.flush()
    idle = pair.server.when_idle()
    answer.callback({"report": "{}"})
    pair.flush()
    before = idle.called
    pair.server.streams.close(1)
    pair.flush()

    assert (False, True) == (before, idle.called)
    assert {"report": "{}"} == result(pair, waiting)


def waiting_senders(pair, count, amount):
    """So many senders that wait for a transport that is full, and how many of them have written."""
    pair.client.sending.pauseProducing()
    written = []

    def write(_):
        pair.client.write(bytes(amount))
        written.append(amount)

    for _ in range(count):
        pair.client.sending.writable().addCallbacks(write, lambda _: None)
    # A kernel that takes everything: the transport never says that it is full.
    pair.client_wire.write = lambda data: None
    return written


def test_senders_that_are_let_go_leave_turns_to_others(pair):
    """However many wait, and however much the kernel takes: about 2 MiB a turn, until all have written."""
    written = waiting_senders(pair, 50, 512 * 1024)
    pair.client.sending.resumeProducing()
    pair.client.sending.resumeProducing()
    first = len(written)
    pair.clock.pump([0] * 30)

    assert (4, 50) == (first, len(written))


def test_senders_that_get_credit_at_once_leave_turns_to_others(pair):
    """Credit for many streams in one delivery does not make them all write in one turn; each goes on in its turn."""
    sizes = []
    pair.client_wire.write = lambda data: sizes.append(len(data))
    streams, done = [], []
    for _ in range(50):
        stream = pair.client.streams.outbound(pair.client.streams.choose())
        Deferred.fromCoroutine(stream.send([bytes(2 << 20)])).addCallback(done.append)
        streams.append(stream)
    before = pair.client.bytes_sent
    for stream in streams:
        stream.give(2 << 20)
    first = pair.client.bytes_sent - before
    late = pair.client.sending.writable().addCallback(lambda _: len(done))
    pair.clock.pump([0] * 150)

    assert 2 << 20 <= first < 3 << 20
    assert 50 == len(done)
    assert 100 << 20 < sum(sizes) < 101 << 20
    assert 0 < late.result <= 50


def test_senders_that_wait_for_their_turn_fail_with_the_connection(pair):
    """No turn comes after the end."""
    written = waiting_senders(pair, 5, 2 << 20)
    last = pair.client.sending.writable()
    failed = []
    last.addErrback(failed.append)
    pair.client.sending.resumeProducing()
    pair.client_wire.cut()
    pair.flush()
    pair.clock.pump([0] * 5)

    assert 1 == len(written)
    assert [ConnectionFailed] == [failure.type for failure in failed]


def test_a_sender_that_is_cancelled_while_others_fail_is_no_trouble(pair):
    """What one of them does at the end of the connection may cancel another; all that is left to be told is told."""
    pair.client.sending.pauseProducing()
    first, second = pair.client.sending.writable(), pair.client.sending.writable()
    told = []
    first.addErrback(lambda failure: (told.append(failure.value), second.cancel())[0])
    second.addErrback(lambda failure: told.append(failure.value))
    lost = pair.client.when_lost()

    pair.client_wire.cut()

    assert [ConnectionFailed, CancelledError] == [type(error) for error in told]
    assert isinstance(result(pair, lost), ConnectionFailed)


@pytest.mark.parametrize("step", ["lost", "fail", "_tell_watchers"])
def test_what_fails_at_the_end_of_a_connection_stops_nothing_else(pair, monkeypatch, step):
    """A fault in one step is logged, and everybody else who waits is told all the same."""

    def fails(*_):
        raise MemoryError

    logged = []
    monkeypatch.setattr(protocol, "_log", Quiet(logged))
    owner = {"lost": pair.client.streams, "fail": pair.client.sending}.get(step, pair.client)
    monkeypatch.setattr(owner, step, fails)
    asked = pair.client.call(commands.Status)
    pair.client.sending.pauseProducing()
    sender = pair.client.sending.writable()
    lost, idle = pair.client.when_lost(), pair.client.when_idle()
    told = []
    for waiting in (asked, sender, lost, idle):
        waiting.addBoth(lambda _: told.append(1))

    pair.client_wire.cut()

    assert [MemoryError] == logged
    assert 4 - (step != "lost") == len(told)


def test_a_fault_while_boxes_are_taken_ends_this_connection(pair, monkeypatch):
    """Whatever goes wrong, also where no protocol rule is broken: the connection ends, and says so in the log."""

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(pair.server.streams, "delivered", fails)
    asked = pair.client.call(commands.Status)

    assert isinstance(result(pair, asked), ConnectionFailed)
    assert pair.server.lost
    assert ["dispatching"] == [fields["doing"] for fields in pair.log.named("internal_error")]
    pair.log.events.clear()
