"""`docs/security.md`: what each command tells, and which right it needs, is said of all of them."""

from __future__ import annotations

import re

from twisted.protocols import amp

from realize.config import Right
from realize.wire import commands
from tests.pages import ROOT, page, quoted, rows, section

TABLE = {
    command: set(quoted(row[1]))
    for row in rows(section(page("security.md"), "What each right lets one learn"))
    for command in quoted(row[0])
}
"""The rights that the page names for each command."""

ANY = {right.value for right in Right}
ASKED = {"*PUT": {"create", "write"}, "*Right": ANY} | {str(right): {right.value} for right in Right}


def asked() -> dict[str, set[str]]:
    """The rights of which the daemon asks for one, for each command that names a directory by its handle."""
    code = (ROOT / "realize/store/server/responders.py").read_text()
    found = {}
    for name, body in re.findall(r"@commands\.(\w+)\.responder\n(.*?)(?=\n    @|\n    # )", code, flags=re.DOTALL):
        if call := re.search(r"self\._directory\(handle, ([^)]+)\)", body):
            found[name] = set().union(*(ASKED[each.strip()] for each in call[1].split(",")))
    return found


def test_every_command_for_a_directory_is_in_the_table() -> None:
    """What it tells a peer with, and without, the right to read."""
    for_directories = {
        name
        for name, command in vars(commands).items()
        if isinstance(command, type)
        and issubclass(command, amp.Command)
        and b"handle" in dict(command.arguments)
        and name != "CloseDirectory"
    }

    assert len(for_directories) > 20
    assert for_directories <= set(TABLE)


def test_the_rights_of_the_table_are_those_that_the_daemon_asks_for() -> None:
    """One of them is enough; the table says "any right" where any is."""
    rights = asked()

    assert len(rights) > 15
    assert {name: set() if rights[name] == ANY else rights[name] for name in rights} == {
        name: TABLE[name] for name in rights
    }
