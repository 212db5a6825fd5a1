"""What becomes of a command that comes: who answers it, what is said of it, and who is told how it ended."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.python.failure import Failure

from realize.errors import Busy, ConnectionFailed, NotFound, ProtocolError
from realize.values import MAX_VALUE_BYTES
from realize.wire import boxes, commands
from realize.wire.responding import AnsweringProtocol
from tests.loopback import Log


class Answers(amp.CommandLocator):
    """Answers Status, and the one-way StopStream, as the test wants."""

    def __init__(self, answer):
        self.answer = answer

    @commands.Status.responder
    def status(self):
        """Whatever was given."""
        return self.answer()

    @commands.StopStream.responder
    def stop(self, stream, code, description):
        """Whatever was given."""
        return self.answer()

    def transfers(self):
        """One."""
        return [{"path": "f"}]

    def failed(self, box):
        """Nothing was to be closed."""


class Answering(AnsweringProtocol):
    """Keeps what it is told, instead of a connection."""

    def __init__(self):
        super().__init__(Log(), Clock())
        self.end = None
        self.sent = []
        self.aborted = []
        self.violations = []
        self.finished = 0
        self.failures = []
        self.watched = []
        self.watch = lambda name: lambda how: self.watched.append((name, how))
        self.startReceivingBoxes(self)

    def ending(self):
        """As the test says."""
        return self.end

    def write(self, data):
        """Keep the boxes."""
        self.sent += boxes.BoxParser().feed(data)

    def abort(self, error):
        """Keep the error."""
        self.aborted.append(error)

    def violated(self, error):
        """Keep the error."""
        self.violations.append(error)

    def command_failed(self, box):
        """Keep the tag."""
        self.failures.append(box.get(amp.ASK))

    def command_finished(self, box):
        """Count."""
        self.finished += 1

    def ask(self, answer=dict, command=b"Status", *, tag=b"1", **arguments):
        """Let a command come."""
        self.serve(Answers(answer))
        asked = {} if tag is None else {amp.ASK: tag}
        given = {name.encode(): value for name, value in arguments.items()}
        self.ampBoxReceived(amp.Box({amp.COMMAND: command, **asked, **given}))


@pytest.fixture
def answering():
    """Somebody who answers."""
    return Answering()


def fails(error):
    """A responder that fails."""

    def answer():
        raise error

    return answer


STOP = {"command": b"StopStream", "tag": None, "stream": b"1", "code": b"X", "description": b"x"}


def test_what_a_connection_must_provide_is_not_forgotten():
    """A connection that cannot write, end or say that it is ending is none."""
    nothing = AnsweringProtocol(Log(), Clock())
    for call in (
        nothing.ending,
        lambda: nothing.write(b""),
        lambda: nothing.abort(Busy("x")),
        lambda: nothing.violated(ProtocolError("x")),
        lambda: nothing.command_finished({}),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_transfers_are_those_of_whoever_answers(answering):
    """Before anybody does there are none."""
    before = answering.transfers()
    answering.serve(Answers(dict))

    assert ([], [{"path": "f"}]) == (before, answering.transfers())


def test_an_answer_is_sent_logged_and_told(answering):
    """At level debug there is a line for each command, with the time it took."""
    waiting = Deferred()
    answering.clock.advance(100)
    answering.ask(lambda: waiting)
    answering.clock.advance(1.2345678)
    running, told = answering.running, list(answering.watched)
    waiting.callback({"report": "{}"})

    assert (1, []) == (running, told)
    assert [{b"_answer": b"1", b"report": b"{}"}] == answering.sent
    assert [("Status", "OK")] == answering.watched
    expected = {"command": "Status", "code": "OK", "error": "", "seconds": 1.234568}
    assert [("debug", "command", expected)] == answering.log.events
    assert (0, 1) == (answering.running, answering.finished)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "of AMP"])
def test_an_error_is_sent_logged_and_told(answering, declared):
    """By its code, also if AMP has packed it before."""
    error = NotFound("no such thing")
    answering.ask(fails(error if declared else amp.RemoteAmpError(b"NOT_FOUND", "x", local=Failure(error))))

    assert [{b"_error": b"1", b"_error_code": b"NOT_FOUND", b"_error_description": b"no such thing"}] == answering.sent
    assert [("Status", "NOT_FOUND")] == answering.watched
    assert 1 == len(answering.failures)
    (line,) = answering.log.named("command")
    assert ("NOT_FOUND", "no such thing") == (line["code"], line["error"])
    assert (0, 1) == (answering.running, answering.finished)


def test_an_error_of_amp_without_one_of_ours_is_a_fault(answering):
    """Who asked learns of it all the same."""
    answering.ask(fails(amp.RemoteAmpError(b"ODD", "what")))

    assert [b"INTERNAL"] == [box[b"_error_code"] for box in answering.sent]
    assert "what" in answering.sent[0][b"_error_description"].decode()


def test_an_answer_that_does_not_fit_is_an_error_for_who_waits(answering):
    """It is a fault of ours, logged under the id that the asker learns."""
    answering.sendBox(amp.Box({amp.ANSWER: b"7", b"report": bytes(MAX_VALUE_BYTES + 1)}))

    (box,) = answering.sent
    (logged,) = answering.log.named("internal_error")
    assert (b"7", b"INTERNAL", "answering") == (box[b"_error"], box[b"_error_code"], logged["doing"])
    assert logged["id"] in box[b"_error_description"].decode()


def test_a_question_that_does_not_fit_fails_for_whoever_asks(answering):
    """There is nobody else to tell."""
    with pytest.raises(ProtocolError):
        answering.sendBox(amp.Box({amp.COMMAND: b"Status", b"x": bytes(MAX_VALUE_BYTES + 1)}))

    assert [] == answering.sent


@pytest.mark.parametrize("tag", [b"1", None], ids=["asked", "one-way"])
def test_an_unknown_command_is_told_and_logged(answering, tag):
    """The name as it came, if it is short and plain; the connection stays, also if nobody is there to be told."""
    name = b"x" * 38 + b"\xff" + b"y" * 10
    answering.ask(command=name, tag=tag)

    shown = "x" * 38 + "\\xff" + "y"
    codes = [box[b"_error_code"] for box in answering.sent]
    assert [amp.UNHANDLED_ERROR_CODE] * (tag is not None) == codes
    assert [(shown, amp.UNHANDLED_ERROR_CODE.decode())] == answering.watched
    assert [("debug", "command_unknown", {"command": shown})] == answering.log.events
    assert (0, 1, []) == (answering.running, answering.finished, answering.aborted)


def test_too_many_commands_are_refused(answering):
    """One less, and the next is welcome again."""
    waiting = []

    def answer():
        waiting.append(Deferred())
        return waiting[-1]

    for number in range(commands.MAX_RUNNING_COMMANDS + 1):
        answering.ask(answer, tag=b"%d" % number)
    refused = [(box[b"_error"], box[b"_error_code"]) for box in answering.sent]
    waiting[0].callback({"report": ""})
    answering.ask(answer, tag=b"more")

    assert [(b"%d" % commands.MAX_RUNNING_COMMANDS, b"BUSY")] == refused
    assert [("Status", "BUSY"), ("Status", "OK")] == answering.watched
    assert [tag for tag, _ in refused] == answering.failures
    assert commands.MAX_RUNNING_COMMANDS + 1 == len(waiting)


def test_nothing_is_begun_on_a_connection_that_ends(answering):
    """The answer is why it does."""
    begun = []
    answering.end = ConnectionFailed("closing")
    answering.ask(lambda: begun.append("Status"))

    assert ([], [b"CONNECTION"]) == (begun, [box[b"_error_code"] for box in answering.sent])
    assert [("Status", "CONNECTION")] == answering.watched


def test_a_one_way_command_is_not_answered(answering):
    """Whatever becomes of it; only one that is wrong in form breaks the protocol."""
    wrong = ProtocolError("wrong")
    for answer in (dict, fails(NotFound("nothing")), fails(wrong)):
        answering.ask(answer, **STOP)

    assert [] == answering.sent
    assert [("StopStream", "OK"), ("StopStream", "NOT_FOUND"), ("StopStream", "PROTOCOL")] == answering.watched
    assert [wrong] == answering.violations
    assert ([], 3) == (answering.aborted, answering.finished)


def test_a_command_that_is_wrong_is_answered_and_logged_with_what_is_wrong(answering):
    """Other errors are a matter of who asks."""
    for error in (ProtocolError("no such stream"), NotFound("no such file")):
        answering.ask(fails(error))

    assert [b"PROTOCOL", b"NOT_FOUND"] == [box[b"_error_code"] for box in answering.sent]
    assert [{"command": "Status", "error": "no such stream"}] == answering.log.named("command_wrong")
    assert [] == answering.violations


@pytest.mark.parametrize("ending", [None, ConnectionFailed("closing")], ids=["open", "ending"])
def test_an_answer_that_nobody_could_deal_with_ends_the_connection(answering, ending):
    """Unless it is ending anyway: then it was to be expected."""
    answering.end = ending
    answering.unhandledError(Failure(ZeroDivisionError("x")))

    expected = 1 if ending is None else 0
    assert (expected, expected) == (len(answering.aborted), len(answering.log.named("internal_error")))
