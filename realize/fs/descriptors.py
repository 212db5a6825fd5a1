"""Closing file descriptors where an error has nobody to be told to."""

from __future__ import annotations

import contextlib
import os


def release(*fds: int) -> None:
    """Close all of these; for whoever has nothing to lose by an error of close(2), which closes in any case.

    What is to be durable was made so before, and an error here must not keep others from being closed.
    """
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
