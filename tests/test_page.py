"""The page for people: `realize.daemon.page`."""

from __future__ import annotations

import re
import time
from datetime import UTC

import pytest
import structlog
from attrs import evolve
from twisted.internet.task import Clock

from realize.daemon.page.collecting import SHOWN_MOVES, SHOWN_TRANSFERS, PageCollector
from realize.daemon.page.contents import Contents, Headline, ShownAbsence
from realize.daemon.page.history import (
    HISTORY_INTERVAL_S,
    HISTORY_SAMPLES,
    MAX_SERIES,
    HistorySampler,
    RateHistory,
)
from realize.daemon.page.plots import figures_of, told_of
from realize.daemon.page.rendering import render
from realize.daemon.page.resource import PAGE_CACHE_S, StatusPage, may_ask
from realize.daemon.page.style import DARK, GROUNDS, INKS, LIGHT, STYLE
from realize.daemon.page.withholding import KINDS_OF_ERRORS, kind_of, without_names
from realize.daemon.page.wording import clock_time, coarse, headline, shown
from realize.daemon.rates import RateSampler
from realize.daemon.throttling import Throttling
from realize.errors import RealizeError
from realize.moves.status import FileUnderWay, KnownBacklog, MoveStatus, Phase, RunNow, RunResult
from realize.telemetry.metrics.exposition import HttpAsked
from tests.page_contents import NOW, crowded
from tests.pages import ROOT

ASKED = HttpAsked(path=b"/", host="localhost:9772", on_loopback=True)


def move(name="camera", phase=Phase.IDLE, **more):
    """A standing move whose names must not be told to everybody."""
    return MoveStatus(
        name=name, sources=("/store/secret",), destination="nas::inbox/secret", when="settled", phase=phase, **more
    )


def text_of(page):
    """What the body of a page says, without its elements."""
    body = page.decode().partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body).replace("\N{NO-BREAK SPACE}", " "))


# The last hour.


def test_rates_are_those_between_samples():
    """The first sample tells nothing; a total that got less has not grown."""
    history = RateHistory()
    for total in (100, 100 + 20 * 7, 100 + 20 * 7, 3):
        history.add({"a": total})

    assert (7.0, 0.0, 0.0) == history.of("a")
    assert () == history.of("b")


def test_missed_samples_are_made_up_for():
    """What moved while the reactor was busy is spread over the time that it was."""
    history = RateHistory()
    history.add({"a": 0})
    history.add({"a": 600}, intervals=3)

    assert (10.0, 10.0, 10.0) == history.of("a")


def test_history_is_bounded():
    """An hour is kept, of so many things, and nothing of what is no longer there."""
    history = RateHistory()
    for n in range(HISTORY_SAMPLES + 10):
        history.add(dict.fromkeys(range(MAX_SERIES + 10), n))
    history.add({0: 0}, intervals=10 * HISTORY_SAMPLES)

    assert HISTORY_SAMPLES == len(history.of(0))
    assert () == history.of(1)
    assert () == history.of(MAX_SERIES + 1)


def test_samples_keep_to_the_clock():
    """A busy reactor delays a sample, and none of those after it; stopping leaves no timer."""
    clock, at = Clock(), []
    sampler = HistorySampler(clock, lambda: at.append(clock.seconds()) or {})
    sampler.start()
    clock.advance(HISTORY_INTERVAL_S + 5)
    clock.advance(HISTORY_INTERVAL_S - 5)
    sampler.stop()

    assert [0, HISTORY_INTERVAL_S + 5, 2 * HISTORY_INTERVAL_S] == at
    assert [] == clock.getDelayedCalls()


def test_figures_of_a_plot():
    """What moved in all, and how fast at most, when."""
    rates = [0.0, 1024.0, 0.0]

    assert "20 KiB in 1m, peak 1 KiB/s" == figures_of(rates).replace("\N{NO-BREAK SPACE}", " ")
    assert "at 03:02, now 0 B/s" in told_of(rates, NOW, UTC).replace("\N{NO-BREAK SPACE}", " ")
    assert "nothing" == told_of([0.0], NOW, UTC)


