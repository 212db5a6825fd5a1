"""`docs/usage.md` and its companions, scripting and the daemon, name what the programs know: options, codes."""

from __future__ import annotations

import re
import shlex
import signal

import click
import pytest

from realize.cli.main import realize
from realize.cli.runner import ENDING
from realize.daemon.tap import Options
from realize.daemon.twistd_service import DRAIN_KILL_AFTER_S, STOPPING
from realize.errors import UsageError
from realize.exit_codes import DaemonExitCode, ExitCode
from realize.fs.names import leads_outside
from realize.mover.filters import selection
from realize.runs.checking import OF_THE_DIRECTORY, OF_THE_PEER, OF_THE_WAY
from realize.units import parse_duration, parse_rate, parse_size
from realize.values import Compress, OnConflict, Preserve
from realize.wire.keepalive import (
    ANSWER_AFTER_S,
    IDLE_TIMEOUT_S,
    PING_AFTER_S,
    RESTING_PING_AFTER_S,
    RESTING_PING_BEHIND_S,
    RESTING_STEP_S,
    RESTING_TIMEOUT_S,
)
from realize.wire.reply_timeouts import REPLY_TIMEOUT_S, SLOW_REPLY_TIMEOUT_S
from tests.pages import page, quoted, rows, section

USAGE, SCRIPTING, DAEMON = page("usage.md"), page("scripting.md"), page("daemon.md")
SELECTING, LIMITS, CHECK = page("selecting.md"), page("limits.md"), page("check.md")
PRESERVING, TRAFFIC = page("preserving.md"), page("traffic.md")
SPLIT_OFF = [page(f"{name}.md") for name in ("selecting", "limits", "traffic", "preserving", "check", "manifest")]


def options(name: str) -> list[click.Option]:
    """The options of a command."""
    return [each for each in realize.commands[name].params if isinstance(each, click.Option)]


def signals(text: str) -> set[str]:
    """The signals in the first column of the table below "Signals"."""
    return {name for row in rows(section(text, "Signals")) for name in quoted(row[0])}


@pytest.mark.parametrize("text", [USAGE, *SPLIT_OFF, SCRIPTING, DAEMON], ids=lambda text: text.partition("\n")[0])
def test_no_option_that_does_not_exist(text):
    """Wherever a page writes an option, one of our programs has it."""
    ours = {
        name for command in realize.commands for each in options(command) for name in (*each.opts, *each.secondary_opts)
    }
    ours |= {"--help", "--version", *(f"--{name}" for name, *_ in (*Options.optParameters, *Options.optFlags))}

    assert set() == set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)) - ours


def test_exit_codes():
    """Each table has every code that its program can end with, and no other; so has `realize --help`."""
    codes = set(ExitCode)

    assert codes == {int(row[0]) for row in rows(section(SCRIPTING, "Exit codes"))}
    assert set(DaemonExitCode) == {int(row[0]) for row in rows(section(DAEMON, "Exit status"))}
    assert codes == {int(code) for code in re.findall(r"^  (\d+) ", str(realize.epilog), flags=re.MULTILINE)}
    assert {int(code) for text in [USAGE, *SPLIT_OFF] for code in re.findall(r"exit code (?:is )?(\d+)", text)} <= codes


def test_signals():
    """Each program has a table of the signals that it takes."""
    assert {signal.Signals(each).name for each in ENDING} | {"SIGUSR1"} == signals(SCRIPTING)
    assert {signal.Signals(each).name for each in STOPPING} | {"SIGUSR1", "SIGHUP"} == signals(DAEMON)


def test_when_a_connection_is_given_up():
    """The table, and the protocol, have the times that are in force."""
    slow = SLOW_REPLY_TIMEOUT_S / 60
    times = [*(f"{each:.0f} s" for each in (IDLE_TIMEOUT_S, RESTING_TIMEOUT_S, REPLY_TIMEOUT_S)), f"{slow:.0f} min"]
    part = section(LIMITS, "Lost connections")
    liveness = page("protocol.md").partition("\n### Liveness\n")[2].partition("\n### ")[0]

    assert times == [row[1].removesuffix(" with only pings") for row in rows(part)]
    first, behind = (
        f"{after:.0f} to {after + RESTING_STEP_S:.0f} s" for after in (RESTING_PING_AFTER_S, RESTING_PING_BEHIND_S)
    )
    at_rest = f"{first.partition(' ')[0]} to {behind.rpartition(' to ')[2]}"
    assert f"nothing for {PING_AFTER_S:.0f} s; for {at_rest}" in part
    for time in (f"{PING_AFTER_S:.0f} s", f"{ANSWER_AFTER_S} s", first, behind, *times[:3], f"{slow:.0f} minutes"):
        assert time in liveness


