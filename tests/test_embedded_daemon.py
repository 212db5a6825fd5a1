"""The daemon as a service of another program: `realize.daemon.service`, with a real reactor and real ports."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time

import pytest
import pytest_twisted
from attrs import evolve
from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface import implementer

from realize.config import Config, DirectoryConfig, PeerConfig, Right
from realize.daemon import RealizedService, listeners
from realize.daemon.looks import SILENT, look_at
from realize.errors import ConfigError
from realize.keys import generate_identity, write_identity
from tests.test_standing_moves import until

HELD_UP_S = 5.0
"""A reactor that has not had a turn for so long stands still."""


@pytest.fixture
def config(tmp_path):
    """A configuration of nothing but values."""
    (tmp_path / "inbox").mkdir()
    peer = PeerConfig(generate_identity().public_key, rights={"inbox": {Right.WRITE}})
    return Config(
        key=generate_identity(),
        listen=["127.0.0.1:0"],
        directories={"inbox": DirectoryConfig(tmp_path / "inbox")},
        peers={"camera": peer},
        drain_s=0,
    )


@pytest.fixture
def other(config, tmp_path):
    """As `config`, with another directory."""
    (tmp_path / "other").mkdir()
    return evolve(config, key=generate_identity(), directories={"inbox": DirectoryConfig(tmp_path / "other")})


@pytest_twisted.async_yield_fixture
async def service_of():
    """Makes services, and stops them when the test has ended, however it did: their threads would keep the process."""
    made = []

    def make(config, **options):
        made.append(RealizedService(config, reactor, **options))
        return made[-1]

    yield make
    for service in made:
        await service.stopService()
        service._pools.stop()


def process_state():
    """What belongs to the process, and not to a service in it."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals() if number not in (9, 19)]
    return handlers, sys.excepthook, threading.excepthook, sys.unraisablehook


def ports(records):
    return [fields["port"] for event, fields in records if event == "listening"]


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


async def test_two_services_run_side_by_side_and_leave_the_process_alone(service_of, config, other, records):
    """Each has its own ports and directories; signals, hooks and threads are afterwards as they were."""
    before, threads = process_state(), set(threading.enumerate())
    parent = MultiService()
    parent.startService()
    for each in (config, other):
        service_of(each).setServiceParent(parent)
    during = process_state()
    answered = [answers(port) for port in ports(records)]
    await parent.stopService()

    assert [True, True] == answered
    assert [False, False] == [answers(port) for port in ports(records)]
    assert before == during == process_state()
    assert threads >= {each for each in threading.enumerate() if not each.daemon}


