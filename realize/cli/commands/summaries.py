"""The commands, each in a line: known before any of their modules is loaded, of which a run needs one."""

from __future__ import annotations

from typing import Final

SUMMARIES: Final = {
    "move": "Move files (the default command).",
    "copy": "Copy files: the same without removing the sources.",
    "ls": "List what is at a location.",
    "moves": "Show or steer what a daemon moves by itself.",
    "status": "Show what a daemon is doing.",
    "throttle": "Show or change the limits of a running daemon.",
    "reload": "Have the daemon of this machine read its configuration again.",
    "check": "Try the way to a peer, step by step.",
    "keygen": "Make the identity of this machine, or show it.",
    "completion": "Make a shell complete command lines.",
}

NOT_SOURCES_KEY: Final = "realize.not_sources"
"""The key in a context's ``meta`` for the names of commands, where `move` was left out."""
