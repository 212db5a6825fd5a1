"""Which programs are here, and which package has those that are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from typing import Final

PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Servers are where only root looks by itself."""

PACKAGES: Final = {
    "rsync": "rsync",
    "rsync-ssl": "rsync",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "stunnel": "stunnel4",
    "openssl": "openssl",
    "rclone": "rclone",
    "lftp": "lftp",
}
"""The Debian package of each program."""

ASKED: Final = {
    "rsync": ("rsync", "--version"),
    "ssh": ("ssh", "-V"),
    "stunnel": ("stunnel", "-version"),
    "rclone": ("rclone", "version"),
    "lftp": ("lftp", "--version"),
}
"""How each says its version."""


def path_of(program: str) -> str:
    """Where a program is.  Raises `FileNotFoundError` if it is not here."""
    found = shutil.which(program, path=PATH)
    if found is None:
        raise FileNotFoundError(program)
    return found


def missing(programs: Iterable[str]) -> list[str]:
    """Those that are not here."""
    return sorted(each for each in programs if shutil.which(each, path=PATH) is None)


def packages(programs: Iterable[str]) -> str:
    """The command that installs the packages of some programs."""
    return f"apt-get install {' '.join(sorted({PACKAGES[program] for program in programs}))}"


def versions(programs: Iterable[str]) -> dict[str, str]:
    """The version of each program that is here and that says it."""
    found = {}
    for program in sorted(set(programs) & ASKED.keys()):
        if not missing([program]):
            name, *how = ASKED[program]
            done = subprocess.run([path_of(name), *how], capture_output=True, text=True, check=False)
            found[program] = version_in(done.stdout + done.stderr)
    return found


def version_in(text: str) -> str:
    """The first thing in a text that looks like a version."""
    match = re.search(r"\d+(?:\.\d+)+\w*", text)
    return match.group() if match else "?"
