"""The command line of `move` and `copy`, and of the group around them; nothing is moved here."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from realize.cli.commands import move_run as moving
from realize.cli.display.options import DisplayOptions
from realize.cli.main import realize
from realize.cli.options import Access
from realize.mover.filters import selection
from realize.mover.run import TransferOptions
from realize.runs.move_options import MoveOptions
from realize.runs.options import Patience, Rates
from realize.schedule.timetable import RateByTime, parse_timetable
from realize.values import OnConflict, Preserve

DAILY = "08:00,512k 18:00,unlimited"

Call = tuple[tuple[str, ...], str, Access, TransferOptions, DisplayOptions, Rates, Patience, str | None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What a parsed command line asks for, instead of doing it."""
    seen: list[Call] = []

    def run_move(texts: tuple[str, ...], access: Access, options: MoveOptions, look: DisplayOptions, *_: object) -> int:
        transfer, more = options.transfer(remove=look.remove), (options.rates, options.patience, options.manifest)
        seen.append((texts[:-1], texts[-1], access, transfer, look, *more))
        return 0

    monkeypatch.setattr(moving, "run_move", run_move)
    return seen


def invoke(*arguments: str) -> Result:
    """Parse a command line."""
    return CliRunner().invoke(realize, list(arguments), prog_name="realize", catch_exceptions=False)


def test_move_is_implied(calls: list[Call]) -> None:
    """`realize SRC DST` is `realize move SRC DST`, also if options come first."""
    for arguments in (["a", "b"], ["move", "a", "b"], ["--jobs", "2", "a", "b"], ["-v", "a", "b"], ["--", "a", "b"]):
        result = invoke(*arguments)
        assert (0, "") == (result.exit_code, result.output)

    assert [(("a",), "b")] * 5 == [call[:2] for call in calls]
    assert {True} == {call[3].remove for call in calls}


def test_copy_does_not_remove(calls: list[Call]) -> None:
    """`copy` is `move` without the removal."""
    invoke("copy", "a", "b", "c")

    ((sources, destination, _, options, look, *_),) = calls
    assert (("a", "b"), "c", False, False) == (sources, destination, options.remove, look.remove)


def test_defaults(calls: list[Call]) -> None:
    """Without options: replace, preserve, four jobs, no filters, for real, shown as the terminal suits."""
    invoke("a", "b")

    assert (Access(), TransferOptions(), DisplayOptions(), Rates(), Patience(), None) == calls[0][2:]


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["--prune-dirs"], 3600.0),
        (["--prune-dirs=2d"], 172_800.0),
        (["--prune-dirs=0"], 0.0),
        (["-v", "--prune-dirs", "--jobs", "2"], 3600.0),
        (["--prune-dirs", "--prune-dirs=5s"], 5.0),
        (["--exclude", "--prune-dirs"], None),
        ([], None),
    ],
)
def test_prune_dirs_has_an_age_or_none(calls: list[Call], words: list[str], seconds: float | None) -> None:
    """An age follows behind ``=`` only, so that a location that comes next is none."""
    assert 0 == invoke(*words, "a", "b").exit_code
    assert 0 == invoke("move", *words, "--", "a", "--prune-dirs").exit_code

    assert [(("a",), "b"), (("a",), "--prune-dirs")] == [call[:2] for call in calls]
    expected = None if seconds is None else int(seconds * 1e9)
    assert [expected] * 2 == [call[3].prune_age_ns for call in calls]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--prune-dirs=soon", "a", "b"],
            "'soon' is not a duration: write a time, such as 90s",
        ),
        (["--prune-dirs=", "a", "b"], "'' is not a duration"),
        (["--prune-dirs=-1h", "a", "b"], "'-1h' is not a duration"),
        (["copy", "--prune-dirs", "a", "b"], "No such option '--prune-dirs'"),
    ],
)
def test_prune_dirs_that_make_no_sense(calls: list[Call], words: list[str], sentence: str) -> None:
    """What is no age is refused by its text; a copy, which removes nothing, does not know the option."""
    with pytest.raises(click.ClickException) as refused:
        realize.main(words, prog_name="realize", standalone_mode=False)

    assert sentence in refused.value.format_message()
    assert [] == calls