# Words.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0s"), (40, "40s"), (192, "3m12s"), (1630, "27m"), (18_739, "5h12m"), (187_300, "2d4h")],
)
def test_durations_are_coarse(seconds, expected):
    """As exactly as anybody wants to know."""
    assert expected == coarse(seconds)


def test_times_have_their_day_if_it_is_another():
    """So that nobody takes yesterday's for today's."""
    times = [clock_time(NOW - ago, NOW, UTC) for ago in (60, 86_400, 40 * 86_400)]

    assert ["03:02", "Sun 03:03", "2026-10-21 03:03"] == times


def test_texts_are_one_visible_line():
    """What was escaped already stays, what was not is, and the middle of what is long goes."""
    assert "a\\x1b" == shown("a\\x1b")
    assert "a\\x1b\\u202e" == shown("a\x1b\u202e")
    assert 161 == len(shown("a" * 5000))


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], Headline("All is well", "good")),
        ([move()], Headline("All is well", "good")),
        ([move(phase=Phase.RUNNING)], Headline("All is well, files are on their way", "good")),
        ([move(phase=Phase.PAUSED), move("b")], Headline("camera is paused", "warn")),
        ([move(phase=Phase.FAILING), move("b", Phase.PAUSED)], Headline("camera fails", "bad")),
        ([move(phase=Phase.FAILING), move("b", Phase.FAILING), move("c")], Headline("2 of 3 moves fail", "bad")),
        ([move(failed_files=2)], Headline("2 files cannot be moved", "bad")),
        (
            [move(phase=Phase.FAILING), move("b", failed_files=1)],
            Headline("camera fails, 1 file cannot be moved", "bad"),
        ),
    ],
)
def test_what_is_wrong_comes_first(moves, expected):
    """The headline says the worst that there is to say."""
    found = headline(moves, is_ending=False, is_busy=False)

    assert expected == evolve(found, text=found.text.replace("\N{NO-BREAK SPACE}", " "))
    assert "warn" == headline(moves, is_ending=True, is_busy=False).tone


# What is not shown.


def full(**more):
    """A move with a secret wherever there can be one."""
    return move(
        phase=Phase.RUNNING,
        watching={"/store/secret": "events"},
        running=RunNow(run="r", began=1, in_flight=(FileUnderWay(path="secret", size=10, done=5),)),
        last_run=RunResult(run="r", began=1, ended=2, error="/store/secret is gone"),
        error="/store/secret: no space",
        error_code="no_space",
        failed_files=1,
        file_error="secret is another file",
        file_error_code="conflict",
        **more,
    )


def test_no_name_of_a_file_is_left():
    """Neither in locations, nor in errors, nor of what is on its way; what is left is of use all the same."""
    found = without_names(full())

    assert "secret" not in repr(found)
    assert (("this machine",), "nas") == (found.sources, found.destination)
    assert "no space left" == found.error
    assert "the destination has another file of the same name" == found.file_error
    assert ["events"] == list(found.watching.values())
    assert [5] == [file.done for file in found.running.in_flight]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a::b/c", "this machine"),
        ("./a::b", "this machine"),
        ("nas:9000::inbox", "nas"),
        ("realize://nas/inbox", "nas"),
        ("nas:wrong", "this machine"),
    ],
)
def test_of_a_location_the_peer_is_left(location, expected):
    """A directory of this machine has no name here."""
    assert expected == without_names(evolve(full(), destination=location)).destination


def test_every_error_has_words_of_its_own():
    """For each code there is a sentence; a code that nobody knows is an error as well, and no error is none."""

    def codes(kind):
        return {kind.wire_code.decode()}.union(*map(codes, kind.__subclasses__()))

    ours = {each for each in codes(RealizeError) if each.isupper()}
    assert set() == ours - KINDS_OF_ERRORS.keys()
    assert "an error; the log has more" == kind_of("of /store/secret", "new_one")
    assert "" == kind_of("", "")


# What is collected.


class Connection:
    """A connection with transfers."""

    def __init__(self, number, transfers):
        self.number, self.name = number, "camera"
        self._transfers = transfers

    def transfers(self):
        return [
            {"dir": "inbox", "path": "secret", "direction": "receive", "size": 100, "done": 50}
            for _ in range(self._transfers)
        ]


