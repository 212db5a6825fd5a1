"""`docs/troubleshooting.md` quotes messages as the programs write them."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Callable
from functools import cache, partial

import pytest
from twisted.internet.error import ConnectionRefusedError as NobodyListens
from twisted.internet.error import TimeoutError as NobodyAnswers

from realize.cli.credentials import credentials_of
from realize.cli.display.summary import deadline_line
from realize.cli.display.wording import Wording
from realize.cli.options import Access
from realize.config import Right, read_config
from realize.errors import ConnectionFailed, RealizeError
from realize.fs.oserrors import Deed, storage_error
from realize.keys import load_identity
from realize.locations import parse_location
from realize.mover.events import Event, Finished, How, NoRoom, Retrying, SourceStarted, Stopped
from realize.mover.history import RunHistory
from realize.mover.plan import resolve
from realize.runs.peers import no_pin
from realize.runs.tally import Tally
from realize.store.local.location import unavailable
from realize.store.server.rights import rights_in
from realize.values import Existing, OnConflict
from realize.wire.greeting import Greeting, mismatch
from realize.wire.reaching import in_words
from tests.loopback import Log
from tests.pages import ROOT, page

MESSAGES = re.findall(r"^### `(.*)`$", page("troubleshooting.md"), flags=re.MULTILINE)


def said(event: Event) -> str:
    """What the command says of an event."""
    wording = Wording()
    wording.note(SourceStarted("/here", "nas::inbox"))
    return str(wording.note(event))


def raised(call: Callable[[], object]) -> str:
    """The text of the error that ends a call."""
    with pytest.raises(RealizeError) as caught:
        call()
    return str(caught.value)


def exposed_key() -> str:
    """What is said of a key that others may read."""
    with open("key", "w") as file:
        os.fchmod(file.fileno(), 0o644)
    return raised(partial(load_identity, "key"))


conflict = partial(resolve, b"a.jpg", Existing(final_size=1, ctime_ns=2), history=RunHistory(1))

SAID: dict[str, Callable[[], str]] = {
    "there is no such configuration file": lambda: raised(lambda: read_config("none.toml", for_daemon=True)),
    "there is no such key file": lambda: raised(lambda: load_identity("none.key")),
    "others may use the key file": exposed_key,
    "is not a location": lambda: raised(lambda: parse_location("nas:inbox", {})),
    "the key of this peer is not known": lambda: no_pin("nas", 9771, credentials_of(Access())),
    "Connection refused": lambda: in_words(NobodyListens(errno.ECONNREFUSED)),
    "no answer": lambda: in_words(NobodyAnswers()),
    "retrying in": lambda: said(Retrying(ConnectionFailed("nas:9771: no answer"), 0.5)),
    "speaks version": lambda: str(mismatch(Greeting("realize 1.0"), Greeting("realize 0.1", major=1))),
    "this peer may not": lambda: raised(
        lambda: rights_in("inbox", {"inbox": frozenset({Right.READ})}, Log()).require(Right.WRITE)
    ),
    "is open to this peer": lambda: raised(lambda: rights_in("inbox", {}, Log())),
    "is not there now": lambda: str(unavailable(b"inbox", "No such file or directory")),
    "no room": lambda: said(NoRoom(3, 4096, 1024)),
    "another file has this name": lambda: raised(lambda: conflict(OnConflict.FAIL)),
    "arrived there, or changed, during this run": lambda: raised(lambda: conflict(OnConflict.REPLACE)),
    "cannot be removed": lambda: str(storage_error(PermissionError(errno.EACCES, "no"), b"a.jpg", Deed.REMOVE)),
    "cannot be read": lambda: str(storage_error(PermissionError(errno.EACCES, "Permission denied"), b"a", Deed.READ)),
    "kept both": lambda: said(Finished(b"a.jpg", 1, 1, How.RENAMED, b"", removed=True, stored_as=b"a.1.jpg")),
    "interrupted": lambda: said(Stopped(b"a.jpg", 4096, 1024)),
    " reached: ": lambda: deadline_line(Tally(), "--max-duration 50m", 3000.0),
}
"""What makes each message, by some words of it. Others take two programs, and are looked for in the code."""


@cache
def texts() -> list[str]:
    """All texts of the code, with PART for what is put into them."""
    found: list[str] = []
    for file in sorted((ROOT / "realize").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (str(each.value) if isinstance(each, ast.Constant) else "PART" for each in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_there_are_the_messages_that_people_meet() -> None:
    """Each with a cause and a cure."""
    text = page("troubleshooting.md")

    assert len(MESSAGES) >= 15
    assert len(MESSAGES) == len(set(MESSAGES)) == text.count("\nCause: ") == text.count("\nCure: ")


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_what_the_programs_say(message: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, but for what stands in capitals: somebody looks for it with the words on the screen."""
    monkeypatch.chdir(str(tmp_path))
    pattern = re.sub(r"\b[A-Z]{3,}(?:::[A-Z]+)?\b|\bN\b", "(.+)", re.escape(message))
    makers = [make for words, make in SAID.items() if words in message]

    assert len(makers) <= 1
    made = [" ".join(make().split()) for make in makers] or [text for text in texts() if not text.isspace()]
    assert any(re.match(pattern, text) for text in made), made if makers else "no text of the code is like that"
