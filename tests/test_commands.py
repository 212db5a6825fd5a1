"""The commands, and the types of their arguments."""

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp

from realize.daemon.reloading import ReloadResponder
from realize.daemon.steering import SteeringResponders
from realize.errors import ProtocolError, RealizeError, UsageError, every_error
from realize.store.server.responders import DirectoryResponders
from realize.values import OnConflict
from realize.wire import commands, packing
from realize.wire.arguments import MAX_INTEGER, Bounded, Choice, Flag, Name, Number, Octets, Packed, PackedOne, Text
from realize.wire.connection import PeerProtocol

COMMANDS = commands.every_command()
KNOWN = {"commandName", "arguments", "response", "errors", "fatalErrors", "requiresAnswer"}
ONE_WAY = {"Ping", "Goodbye", "Data", "Zeros", "Compressed", "Credit", "StopStream"}


def test_all_commands_are_known():
    """Nothing is missing from the walk."""
    assert {"Hello", "Ping", "Walk", "Data", "CommitStream", "EndRead", "Status"} <= {c.__name__ for c in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_command_is_well_formed(command):
    """Names are bytes, argument types are bounded, and no class attribute is misspelt: AMP would ignore it."""
    own = {name for name in vars(command) if not name.startswith("__")}
    generated = {"allErrors", "reverseErrors", "commandType", "responseType", "errors", "fatalErrors", "commandName"}

    assert set() == own - KNOWN - generated
    for name, argument in [*command.arguments, *command.response]:
        assert isinstance(name, bytes)
        assert isinstance(argument, Bounded)
    assert isinstance(command.commandName, bytes)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_command_has_an_answer_or_not(command):
    """One-way commands ask for no answer, all others for one, with every error declared."""
    one_way = command.__name__ in ONE_WAY

    assert one_way is not command.requiresAnswer
    if one_way:
        assert [] == command.response
    else:
        expected = {error: error.wire_code for error in every_error() if error is not RealizeError}
        assert expected == {error: code for error, code in command.allErrors.items() if error in expected}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_command_says_what_it_means(command):
    """Every docstring says who sends the command and what right it needs, unless the stream implies it."""
    text = inspect.getdoc(command)

    assert "send" in text


def test_every_command_is_answered():
    """A daemon has a responder for each; the four that make up content are taken from the boxes without any."""
    answering = (DirectoryResponders, PeerProtocol, ReloadResponder, SteeringResponders)
    answered = set().union(*(each._commandDispatch for each in answering))

    assert {commands.Data, commands.Zeros, commands.Compressed, commands.Credit} == {
        each for each in COMMANDS if each.commandName not in answered
    }


def test_the_most_specific_error_comes_first():
    """AMP takes the first class that matches, so a class must come before its base."""
    order = [error for error in commands.Hello.allErrors if issubclass(error, RealizeError)]

    for position, error in enumerate(order):
        assert not any(issubclass(later, error) for later in order[position + 1 :])


def test_wire_codes_are_distinct():
    """A code stands for one error."""
    codes = [error.wire_code for error in every_error() if error is not RealizeError]

    assert sorted(set(codes)) == sorted(codes)


def test_the_specification_is_complete():
    """docs/protocol.md names every command, every argument and every error code."""
    text = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
    names = {command.__name__ for command in COMMANDS}
    names |= {error.wire_code.decode() for error in every_error()}
    words = {name.decode() for command in COMMANDS for name, _ in [*command.arguments, *command.response]}

    assert set() == {name for name in names if f"`{name}`" not in text}
    assert set() == {word for word in words if not re.search(rf"\b{word}\b", text)}


ARGUMENTS = [
    Number(100),
    Octets(10, least=2),
    Text(10),
    Name(),
    Flag(),
    Choice(OnConflict),
    Packed(packing.PATHS),
    PackedOne(packing.VERSIONS),
]


@given(argument=st.sampled_from(ARGUMENTS), data=st.binary(max_size=40))
def test_any_bytes_are_a_value_or_a_protocol_error(argument, data):
    """Whatever a peer sends, an argument type raises nothing else."""
    try:
        value = argument.fromString(data)
    except ProtocolError:
        return

    assert argument.fromString(argument.toString(value)) == value


@pytest.mark.parametrize("digits", [b"-1", b"101", b"9" * 5000, b"1e3", b"", b"1.0"])
def test_numbers_are_bounded(digits):
    """Negative, huge and odd numbers are refused, cheaply."""
    with pytest.raises(ProtocolError):
        Number(100).fromString(digits)


def test_our_own_numbers_are_checked_too():
    """What could not be read is not sent."""
    with pytest.raises(ProtocolError):
        Number().toString(MAX_INTEGER + 1)
    with pytest.raises(ProtocolError):
        Number().toString(-1)


def test_our_own_texts_are_cut():
    """A long text of ours is shortened at a character, not refused."""
    assert "ä".encode() * 5 == Text(11).toString("ä" * 20)


@pytest.mark.parametrize("name", ["x" * 201, "ä" * 101])
def test_our_own_names_are_refused_if_they_are_too_long(name):
    """Cut, they may be those of other moves, directories or peers, which nobody meant."""
    assert b"x" * 200 == Name().toString("x" * 200)
    with pytest.raises(UsageError, match="is too long for a name: expected at most 200 characters"):
        Name().toString(name)


def test_a_missing_argument_is_the_peers_fault():
    """AMP's own KeyError would count as ours."""
    with pytest.raises(ProtocolError, match="argument stream is missing"):
        commands.EndRead.parseArguments(amp.AmpBox(), None)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda **options: Number(100, **options), 5),
        (lambda **options: Octets(10, **options), b"x"),
        (lambda **options: Text(10, **options), "x"),
        (Flag, True),
        (lambda **options: Choice(OnConflict, **options), OnConflict.SKIP),
        (lambda **options: Packed(packing.PATHS, **options), [b"x"]),
        (lambda **options: PackedOne(packing.PATHS, **options), b"x"),
    ],
    ids=["number", "octets", "text", "flag", "choice", "packed", "one"],
)
def test_only_what_is_optional_may_be_missing(make, value):
    """What is there is taken in either case."""
    for argument in (make(), make(optional=True)):
        taken = {}
        argument.fromBox(b"name", {b"name": argument.toString(value)}, taken, None)
        assert {"name": value} == taken
    missing = {}
    make(optional=True).fromBox(b"name", {}, missing, None)
    with pytest.raises(ProtocolError, match="argument name is missing"):
        make().fromBox(b"name", {}, {}, None)

    assert {"name": None} == missing


