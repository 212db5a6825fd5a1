"""The daemon's options of the log, and what outranks what: `realize.daemon.tap`, `realize.daemon.logs`."""

from __future__ import annotations

import io
import sys

import pytest

from realize.config import LogsConfig
from realize.daemon import logs
from realize.daemon.logs import DaemonLogOptions, complain
from realize.daemon.tap import Options
from realize.errors import ConfigError
from realize.keys import generate_identity, write_identity
from realize.levels import Levels


@pytest.fixture
def parse(tmp_path):
    """Parses a command line for a daemon with a good configuration."""
    write_identity(str(tmp_path / "key"), generate_identity())
    (tmp_path / "inbox").mkdir()
    (tmp_path / "toml").write_text('key = "key"\n[dirs.inbox]\npath = "inbox"\n[logs]\nfile = "log"\n')

    def parsed(*arguments):
        options = Options()
        options.parseOptions(["--config", str(tmp_path / "toml"), *arguments])
        return options

    return parsed


def test_the_command_line_outranks_the_configuration(parse, tmp_path, monkeypatch):
    """Each of its options by itself; relative names start where the program was started, or at the configuration."""
    monkeypatch.chdir(tmp_path / "inbox")
    plain = parse()
    given = parse("--log-level", "wire=debug", "--log-format", "logfmt", "--log-file", "other")

    assert LogsConfig(Levels("info"), "auto", str(tmp_path / "log")) == plain.logs.over(plain.config.logs)
    expected = LogsConfig(Levels("info", {"wire": "debug"}), "logfmt", str(tmp_path / "inbox" / "other"))
    assert expected == given.logs.over(given.config.logs)


def test_what_is_not_given_is_the_configurations():
    """An option that is not there changes nothing."""
    config = LogsConfig(Levels("debug"), "json", "/log")

    assert config == DaemonLogOptions().over(config)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log-level", "loud"], "--log-level: 'loud' is not a level"),
        (["--log-format", "xml"], "--log-format: 'xml' is not one of auto, console"),
        (["--drain", "soon"], "--drain: 'soon' is not a duration"),
        (["--metrics-addr", "here"], "--metrics-addr: "),
        (["--nonsense"], "option --nonsense not recognized"),
        (["serve", "it"], "serve: the daemon takes options only"),
    ],
)
def test_nonsense_is_one_line_and_the_end(parse, monkeypatch, arguments, expected):
    """Before anything is opened; twistd would have put it behind a page of usage. Systemd need not try again."""
    monkeypatch.setattr(sys, "__stderr__", said := io.StringIO())
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)

    (line,) = said.getvalue().splitlines()
    assert (78, True) == (caught.value.code, line.startswith(f"realized: error: {expected}"))


@pytest.mark.parametrize("journal", [True, False])
def test_the_journal_is_told_that_it_is_an_error(monkeypatch, journal):
    """Each line of it, of what else comes as info (sd-daemon(3))."""
    monkeypatch.setattr(sys, "__stderr__", said := io.StringIO())
    monkeypatch.setattr(logs, "is_journal", lambda _: journal)

    complain(ConfigError("one\ntwo"))

    priority = "<3>" if journal else ""
    assert [f"{priority}realized: error: {line}" for line in ("one", "two")] == said.getvalue().splitlines()
