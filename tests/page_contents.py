"""What a page may have to show, for its tests: a daemon with much on it, and names that try to break the page."""

from __future__ import annotations

from datetime import UTC

from realize.daemon.page.contents import Contents, HourOfRates, ShownAbsence, ShownChange, ShownLimit, ShownTransfer
from realize.daemon.page.history import HISTORY_SAMPLES
from realize.daemon.page.wording import all_that_waits, headline, urgency
from realize.moves.status import FileUnderWay, KnownBacklog, MoveStatus, Phase, RunNow, RunResult

NOW = 1_796_007_793.0
HOSTILE = (
    "<script>window.reached=1</script>",
    '"><img src=x onerror=window.reached=1>',
    "\u202egnp.exe\u2066\u200b",
    "a\x00b\r\nc\x1b[31m",
    "]]>--><style>*{display:none}</style>",
    "W" * 4000,
    "&lt;&#60;{{7*7}}<t:slot name='x'/>",
    "\udcff\ud800",
)
BUSY: HourOfRates = tuple(float(n % 50 * 100_000) for n in range(HISTORY_SAMPLES))


def moves_of(names) -> list[MoveStatus]:
    """Moves of such names in all states."""
    return [
        MoveStatus(
            name=name,
            sources=(name, name),
            destination=name,
            when=name,
            phase=phase,
            watching={name: "events"},
            backlog=KnownBacklog(files=1204, size=3 << 30, oldest=NOW - 5000, at_least=True),
            running=RunNow(
                run=name,
                began=NOW - 100,
                moved_files=3,
                moved_bytes=1 << 40,
                rate_bps=1e6,
                in_flight=(FileUnderWay(path=name, size=1 << 30, done=1 << 29),),
            )
            if phase is Phase.RUNNING
            else None,
            last_run=RunResult(run=name, began=NOW - 200, ended=NOW - 150, failed_files=3, error=name),
            last_success=NOW - 100_000,
            next_run=NOW + 100_000,
            failing_since=NOW - 9000 if phase is Phase.FAILING else None,
            error=name if phase is Phase.FAILING else "",
            error_code=name,
            failed_files=3 if number % 2 or phase is Phase.STUCK else 0,
            file_error=name,
            file_error_code=name,
        )
        for number, name in enumerate(names)
        for phase in Phase
    ]


def crowded(names=("camera", "door")) -> Contents:
    """A page with everything that there can be on it, all of it by these names."""
    moves = sorted(moves_of(names), key=urgency)
    return Contents(
        now=NOW,
        host=names[0],
        version="0.1.0",
        uptime_s=1e6,
        headline=headline(moves, is_ending=False, is_busy=True, absent=names),
        absent=[ShownAbsence(name, 5e5, name) for name in names],
        more_absent=3,
        moves=moves,
        more_moves=900,
        waiting=all_that_waits(moves),
        peers=dict.fromkeys(names, 1),
        transfers=[
            *(ShownTransfer(name=name, about=name, size=1 << 40, done=1 << 39, rate_bps=1e6) for name in names),
            ShownTransfer(name="", about="from camera into inbox", size=0, done=0),
        ],
        more_transfers=9000,
        limits=[
            *(
                ShownLimit(about=name, sending_bps=1e6, changes=[ShownChange(NOW + 5000, "sending", None)])
                for name in names
            ),
            ShownLimit(about="peer camera", receiving_bps=1e9),
        ],
        more_limits=5,
        moved_by_all=BUSY,
        sent=BUSY,
        received=BUSY[:40],
        moved=dict.fromkeys(names, BUSY),
        zone=UTC,
    )
