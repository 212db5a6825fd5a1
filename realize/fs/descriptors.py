"""Closing file descriptors where nobody could use an error."""

from __future__ import annotations

import os


def release(*fds: int) -> None:
    """Close all of these, ignoring errors: close(2) closes the descriptor in any case.

    What has to be durable was made so before, and an error with one must not keep the others open.
    """
    for fd in fds:
        try:  # noqa: SIM105 -- it is called for every file, and this takes a tenth of the time
            os.close(fd)
        except OSError:
            pass
