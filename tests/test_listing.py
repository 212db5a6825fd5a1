"""A listing of this machine between its reader and its thread: `realize.store.local.listing`."""

from __future__ import annotations

import itertools

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from realize.store.local.listing import LocalListing


class Pages:
    """What a thread goes through; ``happened`` says what was done with it."""

    held = 77

    def __init__(self, *pages):
        self.happened = []
        self._left = list(pages)

    def page(self):
        """The next one; empty at the end."""
        self.happened.append("read")
        page = self._left.pop(0) if self._left else []
        if isinstance(page, Exception):
            raise page
        return page

    def close(self):
        """Take note."""
        self.happened.append("closed")


class Thread:
    """Does its work when the test says so."""

    def __init__(self):
        self._waiting = []

    def run(self, work):
        """Later."""
        result = Deferred()
        self._waiting.append((work, result))
        return result

    def work(self):
        """Do it; what comes of it is delivered by what is answered."""
        work, result = self._waiting.pop()
        done = maybeDeferred(work)
        return lambda: done.chainDeferred(result)


def listing_of(pages, run_in_thread=maybeDeferred):
    """A listing, and when it was said to have ended."""
    ended = []
    return LocalListing(pages, run_in_thread, ended.append, itertools.count(100).__next__), ended


def results_of(asked):
    """What a page has come to, in a list."""
    results = []
    asked.addBoth(results.append)
    return results


def test_a_listing_ends_with_its_last_page():
    """Nothing is read behind that, and the time is that of the page that was read last."""
    pages = Pages(["a"], ["b"])
    listing, ended = listing_of(pages)
    seen = [(listing.now_ns, *results_of(listing.next_page()), list(ended)) for _ in range(4)]

    assert [(100, ["a"], []), (101, ["b"], []), (102, [], [listing]), (103, [], [listing])] == seen
    assert ["read", "read", "read", "closed"] == pages.happened
    assert 77 == listing.held


def test_a_listing_that_is_given_up_while_it_is_read_is_closed_behind_that():
    """The thread may be anywhere in it; whoever waits gets what was read, and nothing is read any more."""
    thread, pages = Thread(), Pages(["a"], ["b"])
    listing, ended = listing_of(pages, thread.run)
    page = results_of(listing.next_page())
    deliver = thread.work()
    listing.close()
    before = list(pages.happened)
    deliver()

    assert (["read"], ["read", "closed"]) == (before, pages.happened)
    assert ([["a"]], [listing]) == (page, ended)
    assert [[]] == results_of(listing.next_page())


def test_a_listing_that_is_given_up_before_its_thread_begins_is_not_read():
    """Nobody would get it."""
    thread, pages = Thread(), Pages(["a"])
    listing, ended = listing_of(pages, thread.run)
    page = results_of(listing.next_page())
    listing.close()
    thread.work()()

    assert ([[]], [listing]) == (page, list(dict.fromkeys(ended)))
    assert {"closed"} == set(pages.happened)


@pytest.mark.parametrize("read", [0, 1])
def test_a_listing_that_is_given_up_between_two_pages_is_closed_at_once(read):
    """What it has open must not wait for somebody who asks for more."""
    pages = Pages(["a"], ["b"])
    listing, ended = listing_of(pages)
    for _ in range(read):
        listing.next_page()
    listing.close()

    assert ["read"] * read + ["closed"] == pages.happened
    assert [listing] == ended


def test_a_listing_that_has_failed_may_be_given_up():
    """Its error is told, and it is closed like any other."""
    pages = Pages(ZeroDivisionError())
    listing, ended = listing_of(pages)
    [failure] = results_of(listing.next_page())
    listing.close()

    assert ZeroDivisionError is failure.type
    assert (["read", "closed"], [listing]) == (pages.happened, ended)