def test_every_option_arrives(calls: list[Call]) -> None:
    """Each option has its effect."""
    invoke(
        *("--config", "c", "--key", "k", "--peer-key", "p", "--on-conflict", "skip", "--min-age", "1m30s"),
        *("--dry-run", "--jobs", "9", "--no-preserve", "--no-progress", "-v"),
        *("--throttle-up", "1k", "--throttle-down", "2k"),
        *("--max-duration", "1m", "--grace", "5s", "--no-retry", "a", "b"),
    )

    expected = TransferOptions(
        remove=True,
        policy=OnConflict.SKIP,
        policy_asked=True,
        preserve=frozenset(),
        jobs=9,
        selection=selection([], 90.0),
        dry_run=True,
    )
    look = DisplayOptions(progress=False, verbose=True, dry_run=True)
    patience = Patience(60.0, 5.0, retry=False)
    assert (Access("c", "k", "p"), expected, look, Rates(1024, 2048), patience, None) == calls[0][2:]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([], {"mode", "times"}),
        (["--no-preserve"], set()),
        (["--preserve=none"], set()),
        (["--preserve=times"], {"times"}),
        (["--preserve", "owner, acl"], {"mode", "owner", "acl"}),
        (["--preserve=all"], {each.value for each in Preserve}),
    ],
)
def test_what_is_carried_over_is_a_list(calls: list[Call], words: list[str], kept: set[str]) -> None:
    """Exactly what is named, and with access control lists the permission bits, which are a part of them."""
    invoke(*words, "a", "b")

    assert kept == {each.value for each in calls[0][3].preserve}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--preserve=owner,colour"],
            "'colour': expected all, none, or some of mode, times, owner, acl, xattr, hardlinks",
        ),
        (["--preserve="], "expected all, none, or some of mode"),
        (["--preserve=none,owner"], "'none': expected"),
        (["--preserve=owner", "--no-preserve"], "give one of the two"),
        (["--preserve=mode", "--numeric-ids"], "--numeric-ids needs --preserve with owner or acl"),
        (["--numeric-ids"], "--numeric-ids needs --preserve with owner or acl"),
    ],
)
def test_lists_that_make_no_sense(calls: list[Call], words: list[str], sentence: str) -> None:
    """Are refused before anything is done."""
    result = invoke(*words, "a", "b")

    assert sentence in " ".join(result.output.split())
    assert (2, []) == (result.exit_code, calls)


@pytest.mark.parametrize(
    ("words", "up", "down"),
    [
        (["--throttle", DAILY], parse_timetable(DAILY), parse_timetable(DAILY)),
        (["--throttle-up", DAILY, "--throttle-down", "off"], parse_timetable(DAILY), None),
        (["--throttle-down", "Mon-08:00,1M"], None, parse_timetable("Mon-08:00,1M")),
    ],
)
def test_limits_may_go_by_the_time_of_day(
    calls: list[Call], words: list[str], up: RateByTime, down: RateByTime
) -> None:
    """In the form that rclone has."""
    invoke(*words, "a", "b")

    assert Rates(up, down) in calls[0]


def test_a_timetable_that_is_none_is_refused(calls: list[Call]) -> None:
    """With what is wrong with it; rclone's form for both directions has options of its own here."""
    for text, sentence in (("8,1M", "not a rate with the time it begins"), ("1M:2M", "give --throttle-up and")):
        refused = CliRunner().invoke(realize, ["--throttle", text, "a", "b"])

        assert 2 == refused.exit_code
        assert sentence in refused.output
    assert [] == calls


def test_sizes_may_have_units(calls: list[Call]) -> None:
    """As rates do; a least one that is more than the greatest is refused."""
    refused = CliRunner().invoke(realize, ["--min-size", "2M", "--max-size", "1M", "a", "b"])
    invoke("--min-size", "1.5k", "--max-size", "2MB", "a", "b")

    assert 2 == refused.exit_code
    assert "so no file would match" in refused.output
    assert [selection([], min_size=1536, max_size=2_000_000)] == [call[3].selection for call in calls]


def test_a_manifest_is_for_what_is_moved(calls: list[Call]) -> None:
    """It is handed on, and refused where nothing is moved."""
    refused = CliRunner().invoke(realize, ["--manifest", "m", "--dry-run", "a", "b"])
    invoke("--manifest", "m", "a", "b")

    assert 2 == refused.exit_code
    assert ["m"] == [call[-1] for call in calls]


def test_include_and_exclude_keep_their_order(calls: list[Call], tmp_path: Path) -> None:
    """The order on the command line is the order of the rules, across the different options and their files."""
    rules = tmp_path / "rules"
    rules.write_text("# comment\n\n*.tmp\n!keep.tmp\n")

    invoke(
        *("--exclude", "*.jpg", "--include", "a.jpg", "--filter-from", str(rules), "--exclude=b", "--include=c"),
        *("a", "b"),
    )

    assert ("*.jpg", "!a.jpg", "*.tmp", "!keep.tmp", "b", "!c") == calls[0][3].selection.lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        ["move"],
        ["--jobs", "0", "a", "b"],
        ["--min-age", "soon", "a", "b"],
        ["--on-conflict", "ask", "a", "b"],
        ["--quiet", "--json", "a", "b"],
        ["--quiet", "--verbose", "a", "b"],
        ["--progress", "--json", "a", "b"],
        ["--no-such-option", "a", "b"],
        ["--metrics-textfile", "/dev/null", "a", "b"],
        ["--metrics-textfile", "/dev/full", "a", "b"],
    ],
)
def test_a_senseless_command_line_is_a_usage_error(calls: list[Call], arguments: list[str]) -> None:
    """Exit code 2, and nothing is started."""
    result = invoke(*arguments)

    assert (2, []) == (result.exit_code, calls)
