"""`docs/moves.md`: its examples work, and its words, commands and numbers are those of the code."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from realize.cli.commands.moves import STEERING, parsed
from realize.cli.display.moves import listing
from realize.config import read_config
from realize.config.moves import MoveConfig
from realize.daemon.metrics.counters import FAILURES
from realize.errors import AccessDenied, Busy, ConnectionFailed, Silence, Unavailable, VersionMismatch, WrongPeer
from realize.keys import generate_identity, write_identity
from realize.moves.after_program import INHERITED
from realize.moves.after_report import MAX_NAMED_FILES, AfterReport
from realize.moves.child import CHILD_KILL_AFTER_S, MAX_LINE_CHARS, MAX_LINES
from realize.moves.episodes import MAX_TOLD_FILES
from realize.moves.feed import LINGER_S, MAX_BUSY_DELAY_S, MAX_FULL_DELAY_S, MAX_RUN_S, MAX_TURN_S
from realize.moves.one_run import PATIENCE_S
from realize.moves.plan import MAX_JITTER_S, plans_of
from realize.moves.settling import PRUNE_INTERVAL_S
from realize.moves.standing_move import MAX_AWAY_DELAY_S
from realize.moves.state import MAX_FILE_FAILURES
from realize.moves.state_directory import SAVE_INTERVAL_S
from realize.moves.status import KnownBacklog, MoveStatus, Phase, RunNow, RunResult
from realize.runs import reconnecting
from realize.schedule.when import parse_when
from realize.watch import settling, source_watch
from realize.watch.jobs import HANGS_AFTER_S
from tests.pages import page, quoted, rows, section

PAGE = page("moves.md")
NOW = 1_700_000_000.0


def block(beginning: str) -> str:
    """The block that begins like this, with what follows an empty line in it."""
    _, found, rest = PAGE.partition(f"\n    {beginning}")
    assert found, f"no block begins with {beginning}"
    lines = []
    for line in f"    {beginning}{rest}".splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line[4:])
    return "\n".join(lines).rstrip("\n")


def move(name: str, phase: Phase, **values: Any) -> MoveStatus:
    """A move as a daemon reports it."""
    return MoveStatus(
        name=name,
        sources=[f"/store/{name}"],
        destination="nas::inbox",
        when="settled",
        phase=phase,
        watching={f"/store/{name}": "events"},
        **values,
    )


def test_the_configuration_works(tmp_path: Path) -> None:
    """It can be copied, with a key in it; optional lines are the defaults where the page says so."""
    write_identity(str(tmp_path / "realized.key"), generate_identity())
    text = block("# /etc/realize/realized.toml").replace("MCowBQYDK2VwAyEA...", generate_identity().public_key.base64)
    (tmp_path / "realized.toml").write_text(text)
    (tmp_path / "realized.toml").chmod(0o600)

    [plan] = plans_of(read_config(str(tmp_path / "realized.toml"))).values()

    assert ("/store/camera", "nas::inbox/cam1") == plan.texts
    default = MoveConfig(sources=["/store/camera"], destination="nas::inbox/cam1")
    assert (default.when, default.settle_s) == (plan.config.when, plan.config.settle_s) == ("settled", 10.0)
    assert 60.0 == default.after_timeout_s
    assert "60 s unless given" in PAGE


def test_the_list_is_what_the_command_prints() -> None:
    """For two moves as the page has them."""
    camera = move(
        "camera",
        Phase.RUNNING,
        backlog=KnownBacklog(files=118, size=1_288_490_189, oldest=NOW - 720),
        running=RunNow(run="r", began=NOW - 65, rate_bps=4_299_161.6),
        last_run=RunResult(run="q", began=NOW - 800, ended=NOW - 780),
    )
    photos = move(
        "photos",
        Phase.FAILING,
        backlog=KnownBacklog(files=3, size=20 << 20, oldest=NOW - 2 * 86_400),
        last_run=RunResult(run="p", began=NOW - 2, ended=NOW - 1),
        next_run=NOW + 3,
        failing_since=NOW - 86_400,
        error="office:9771 cannot be reached: No route to host",
    )

    assert block("move    state") == "\n".join(listing({"now": NOW, "moves": [camera.as_row(), photos.as_row()]}))
    assert next(listing({"now": NOW, "moves": [evolve(camera, name="x" * 7).as_row()]})).split()[1:] == [
        quoted(row[0])[0] for row in rows(section(PAGE, "Steering")) if row[0].startswith("`") and " " not in row[0]
    ]


def test_the_commands_exist() -> None:
    """Each action that there is, and no other."""
    commands = [shlex.split(quoted(row[0])[0]) for row in rows(section(PAGE, "Steering")) if "`realize " in row[0]]

    actions = [parsed(tuple(words[2:]))[0] for words in commands if words[1] == "moves"]

    assert ["list", "show", *STEERING] == actions


def test_the_times_of_runs_can_be_written_so() -> None:
    """Those of the table."""
    table = [row[0] for row in rows(section(PAGE, "When it moves").partition("### By the clock")[2])]

    whens = [each.strip('"') for cell in table for each in quoted(cell)]

    assert 6 == len([parse_when(each) for each in whens])


def test_how_sources_are_watched() -> None:
    """Each word is explained."""
    table = rows(section(PAGE, "When it moves").partition("### By the clock")[0])

    assert {mode.value for mode in source_watch.WatchMode} == {quoted(row[0])[0] for row in table}


def test_which_troubles_are_that_a_peer_is_away() -> None:
    """Those are tried again within seconds, as the page says; the others are not."""
    assert all(issubclass(each, ConnectionFailed) for each in (Unavailable, Silence))
    assert not any(issubclass(each, ConnectionFailed) for each in (WrongPeer, AccessDenied, VersionMismatch))


def test_what_a_program_is_told() -> None:
    """The fields of the example, of the table, and of the code are the same."""
    result = RunResult(run="1", began=NOW, ended=NOW, failed_files=1)
    told = json.loads(AfterReport("camera", result, [(b"a", Busy("a: busy"))]).to_json())
    example = json.loads(block('{"move": "camera"'))
    table = rows(section(PAGE, "Programs after a run"))

    assert list(told) == list(example) == [name for row in table for name in quoted(row[0])]
    assert set(told["failed"][0]) == set(example["failed"][0])
    assert example["failed"][0]["code"] in {error.wire_code.decode() for error in FAILURES}
    assert f"the first {MAX_NAMED_FILES} files that failed" in PAGE
    assert all(f"`{name}`" in section(PAGE, "Programs after a run") for name in INHERITED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the daemon searches it every {:g} s", source_watch.POLLED_WALK_S),
        ("searches the source every minute", source_watch.LIMITED_WALK_S == 60.0),
        ("searches the whole source once an hour", source_watch.SLOW_WALK_S == 3_600.0),
        ("has not answered for {:g} s", HANGS_AFTER_S),
        ("looks again at least every {:g} s", source_watch.MAX_RETRY_S),
        ("is noticed within {:g} s", source_watch.CHECK_S),
        ("given up after {:g} s", HANGS_AFTER_S + PATIENCE_S),
        ("ends when no file has settled for {:g} s", LINGER_S),
        ("After a minute it takes in no more files", MAX_RUN_S == 60.0),
        ("each gets a turn of {:g} s", MAX_TURN_S),
        ("but at most a minute; for calendar times it is a minute", MAX_JITTER_S == 60.0),
        ("and once an hour as files settle", PRUNE_INTERVAL_S == 3_600.0),
        ("comes after half a second", reconnecting.FIRST_DELAY_S == 0.5),
        (
            "or the directory there is [absent](configuration.md#directories-that-come-and-go) | {:g} s |",
            MAX_AWAY_DELAY_S,
        ),
        ("or has withdrawn a right; all other reasons | 5 minutes |", reconnecting.MAX_DELAY_S == 300.0),
        ("each is tried again after a second", settling.FIRST_FILE_DELAY_S == 1.0),
        ("(smaller files are still moved) | 5 minutes |", MAX_FULL_DELAY_S == 300.0),
        ("at the destination | {:g} s |", MAX_BUSY_DELAY_S),
        ("| an hour; when the file changes, as soon as it has settled |", settling.MAX_FILE_DELAY_S == 3_600.0),
        ("or more than {:,} files fail", MAX_TOLD_FILES),
        ("up to {:,} waiting files of each source", settling.MAX_KNOWN_FILES),
        ("at most {:,} of them", MAX_FILE_FAILURES),
        ("at most once a second", SAVE_INTERVAL_S == 1.0),
        ("the first {:,} lines", MAX_LINES),
        ("the first {:,} characters of each", MAX_LINE_CHARS),
        ("SIGKILL {:g} s later", CHILD_KILL_AFTER_S),
    ],
)
def test_numbers(text: str, expected: float) -> None:
    """They are those of the code; a number that stands there in words is compared beside it."""
    assert expected is not False
    assert text.format(expected) in PAGE
