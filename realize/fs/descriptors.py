"""Closing file descriptors where nobody could use an error."""

from __future__ import annotations

import contextlib
import os


def release(*fds: int) -> None:
    """Close all of these, ignoring errors: close(2) closes the descriptor in any case.

    What has to be durable was made so before, and an error with one must not keep the others open.
    """
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