class Factory(list):
    """The connections of a daemon."""

    def __init__(self, connections):
        super().__init__(connections)
        self.connections = {"camera": {1}}

    def traffic(self):
        return {}


def collector(moves=(), connections=(), *, names_allowed=False, absent=()):
    """What collects from these."""
    clock = Clock()
    throttling = Throttling(clock, structlog.get_logger())
    throttling.configure(1000, {"camera": None}, None)
    return PageCollector(
        clock=clock,
        factory=Factory(connections),
        throttling=throttling,
        rates=RateSampler(clock),
        absent=lambda: list(absent),
        moves=lambda: list(moves),
        uptime_s=lambda: 5.0,
        is_running=lambda: True,
        names_allowed=names_allowed,
    )


def test_names_are_shown_only_where_they_are_allowed():
    """Whatever there is on the page, the names of files are on it if the operator has said so, and else not."""
    for allowed in (False, True):
        page = render(collector([full()], [Connection(1, 1)], names_allowed=allowed).collect())
        assert allowed == (b"secret" in page)
        assert "On the way" in text_of(page)
        assert "from camera into inbox" in text_of(page)


def test_limits_are_shown():
    """Those that are in force, of the daemon and of moves."""
    page = text_of(render(collector([move(up_bps=2048)]).collect()))

    assert "all peers together 1000 B/s no limit" in page
    assert "move camera 2 KiB/s no limit" in page
    assert "peer camera" not in page


def test_the_last_hour_is_sampled():
    """Bytes of a move count as they arrive, not only when their file is whole."""
    moves = [full()]
    found = collector(moves)
    found.sampler.start()
    file = FileUnderWay(path="secret", size=4000, done=5 + 20 * 50)
    moves[0] = evolve(moves[0], running=RunNow(run="r", began=1, in_flight=(file,)))
    found.sampler._clock.advance(HISTORY_INTERVAL_S)
    found.sampler.stop()

    contents = found.collect()
    assert ((50.0,), (50.0,)) == (contents.moved["camera"], contents.moved_by_all)


def test_much_is_bounded():
    """With 1,000 moves and 10,000 transfers the page says how many more there are, and what is wrong is on it."""
    moves = [move(f"m{n}") for n in range(999)] + [move("broken", Phase.FAILING)]
    found = collector(moves, [Connection(n, 100) for n in range(100)])
    contents = found.collect()
    page = render(contents)

    assert (SHOWN_MOVES, 1000 - SHOWN_MOVES) == (len(contents.moves), contents.more_moves)
    assert (SHOWN_TRANSFERS, 10_000 - SHOWN_TRANSFERS) == (len(contents.transfers), contents.more_transfers)
    assert "broken" == contents.moves[0].name
    assert "and 900 moves more" in text_of(page)
    assert "and 9,950 files more" in text_of(page)
    assert len(page) < 200_000


# The answer.


class Page:
    """A page that counts how often it is made."""

    def __init__(self):
        self.clock = Clock()
        self.made = 0
        self.page = StatusPage(self.collect, self.clock, structlog.get_logger())

    def collect(self):
        self.made += 1
        return crowded()


def test_it_is_made_once_a_second():
    """However many ask for it, at either of its paths."""
    page = Page()
    for path in (b"/", b"/still", b"/"):
        assert 200 == page.page.pages[path](evolve(ASKED, path=path)).code
    assert 1 == page.made
    page.clock.advance(PAGE_CACHE_S)
    page.page.answer(ASKED)
    assert 2 == page.made


def test_how_it_is_to_be_treated():
    """A strict policy with the one style sheet there is; it renews itself, except where it is held still."""
    page = Page().page
    live, still = page.answer(ASKED), page.answer(evolve(ASKED, path=b"/still"))
    headers = dict(live.headers)

    assert "10" == headers.pop("refresh")
    assert headers == dict(still.headers)
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("nosniff", "no-referrer") == (headers["x-content-type-options"], headers["referrer-policy"])
    assert f"<style>{STYLE}</style>".encode() in live.body  # as it is hashed: nothing in it was escaped
    assert b" style=" not in live.body