@pytest.mark.parametrize(
    ("argument", "fits", "too_much"),
    [
        (Number(100), [b"0", b"100"], [b"101"]),
        (Number(100, least=5), [b"5", b"100"], [b"4"]),
        (Number(), [b"%d" % MAX_INTEGER], [b"%d" % (MAX_INTEGER + 1)]),
        (Octets(4, least=2), [b"12", b"1234"], [b"1", b"12345"]),
        (Octets(4), [b"", b"1234"], [b"12345"]),
        (Text(4), [b"", b"1234"], [b"12345"]),
        (Text(), [b"x" * 1000], [b"x" * 1001]),
        (Name(), [b"x" * 200], [b"x" * 201]),
        (PackedOne(packing.PATHS), [packing.PATHS.pack([b"x"])], [b"", packing.PATHS.pack([b"x", b"y"])]),
    ],
)
def test_what_a_peer_may_send_is_limited(argument, fits, too_much):
    """All up to the limit is taken, and nothing beyond it."""
    for data in fits:
        assert data == argument.toString(argument.fromString(data))
    for data in too_much:
        with pytest.raises(ProtocolError):
            argument.fromString(data)


@pytest.mark.parametrize(
    ("argument", "value"),
    [(Number(100, least=5), 4), (Number(100), 101), (Octets(4, least=2), b"1"), (Octets(4), b"12345")],
)
def test_what_a_peer_would_refuse_is_not_sent(argument, value):
    """The error is found where it was made."""
    with pytest.raises(ProtocolError):
        argument.toString(value)
