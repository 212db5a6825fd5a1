"""`docs/install.md` and `docs/operations.md`: commands, files, numbers and sentences are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from benchmarks import log_volume
from realize.cli.main import realize
from realize.config import read_config
from realize.daemon.served import THREADS
from realize.daemon.tap import Options
from realize.keys import generate_identity, write_identity
from realize.moves.state import MAX_STATE_BYTES
from realize.wire.server import MAX_PEER_CONNECTIONS
from tests.pages import ROOT, page, quoted, rows, section
from tests.test_deploy import unit

INSTALL, OPERATIONS = page("install.md"), page("operations.md")
UNIT = unit("realized.service")["Service"]
KEY = generate_identity().public_key.base64


def blocks(text: str) -> list[str]:
    """The indented blocks of a page."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("    "):
            found[-1].append(line[4:])
        elif not line and found[-1]:
            found[-1].append("")
        elif found[-1]:
            found.append([])
    return ["\n".join(lines).strip("\n") for lines in found if any(lines)]


def block(text: str, containing: str) -> str:
    """The only block of a page that has these words."""
    [found] = [each for each in blocks(text) if containing in each]
    return found


OURS = re.compile(
    r"(?:^|sudo -u realize |CAP_LEASE |/bin/)realize (?P<command>[\w-].*)|twistd .*realized (?P<daemon>-.+)"
)
"""A command line of ours, perhaps as another user."""


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The program and the arguments of each command line of ours, in the blocks and between backquotes."""
    lines = [line for each in blocks(text) for line in each.replace("\\\n", " ").splitlines()]
    for line in [*lines, *quoted(text)]:
        if match := OURS.search(line):
            yield "realize" if match["command"] else "realized", shlex.split(match["command"] or match["daemon"])


def unknown_words(program: str, arguments: list[str]) -> set[str]:
    """The options of a command line that the program does not have, or its first word if that is no command."""
    given = {each.partition("=")[0] for each in arguments if each.startswith("--")}
    if program == "realized":
        return given - {f"--{name}" for name, *_ in [*Options.optParameters, *Options.optFlags]} - {"--version"}
    if not arguments[0].startswith("-") and arguments[0] not in realize.commands:
        return {arguments[0]}
    command = realize.commands.get(arguments[0], realize.commands["move"])
    known = {name for each in command.params if isinstance(each, click.Option) for name in each.opts}
    return given - known - {"--help", "--version"}


@pytest.mark.parametrize("text", [INSTALL, OPERATIONS], ids=["install", "operations"])
def test_commands_of_ours_exist(text: str) -> None:
    """So do their options."""
    found = list(commands(text))

    assert len(found) > 5
    assert [] == [each for each in found if unknown_words(*each)]


def test_files_of_the_sources_are_there() -> None:
    """What the pages copy from `deploy`."""
    named = set(re.findall(r"deploy/[\w@./*-]+\w", INSTALL + OPERATIONS))

    assert len(named) > 4
    assert [] == [each for each in named if not [*ROOT.glob(each)]]


def test_who_owns_what_is_what_the_unit_says() -> None:
    """Directories that systemd makes, their modes, and the user."""
    table = {quoted(row[0])[0]: row[1] for row in rows(section(INSTALL, "Who owns what")) if quoted(row[0])}

    assert ("realize", "realize") == (UNIT["User"], UNIT["Group"])
    for kind, above in (("State", "/var/lib"), ("Logs", "/var/log"), ("Runtime", "/run")):
        assert f"realize, {UNIT[f'{kind}DirectoryMode']}" == table[f"{above}/{UNIT[f'{kind}Directory']}"]
    assert UNIT["ExecStart"].startswith("/opt/realize/bin/twistd ")
    assert "/etc/realize/realized.toml" in UNIT["ExecStart"]
    assert "-/store -/srv" == UNIT["ReadWritePaths"]


def test_the_unit_of_a_second_daemon(tmp_path: Path) -> None:
    """It has another user, configuration, and directories that systemd makes; all else is that of the first one."""
    script = block(INSTALL, "realized-camera.service\n").partition("\ninstall ")[0]
    script = script.replace("/etc/systemd/system/realized.service", str(ROOT / "deploy/systemd/realized.service"))
    script = script.replace("/etc/systemd/system/", f"{tmp_path}/")

    subprocess.run(["sh", "-ec", script], check=True)

    before = (ROOT / "deploy/systemd/realized.service").read_text().splitlines()
    after = (tmp_path / "realized-camera.service").read_text().splitlines()
    assert [
        "User=camera",
        "Group=camera",
        UNIT["ExecStart"].replace("/etc/realize/", "/etc/realize-camera/").join(["ExecStart=", ""]),
        UNIT["ExecReload"].replace("/etc/realize/", "/etc/realize-camera/").join(["ExecReload=", ""]),
        "SyslogIdentifier=realized-camera",
        "RuntimeDirectory=realize-camera",
        "StateDirectory=realize-camera",
        "LogsDirectory=realize-camera",
    ] == [line for line, former in zip(after, before, strict=True) if line != former]


def test_the_configuration_of_a_second_daemon_is_right(tmp_path: Path) -> None:
    """It reads its key beside it, and has the move."""
    write_identity(str(tmp_path / "realized.key"), generate_identity())
    path = tmp_path / "realized.toml"
    path.write_text(block(INSTALL, "[moves.camera]").replace("MCowBQYDK2VwAyEA...", KEY))
    path.chmod(0o644)
    config = read_config(str(path), environ={})

    assert str(tmp_path / "realized.key") == config.key
    assert ["camera"] == [*config.moves]


def test_where_the_second_daemon_takes_commands() -> None:
    """Its socket is in the directory that systemd makes for it, and its key where it was made."""
    config = block(INSTALL, "[moves.camera]")

    assert 'control = "/run/realize-camera/control.sock"' in config
    assert "realize keygen /etc/realize-camera/realized.key" in INSTALL


def test_sentences_that_operators_look_up() -> None:
    """What the pages quote of our messages is in the code."""
    code = "".join(path.read_text() for path in (ROOT / "realize").rglob("*.py"))
    said = (
        "is open for writing by another program",
        "it has arrived at the destination",
        "has this name",
        "is not the directory that it was; is its file system still mounted?",
        "is not there now",
        "both ends must have the same number before the dot",
        "does not know the key of this machine",
        "No space left on device",
        "cannot be reached",
        '"move_failing"',
        '"internal_error"',
    )

    assert [] == [each for each in said if each not in code]
    assert [] == [each for each in said if each.strip('"') not in INSTALL + OPERATIONS]


def test_numbers_are_those_of_the_code() -> None:
    """Bounds that the table of capacity names."""
    table = {row[0]: row for row in rows(section(OPERATIONS, "Capacity"))}

    assert f"{MAX_PEER_CONNECTIONS} of each peer" in table["a connection, idle"][2]
    assert f"{THREADS} for each served directory" in table["threads"][1]
    assert f"at most {MAX_STATE_BYTES >> 20} MiB" in table["state of a standing move"][1]
    assert f"LimitNOFILE={UNIT['LimitNOFILE']}" in table["descriptors"][2]


def test_log_volumes_are_of_all_formats() -> None:
    """The benchmark measures what the table has."""
    table = " ".join(cell for row in rows(section(OPERATIONS, "Logs")) for cell in row)

    assert {"json", "logfmt", "systemd", "console"} == {form for _, form in log_volume.KINDS}
    assert all(form in table.lower() for _, form in log_volume.KINDS)
