"""What the daemon says of itself: `realize.daemon.status`, `realize.daemon.rates`."""

import json

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from realize.daemon.rates import MAX_REPEATED_S, RATE_SAMPLES, RateSampler
from realize.daemon.status import as_text, limits_text, report, sample
from realize.daemon.steering import Asker, SteeringResponders
from realize.errors import Busy
from realize.keys import PublicKey, generate_identity
from realize.wire.commands import Status
from realize.wire.reports import MAX_REPORT_BYTES
from tests.loopback import Pair

CAMERA, DAEMON, NEW = (generate_identity().public_key for _ in range(3))


@define
class Connection:
    """As far as a report looks at it."""

    number: int
    name: str
    bytes_received: int = 0
    bytes_sent: int = 0
    files: list = field(factory=list)
    address: str = "192.0.2.1"
    key: PublicKey = CAMERA
    shown: PublicKey = DAEMON

    def transfers(self):
        """What is under way."""
        return self.files


class Service:
    """Something that runs."""

    uptime = 12.34


def transfer(done, *, path="f", direction="receive"):
    """A file of 1,000 bytes on its way."""
    return {"dir": "inbox", "path": path, "direction": direction, "size": 1000, "done": done}


MOVES = [{"name": "out", "state": "idle"}]


class Trial:
    """Connections that are looked at every second."""

    def __init__(self, *connections):
        self.clock = Clock()
        self.rates = RateSampler(self.clock)
        self.connections = connections

    def look(self, seconds=1.0, *, carried=True):
        """At what there is now, and let time pass."""
        sample(self.rates, self.connections, carried=carried)
        self.clock.advance(seconds)

    def report(self, name="camera", *, is_admin=True):
        """What is said now."""
        return report(Service(), self.connections, self.rates, [], [], MOVES, [NEW, DAEMON], name, is_admin=is_admin)


def test_rates_and_the_time_left_are_told():
    """What came and went in the last seconds, of a connection and of each of its files."""
    camera = Connection(1, "camera", files=[transfer(100), transfer(0, path="g", direction="send")])
    trial = Trial(camera)
    trial.look()
    camera.bytes_received, camera.bytes_sent, camera.files[0] = 300, 50, transfer(200)
    said = trial.report()

    [connection] = said["connections"]
    first, second = said["transfers"]
    assert ("300 50", 300, 50) == (
        f"{connection['receive_rate']} {connection['send_rate']}",
        connection["received"],
        connection["sent"],
    )
    assert ("camera", 1, "inbox", "f") == tuple(first[key] for key in ("peer", "connection", "dir", "path"))
    assert (100, 8.0) == (first["rate"], first["left"])
    assert (0, None) == (second["rate"], second["left"])


def test_of_what_has_just_begun_no_rate_is_told():
    """Nor how long it will take."""
    trial = Trial(Connection(1, "camera", files=[transfer(100)]))
    unseen = trial.report()
    trial.look(0.1)
    seen = trial.report()

    for said in (unseen, seen):
        assert [(None, None)] == [(each["rate"], each["left"]) for each in said["transfers"]]
        assert [(None, None)] == [(each["receive_rate"], each["send_rate"]) for each in said["connections"]]


def test_a_rate_follows_the_last_seconds():
    """What was long ago does not count, nor do looks that come too soon after each other drive those before out."""
    camera = Connection(1, "camera")
    trial = Trial(camera)
    trial.look()
    camera.bytes_sent = 1_000_000
    for _ in range(RATE_SAMPLES):
        trial.look()
    idle = trial.report()["connections"][0]["send_rate"]
    camera.bytes_sent += 4000
    for _ in range(20):
        trial.look(0.0)
    busy = trial.report()["connections"][0]["send_rate"]

    assert (0, round(4000 / (RATE_SAMPLES - 1))) == (idle, busy)


class Looked:
    """Counts how often connections are looked at."""

    def __init__(self, *connections):
        self.connections = connections
        self.times = 0

    def __iter__(self):
        self.times += 1
        return iter(self.connections)


def test_connections_that_only_ping_are_seldom_looked_at():
    """A thousand of them take longer than their pings; their rates stay, and what one carries shows at once."""
    camera = Connection(1, "camera")
    trial = Trial(camera)
    trial.connections = Looked(camera)
    trial.look()
    for _ in range(int(MAX_REPEATED_S) - 1):
        trial.look(carried=False)
    looked = trial.connections.times
    trial.look(carried=False)
    idle = trial.report()["connections"][0]["send_rate"]
    camera.bytes_sent += 4000
    busy = trial.report()["connections"][0]["send_rate"]
    before = trial.connections.times
    trial.look()

    assert (1, 0, round(4000 / RATE_SAMPLES), 1) == (looked, idle, busy, trial.connections.times - before)


