"""The page as HTML; pure.

`twisted.web.template` escapes by construction: text stays text whatever is in it.
It comes with Twisted, so no other library for templates is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from twisted.web.error import FlattenerError
from twisted.web.template import Tag, flattenString, tags

from realize.daemon.page.contents import Contents, ShownChange, ShownLimit, ShownTransfer
from realize.daemon.page.moves import moves_section
from realize.daemon.page.plots import figures_of, plot, told_of
from realize.daemon.page.style import DARK, LIGHT, STYLE
from realize.daemon.page.wording import backlog_words, clock_time, coarse, counted, rate_words, shown, size_words

RENEWED_EVERY_S: Final = 10
"""How often a browser asks for the page again."""

LIVE_PATH: Final = b"/"
"""Where the page renews itself."""

STILL_PATH: Final = b"/still"
"""Where it does not: who reads slowly, or has it read out, must be able to stop it (WCAG 2.2, 2.2.1)."""


def render(contents: Contents) -> bytes:
    """The whole page, in UTF-8."""
    found: list[bytes] = []
    failed: list[BaseException] = []
    # Nothing in the page is a Deferred, so it is there at once.
    flattenString(None, _page(contents)).addCallbacks(found.append, lambda failure: failed.append(failure.value))
    for error in failed:
        # Not the one around it, whose text is the whole page, names and all: what is raised here gets into the log.
        raise error.args[0] if isinstance(error, FlattenerError) else error
    return b"<!DOCTYPE html>\n" + found[0]


def _page(contents: Contents) -> Tag:
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.title(f"{contents.headline.text} · {shown(contents.host)}"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.meta(name="color-scheme", content="light dark"),
            tags.link(rel="icon", href=_icon(contents.headline.tone)),
            tags.style(STYLE),
        ),
        tags.body(
            _header(contents),
            Tag("main")(
                _directories(contents),
                moves_section(contents),
                _transfers(contents),
                _hour(contents),
                _limits(contents),
            ),
            _footer(contents),
        ),
        lang="en",
    )


def _icon(tone: str) -> str:
    """A dot in the colour of the headline, for the tab of the browser."""
    colour = LIGHT.get(tone, DARK["soft"])
    dot = f'<circle cx="4" cy="4" r="4" fill="{colour}"/>'
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{dot}</svg>'
    return f"data:image/svg+xml,{quote(picture)}"


def _header(contents: Contents) -> Tag:
    now = f"{datetime.fromtimestamp(contents.now, contents.zone):%H:%M:%S}"
    return tags.header(
        tags.p(
            tags.span("realized on ", tags.strong(shown(contents.host))),
            tags.span(f"as of {now}"),
            class_="where",
        ),
        tags.h1(contents.headline.text, class_=contents.headline.tone),
        tags.p(" · ".join(_lead(contents)), class_="lead"),
    )


def _lead(contents: Contents) -> Iterator[str]:
    """What waits, who is here."""
    if contents.moves:
        waiting = contents.waiting
        oldest = "" if waiting.oldest is None else f", the oldest for {coarse(contents.now - waiting.oldest)}"
        yield f"{backlog_words(waiting)} waiting{oldest}" if waiting.files else "nothing waiting"
    if contents.peers:
        yield f"{counted(len(contents.peers), 'peer')} connected"
    else:
        yield "no peer connected"


def _section(title: str, *content: Any) -> Tag:
    ident = title.replace(" ", "-").lower()
    return tags.section(tags.h2(title, id=ident), *content, **{"aria-labelledby": ident})


def _directories(contents: Contents) -> Tag | str:
    """Those that are not there; nothing is to be said of the others."""
    if not contents.absent:
        return ""
    rows = [
        tags.li(
            tags.h3(tags.bdi(shown(each.name))),
            tags.p(f"Not there for {coarse(each.seconds)}: {shown(each.why)}", class_="facts"),
            class_="card",
        )
        for each in contents.absent
    ]
    return _section(
        "Directories", tags.ul(rows, class_="cards even"), _more(contents.more_absent, "directory", "directories")
    )


def _transfers(contents: Contents) -> Tag | str:
    if not contents.transfers:
        return ""
    rows = [_transfer(each) for each in contents.transfers]
    return _section("On the way", tags.ul(rows, class_="cards even"), _more(contents.more_transfers, "file"))


def _transfer(transfer: ShownTransfer) -> Tag:
    what = tags.bdi(shown(transfer.name)) if transfer.name else f"A file of {size_words(transfer.size)}"
    part = 1.0 if not transfer.size else min(1.0, transfer.done / transfer.size)
    percent = str(int(part * 100))
    facts = [f"{percent} % of {size_words(transfer.size)}"]
    if transfer.rate_bps is not None:
        facts.append(rate_words(transfer.rate_bps))
        if transfer.rate_bps >= 1 and transfer.size > transfer.done:
            facts.append(f"{coarse((transfer.size - transfer.done) / transfer.rate_bps)} left")
    about = shown(transfer.about)
    label = f"{shown(transfer.name) or 'a file'}, {about}"
    return tags.li(
        tags.h3(what),
        tags.p(about, class_="route"),
        Tag("progress", attributes={"max": "100", "value": percent, "aria-label": label}),
        tags.p(" · ".join(facts), class_="facts"),
        class_="card",
    )


def _hour(contents: Contents) -> Tag:
    figures = [
        tags.figure(
            tags.h3(title),
            plot(rates, ident, f"{title}, last hour", told_of(rates, contents.now, contents.zone)),
            tags.p(tags.span("an hour ago"), tags.span("now"), class_="axis", **{"aria-hidden": "true"}),
            tags.figcaption(figures_of(rates)),
            class_="card",
        )
        for ident, title, rates in (
            ("moved", "Standing moves", contents.moved_by_all),
            ("received", "Received from peers", contents.received),
            ("sent", "Sent to peers", contents.sent),
        )
        if any(rates)
    ]
    nothing = tags.p("Nothing was moved.", class_="note")
    return _section("Last hour", tags.div(figures, class_="cards large") if figures else nothing)


def _limits(contents: Contents) -> Tag:
    if not contents.limits:
        return _section("Limits", tags.p("No limit is in force.", class_="note"))
    return _section(
        "Limits",
        tags.div(
            tags.table(
                tags.thead(
                    tags.tr(
                        tags.th("For", scope="col"),
                        tags.th("Sending", scope="col", class_="number"),
                        tags.th("Receiving", scope="col", class_="number"),
                    )
                ),
                tags.tbody([_limit(contents, each) for each in contents.limits]),
            ),
            class_="card sheet",
        ),
        _more(contents.more_limits, "limit"),
    )


def _limit(contents: Contents, limit: ShownLimit) -> Tag:
    return tags.tr(
        tags.th(tags.bdi(shown(limit.about)), *(_change(contents, each) for each in limit.changes), scope="row"),
        *(tags.td(rate_words(bps), class_="number") for bps in (limit.sending_bps, limit.receiving_bps)),
    )


def _change(contents: Contents, change: ShownChange) -> Tag:
    at = clock_time(change.at, contents.now, contents.zone)
    return tags.small(f"{change.direction} {rate_words(change.bps)} from {at}, in {coarse(change.at - contents.now)}")


def _more(count: int, noun: str, plural: str = "") -> Tag | str:
    return tags.p(f"and {counted(count, noun, plural)} more", class_="more") if count else ""


def _footer(contents: Contents) -> Tag:
    return tags.footer(
        tags.p(f"realized {shown(contents.version)}, up for {coarse(contents.uptime_s)}. Times are local."),
        tags.p(
            f"Refreshes every {RENEWED_EVERY_S} seconds: ",
            tags.a("stop refreshing", href=STILL_PATH.decode()),
            ", or ",
            tags.a("refresh again", href=LIVE_PATH.decode()),
            ".",
        ),
    )
