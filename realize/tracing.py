"""Ids that connect the log records of both sides of a run; pure.

They are not sent: each side computes them from what both know.
"""

from __future__ import annotations

from xxhash import xxh3_64_hexdigest


def run_of(link: str) -> str:
    """The run that a connection belongs to, from the ``RUN-PEER`` that the command sends in Hello."""
    return link.partition("-")[0]


def transfer_id(run: str, path: bytes) -> str:
    """The id of the transfer of one file in a run: the same on both sides, and after a lost connection.

    ``path`` is relative to the location that was opened.
    The id is the XXH3 (64 bits, in hexadecimal) of run, NUL and path, or empty if the other side named no run.
    A cryptographic hash is not needed, since an attacker could only confuse the records of its own runs, and this must
    be fast, since it is computed for every file.
    """
    return xxh3_64_hexdigest(b"%b\0%b" % (run.encode(), path)) if run else ""
