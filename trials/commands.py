"""Running programs of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Failed(Exception):
    """What went wrong, in a sentence or two."""


def output(*command: str | Path) -> str:
    """What a command prints; one that fails raises `Failed`."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip()
        raise Failed(f"{' '.join(words)} ended with {done.returncode}: {said[-2000:]}")
    return done.stdout


def require(fine: object, otherwise: str) -> None:
    """Raise `Failed` with that sentence unless all is fine."""
    if not fine:
        raise Failed(otherwise)
