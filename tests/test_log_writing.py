"""The thread that writes the log: `realize.telemetry.logging.writing`.

With real files, pipes and threads, for they are what it is about.
"""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from realize.errors import ConfigError
from realize.telemetry.logging import writing
from realize.telemetry.logging.writing import Writer

pytestmark = pytest.mark.usefixtures("closes_logs")


@pytest.fixture
def make(request):
    """Makes started writers, and closes them in the end."""

    def made(path, **options):
        writer = Writer(None if path is None else str(path), **options)
        writer.start()
        request.addfinalizer(lambda: writer.close(5))
        return writer

    return made


@pytest.fixture
def pipe(monkeypatch):
    """A pipe in place of stderr; the answer is its reading end."""
    reading, stderr = os.pipe()
    monkeypatch.setattr(writing, "_stderr", lambda: stderr)
    yield reading
    os.close(reading)
    os.close(stderr)


def eventually(condition):
    """Wait until it is so, for half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_lines_are_written_in_order(make, tmp_path):
    """Each once, whole, whoever wrote them."""
    writer = make(tmp_path / "log")
    for number in range(5_000):
        (writer.put if number % 100 else writer.put_urgent)(b"%d\n" % number)

    assert writer.flush(30)
    assert list(range(5_000)) == [int(line) for line in (tmp_path / "log").read_text().splitlines()]


def test_what_comes_before_the_start_waits(tmp_path):
    """Nothing is opened before, for twistd has yet to fork and to change its user."""
    writer = Writer(str(tmp_path / "log"))
    writer.put(b"early\n")

    assert not (tmp_path / "log").exists()
    writer.start()
    writer.close(30)
    assert "early\n" == (tmp_path / "log").read_text()


def test_what_comes_after_the_end_is_written_too(make, tmp_path):
    """A process says its last words when its services have stopped."""
    writer = make(tmp_path / "log")
    writer.put(b"one\n")
    writer.close(30)
    writer.put(b"two\n")

    assert "one\ntwo\n" == (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_opened(tmp_path):
    """One sentence that names it."""
    writer = Writer(str(tmp_path / "missing" / "log"))

    with pytest.raises(ConfigError, match=r"^log file .*/missing/log: No such file or directory$"):
        writer.start()


def test_the_file_is_not_for_everybody(make, tmp_path):
    """Names of files may be nobody else's business."""
    make(tmp_path / "log")

    assert 0 == (tmp_path / "log").stat().st_mode & 0o037


def test_a_file_that_was_moved_away_is_opened_anew(make, tmp_path):
    """By itself, or when it is told to; no line is lost or written twice."""
    writer = make(tmp_path / "log")
    writer.put(b"one\n")
    assert writer.flush(30)
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.put(b"two\n")
    assert writer.flush(30)
    (tmp_path / "log").rename(tmp_path / "log.2")
    writer.reopen()
    eventually((tmp_path / "log").exists)

    assert ["one\n", "two\n"] == [(tmp_path / name).read_text() for name in ("log.1", "log.2")]


def test_a_file_that_cannot_be_opened_anew(make, tmp_path):
    """The old one stays in use, and it is said, once."""
    said = []
    folder = tmp_path / "logs"
    folder.mkdir()
    writer = make(folder / "log", not_reopened=said.append)
    folder.rename(tmp_path / "moved")
    for line in (b"one\n", b"two\n"):
        writer.put(line)
        assert writer.flush(30)

    assert "one\ntwo\n" == (tmp_path / "moved" / "log").read_text()
    assert ["No such file or directory"] == said


def test_a_reader_who_stalls_stops_nobody(make, pipe, monkeypatch):
    """What nobody reads waits in bounded memory; then it is dropped, the audit trail last, and the numbers are told."""
    monkeypatch.setattr(writing, "MAX_QUEUED_LINES", 1_000)
    monkeypatch.setattr(writing, "MAX_QUEUED_AUDIT_LINES", 2_000)
    told = []
    writer = make(None, dropped=lambda *counts: told.append(counts))
    line = b"x" * 1023 + b"\n"
    for _ in range(2_000):
        writer.put(line)
    for _ in range(2_000):
        writer.put(line, audit=True)
    assert not writer.flush(0.05)

    os.set_blocking(pipe, False)

    def drained():
        with contextlib.suppress(BlockingIOError):
            while os.read(pipe, 1 << 16):
                pass
        return told and writer.flush(0.01)

    eventually(drained)

    ordinary, audit = told[0]
    # What the pipe and the writer hold is not waiting any more: at most 64 KiB and 256 KiB.
    assert 1_000 - 320 <= ordinary <= 1_000
    assert ordinary + 320 >= audit >= 1_000 - 320


def test_closing_does_not_wait_for_ever(make, pipe):
    """A reader who stalls cannot keep a process from ending."""
    writer = make(None)
    writer.put(b"x" * (1 << 20))
    began = time.monotonic()
    writer.close(0.1)

    assert time.monotonic() - began < 10


def test_what_a_full_disk_did_not_take_is_counted():
    """Whoever ends can say how many lines are missing."""
    writer = Writer("/dev/full")
    writer.start()
    for number in range(3):
        writer.put(b"%d\n" % number)
    writer.close(30)
    writer.put(b"late\n")

    assert 4 == writer.unwritten


def test_a_reader_who_is_gone(make, pipe, monkeypatch):
    """What nobody will ever read is given up."""
    reading, stderr = os.pipe()
    os.close(reading)
    monkeypatch.setattr(writing, "_stderr", lambda: stderr)
    writer = make(None)
    writer.put(b"x\n")

    assert writer.flush(30)
    writer.close(5)
    os.close(stderr)


def test_periodic_work_is_done_in_time(make, tmp_path):
    """They are called after each turn, and when they asked to be."""
    calls = []

    def periodic():
        calls.append(time.monotonic())
        return 0.01 if len(calls) < 4 else None

    make(tmp_path / "log", periodic=periodic)

    eventually(lambda: len(calls) >= 4)


def test_without_memory_lines_are_written_later(make, tmp_path, monkeypatch):
    """The thread goes on when there is memory again, for nobody else would write what comes."""
    turns = []

    def short(_):
        turns.append(1)
        if len(turns) < 4:
            raise MemoryError
        return write_some()

    monkeypatch.setattr(writing, "WRITE_RETRY_S", 0.001)
    writer = make(tmp_path / "log")
    write_some = writer._write_some
    monkeypatch.setattr(writer, "_write_some", short.__get__(writer))

    writer.put_urgent(b"1\n")
    eventually(lambda: len(turns) > 3)
    writer.put_urgent(b"2\n")

    assert writer.flush(30)
    assert b"1\n2\n" == (tmp_path / "log").read_bytes()