async def test_a_port_in_use_is_an_error_and_leaves_nothing_open(service_of, config, records, tmp_path):
    """In one sentence; the port that was open already is closed, and the directory free for another service."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        service = service_of(evolve(config, listen=["127.0.0.1:0", f"127.0.0.1:{number}"]))
        with pytest.raises(ConfigError, match=f"^listen: tcp:{number}:interface=127.0.0.1: .*in use.*$"):
            service.startService()
        running = service.running
        second = service_of(config)
        second.startService()
        await service.stopService()
        await second.stopService()

    assert not running
    assert [False, False] == [answers(port) for port in ports(records)]


@pytest.mark.parametrize("what", ["endpoint", "metrics", "registry"])
async def test_what_keeps_a_service_from_starting_is_said_in_one_sentence(service_of, config, other, what):
    """By `ConfigError`, with the key of the configuration that it is about."""
    registry, expected = None, "^metrics: "
    if what == "endpoint":
        config, expected = evolve(config, listen=["nonsense:1:2"]), "^listen: nonsense:1:2: "
    elif what == "metrics":
        config = evolve(config, metrics="nonsense:1:2")
    else:
        registry = CollectorRegistry()
        first = service_of(other, registry=registry)
        first.startService()
    service = service_of(config, registry=registry)
    with pytest.raises(ConfigError, match=expected) as caught:
        service.startService()
    await service.stopService()
    if what == "registry":
        await first.stopService()

    assert 1 == len(str(caught.value).splitlines())


def test_a_key_that_cannot_be_read_is_an_error_before_anything_is_opened(config, tmp_path):
    """When the service is made."""
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match="there is no such key file"):
        RealizedService(evolve(config, key=path), reactor)
    write_identity(str(path), generate_identity())
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may use the key file"):
        RealizedService(evolve(config, key=path), reactor)


async def test_a_directory_is_served_once(service_of, config, other, tmp_path):
    """By whatever path; when the first service has stopped, or given it up, the next one may have it."""
    (tmp_path / "link").symlink_to(tmp_path / "inbox")
    linked = evolve(other, directories={"inbox": DirectoryConfig(tmp_path / "link")})
    first, second = service_of(config), service_of(linked)
    third = service_of(other)
    first.startService()
    third.startService()
    with pytest.raises(
        ConfigError, match=r"^dirs.inbox.path: another service in this process serves .*/link; expected"
    ):
        second.startService()
    await second.stopService()
    with pytest.raises(ConfigError, match="another service in this process"):
        await third.reload(linked)
    await first.stopService()
    await third.reload(linked)
    again = service_of(other)
    again.startService()
    await again.stopService()
    await third.stopService()

    assert linked == third.config


async def test_a_service_serves_once(service_of, config):
    """Stopping is possible at any time, and more than once; to serve again is refused."""
    service = service_of(config)
    await service.stopService()
    service.startService()
    with pytest.raises(RuntimeError, match="make another one to serve again"):
        service.startService()
    both = [service.stopService(), service.stopService()]
    for each in both:
        await each
    await service.stopService()
    with pytest.raises(RuntimeError, match="make another one to serve again"):
        service.startService()

    next_one = service_of(config)
    next_one.startService()
    await next_one.stopService()


async def test_a_reload_takes_values(service_of, config, records):
    """What cannot change without another service is told, each time, and stays; what is wrong changes nothing."""
    service = service_of(config)
    service.startService()
    changed = evolve(config, peers={}, listen=["127.0.0.1:1"], partial_max_age_s=5.0)
    kept = [await service.reload(each) for each in (changed, changed, evolve(changed, listen=config.listen))]
    with pytest.raises(ConfigError, match=r"^dirs: expected at least one directory"):
        await service.reload(evolve(config, peers={}, directories={}))
    in_force = service.config
    await service.stopService()
    with pytest.raises(ConfigError, match="the service is not running"):
        await service.reload(config)

    assert [("listen",), ("listen",), ()] == kept
    assert evolve(changed, listen=config.listen) == in_force
    logged = {name for name, _ in records}
    assert {"started", "limits_in_force", "listening", "reloaded", "draining", "stopped"} == logged


async def test_a_disk_that_hangs_holds_up_the_end_of_the_service_and_not_the_program(service_of, config):
    """The reactor goes on while a thread cannot end: here it is the reactor that lets it end."""
    gate, begun = threading.Event(), Deferred()
    service = service_of(config)
    service.startService()
    opened = service._pools.of("inbox").run(
        lambda: (reactor.callFromThread(begun.callback, None), gate.wait(HELD_UP_S))[1]
    )
    await begun
    stopping = service.stopService()
    turn = Deferred()
    reactor.callLater(0, turn.callback, None)
    await turn
    ended_early = stopping.called
    gate.set()
    await stopping

    assert await opened, "the reactor stood still"
    assert not ended_early


async def test_the_service_ends_only_when_what_waited_for_a_turn_is_done(service_of, config):
    """Jobs that begin when another one has ended, such as the commit of a batch that a thread still writes."""
    gate, done = threading.Event(), []
    service = service_of(config)
    service.startService()
    run = service._pools.of("inbox").run

    def commit(_):
        time.sleep(0.3)
        done.append("committed")

    run(gate.wait, HELD_UP_S).addCallback(lambda _: run(commit, "batch"))
    stopping = service.stopService()
    reactor.callLater(0.1, gate.set)
    await stopping

    assert ["committed"] == done


async def test_a_registry_of_the_program_has_the_metrics_while_the_service_runs(service_of, config):
    """Without those of the process, which the program has itself; two services need two registries."""
    registry = CollectorRegistry(auto_describe=True)
    service = service_of(config, registry=registry)
    service.startService()
    during = {metric.name for metric in registry.collect()}
    await service.stopService()

    assert {"realize_connections", "realize_commands", "realize_log_records"} <= during
    assert set() == {name for name in during if name.startswith("process_")}
    assert [] == list(registry.collect())


@implementer(IListeningPort)
class Port:
    """Listens nowhere."""

    stopped = 0

    def getHost(self):
        return "nowhere"

    def stopListening(self):
        self.stopped += 1


@implementer(IStreamServerEndpoint)
class Slow:
    """An endpoint that takes its time."""

    def __init__(self):
        self.opening = Deferred()

    def listen(self, _factory):
        return self.opening


@pytest.mark.parametrize("how", ["opens", "fails", "never"])
async def test_an_endpoint_may_take_its_time(service_of, config, records, monkeypatch, how):
    """What fails after the start is logged, and what is still being opened at the end is given up."""
    slow, port = Slow(), Port()
    monkeypatch.setattr(listeners, "server_endpoint_of", lambda *_: slow)
    service = service_of(config)
    service.startService()
    if how == "opens":
        slow.opening.callback(port)
    elif how == "fails":
        slow.opening.errback(OSError("no luck"))
    await service.stopService()

    assert (how == "opens") == port.stopped
    assert slow.opening.called, "nobody has given it up"
    assert {"opens": ["listening"], "fails": ["cannot_listen"], "never": []}[how] == [
        event for event, _ in records if event in {"listening", "cannot_listen"}
    ]


async def test_a_directory_that_answers_late_is_not_taken_from_another_service(
    service_of, config, other, tmp_path, monkeypatch
):
    """It is left to who has it, and looked at again."""
    first = service_of(config)
    first.startService()
    both = evolve(other, directories={**other.directories, "late": config.directories["inbox"]})
    monkeypatch.setattr("realize.daemon.service.look_at", lambda which: {**look_at(which), "late": SILENT})
    second = service_of(both)
    second.startService()
    await until(lambda: "another service" in (second._availability.why_refused("late") or ""))
    served_then = list(second._directories)
    await first.stopService()
    await until(lambda: second._availability.why_refused("late") is None)
    served_later = list(second._directories)
    await second.stopService()

    assert (["inbox"], ["inbox", "late"]) == (served_then, served_later)
