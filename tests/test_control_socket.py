"""The control socket: who is let in, what they may do, and what strangers and floods cannot."""

import errno
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from realize.concurrency.memory import UNBOUNDED
from realize.config import Config, DirectoryConfig
from realize.config.control import command_control_paths, daemon_control_path
from realize.daemon import RealizedService
from realize.daemon.control import may_steer
from realize.daemon.steering import Asker, SteeringResponders
from realize.errors import AccessDenied, ConfigError, ConnectionFailed, NotFound
from realize.keys import generate_identity
from realize.runs.connections import Connections
from realize.runs.options import Rates
from realize.runs.peers import ThisMachine
from realize.throttle.tree import Scope
from realize.wire.boxes import encode
from realize.wire.client import ConnectingProtocol
from realize.wire.commands import Direction, GetThrottle, Hello, Moves, OpenDirectory, SetThrottle, Status
from realize.wire.connection import Greeting, PeerProtocol, Role
from realize.wire.control import ControlFactory, LocalUser
from realize.wire.control_client import BACKLOG_RETRY_S, MAX_CONTROL_CONNECTIONS, connect_control
from realize.wire.keepalive import RESTING_TIMEOUT_S
from realize.wire.server import HANDSHAKE_TIMEOUT_S
from tests.loopback import Log, Wire
from tests.processes import ENVIRONMENT, Site, wait_for

OWNER, ROOT, STRANGER = 1000, 0, 1001


class Socket:
    """A Unix socket, as far as the kernel tells who is at its other end."""

    def __init__(self, uid, pid):
        self._uid, self._pid = uid, pid

    def getsockopt(self, level, option, size):
        """The credentials of the other end."""
        assert (socket.SOL_SOCKET, socket.SO_PEERCRED) == (level, option)
        assert struct.calcsize("iII") == size
        return struct.pack("iII", self._pid, self._uid, self._uid)


class Memory:
    """A control socket on a clock, and its users, connected in memory."""

    def __init__(self):
        self.clock, self.log = Clock(), Log()
        self.factory = ControlFactory(
            clock=self.clock,
            log=self.log,
            greeting=Greeting("realized"),
            is_let_in=lambda uid: uid in {OWNER, ROOT},
            serve=self._serve,
            memory_of=lambda user: UNBOUNDED.of(user.name),
        )
        self.served = []

    def _serve(self, user):
        self.served.append(user)
        asker = Asker(name=user.name, is_admin=True)
        nothing = dict.fromkeys(("throttling", "moves", "steering_log", "wall_clock", "is_running"))
        return SteeringResponders(asker, report=lambda: {"version": "1"}, **nothing)

    def connect(self, uid=OWNER, pid=4711):
        """A user connects, and says nothing yet."""
        client = PeerProtocol(clock=self.clock, log=Log(), greeting=Greeting("realize"), role=Role.CONNECTING)
        server = self.factory.buildProtocol(None)
        here, there = Wire(self.clock, 1 << 16), Wire(self.clock, 1 << 16)
        here.other, there.other, here.protocol, there.protocol = there, here, client, server
        there.getHandle = lambda: Socket(uid, pid)
        client.makeConnection(here)
        server.makeConnection(there)
        client.server = server
        return client

    def pass_time(self, seconds=0.0, step=1.0):
        """Deliver, and let time pass."""
        for _ in range(20):
            self.clock.advance(0)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            for _ in range(20):
                self.clock.advance(0)

    def close(self):
        """End it all; no timer is left."""
        Deferred.fromCoroutine(self.factory.stop())
        self.pass_time(10)
        assert [] == self.clock.getDelayedCalls()


@pytest.fixture
def site():
    """One, which is closed at the end."""
    site = Memory()
    yield site
    site.close()


def asked(site, client, command, **arguments):
    """The answer, or the error."""
    found = []
    client.call(command, **arguments).addBoth(found.append)
    site.pass_time()
    return getattr(found[0], "value", found[0])


def greeted(site, uid=OWNER, pid=4711):
    """A user that has said Hello."""
    client = site.connect(uid, pid)
    client.hello().addErrback(lambda _: None)
    site.pass_time()
    return client


