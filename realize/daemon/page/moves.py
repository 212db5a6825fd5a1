"""The standing moves on the page: a card for each that somebody should look at, a row for the others; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twisted.web.template import Tag, tags

from realize.daemon.page.contents import Contents
from realize.daemon.page.plots import figures_of, plot, told_of
from realize.daemon.page.withholding import HERE
from realize.daemon.page.wording import (
    NO_BREAK,
    backlog_words,
    clock_time,
    coarse,
    counted,
    is_quiet,
    rate_words,
    shown,
    state_of,
    tone_of,
)
from realize.moves.status import MoveStatus, Phase

_SHOWN_SOURCES: Final = 3


def moves_section(contents: Contents) -> Tag:
    """The section of the page about moves."""
    cards = [_card(contents, move, f"move-{n}") for n, move in enumerate(contents.moves) if not is_quiet(move)]
    rows = [_row(contents, move, f"move-{n}") for n, move in enumerate(contents.moves) if is_quiet(move)]
    return tags.section(
        tags.h2("Moves", id="moves"),
        "" if contents.moves else tags.p("No moves are configured.", class_="note"),
        tags.div(cards, class_="cards") if cards else "",
        _table(rows) if rows else "",
        tags.p(f"and {counted(contents.more_moves, 'move')} more", class_="more") if contents.more_moves else "",
        **{"aria-labelledby": "moves"},
    )


def _card(contents: Contents, move: MoveStatus, ident: str) -> Tag:
    rates = contents.moved.get(move.name, ())
    return tags.article(
        tags.header(tags.h3(tags.bdi(shown(move.name)), id=ident), tags.span(state_of(move), class_="state")),
        tags.p(_route(move), class_="route"),
        [tags.p(text, class_="error") for text in _errors(contents, move)],
        tags.dl([[tags.dt(term), tags.dd(*_small(*said))] for term, *said in _facts(contents, move)]),
        tags.figure(
            _picture(contents, move, f"{ident}-hour"),
            tags.figcaption(figures_of(rates)),
        )
        if any(rates)
        else "",
        class_=f"card {tone_of(move)}",
        **{"aria-labelledby": ident},
    )


def _route(move: MoveStatus) -> str:
    """Where it moves from and to; this machine goes without saying."""
    sources = [shown(source) for source in move.sources if source != HERE]
    more = f" and {len(sources) - _SHOWN_SOURCES} more" if len(sources) > _SHOWN_SOURCES else ""
    ways = [f"from {', '.join(sources[:_SHOWN_SOURCES])}{more}"] if sources else []
    if move.destination != HERE:
        ways.append(f"to {shown(move.destination)}")
    return " ".join(ways) or f"on {HERE}"


def _errors(contents: Contents, move: MoveStatus) -> Iterator[str]:
    """What is wrong, in sentences."""
    if move.phase is Phase.FAILING:
        since = "" if move.failing_since is None else f", for {coarse(contents.now - move.failing_since)}"
        # Behind the first line are lines to paste.
        error = shown(move.error.partition("\n")[0])
        yield f"{_sentence(error) or 'Its last run failed'}{since}"
    if move.stuck_files:
        why = f": {shown(move.file_error)}" if move.file_error else ""
        yield f"{counted(move.stuck_files, 'file')} cannot be moved{why}"


def _facts(contents: Contents, move: MoveStatus) -> Iterator[tuple[str, str, str]]:
    """What there is to know: a term, what to say of it, and what to add in small letters."""
    oldest = move.backlog.oldest
    yield "Waiting", backlog_words(move.backlog), ""
    if oldest is not None:
        yield "Oldest", coarse(contents.now - oldest), _time(contents, oldest)
    running, last = move.running, move.last_run
    if running is not None:
        began = f"since {_time(contents, running.began)}"
        yield "This run", counted(running.moved_files, "file"), began
        if running.rate_bps is not None:
            yield "Rate", rate_words(running.rate_bps), ""
    if last is not None:
        failed = f", {last.failed_files:,} failed" if last.failed_files else ""
        moved = counted(last.moved_files, "file") if last.moved_files else "nothing moved"
        yield "Last run", f"{moved}{failed}", _time(contents, last.ended)
    yield ("Last good run", *_good(contents, move))
    if move.phase is not Phase.RUNNING:
        yield ("Next run", *_next(contents, move))


def _table(rows: list[Tag]) -> Tag:
    return tags.div(
        tags.table(
            tags.thead(
                tags.tr(
                    tags.th("Move", scope="col"),
                    tags.th("Waiting", scope="col"),
                    tags.th("Last good run", scope="col"),
                    tags.th("Next run", scope="col", class_="wide"),
                    tags.th("Last hour", scope="col", class_="wide"),
                )
            ),
            tags.tbody(rows),
        ),
        class_="card sheet",
    )


def _row(contents: Contents, move: MoveStatus, ident: str) -> Tag:
    oldest, upcoming = move.backlog.oldest, _next(contents, move)
    return tags.tr(
        tags.th(tags.bdi(shown(move.name)), tags.small(_route(move)), scope="row"),
        tags.td(
            backlog_words(move.backlog),
            "" if oldest is None else tags.small(f"oldest {coarse(contents.now - oldest)}"),
        ),
        tags.td(
            _small(*_good(contents, move)),
            "" if move.next_run is None else tags.small(f"next {upcoming[0]}", class_="narrow"),
        ),
        tags.td(_small(*upcoming), class_="wide"),
        tags.td(_picture(contents, move, f"{ident}-hour"), class_="wide"),
    )


def _picture(contents: Contents, move: MoveStatus, ident: str) -> Tag:
    rates = contents.moved.get(move.name, ())
    return plot(rates, ident, f"{shown(move.name)}, last hour", told_of(rates, contents.now, contents.zone))


def _time(contents: Contents, at: float) -> str:
    return clock_time(at, contents.now, contents.zone)


def _good(contents: Contents, move: MoveStatus) -> tuple[str, str]:
    """How long ago its last good run was, and when."""
    at = move.last_success
    return ("never", "") if at is None else (f"{coarse(contents.now - at)}{NO_BREAK}ago", _time(contents, at))


def _next(contents: Contents, move: MoveStatus) -> tuple[str, str]:
    """When it runs again: in how long, and at what time."""
    if move.phase is Phase.PAUSED:
        return "when it is resumed", ""
    if move.next_run is None:
        return "when files settle", ""
    return f"in{NO_BREAK}{coarse(move.next_run - contents.now)}", _time(contents, move.next_run)


def _small(text: str, added: str) -> tuple[str, Tag | str]:
    """A text with something in small letters behind it."""
    return text, tags.small(added) if added else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
