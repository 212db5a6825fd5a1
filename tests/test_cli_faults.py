"""`realize.cli.faults`: the log of a command that was not asked for one begins at the first fault."""

import json
import subprocess
import sys
import textwrap

import pytest

from realize.cli.faults import FaultLogger
from tests.processes import ENVIRONMENT

FAULTS = {
    "python_failed main": "raise KeyError('lost')",
    "python_failed thread": (
        "thread = threading.Thread(target=lambda: {}['lost'], name='a'); thread.start(); thread.join()"
    ),
    "python_failed unraisable": "Bad()",
    "python_failed library": "logging.getLogger('library').error('%s', 'lost')",
    "twisted_failed failure": "Logger(namespace='x').failure('lost', Failure(KeyError('a')))",
    "twisted_failed event": "Logger(namespace='x').error('lost')",
    "log_failed own": "log.error('log_failed', text='lost')",
}


GONE = """
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.startswith('realize.'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
"""
"""Makes as if our package were not on disk any more."""


def run(fault, *, gone=False):
    """Run something within the log of a command, and return what it printed."""
    code = """
        import logging, sys, threading, warnings
        from twisted.logger import Logger
        from twisted.python.failure import Failure
        from realize.cli.logs import command_log, logger_of
        from realize.cli.options import LogOptions

        class Bad:
            def __del__(self):
                raise KeyError('lost')

        before = sys.excepthook, threading.excepthook, sys.unraisablehook, logging.getLogger().handlers[:]
        with command_log(LogOptions(), None):
            log = logger_of("wire").bind(peer="a")
            log.debug("not_shown"), log.info("not_shown"), log.warning("not_shown")
            Logger().warn("not shown"), Logger().info("not shown")
            logging.getLogger("library").warning("not shown")
            warnings.warn("not shown")
            print("structlog" in sys.modules)
            exec(GONE)
            try:
                FAULT
            except Exception:
                sys.excepthook(*sys.exc_info())
        print("structlog" in sys.modules)
        after = sys.excepthook, threading.excepthook, sys.unraisablehook, logging.getLogger().handlers[:]
        print(before == after)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code).replace("FAULT", fault).replace("GONE", repr(GONE * gone))],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
        timeout=60,
    )


@pytest.mark.parametrize("kind", FAULTS)
def test_the_first_fault_begins_the_log_and_is_in_it(kind):
    """Whoever tells of it: what was not caught, a library, Twisted, or ourselves; all is left as it was found."""
    done = run(FAULTS[kind])

    (record,) = map(json.loads, done.stderr.splitlines())
    assert ["False", "True", "True"] == done.stdout.split()
    assert kind.split()[0] == record["event"]
    assert "lost" in (record["text"] + record.get("exc", ""))


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_told_of_even_if_the_log_cannot_be_loaded(kind):
    """An upgrade may have replaced it meanwhile; the fault is all that shows, and nobody fails over the log."""
    done = run(FAULTS[kind], gone=True)

    assert ["False", "False", "True"] == done.stdout.split()
    assert "lost" in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


def test_a_fault_written_without_the_log_is_a_record_like_those_of_the_log():
    """With the fields of the logger."""
    done = run(FAULTS["log_failed own"], gone=True)

    record = json.loads(done.stderr)
    assert record.pop("ts").endswith("Z")
    assert {"level": "error", "event": "log_failed", "component": "wire", "peer": "a", "text": "lost"} == record


def test_without_a_fault_no_log_is_loaded():
    """Nor is anything printed."""
    done = run("pass")

    assert ("False False True", "") == (" ".join(done.stdout.split()), done.stderr)


def test_who_presses_control_c_makes_no_fault():
    """What is no error goes to whom it went before."""
    done = run("sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)")

    assert "KeyboardInterrupt\n" == done.stderr


def test_records_of_one_logger_have_all_its_fields():
    """Those of each `bind`, and of the call; the last one counts."""
    seen = []

    class Taking:
        def error(self, event, **fields):
            seen.append((event, fields))

    log = FaultLogger(Taking).bind(run="r", peer="a").bind(peer="b")
    log.warning("not_shown", peer="c")
    log.error("shown", path="p", run="s")

    assert [("shown", {"run": "s", "peer": "b", "path": "p"})] == seen