@pytest.mark.parametrize("uid", [OWNER, ROOT])
def test_the_user_of_the_daemon_and_root_are_let_in(site, uid):
    """By what the kernel says, and under a name that no peer can have."""
    client = greeted(site, uid)

    assert {"report": json.dumps({"version": "1"})} == asked(site, client, Status)
    assert f"uid {uid}" == client.name
    assert [LocalUser(4711, uid)] == site.served
    [record] = site.log.named("control_accepted")
    assert (f"uid {uid}", "realize") == (record["peer"], record["software"])


def test_nobody_else_is_answered_anything(site):
    """The connection is closed before anything that came on it is looked at, and the record says whose it was."""
    client = site.connect(STRANGER)
    failed = []
    client.hello().addErrback(lambda failure: failed.append(failure.value))
    site.pass_time()

    assert client.lost
    assert [ConnectionFailed] == [type(each) for each in failed]
    assert [] == site.served
    [record] = site.log.named("control_refused")
    assert (f"uid {STRANGER}", 4711, "user") == (record["peer"], record["pid"], record["reason"])


def test_no_directory_is_served(site):
    """What the socket is for is to look and to steer."""
    client = greeted(site)

    error = asked(site, client, OpenDirectory, handle=1, directory="inbox", base=b"", salt=b"s")
    assert "does not know the command OpenDirectory" in str(error)


@pytest.mark.parametrize("sent", [b"", encode({b"_command": b"Hello", b"_ask": b"1"})[:9]], ids=["nothing", "half"])
def test_who_does_not_say_hello_is_cut_off(site, sent):
    """After as long as a peer would be: whether nothing comes, or half a box."""
    client = site.connect()
    client.transport.write(sent)
    site.pass_time(HANDSHAKE_TIMEOUT_S - 0.5)
    before = client.lost
    site.pass_time(1)

    assert (False, True) == (before, client.lost)
    assert ["timeout"] == [each["reason"] for each in site.log.named("control_refused")]


def test_who_falls_silent_is_cut_off(site):
    """Pings are expected, as of peers."""
    client = greeted(site)
    client.transport.stalled = True
    site.pass_time(RESTING_TIMEOUT_S - 1)
    before = client.server.lost
    site.pass_time(20)

    assert (False, True) == (before, client.server.lost)


def test_what_is_no_box_ends_the_connection(site):
    """And nothing else."""
    other, client = greeted(site), site.connect()
    client.transport.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
    site.pass_time()

    assert client.lost
    assert {"report": json.dumps({"version": "1"})} == asked(site, other, Status)


def test_a_flood_of_silent_connections_keeps_nobody_out(site):
    """The oldest goes of the process that has most; those stay that have said Hello, or are of other processes."""
    first, slow = greeted(site), site.connect(pid=4712)
    silent = [site.connect() for _ in range(3 * MAX_CONTROL_CONNECTIONS)]
    last = greeted(site)

    assert [False, False, False] == [first.lost, slow.lost, last.lost]
    assert {"report": json.dumps({"version": "1"})} == asked(site, last, Status)
    assert MAX_CONTROL_CONNECTIONS - 3 == sum(not each.lost for each in silent)
    assert {"limit"} == {each["reason"] for each in site.log.named("control_refused")}


def test_more_connections_than_there_may_be_are_turned_away(site):
    """If all are of one process and have said Hello, the one that comes goes."""
    greeted_all = [greeted(site) for _ in range(MAX_CONTROL_CONNECTIONS)]
    one_more = greeted(site)
    greeted_all[0].close()
    site.pass_time()
    another = greeted(site)

    assert (True, False) == (one_more.lost, another.lost)
    assert not any(each.lost for each in greeted_all[1:])


def test_a_process_that_holds_all_connections_keeps_nobody_out(site):
    """The oldest of its own goes, though it has said Hello: a script that leaks connections locks out no operator."""
    held = [greeted(site) for _ in range(MAX_CONTROL_CONNECTIONS)]
    operator = greeted(site, ROOT, pid=4712)

    assert {"report": json.dumps({"version": "1"})} == asked(site, operator, Status)
    assert [True, *[False] * (MAX_CONTROL_CONNECTIONS - 1)] == [each.lost for each in held]


