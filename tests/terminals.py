"""Interactive shells at a terminal, for tests of what they complete as somebody types."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

from tests.prometheus import program

_LOOKS: Final = re.compile(r"\x1b(?:\[[0-9;?]*[hlm]|\][^\x07]*\x07|[=>()][A-Z0-9]?)|[\x07\x0f\r]")
_MOVES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x08")
_WITHIN_S: Final = 60.0
SHOW: Final = "\x18p"
"""The keys that a shell is told to show its line at, between ``<<`` and ``>>``."""


class Terminal:
    """A shell that believes it talks to somebody."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        shell = program(command[0])
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(shell, [*command], dict(environment))
        self._seen = ""

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._fd, keys.encode())

    def until(self, pattern: str) -> tuple[str, re.Match[str]]:
        """What is shown until something matches, and the match; nothing of either is seen again."""
        ends_at = time.monotonic() + _WITHIN_S
        while not (match := re.search(pattern, self._seen)):
            ready, _, _ = select.select([self._fd], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"{pattern!r} was not shown, but {self._seen!r}"
            shown = _LOOKS.sub("", self._seen + os.read(self._fd, 65_536).decode(errors="replace"))
            self._seen = _MOVES.sub(" ", shown)
        before, self._seen = self._seen[: match.start()], self._seen[match.end() :]
        return before, match

    def run(self, command: str) -> None:
        """Run a command, and wait for its end."""
        self.type(f"{command}; echo 'do''ne'\n")
        self.until(r"done\n")

    def line_after(self, keys: str) -> str:
        """The line once these keys were pressed; then it is empty again."""
        self.type("\x15" + keys + SHOW)
        _, match = self.until(r"(?s)<<(.*?)>>")
        self.type("\x15")
        return match[1]

    def shown_after(self, keys: str) -> list[str]:
        """The words on the screen once these keys were pressed; then the line is empty again."""
        self.type("\x15" + SHOW)
        self.until(r"<<.*?>>")
        self.type(keys + SHOW)
        shown, _ = self.until(r"(?s)<<.*?>>")
        self.type("\x15")
        return shown.split()

    def close(self) -> None:
        """End the shell."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)