def test_when_a_stop_is_forced():
    """The page says how long after the drain time."""
    assert f" {DRAIN_KILL_AFTER_S:.0f} s after the drain time" in DAEMON


@pytest.mark.parametrize(("what", "parse"), [("rate", parse_rate), ("size", parse_size), ("duration", parse_duration)])
def test_how_values_are_written(what, parse):
    """Each example in the table is understood, but for those that it says are refused."""
    [row] = [row for row in rows(section(USAGE, "Rates, sizes and durations")) if row[0] == what]
    refused = {"10Mbps", "10Mbit"}

    for example in quoted(row[1]):
        if example in refused:
            with pytest.raises(UsageError, match="bits"):
                parse(example)
        else:
            parse(example)


def test_what_patterns_match():
    """Each example in the table of patterns does, or does not."""
    table = rows(section(SELECTING, "Filters").partition("The patterns are")[2])

    assert len(table) > 5
    for pattern, matching, others in table:
        chosen = selection([("exclude", *quoted(pattern))])
        assert set() == {path for path in quoted(matching) if chosen.accepts_path(path.encode())}
        assert set(quoted(others)) == {path for path in quoted(others) if chosen.accepts_path(path.encode())}


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (section(USAGE, "The name is taken"), [each.name.lower() for each in OnConflict]),
        (section(PRESERVING, "Attributes").partition("If something")[0], [each.value for each in Preserve]),
        (section(TRAFFIC, "Compression").partition("Without the option")[0], [each.value for each in Compress]),
    ],
    ids=["--on-conflict", "--preserve", "--compress"],
)
def test_values_of_an_option(part, names):
    """Its table has a row for each."""
    assert set(names) == {quoted(row[0])[0] for row in rows(part)}


def test_which_symlinks_lead_outside():
    """Each target in the table does, or does not, one directory below the top."""
    table = rows(section(PRESERVING, "Symlinks").partition("A symlink that one")[0])
    moved = {target: row[1].startswith("yes") for row in table for target in quoted(row[0])}

    assert 5 == len(moved)
    assert moved == {target: not leads_outside(target.encode(), depth=1) for target in moved}


@pytest.mark.parametrize(
    "line",
    [
        line.strip()
        for text in [USAGE, *SPLIT_OFF]
        for line in text.splitlines()
        if re.match(r"    (\S.* )?realize (?!\[)", line) and "<(" not in line
    ],
)
def test_examples_are_command_lines(line):
    """Each example on these pages is understood."""
    given = re.search(r"\brealize (.+?)(  +#| > |$)", line)
    assert given
    words = shlex.split(given[1])
    name, rest = (words[0], words[1:]) if words[0] in realize.commands else ("move", words)

    realize.commands[name].make_context(name, rest, parent=click.Context(realize, **realize.context_settings))


def test_steps_of_a_check():
    """The table has each of them, in their order, and what needs a directory is what the page says."""
    steps = [name for row in rows(section(CHECK, "Steps")) for name in quoted(row[0])]

    assert [*OF_THE_WAY, *OF_THE_PEER, *OF_THE_DIRECTORY] == steps
    assert len(OF_THE_DIRECTORY) == 5
    assert "The last five need a directory" in CHECK


@pytest.mark.parametrize("name", sorted(realize.commands))
def test_environment_variables(name):
    """The page names each variable of the environment that the help names."""
    helps = " ".join([str(realize.commands[name].help), *(str(each.help) for each in options(name))])

    assert set() == {variable for variable in re.findall(r"REALIZE_[A-Z_]+", helps) if f"`{variable}`" not in USAGE}
