"""The commands, each in a line: known before any of their modules is loaded, of which a run needs one."""

from __future__ import annotations

from typing import Final

SUMMARIES: Final = {
    "move": "Move files. This is the default command.",
    "copy": "Copy files, and keep the sources.",
    "ls": "List the files at a location.",
    "moves": "Show, run, pause or resume the standing moves of a daemon.",
    "status": "Show what a daemon is doing.",
    "throttle": "Show or change the limits of a running daemon.",
    "reload": "Make the daemon on this machine reread its configuration.",
    "check": "Test everything that a move to or from a peer needs.",
    "keygen": "Make the key of this machine, or show it.",
    "completion": "Print a completion script for bash, zsh or fish.",
}

NOT_SOURCES_KEY: Final = "realize.not_sources"
"""The key in a context's ``meta`` for the names of commands, where `move` was left out."""