def test_a_transfer_is_looked_at_also_if_nothing_comes():
    """Its daemon may compare what is there already."""
    camera = Connection(1, "camera", files=[transfer(0)])
    trial = Trial(camera)
    for done in (100, 200, 300):
        camera.files[0] = transfer(done)
        trial.look(carried=False)

    assert 67 == trial.report()["transfers"][0]["rate"]


def test_who_is_no_admin_learns_only_of_its_own():
    """Connections come in the order of their numbers."""
    trial = Trial(Connection(3, "camera"), Connection(2, "nas", files=[transfer(1)]), Connection(1, "camera"))

    assert [1, 2, 3] == [each["id"] for each in trial.report()["connections"]]
    assert MOVES == trial.report()["moves"]
    own = trial.report(is_admin=False)
    assert "moves" not in own
    assert ([1, 3], []) == ([each["id"] for each in own["connections"]], own["transfers"])


def test_which_keys_were_used_is_told():
    """Of each connection that of the peer and that of the daemon; and which keys the daemon has, the newest first."""
    said = Trial(Connection(1, "camera")).report(is_admin=False)

    [connection] = said["connections"]
    assert (CAMERA.short_fingerprint, DAEMON.short_fingerprint) == (connection["key"], connection["shown"])
    assert [("current", NEW.base64), ("former", DAEMON.base64)] == [(row["state"], row["key"]) for row in said["keys"]]
    assert [NEW.fingerprint, DAEMON.fingerprint] == [row["fingerprint"] for row in said["keys"]]


@pytest.mark.parametrize("transfers", [0, 1, 7])
def test_a_report_is_shortened_only_if_it_must_be(transfers):
    """To the last byte; what was left out is said."""
    rows = [{"path": "x" * 100}] * transfers
    bare = len(json.dumps({"transfers": rows, "filler": ""}))
    longest = {"transfers": rows, "filler": "y" * (MAX_REPORT_BYTES - bare)}
    too_long = {"transfers": rows, "filler": "y" * (MAX_REPORT_BYTES - bare + 1)}

    assert longest == json.loads(as_text(longest))
    if transfers:
        shortened = json.loads(as_text(too_long))
        kept = shortened["transfers"]
        assert {**too_long, "transfers": kept, "truncated": True, "in_all": {"transfers": transfers}} == shortened
        assert transfers - 2 <= len(kept) < transfers
    else:
        with pytest.raises(Busy):
            as_text(too_long)


def test_moves_are_left_out_when_no_transfer_is_left():
    """Transfers go first, for moves are what an admin asks for; that something is missing is said."""
    said = {"transfers": [{"path": "x" * 1000}], "moves": [{"error": "y" * 200}] * 1000}

    kept = json.loads(as_text(said))

    assert ([], True) == (kept["transfers"], kept["truncated"])
    assert 250 < len(kept["moves"]) < 300
    assert {"transfers": 1, "moves": 1000} == kept["in_all"]


def test_of_very_many_peers_those_are_told_that_move_something():
    """A thousand that are only connected leave room for what moves, for limits, and for who asks, in their order."""
    idle = {"peer": "p" * 20, "address": "192.0.2.1", "receive_rate": 7, "send_rate": None}
    none = {"scope": "peer", "name": "p" * 20, "limit": None, "timetable": None, "changes_in": None, "yours": False}
    connections = [{"id": number, **idle} for number in range(1000)]
    connections[800] |= {"send_rate": 1000}
    limits = [{"number": number, **none} for number in range(2000)]
    for number, more in ((500, {"limit": 9}), (600, {"changes_in": 9.0}), (700, {"yours": True})):
        limits[number] |= more
    said = {"connections": connections, "transfers": [{"path": "f"}], "limits": limits, "moves": [{"name": "m"}]}

    kept = json.loads(as_text(said))

    assert {"connections": 1000, "limits": 2000} == kept["in_all"]
    assert [said["transfers"], said["moves"]] == [kept["transfers"], kept["moves"]]
    assert [500, 600, 700] == [row["number"] for row in kept["limits"]]
    ids = [row["id"] for row in kept["connections"]]
    assert [*range(len(ids) - 1), 800] == ids
    assert 400 < len(ids) < 1000
    assert [limits[number] for number in (500, 600, 700)] == json.loads(limits_text(limits))


def test_the_report_is_json_and_fits_the_answer():
    """A report with very many transfers is shortened."""
    said = {"version": "1", "transfers": [{"path": "x" * 1000}] * 500}

    def welcome(protocol, _greeting):
        nothing = dict.fromkeys(("throttling", "moves", "steering_log", "wall_clock", "is_running"))
        protocol.serve(SteeringResponders(Asker(name="camera", is_admin=False), report=lambda: said, **nothing))
        return "camera"

    pair = Pair(Clock(), welcome=welcome).introduced()
    answers = []
    pair.client.call(Status).addCallback(answers.append)
    pair.flush()
    pair.client.close()
    pair.flush()

    answered = json.loads(answers[0]["report"])
    assert "1" == answered["version"]
    assert 10 < len(answered["transfers"]) < 60
