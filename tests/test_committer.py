"""Whoever commits is told how that ended, and nobody's files are committed after he was told that they are not."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from realize.store import commit
from realize.store.commit import Committer
from realize.testing import how, small_file
from realize.values import Committed
from tests.test_local_store import REPLACE, at_once, behind, open_files, opened, put, root

__all__ = ["behind", "root"]


async def test_what_could_not_begin_is_not_committed_with_the_next(root, behind, monkeypatch):
    """Its partial was let go of when that failed: it may be somebody else's by then."""
    committer = Committer(at_once)
    store = await opened(root, committer=committer)

    def fails():
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(committer, "_next_group", fails)
        with pytest.raises(MemoryError):
            await put(store, b"f", b"x")

    assert [] == open_files(root)
    assert how(await put(store, b"g", b"y")) is Committed.CREATED
    assert behind.content(b"f") is None


async def test_what_has_begun_when_it_fails_is_told_that_it_failed(root, monkeypatch):
    """Also if it does not wait any more."""
    committer = Committer(at_once)
    store = await opened(root, committer=committer)

    def fails():
        committer._waiting.popleft()
        raise MemoryError

    monkeypatch.setattr(committer, "_next_group", fails)
    with pytest.raises(MemoryError):
        await put(store, b"f", b"x")

    assert [] == open_files(root)


@pytest.mark.parametrize("answer", [None, [None]])
async def test_an_answer_that_is_none_is_an_error(root, answer):
    """Nobody waits for ever, whatever the thread brings, and all is let go of."""

    def run(job, *arguments):
        return succeed(answer) if job is commit.commit_group else at_once(job, *arguments)

    store = await opened(root, run_in_thread=run)
    results = []
    for name in (b"f", b"g"):
        put_one = store.put_small([small_file(name + b"1", b"x"), small_file(name + b"2", b"x")], REPLACE)
        put_one.addBoth(results.append)

    assert 2 == len(results)
    assert all(each.check(TypeError, RuntimeError) for each in results)
    assert [] == open_files(root)


async def test_where_no_group_can_begin_all_who_wait_are_told(root):
    """The first has a thread, and for the second there is none: neither it nor the third waits for ever."""
    waiting = []

    def run(job, *arguments):
        if job is not commit.commit_group:
            return at_once(job, *arguments)
        if waiting:
            raise RuntimeError("no thread")
        later = Deferred()
        waiting.append(lambda: maybeDeferred(job, *arguments).chainDeferred(later))
        return later

    committer = Committer(run)
    store = await opened(root, run_in_thread=run, committer=committer)
    results = [[], [], []]
    for number, result in enumerate(results):
        store.put_small([small_file(b"%d" % number, b"x")], REPLACE).addBoth(result.append)
    waiting[0]()

    assert how(results[0][0][0]) is Committed.CREATED
    assert all(each.check(RuntimeError) for [each] in results[1:])
    assert [] == open_files(root)
    assert {b"0"} == {name for name in os.listdir(root) if not name.startswith(b".")}
