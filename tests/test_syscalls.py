"""What is asked of the system at its lowest: how this process was started, and what there is."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

import pytest
from twisted.internet.defer import CancelledError, Deferred

from realize.store import descriptors, syscalls, thread_pool
from realize.store.threads import shielded_opening


@pytest.mark.parametrize(
    ("release", "version"),
    [("5.10.0-21-amd64", (5, 10)), ("6.1-rc3", (6, 13)), ("5.8+", (5, 8)), ("4.x", (4, 0))],
)
def test_the_version_of_the_kernel(monkeypatch, release, version):
    """However it is written; it tells whether syncfs(2) is to be relied upon."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "#1", "x86_64")))

    assert version == syscalls._kernel()


def test_a_function_of_the_library_answers_a_number():
    """And takes the arguments that were declared, no others."""
    getpgid = syscalls._declare("getpgid", ctypes.c_int)

    assert os.getpgid(0) == getpgid(0)
    with pytest.raises(ctypes.ArgumentError):
        getpgid(b"0")


@pytest.mark.parametrize("told", [True, False])
def test_the_umask_is_asked_for_and_not_changed(monkeypatch, told):
    """Also where /proc does not tell it."""
    before = os.umask(0o027)
    try:
        if not told:
            monkeypatch.setattr("builtins.open", lambda *_args: os.stat("/proc/nowhere"))
        found = syscalls.read_umask()
    finally:
        monkeypatch.undo()
        after = os.umask(before)

    assert (0o027, 0o027) == (found, after)


def test_standard_streams_that_were_closed_lead_nowhere(monkeypatch):
    """Reading gives nothing, writing is lost, and the number belongs to nobody else as long as the process lives."""
    names = ("stdin", "stdout", "stderr")
    for name in names:
        monkeypatch.setattr(sys, f"__{name}__", None)
        monkeypatch.setattr(sys, name, None)
    descriptors.hold_standard_streams()
    held = [getattr(sys, name) for name in names]
    originals = [getattr(sys, f"__{name}__") for name in names]
    monkeypatch.undo()
    numbers = [stream.fileno() for stream in held]
    what = [os.readlink(f"/proc/self/fd/{number}") for number in numbers]

    assert held == originals
    assert "" == held[0].read()
    for stream in held[1:]:
        stream.write("lost")
    for stream in held:
        stream.close()
    for number in numbers:
        os.close(number)
    assert [os.devnull] * 3 == what


def test_standard_streams_that_are_there_stay(monkeypatch):
    """Nothing is opened in their place."""
    before = sys.stdin, sys.stdout, sys.stderr
    monkeypatch.setattr(os, "open", lambda *_args: pytest.fail("opened"))
    descriptors.hold_standard_streams()

    assert before == (sys.stdin, sys.stdout, sys.stderr)


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch):
    """The soft limit is for programs that would not look."""
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096 + what))
    monkeypatch.setattr(resource, "setrlimit", lambda *limits: made.append(limits))
    descriptors.allow_many_files()

    assert [(resource.RLIMIT_NOFILE, (4096 + resource.RLIMIT_NOFILE,) * 2)] == made


def test_an_error_of_closing_keeps_no_other_open():
    """All are closed, also behind one that was closed already."""
    first, second = os.pipe()
    os.close(first)
    descriptors.release(first, second)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)


def test_who_has_no_memory_waits_a_little(monkeypatch):
    """To ask again at once would keep others from letting go of some."""
    slept, tried = [], []
    monkeypatch.setattr(thread_pool.time, "sleep", slept.append)

    def act(what):
        tried.append(what)
        if len(tried) < 3:
            raise MemoryError

    thread_pool._insist(act, "x")

    assert (["x"] * 3, [thread_pool.AGAIN] * 2) == (tried, slept)


def test_what_was_opened_for_somebody_is_his():
    """And for who has given it up meanwhile it is released."""
    released, coming = [], []

    @shielded_opening(released.append)
    async def open_later():
        coming.append(Deferred())
        return await coming[-1]

    results = []
    wanted, unwanted = (open_later().addBoth(results.append) for _ in range(2))
    unwanted.cancel()
    for number, each in enumerate(coming):
        each.callback(number)

    assert wanted.called
    assert [1] == released
    assert results[0].check(CancelledError)
    assert 0 == results[1]
