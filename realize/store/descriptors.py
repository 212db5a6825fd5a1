"""How many files the process may have open: each connection and each file on its way needs a descriptor."""

from __future__ import annotations

import resource


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
