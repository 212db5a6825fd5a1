"""What others log, in our stream, and our lines in that of Twisted: `realize.telemetry`."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings

import pytest
import structlog
from twisted.logger import LogBeginner, Logger, LogPublisher
from twisted.python.failure import Failure

from realize.levels import parse_levels
from realize.telemetry.logging.bridging import TwistedObserver, TwistedSink, carry_python
from realize.telemetry.logging.logs import Logs

pytestmark = pytest.mark.usefixtures("closes_logs")


@pytest.fixture(autouse=True)
def _structlog_as_it_was():
    yield
    structlog.reset_defaults()


@pytest.fixture
def logs(tmp_path):
    """Makes the log of this process, in a file."""
    made = []

    def make(level="debug"):
        made.append(Logs(parse_levels(level), "json", str(tmp_path / "log")))
        made[0].start()
        return made[0]

    yield make
    made[0].close()


def records(tmp_path):
    """What was logged, without what differs from time to time."""
    lines = (tmp_path / "log").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in {"ts", "exc"}} for line in lines]


def test_levels_of_components(logs, tmp_path):
    """Each component has its own, which can be changed while the program runs, for loggers that exist already."""
    log = logs("warning,wire=debug")
    wire, store = (structlog.get_logger(component=name, conn=1).bind() for name in ("wire", "store"))
    for each in (wire, store):
        each.debug("a")
        each.info("b")
        each.warning("c")
    log.set_levels(parse_levels("error,store=info"))
    for each in (wire, store):
        each.info("d")
        each.error("e")
    log.close()

    said = [(record["component"], record["event"]) for record in records(tmp_path)]
    assert [
        *(("wire", event) for event in "abc"),
        ("store", "c"),
        ("wire", "e"),
        ("store", "d"),
        ("store", "e"),
    ] == said


def test_events_of_twisted(logs, tmp_path):
    """Failures are errors with their traceback, warnings warnings, all else is for debugging; one line each."""
    log = logs()
    publisher = LogPublisher(TwistedObserver())
    theirs = Logger(namespace="twisted.x", observer=publisher)
    theirs.info("hello {who}", who="a\nb")
    theirs.warn("careful")
    theirs.failure("while {doing}", Failure(ValueError("x")), doing="y")
    Logger(namespace="stderr", observer=publisher).error("{line}", line="printed")
    LogBeginner(publisher, sys.stderr, sys, warnings).showwarning("old", DeprecationWarning, "f.py", 3)
    log.close()

    said = {"component": "twisted", "source": "twisted.x"}
    assert [
        {"level": "debug", "event": "twisted_said", "text": "hello a\\nb", **said},
        {"level": "warning", "event": "twisted_warned", "text": "careful", **said},
        {"level": "error", "event": "twisted_failed", "text": "while y", **said},
        {"level": "warning", "event": "twisted_warned", "component": "twisted", "source": "stderr", "text": "printed"},
    ] == records(tmp_path)[:4]
    [warned] = records(tmp_path)[4:]
    assert ("python_warned", "f.py:3: old") == (warned["event"], warned["text"])
    assert "ValueError: x" in json.loads((tmp_path / "log").read_text().splitlines()[2])["exc"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_events_of_python(logs, tmp_path):
    """What libraries log from warnings on, and what nobody caught, in a thread, in a destructor or in the program."""

    class Bad:
        def __del__(self):
            raise ValueError("in a destructor")

    def fail():
        raise ValueError("failed")

    log = logs()
    undo = carry_python()
    try:
        logging.getLogger("lib").info("not this")
        logging.getLogger("lib").warning("number %d", 1)
        try:
            fail()
        except ValueError:
            logging.getLogger("lib").exception("number %d", 2)
        thread = threading.Thread(target=fail, name="t")
        thread.start()
        thread.join()
        Bad()
        sys.excepthook(ValueError, ValueError("in the program"), None)
    finally:
        undo()
    log.close()

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [
        ("python_warned", "lib", "number 1"),
        ("python_failed", "lib", "number 2"),
        ("python_failed", "thread t", "ValueError: failed"),
        ("python_failed", "ValueError: in a destructor"),
        ("python_failed", "main", "ValueError: in the program"),
    ] == [
        (line["event"], line["text"]) if "destructor" in line["text"] else (line["event"], line["source"], line["text"])
        for line in lines
    ]
    assert all("ValueError" in line["exc"] for line in lines[1:])


def test_our_lines_in_the_log_of_twisted():
    """A process without a stream of its own hands its records over, each as one event at its level."""
    events = []
    from twisted.logger import globalLogPublisher

    globalLogPublisher.addObserver(events.append)
    try:
        Logs(parse_levels("debug"), "json", sink=TwistedSink())
        log = structlog.get_logger(component="wire").bind()
        log.info("peer_accepted", software="{line}")
        log.warning("peer_silent")
    finally:
        globalLogPublisher.removeObserver(events.append)

    ours = [event for event in events if event.get("log_namespace") == "realize.log"]
    assert ["info", "warn"] == [event["log_level"].name for event in ours]
    assert "{line}" == json.loads(ours[0]["line"])["software"]


def test_what_is_left_out_is_told_at_the_end(logs, tmp_path):
    """With the event, the peer and the number."""
    log = logs("info")
    wire = structlog.get_logger(component="wire", address="192.0.2.1").bind()
    for _ in range(25):
        wire.warning("peer_refused", reason="pin_unknown")
    log.close()

    *refused, left_out = records(tmp_path)
    assert 10 == len(refused)
    assert ("records_left_out", "peer_refused", 15) == (left_out["event"], left_out["left_out"], left_out["count"])


def test_what_was_dropped_is_told(logs, tmp_path, monkeypatch):
    """Once the disk takes records again."""
    from realize.telemetry.logging import writing

    monkeypatch.setattr(writing, "MAX_QUEUED_LINES", -1)
    log = logs("info")
    structlog.get_logger(component="wire").bind().info("peer_accepted")
    monkeypatch.undo()
    structlog.get_logger(component="wire").bind().info("peer_disconnected")
    log.flush()
    log.close()

    assert ["peer_disconnected", "records_dropped"] == [record["event"] for record in records(tmp_path)]
    assert (1, 0) == tuple(records(tmp_path)[1][field] for field in ("count", "audit"))