def test_processes_with_a_connection_each_keep_theirs(site):
    """If all are of different processes and have said Hello, the one that comes goes."""
    held = [greeted(site, pid=pid) for pid in range(1, MAX_CONTROL_CONNECTIONS + 1)]
    one_more = greeted(site, pid=4712)

    assert one_more.lost
    assert not any(each.lost for each in held)


def test_a_socket_that_closes_tells_its_users_why(site):
    """And lets nobody in meanwhile."""
    client, silent = greeted(site), site.connect()
    stopped = Deferred.fromCoroutine(site.factory.stop())
    late = greeted(site)
    site.pass_time(1)

    assert stopped.called
    assert "is shutting down" in client.goodbye.value
    assert [True, True, True] == [client.lost, silent.lost, late.lost]


# Real sockets.


@pytest.fixture
def folder():
    """A directory that every user can enter."""
    path = tempfile.mkdtemp(prefix="realize-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def config(tmp_path, folder):
    """A daemon with a control socket."""
    return Config(
        key=generate_identity(),
        listen=["127.0.0.1:0"],
        directories={"inbox": DirectoryConfig(tmp_path)},
        control=f"{folder}/c",
        drain_s=0,
    )


@pytest_twisted.async_yield_fixture
async def start():
    """Starts daemons, and stops them at the end."""
    made = []

    def start(config):
        made.append(RealizedService(config, reactor))
        made[-1].startService()
        return made[-1]

    yield start
    for each in made:
        await each.stopService()


async def connected(path):
    """A connection to the control socket."""
    protocol = ConnectingProtocol(clock=reactor, log=Log(), greeting=Greeting("realize"), role=Role.CONNECTING)
    return await connect_control(reactor, path, protocol)


async def closed(connection):
    """End it."""
    connection.close()
    await connection.when_lost()


async def test_a_daemon_is_seen_and_steered_without_a_key(start, config, records):
    """Status, limits and moves, as by an admin; there is no connection of its own whose limit it could mean."""
    start(config)
    connection = await connected(config.control)
    status = json.loads((await connection.call(Status))["report"])
    moves = json.loads((await connection.call(Moves))["report"])
    await connection.call(SetThrottle, scope=Scope.SERVICE, name="", direction=Direction.SEND, rate=1000)
    limits = json.loads((await connection.call(GetThrottle))["report"])
    with pytest.raises(NotFound):
        await connection.call(SetThrottle, scope=Scope.CONNECTION, name="", direction=Direction.SEND, rate=1000)
    await closed(connection)

    assert ([], []) == (status["moves"], moves["moves"])
    assert [1000] == [each["limit"] for each in limits if each["scope"] == "service"]
    [changed] = [fields for event, fields in records if event == "throttle_changed"]
    assert (f"uid {os.geteuid()}", None) == (changed["peer"], changed["conn"])
    assert [config.control] == [fields["path"] for event, fields in records if event == "control_listening"]


async def test_the_first_place_where_a_daemon_listens_is_taken(start, config, folder):
    """A missing socket, and one that a dead daemon has left, are passed over; there is one connection for all."""
    start(config)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/dead")
    here = ThisMachine((f"{folder}/missing", f"{folder}/dead", config.control), "realize.toml")
    connections = Connections(reactor, Rates(), "run", lambda _: Log())
    found = [await connections.to_this_machine(here) for _ in range(2)]
    limits = await connections.limits()
    with pytest.raises(ConnectionFailed, match=f"nobody listens at {folder}/missing; .*`control` in realize.toml"):
        await connections.to_this_machine(ThisMachine(here.paths[:1], "realize.toml"))
    await connections.close("DONE", silent=False)

    assert config.control == found[0].label
    assert found[0] is found[1]
    assert [] == limits


async def test_the_socket_is_for_its_user_alone_and_goes_with_the_daemon(start, config):
    """By its mode, from its first moment; the directory was not its to make or remove."""
    service = start(config)
    mode = stat.S_IMODE(os.stat(config.control).st_mode)
    await service.stopService()

    assert 0o600 == mode
    assert not os.path.exists(config.control)
    assert None is await connected(config.control)


async def test_a_daemon_takes_the_socket_of_no_other_one(start, config, tmp_path):
    """It does not start, leaves nothing open, and the other one is still there."""
    start(config)
    (tmp_path / "other").mkdir()
    second = evolve(config, key=generate_identity(), directories={"inbox": DirectoryConfig(tmp_path / "other")})
    with pytest.raises(ConfigError, match=r"^control: another daemon uses the socket .*/c; expected another name$"):
        start(second)
    connection = await connected(config.control)
    await closed(connection)


async def test_a_socket_that_was_replaced_is_left_alone(start, config):
    """By whatever has the name when the daemon stops."""
    service = start(config)
    os.unlink(config.control)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(config.control)
        await service.stopService()

        assert os.path.exists(config.control)


CONNECT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
try:
    client.connect(sys.argv[1])
    client.sendall(bytes.fromhex(sys.argv[2]))
    print(client.recv(1000))
except OSError as error:
    print(type(error).__name__)
"""
HELLO = encode({b"_command": b"Hello", b"_ask": b"1", **Hello.makeArguments(Greeting("x").as_arguments(), None)})


@pytest.mark.parametrize("mode", ["0600", "0666"])
async def test_another_user_is_kept_out_by_the_mode_and_by_the_kernel(start, config, records, mode):
    """Were the mode changed, the credentials would still tell; a fake of them, where tests are not run by root."""
    if os.geteuid():
        assert [True, False] == [may_steer(0), may_steer(os.geteuid() + 1)]
        return
    start(config)
    os.chmod(config.control, int(mode, 8))
    running = subprocess.Popen(
        ["/usr/bin/python3", "-c", CONNECT, config.control, HELLO.hex()], user=65534, stdout=subprocess.PIPE, cwd="/"
    )
    while running.poll() is None:
        await deferLater(reactor, 0.02)
    said = running.stdout.read().decode().strip()
    running.stdout.close()

    refused = [fields["peer"] for event, fields in records if event == "control_refused"]
    if mode == "0600":
        assert ("PermissionError", []) == (said, refused)
    else:
        assert said in {"b''", "ConnectionResetError", "BrokenPipeError"}
        assert ["uid 65534"] == refused


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
async def test_a_socket_that_is_not_for_us_says_so(monkeypatch, number):
    """In one sentence: what the mode forbids."""
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)
    with pytest.raises(AccessDenied, match=r"^/x/c accepts only the user of its daemon and root$"):
        await connected("/x/c")


async def test_what_else_the_system_refuses_is_said_in_its_words(monkeypatch):
    """And is no reason to look elsewhere."""
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EIO)
    with pytest.raises(ConnectionFailed, match=r"^/x/c cannot be reached: Input/output error$"):
        await connected("/x/c")


async def test_who_finds_no_place_in_the_queue_of_a_socket_waits_for_one(folder):
    """The kernel refuses at once what a daemon has not accepted yet; that is no reason to give up."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(f"{folder}/c")
        server.listen(0)
        first.connect(f"{folder}/c")
        connecting = Deferred.fromCoroutine(connected(f"{folder}/c"))
        waits = not connecting.called
        server.settimeout(10)
        server.accept()[0].close()
        await deferLater(reactor, 2 * BACKLOG_RETRY_S)
        server.accept()[0].close()
        with pytest.raises(ConnectionFailed, match="closed the connection before it answered"):
            await connecting

    assert waits


async def test_a_daemon_that_closes_the_connection_is_said_to_have(folder):
    """Before it has said anything, it does not let us in."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/c")
        server.listen()
        connecting = Deferred.fromCoroutine(connected(f"{folder}/c"))
        await deferLater(reactor, 0)
        server.settimeout(10)
        server.accept()[0].close()
        with pytest.raises(ConnectionFailed, match="accepts only its own user and root, and at most 16 connections"):
            await connecting


# Where it is, unless that is configured.


def test_a_daemon_of_systemd_has_its_socket_where_systemd_says(tmp_path):
    """In the first directory of `RuntimeDirectory=`, whatever else there is."""
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": str(tmp_path)}

    assert "/run/a/control.sock" == daemon_control_path(environ, str(tmp_path))


def test_a_daemon_has_its_socket_where_the_command_looks(tmp_path):
    """In the directory of the system if it is its own, else in that of its user; else nowhere."""
    (tmp_path / "system").mkdir()
    system, missing, user = str(tmp_path / "system"), str(tmp_path / "missing"), {"XDG_RUNTIME_DIR": str(tmp_path)}

    found = [daemon_control_path(user, system), daemon_control_path(user, missing), daemon_control_path({}, missing)]
    assert [f"{system}/control.sock", f"{tmp_path}/realize/control.sock", None] == found
    assert (found[1], found[0]) == command_control_paths(user, system)
    assert (found[0],) == command_control_paths({}, system) == command_control_paths({"XDG_RUNTIME_DIR": "x"}, system)


def test_the_command_asks_the_daemon_of_its_own_unit_first(tmp_path):
    """As `ExecReload=` of a unit with another `RuntimeDirectory=` has to."""
    system, unit = "/run/realize", {"RUNTIME_DIRECTORY": f"{tmp_path}:/other", "XDG_RUNTIME_DIR": "/run/user/1"}
    of_system = f"{system}/control.sock"

    expected = (f"{tmp_path}/control.sock", "/run/user/1/realize/control.sock", of_system)
    assert expected == command_control_paths(unit, system)
    assert (of_system,) == command_control_paths({"RUNTIME_DIRECTORY": system}, system)


def test_the_runtime_directory_of_another_user_is_not_taken(tmp_path, monkeypatch):
    """As `sudo -E` would have it: who owns it could put anything there, and root means the daemon of the system."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert None is daemon_control_path({"XDG_RUNTIME_DIR": str(tmp_path)}, str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        assert ("/run/realize/control.sock",) == command_control_paths({name: str(tmp_path)}, "/run/realize")


@pytest.fixture
def runtime(folder, monkeypatch):
    """A directory as systemd makes it for the daemon."""
    monkeypatch.setitem(ENVIRONMENT, "RUNTIME_DIRECTORY", folder)
    return folder


def test_a_daemon_under_twistd_has_a_socket_unless_it_is_not_to(tmp_path, runtime):
    """Without a word in the configuration; `control = false` switches it off."""
    site = Site(tmp_path)
    site.start()
    path = f"{runtime}/control.sock"
    wait_for(lambda: os.path.exists(path))  # it listens on its ports first
    there = [stat.S_ISSOCK(os.stat(path).st_mode)]
    site.stop()
    there.append(os.path.exists(path))
    _put_first(site, "control = false")
    site.start()
    there.append(os.path.exists(path))
    site.stop()

    assert [True, False, False] == there


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", "", []),
        ("", "control = false", ["control"]),
        ("control = false", "", ["control"]),
        ("", 'control = "{folder}/other"', ["control"]),
        ('control = "{folder}/other"', 'control = "{folder}/other"', []),
        ('control = "{folder}/other"', "", ["control"]),
    ],
)
def test_a_reload_says_that_another_socket_needs_a_restart(tmp_path, runtime, before, after, told):
    """Also where the configuration does not say where the socket is, or does so no longer."""
    site = Site(tmp_path)
    _put_first(site, before.format(folder=runtime))
    site.start()
    site.write_daemon_config()
    _put_first(site, after.format(folder=runtime))
    site.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: any(record["event"] == "reloaded" for record in site.records()))
    site.stop()

    keys = [key for record in site.records() if record["event"] == "restart_needed" for key in record["keys"]]
    assert told == keys
    assert [] == os.listdir(runtime)


def test_a_daemon_whose_socket_is_taken_serves_without_it(tmp_path, runtime):
    """Nobody has asked for it, so it is a warning."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{runtime}/control.sock")
        other.listen()
        site = Site(tmp_path)
        site.start()
        wait_for(lambda: any(record["event"] == "control_missing" for record in site.records()))
        site.stop()
        missing = [record for record in site.records() if record["event"] == "control_missing"]

    assert [(f"{runtime}/control.sock", "warning")] == [(each["path"], each["level"]) for each in missing]


def _put_first(site, line):
    """A key of the configuration of the daemon."""
    path = site.folder / "realized.toml"
    path.write_text(f"{line}\n{path.read_text()}")
