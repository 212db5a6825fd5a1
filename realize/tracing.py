"""The ids that tie the records of both ends of a run together; pure.

Neither travels for itself: each end makes them of what both know.
"""

from __future__ import annotations

from xxhash import xxh3_64_hexdigest


def run_of(link: str) -> str:
    """The run that a connection belongs to: what it says of itself in Hello is ``RUN-PEER``, one for each peer."""
    return link.partition("-")[0]


def transfer_id(run: str, path: bytes) -> str:
    """The id of one file's transfer in a run, the same at every end of it, also after a lost connection.

    ``path`` is below the location that was opened.
    The XXH3 (64 bits, in hexadecimal) of run, NUL and path; empty if the other end named no run.
    It need not withstand an opponent, who could only muddle his own records, and is made for every file.
    """
    return xxh3_64_hexdigest(b"%b\0%b" % (run.encode(), path)) if run else ""
