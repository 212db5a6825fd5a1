"""The page in a real browser, with names that try to break it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
import structlog
from attrs import evolve
from twisted.internet.task import Clock

from realize.daemon.page.contents import Headline
from realize.daemon.page.resource import StatusPage
from realize.telemetry.metrics.exposition import HttpAsked
from tests.browser import Browser
from tests.page_contents import HOSTILE, crowded

WIDTHS = (320, 360, 768, 1280)


@pytest.fixture(scope="module")
def url():
    """Where the page of a daemon full of hostile names is; its second path is the same with nothing in it."""
    full = crowded(names=HOSTILE)
    empty = evolve(
        full, headline=Headline("All is well", "good"), moves=(), transfers=(), limits=(), peers={}, moved={}
    )
    pages = {
        path: StatusPage(lambda shown=shown: shown, Clock(), structlog.get_logger())
        for path, shown in (("/still", full), ("/empty", empty))
    }

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path)
            if page is None:
                self.send_error(404)
                return
            answer = page.answer(HttpAsked(path=b"/still", host=self.headers["host"], on_loopback=True))
            self.send_response(answer.code)
            for name, value in (("content-type", answer.kind), *answer.headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_):
            pass

    class Serving(ThreadingHTTPServer):
        daemon_threads = False  # at the end, wait until all connections are closed, also those that asked for nothing

    with Serving(("127.0.0.1", 0), Answering) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_browser_shows_it(tmp_path, url):
    """All in one test, because a browser takes its time to start."""
    with Browser(tmp_path / "browser") as browser:
        for path in ("/still", "/empty"):
            browser.open(url + path)
            nothing_runs_and_nothing_is_loaded(browser)
            it_fits_every_width(browser)
            it_knows_the_dark(browser)
        browser.open(f"{url}/still")
        names_are_text(browser)
        a_screen_reader_finds_its_way(browser)


def nothing_runs_and_nothing_is_loaded(browser):
    """No script, no complaint of the browser, none about the policy either, and no request but the first."""
    assert [] == browser.complaints()
    assert [0, 0, None] == browser.value("[document.scripts.length, document.images.length, window.reached || null]")
    assert [] == browser.value(
        "performance.getEntriesByType('resource').map(each => each.name).filter(each => !each.startsWith('data:'))"
    )
    assert browser.value("getComputedStyle(document.querySelector('h1')).fontSize") != "32px"  # the style applies


def it_fits_every_width(browser):
    """Nothing has to be scrolled sideways, down to the width that WCAG asks for."""
    for width in WIDTHS:
        browser.look(width)
        wide = browser.value(
            "(edge => [...document.querySelectorAll('body *')]"
            ".filter(each => each.getBoundingClientRect().right > edge + 1)"
            ".map(each => each.outerHTML.slice(0, 200)))(document.documentElement.clientWidth)"
        )
        sideways = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert (width, 0, []) == (browser.value("innerWidth"), sideways, wide)


def it_knows_the_dark(browser):
    """Who prefers the dark has light letters on a dark ground."""

    def light():
        colours = browser.value("['color', 'backgroundColor'].map(each => getComputedStyle(document.body)[each])")
        return [sum(map(int, colour[4:-1].split(","))) for colour in colours]

    browser.look(360)
    ink, paper = light()
    browser.look(360, dark=True)
    dark_ink, dark_paper = light()
    assert ink < paper
    assert dark_ink > dark_paper


def names_are_text(browser):
    """Each hostile name is on the page as a text, made visible."""
    text = browser.value("document.body.textContent")
    assert "<script>window.reached=1</script>" in text
    assert '"><img src=x onerror=window.reached=1>' in text
    assert "\\u202e" in text
    assert "\\x00" in text
    assert [] == [each for each in text if not each.isprintable() and each not in "\n\N{NO-BREAK SPACE}"]


def a_screen_reader_finds_its_way(browser):
    """There are landmarks, headings, tables with headers, pictures with names, progress with labels."""
    browser.look(1280)
    told = browser.told()
    roles = {role for role, _ in told}

    assert {"banner", "main", "contentinfo", "article", "table", "columnheader", "rowheader"} <= roles
    assert "en" == browser.value("document.documentElement.lang")
    assert 1 == browser.value("document.querySelectorAll('h1').length")
    for named in ("article", "region", "image", "progressbar", "link"):
        names = [name for role, name in told if role == named or (named == "image" and role == "img")]
        assert names, named
        assert all(names), named
    levels = browser.value("[...document.querySelectorAll('h1, h2, h3')].map(each => +each.tagName[1])")
    assert [] == [(one, next_) for one, next_ in pairwise(levels) if next_ > one + 1]
    assert [] == browser.value(
        "[...document.querySelectorAll('[id]')].map(each => each.id)"
        ".filter((id, n, all) => all.indexOf(id) != n || document.getElementById(id) == null)"
    )
    assert [] == browser.value("[...document.querySelectorAll('th')].filter(each => !each.scope).length ? [1] : []")