def test_a_fault_is_logged_without_the_page():
    """The browser is told to look into the log, where there is the fault, and no name that was on the page."""

    def broken():
        contents = crowded(["secret"])
        return evolve(contents, headline=Headline("\ud800", "bad"))

    with structlog.testing.capture_logs() as logs:
        answer = StatusPage(broken, Clock(), structlog.get_logger()).answer(ASKED)

    assert (500, b"see the log\n") == (answer.code, answer.body)
    assert ["page_failed"] == [record["event"] for record in logs]
    assert "surrogates not allowed" in logs[0]["exc"]
    assert "secret" not in logs[0]["exc"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:9772", True),
        ("LOCALHOST.:9772", True),
        ("nas.localhost", True),
        ("127.0.0.1:9772", True),
        ("[::1]:9772", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:9772", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost,evil.example", False),
        ("localhost:80:80", False),
    ],
)
def test_a_name_of_another_site_gets_nothing_on_loopback(host, expected):
    """DNS rebinding: a site whose name came to mean 127.0.0.1 cannot read the page; elsewhere names are as good."""
    asked = evolve(ASKED, host=host)

    assert expected == may_ask(asked)
    assert may_ask(evolve(asked, on_loopback=False))
    if not expected:
        answer = Page().page.answer(asked)
        assert (403, False) == (answer.code, b"<" in answer.body)


# What it looks like.


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough(colours):
    """4.5 to 1 for every colour of letters on every ground (WCAG 2.2, AA)."""
    assert LIGHT.keys() == DARK.keys()
    for ink in INKS:
        for ground in GROUNDS:
            lighter, darker = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
            assert 4.5 <= (lighter + 0.05) / (darker + 0.05), (ink, ground)


def test_a_daemon_without_moves():
    """It says that there are none, and that all is well."""
    well = Headline("All is well", "good")
    page = text_of(render(Contents(now=time.time(), host="lab", version="1", uptime_s=1.0, headline=well)))

    assert "All is well no peer connected" in page
    assert "No moves are configured." in page
    assert "Nothing was moved." in page
    assert "No limit is in force." in page


def test_directories_that_are_not_there_are_told_of():
    """Above all, with the time and the reason; of many only so many are shown."""
    absent = [ShownAbsence(f"disk{number}", 7200.0, "its file system is not mounted") for number in range(60)]
    one = text_of(render(collector([move(phase=Phase.FAILING)], absent=absent[:1]).collect()))
    many = text_of(render(collector(absent=absent).collect()))

    assert "disk0 is not there, camera fails" in one
    assert "Directories disk0 Not there for 2h: its file system is not mounted" in one
    assert "60 directories are not there" in many
    assert "and 10 directories more" in many.replace("\N{NO-BREAK SPACE}", " ")
    assert "Directories" not in text_of(render(collector().collect()))


def test_a_move_tells_what_an_operator_asks():
    """State, backlog, the oldest file, the last good run, the last error and the next run."""
    status = move(
        phase=Phase.FAILING,
        backlog=KnownBacklog(files=1204, size=3 << 30, oldest=NOW - 3600),
        last_success=NOW - 7200,
        failing_since=NOW - 5400,
        next_run=NOW + 60,
        error="no space left on nas\nadd these lines",
    )
    contents = Contents(
        now=NOW, host="lab", version="1", uptime_s=1.0, headline=Headline("x", "bad"), moves=[status], zone=UTC
    )
    page = text_of(render(contents))

    for expected in (
        "failing",
        "from /store/secret to nas::inbox/secret",
        "No space left on nas, for 1h30m",
        "1,204 files, 3 GiB",
        "Oldest 1h 02:03",
        "Last good run 2h ago 01:03",
        "Next run in 1m 03:04",
    ):
        assert expected in page, page


def test_the_picture_in_the_docs_is_small():
    """`python demo/page.py` draws it anew."""
    page = (ROOT / "docs" / "page.md").read_text()

    assert "(page.png)" in page
    assert 150_000 > (ROOT / "docs" / "page.png").stat().st_size
